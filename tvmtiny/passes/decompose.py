"""What the fused float operators mean, in plain Relax operators: the float reference and the calibration run.

`expand` gives every intermediate value of an operator a name; `Observe` returns all of them as outputs of the
module, so that calibration sees exactly the values that the integer operators have to represent.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax

from tvmtiny.passes.graph import Emit, Graph, constant, function_pass, op_name, rebuild, shape_of
from tvmtiny.passes.numeric import VIEWS
from tvmtiny.passes.operators import NORMS, attributes, kind, parts

op = relax.op
MASKED = -1e9


def Decompose() -> tvm.transform.Pass:  # noqa: N802
    """Every fused operator becomes plain Relax operators that any TVM target can build."""

    def rewrite(graph: Graph, var: relax.Var, value: Any, emit: Emit) -> Any | None:
        return expand(value, emit)["out"] if kind(value) else None

    return function_pass("Decompose", lambda function: rebuild(function, rewrite))


def observe(module: tvm.IRModule) -> tuple[tvm.IRModule, list[str]]:
    """Decompose a fused module so that `main` returns its results and then every intermediate value.

    Returns:
        the module and the names `<variable>.<value>` of the outputs after the results, in order.
    """
    names: list[str] = []
    values: list[Any] = []

    def rewrite(graph: Graph, var: relax.Var, value: Any, emit: Emit) -> Any | None:
        if not kind(value):
            if (
                isinstance(value, relax.Call)
                and op_name(value) not in VIEWS
                and str(var.ty.dtype) == "float32"
            ):
                names.append(f"{var.name}.out")
                values.append(var)
            return None
        found = expand(value, emit)
        for key, expr in found.items():
            names.append(f"{var.name}.{key}")
            values.append(emit(expr))
        return values[-1]

    main = rebuild(module["main"], rewrite, outputs=values)
    result = tvm.IRModule(dict(module.functions.items()))
    result["main"] = main
    return result, names


def activate(x: Any, name: str, emit: Emit) -> Any:
    """The activation `name` as Relax operators."""
    if name in ("relu", "tanh", "sigmoid", "silu", "gelu", "gelu_tanh"):
        function = getattr(op.nn, name, None) or getattr(op, name)
        return emit(function(x))
    if name == "relu6":
        return emit(op.clip(x, 0, 6))
    if name == "quick_gelu":
        return emit(op.multiply(x, emit(op.sigmoid(emit(op.multiply(x, _scalar(1.702)))))))
    if name == "elu":
        negative = emit(op.subtract(emit(op.exp(emit(op.minimum(x, _scalar(0.0))))), _scalar(1.0)))
        return emit(op.add(emit(op.nn.relu(x)), negative))
    hard = emit(op.clip(emit(op.add(emit(op.divide(x, _scalar(6.0))), _scalar(0.5))), 0, 1))
    return hard if name == "hardsigmoid" else emit(op.multiply(x, hard))


def expand(call: relax.Call, emit: Emit) -> dict[str, Any]:
    """The named values of one fused operator, in the order of computation; the last is "out"."""
    core, residual, norm = parts(call)
    values = _EXPAND[kind(call)](core, attributes(call), emit)
    if residual is not None or norm is not None:
        values["branch"] = values.pop("out")
        total = values["branch"]
        if residual is not None:
            total = values["sum"] = emit(op.add(total, residual))
        values["out"] = total
        if norm is not None:
            values["sum"] = values.pop("out")
            (follow,) = [name for name, value in NORMS.items() if value == attributes(call)["norm"]]
            values |= _EXPAND[follow]([total, *norm], attributes(call), emit)
    return values


def _scalar(value: float) -> Any:
    return relax.const(value, "float32")


def _dense(x: Any, weight: Any, bias: Any, emit: Emit) -> Any:
    return emit(op.add(emit(op.matmul(x, emit(op.permute_dims(weight)))), bias))


def _expand_embed(core: list[Any], attrs: dict[str, Any], emit: Emit) -> dict[str, Any]:
    ids, tokens, positions = core
    return {"out": emit(op.add(emit(op.take(tokens, ids, axis=0, mode="clip")), positions))}


def _expand_segment_embed(core: list[Any], attrs: dict[str, Any], emit: Emit) -> dict[str, Any]:
    *first, segment_ids, segments = core
    rows = emit(op.take(segments, segment_ids, axis=0, mode="clip"))
    return {"out": emit(op.add(_expand_embed(first, attrs, emit)["out"], rows))}


def _expand_dense(core: list[Any], attrs: dict[str, Any], emit: Emit) -> dict[str, Any]:
    x, weight, bias = core
    result = _dense(x, weight, bias, emit)
    if attrs["activation"] == "none":
        return {"out": result}
    return {"pre": result, "out": activate(result, attrs["activation"], emit)}


def _present(n: Any, tokens: int, emit: Emit) -> Any:
    """bool (S,): whether a token is there."""
    return emit(op.less(constant(np.arange(tokens, dtype=np.int64)), n))


def _expand_attention(core: list[Any], attrs: dict[str, Any], emit: Emit) -> dict[str, Any]:
    x, wq, bq, wk, bk, wv, bv, *rest = core
    values = {name: _dense(x, w, b, emit) for name, w, b in (("q", wq, bq), ("k", wk, bk), ("v", wv, bv))}
    return {**values, **_attend_grouped(values, rest, attrs, emit)}


def _expand_rotary_attention(core: list[Any], attrs: dict[str, Any], emit: Emit) -> dict[str, Any]:
    x, wq, bq, wk, bk, wv, bv, *rest, angles = core
    values = {
        "q": _turned(_dense(x, wq, bq, emit), attrs["heads"], angles, emit),
        "k": _turned(_dense(x, wk, bk, emit), attrs.get("kv_heads", attrs["heads"]), angles, emit),
        "v": _dense(x, wv, bv, emit),
    }
    return {**values, **_attend_grouped(values, rest, attrs, emit)}


def _turned(value: Any, heads: int, angles: Any, emit: Emit) -> Any:
    """(S, H * P) with the halves of each head turned by angles (S, P / 2)."""
    tokens, columns = shape_of(value)
    split = emit(op.reshape(value, (tokens, heads, 2, columns // heads // 2)))
    first, second = (emit(op.take(split, constant(np.asarray([i])), axis=2, mode="clip")) for i in range(2))
    angle = emit(op.reshape(angles, (tokens, 1, 1, columns // heads // 2)))
    cos, sin = emit(op.cos(angle)), emit(op.sin(angle))

    def product(a: Any, b: Any) -> Any:
        return emit(op.multiply(a, b))

    low = emit(op.subtract(product(first, cos), product(second, sin)))
    high = emit(op.add(product(first, sin), product(second, cos)))
    return emit(op.reshape(emit(op.concat([low, high], axis=2)), (tokens, columns)))


def _attend_grouped(
    values: dict[str, Any], rest: list[Any], attrs: dict[str, Any], emit: Emit
) -> dict[str, Any]:
    """`_attend` with each head of K and V repeated for the heads of Q that it serves."""
    groups = attrs.get("kv_heads", attrs["heads"])
    repeated = {**values, **{name: _repeated(values[name], groups, attrs["heads"], emit) for name in "kv"}}
    return _attend(repeated, _heads(repeated["k"], attrs["heads"], [1, 2, 0], emit), rest, attrs, emit)


def _repeated(value: Any, groups: int, heads: int, emit: Emit) -> Any:
    """(S, G * P) as (S, H * P), each head H / G times."""
    if groups == heads:
        return value
    tokens, columns = shape_of(value)
    split = emit(op.reshape(value, (tokens, groups, 1, columns // groups)))
    wide = emit(op.broadcast_to(split, (tokens, groups, heads // groups, columns // groups)))
    return emit(op.reshape(wide, (tokens, columns // groups * heads)))


def _expand_folded_attention(core: list[Any], attrs: dict[str, Any], emit: Emit) -> dict[str, Any]:
    x, wq, bq, wv, bv, *rest = core
    values = {name: _dense(x, w, b, emit) for name, w, b in (("q", wq, bq), ("v", wv, bv))}
    return {**values, **_attend(values, emit(op.permute_dims(x)), rest, attrs, emit)}


def _heads(value: Any, heads: int, axes: list[int], emit: Emit) -> Any:
    """(S, H * P) as (S, H, P), with its axes in another order."""
    tokens, columns = shape_of(value)
    return emit(op.permute_dims(emit(op.reshape(value, (tokens, heads, columns // heads))), axes))


def _outside(tokens: int, before: int, after: int) -> Any:
    """(S, S), what is added to scores: MASKED outside of each token's window."""
    distance = np.arange(tokens) - np.arange(tokens)[:, None]
    return np.where((distance < -before) | (distance > after), MASKED, 0.0).astype(np.float32)


def _attend(
    values: dict[str, Any], keys: Any, rest: list[Any], attrs: dict[str, Any], emit: Emit
) -> dict[str, Any]:
    """What follows the projections of attention, with keys of each head (H, P, S) or of all heads (E, S)."""
    wo, bo, n = rest
    tokens, columns = shape_of(values["v"])
    q, v = (_heads(values[name], attrs["heads"], [1, 0, 2], emit) for name in "qv")
    scores = emit(op.multiply(emit(op.matmul(q, keys)), _scalar(attrs["scale"])))
    if "before" in attrs:
        scores = emit(op.add(scores, constant(_outside(tokens, attrs["before"], attrs["after"]))))
    masked = emit(op.where(_present(n, tokens, emit), scores, _scalar(MASKED)))
    mixed = emit(op.matmul(emit(op.nn.softmax(masked, axis=-1)), v))
    context = emit(op.reshape(emit(op.permute_dims(mixed, [1, 0, 2])), (tokens, columns)))
    return {"context": context, "out": _dense(context, wo, bo, emit)}


def _expand_ffn(core: list[Any], attrs: dict[str, Any], emit: Emit) -> dict[str, Any]:
    x, w1, b1, w2, b2 = core
    pre = _dense(x, w1, b1, emit)
    hidden = activate(pre, attrs["activation"], emit)
    return {"pre": pre, "hidden": hidden, "out": _dense(hidden, w2, b2, emit)}


def _expand_convolution(core: list[Any], attrs: dict[str, Any], emit: Emit) -> dict[str, Any]:
    x, weight, bias = core
    rows, columns = shape_of(x)
    zeros = constant(np.zeros((attrs["before"], columns), np.float32))
    flat = emit(op.reshape(emit(op.concat([zeros, x])), ((rows + attrs["before"]) * columns,)))
    first = np.arange(rows // attrs["stride"])[:, None] * attrs["stride"] * columns
    places = constant((first + np.arange(attrs["kernel"] * columns)).astype(np.int64))
    return _expand_dense([emit(op.take(flat, places, axis=0, mode="clip")), weight, bias], attrs, emit)


def _expand_glu(core: list[Any], attrs: dict[str, Any], emit: Emit) -> dict[str, Any]:
    x, wg, bg, wu, bu, wd, bd = core
    pre, up = _dense(x, wg, bg, emit), _dense(x, wu, bu, emit)
    gate = activate(pre, attrs["activation"], emit)
    hidden = emit(op.multiply(gate, up))
    return {"pre": pre, "gate": gate, "up": up, "hidden": hidden, "out": _dense(hidden, wd, bd, emit)}


def _expand_layer_norm(core: list[Any], attrs: dict[str, Any], emit: Emit) -> dict[str, Any]:
    return {"out": emit(op.nn.layer_norm(*core, axes=[-1], epsilon=attrs["epsilon"]))}


def _expand_rms_norm(core: list[Any], attrs: dict[str, Any], emit: Emit) -> dict[str, Any]:
    x, gamma, beta = core
    mean = emit(op.mean(emit(op.multiply(x, x)), axis=[-1], keepdims=True))
    rate = emit(op.rsqrt(emit(op.add(mean, _scalar(attrs["epsilon"])))))
    return _expand_scale([emit(op.multiply(x, rate)), gamma, beta], attrs, emit)


def _expand_scale(core: list[Any], attrs: dict[str, Any], emit: Emit) -> dict[str, Any]:
    x, gamma, beta = core
    return {"out": emit(op.add(emit(op.multiply(x, gamma)), beta))}


def _expand_depthwise(core: list[Any], attrs: dict[str, Any], emit: Emit) -> dict[str, Any]:
    x, weight, bias = core
    (height, width, channels), (*taps, columns) = shape_of(x), shape_of(weight)
    pads = [int(attrs[f"before_{axis}"]) for axis in "yx"]
    for extent, count, places, axis in zip((height, width), taps, ("rows", "cols"), "yx", strict=True):
        end = (attrs[places] - 1) * attrs[f"stride_{axis}"] + (count - 1) * attrs[f"step_{axis}"] + 1
        pads.append(max(0, end - attrs[f"before_{axis}"] - extent))
    image = emit(op.expand_dims(emit(op.permute_dims(x, [2, 0, 1])), 0))
    kernel = emit(op.expand_dims(emit(op.permute_dims(weight, [2, 0, 1])), 1))
    strides, steps = ([int(attrs[f"{what}_{axis}"]) for axis in "yx"] for what in ("stride", "step"))
    y = emit(op.nn.conv2d(image, kernel, strides, pads, steps, groups=channels))
    y = emit(op.strided_slice(y, [2, 3], [0, 0], [int(attrs["rows"]), int(attrs["cols"])]))
    y = emit(op.reshape(emit(op.permute_dims(y, [0, 2, 3, 1])), (-1, columns)))
    y = emit(op.add(y, bias))
    return {"out": y if attrs["activation"] == "none" else activate(y, attrs["activation"], emit)}


def _expand_mean(core: list[Any], attrs: dict[str, Any], emit: Emit) -> dict[str, Any]:
    x, n = core
    present = emit(op.astype(_present(n, shape_of(x)[0], emit), "float32"))
    kept = emit(op.where(emit(op.reshape(_present(n, shape_of(x)[0], emit), (-1, 1))), x, _scalar(0.0)))
    total = emit(op.sum(kept, axis=[0], keepdims=True))
    return {"out": emit(op.divide(total, emit(op.sum(present))))}


def _expand_softmax(core: list[Any], attrs: dict[str, Any], emit: Emit) -> dict[str, Any]:
    scores, n = core
    masked = emit(op.where(_present(n, shape_of(scores)[-1], emit), scores, _scalar(MASKED)))
    return {"out": emit(op.nn.softmax(masked, axis=-1))}


def _expand_first(core: list[Any], attrs: dict[str, Any], emit: Emit) -> dict[str, Any]:
    return {"out": emit(op.strided_slice(core[0], [0], [0], [1]))}


_EXPAND = {
    "embed": _expand_embed,
    "segment_embed": _expand_segment_embed,
    "dense": _expand_dense,
    "attention": _expand_attention,
    "folded_attention": _expand_folded_attention,
    "rotary_attention": _expand_rotary_attention,
    "glu": _expand_glu,
    "convolution": _expand_convolution,
    "ffn": _expand_ffn,
    "layer_norm": _expand_layer_norm,
    "scale": _expand_scale,
    "rms_norm": _expand_rms_norm,
    "depthwise": _expand_depthwise,
    "mean": _expand_mean,
    "softmax": _expand_softmax,
    "first": _expand_first,
}

"""Fused float operators become integer operators: the parameters of each from the calibrated ranges."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import relax, tirx

from tvmtiny.errors import UserError
from tvmtiny.kernels import emit_call
from tvmtiny.kernels.epilogue import Epilogue
from tvmtiny.passes.fuse_dense import ACTIVATIONS
from tvmtiny.passes.graph import array_of, constant, shape_of
from tvmtiny.passes.operators import attributes, kind, parts
from tvmtiny.passes.quantization import Quantization, Value, dense_tensors
from tvmtiny.passes.quantize_depthwise import quantize_depthwise
from tvmtiny.passes.quantize_embedding import is_tied, quantize_embedding
from tvmtiny.passes.quantize_gated import quantize_glu
from tvmtiny.passes.quantize_tensors import materialized, quantize_tensor, symmetric_operands
from tvmtiny.passes.token_axes import token_axes
from tvmtiny.passes.weight_types import WeightTypes
from tvmtiny.quant import qparams
from tvmtiny.quant.calibrate import Statistics
from tvmtiny.quant.integer import ROTARY_FRACTION_BITS, root_extent
from tvmtiny.quant.qparams import IntegerWeights, QuantParams

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class QuantizedModel:
    """An integer module and how its tensors map to real numbers.

    Attributes:
        module: `main` takes the inputs in the arena's types, and the number of tokens when the model has a length.
        inputs: parameters of the feature inputs by name; ids have none.
        outputs: names of the results' variables, in order; `tensors` has their parameters.
        tensors: parameters of every operator's result by variable name, for reports.
        max_tokens: S.
        int16: names of the layers between others whose results are int16.
        scales: of values `<layer>.<value>` that have the scale that the model came with: KEPT or SYMMETRIC.
        chosen: of all values whose range decided on something; as given parameters they make the same module.
        matrices: integers of the weight matrices, by `<layer>.<operand>`.
    """

    module: tvm.IRModule
    inputs: dict[str, QuantParams]
    outputs: tuple[str, ...]
    tensors: dict[str, QuantParams]
    max_tokens: int
    has_length: bool
    int16: tuple[str, ...] = ()
    scales: dict[str, str] = dataclasses.field(default_factory=dict)
    chosen: dict[str, QuantParams] = dataclasses.field(default_factory=dict)
    matrices: dict[str, IntegerWeights] = dataclasses.field(default_factory=dict)


def quantize(
    fused: tvm.IRModule,
    statistics: Statistics,
    method: str = "auto",
    residual: str = "int8",
    weights: WeightTypes | None = None,
    int16: Sequence[str] = (),
    rounding: str = "auto",
    bias_correction: bool = False,
) -> QuantizedModel:
    """Quantize a fused module.

    Args:
        statistics: from `quant.calibrate`, over this same module.
        method: one of `quant.ranges.METHODS`.
        residual: one of `int16_layers.RESIDUALS`.
        weights: type of the weights of each layer (`passes.weight_types`); int8 when None.
        int16: names or patterns of layers whose results are to be int16.
        rounding: of weights, one of `qparams.ROUNDINGS`.
        bias_correction: whether biases take off the mean error that the rounding of weights makes.

    Raises:
        UserError: an accumulator could overflow, or int16 is asked for what cannot be int16 (`passes.int16_layers`).
    """
    c = Quantization(fused, statistics, method, residual, weights, int16, rounding, bias_correction)
    builder, needed = c.builder, materialized(c.graph)
    c.symmetric_names = symmetric_operands(c.graph)
    c.token_axes = token_axes(c.graph, needed) if c.has_length else {}
    with builder.function("main", [*c.params.values(), *([c.n] if c.has_length else [])]):
        with builder.dataflow():
            for var, value in c.graph:
                operator = _OPERATORS.get(kind(value)) or (quantize_tensor if var in needed else None)
                if operator is not None:
                    expr, params = operator(c, var, value)
                    c.values[var] = Value(builder.emit(expr, name_hint=var.name), params)
            outputs = [c.result(result) for result in c.graph.results]
            results = [value.expr for _, value in outputs]
            output = builder.emit_output(results[0] if len(results) == 1 else relax.Tuple(results))
        builder.emit_func_output(output)
    return QuantizedModel(
        module=builder.get(),
        inputs=c.inputs,
        outputs=tuple(name for name, _ in outputs),
        tensors={
            **{var.name: value.params for var, value in c.values.items()},
            **{name: value.params for name, value in outputs},
        },
        max_tokens=c.max_tokens,
        has_length=c.has_length,
        int16=tuple(var.name for var in c.wide),
        scales=c.scales,
        chosen=c.chosen,
        matrices=c.matrices,
    )


def _dense(c: Quantization, var: relax.Var, call: relax.Call) -> tuple[Any, QuantParams]:
    (x, weight, bias), residual, norm = parts(call)
    activation = attributes(call)["activation"]
    value = c.operand(x)
    w, b = array_of(weight).astype(np.float64), array_of(bias).astype(np.float64)
    wide = c.is_wide(var) or (c.is_last(var) and activation == "none")
    if residual is None and norm is None and not wide:
        return _plain_dense(c, var, call, value, w, b)
    return _summed_dense(c, var, call, value, w, b)


def _plain_dense(
    c: Quantization, var: relax.Var, call: relax.Call, value: Value, w: Array, b: Array
) -> tuple[Any, QuantParams]:
    activation = attributes(call)["activation"]
    dense, zero_point, table, out = _activated(
        c, var.name, "out", "weight", value.params, w, b, activation, c.observed(call.args[0])
    )
    tensors = {"x": value.expr, **dense_tensors(dense), "table": table}
    return emit_call(
        "dense", tensors, c.length(var, call), epilogue=0, shift=dense.shift, zero_point=zero_point
    ), out


def _convolution(c: Quantization, var: relax.Var, call: relax.Call) -> tuple[Any, QuantParams]:
    (x, weight, bias), _, _ = parts(call)
    value, a = c.operand(x), attributes(call)
    w, b = array_of(weight).astype(np.float64), array_of(bias).astype(np.float64)
    cols = shape_of(x)[-1]
    scale, zero = (
        np.broadcast_to(np.asarray(part), (cols,)) for part in (value.params.scale, value.params.zero_point)
    )
    patch = QuantParams(np.tile(scale, a["kernel"]), np.tile(zero, a["kernel"]))
    dense, zero_point, table, out = _activated(
        c, var.name, "out", "weight", patch, w, b, a["activation"], None
    )
    tensors = {
        "x": value.expr, "pad": constant(zero.astype(np.int8).reshape(1, cols)), **dense_tensors(dense),
        "table": table,
    }  # fmt: skip
    attrs = {key: int(a[key]) for key in ("kernel", "stride", "before")}
    rows = tirx.IntImm("int32", shape_of(var)[0])
    return emit_call("convolution", tensors, rows, shift=dense.shift, zero_point=zero_point, **attrs), out


def _activated(
    c: Quantization,
    name: str,
    key: str,
    operand: str,
    x: QuantParams,
    w: Array,
    b: Array,
    activation: str,
    observed: Array | None,
) -> tuple[qparams.DenseParams, int, Any, QuantParams]:
    """A dense layer with its activation, a clamp for ReLU and a table for any other.

    Returns:
        the layer, the zero point it requantizes to, the table or None, and the parameters of the result.
    """
    integers = c.integer_weights(name, operand, w, b, x, observed)
    out = c.range_of(name, key)
    if activation == "relu" and f"{name}.{key}" in c.statistics.given:
        out = dataclasses.replace(out, zero_point=-128)  # the same steps, and none for what is negative
    direct = activation == "none" or (activation == "relu" and out.zero_point == -128)
    before = out if direct or c.is_clamp(name, activation) else c.range_of(name, "pre")
    before = dataclasses.replace(before, scale=qparams.floor_scale(before.scale, integers.unit))
    if direct:
        out = before
    table = None if direct else constant(qparams.table(ACTIVATIONS[activation], before, out))
    layer = qparams.dense(w, b, x, before.scale, name, integers=integers)
    return layer, int(before.zero_point), table, out


def _summed_dense(
    c: Quantization, var: relax.Var, call: relax.Call, value: Value, w: Array, b: Array
) -> tuple[Any, QuantParams]:
    integers = c.integer_weights(var.name, "weight", w, b, value.params, c.observed(call.args[0]))
    epilogue, scale, operands, out = c.epilogue(var, call, integers.unit, integers.bound)
    dense = qparams.dense(w, b, value.params, scale, var.name, np.inf, integers)
    tensors = {"x": value.expr, **dense_tensors(dense), **operands}
    tied = {"tied": 1} if is_tied(c.graph, call.args[1]) else {}
    return emit_call(
        "dense", tensors, c.length(var, call), epilogue=1, shift=dense.shift, **tied, **epilogue.attrs()
    ), out


def _ffn(c: Quantization, var: relax.Var, call: relax.Call) -> tuple[Any, QuantParams]:
    (x, *weights), _, _ = parts(call)
    value = c.operand(x)
    w1, b1, w2, b2 = (array_of(array).astype(np.float64) for array in weights)
    first, zero_point, table, hidden = _activated(
        c, var.name, "hidden", "w1", value.params, w1, b1, attributes(call)["activation"], c.observed(x)
    )
    integers = c.integer_weights(var.name, "w2", w2, b2, hidden, c.statistics.get(f"{var.name}.hidden"))
    epilogue, scale, operands, out = c.epilogue(var, call, integers.unit, integers.bound)
    second = qparams.dense(w2, b2, hidden, scale, var.name, np.inf, integers)
    tensors = {
        "x": value.expr, "table": table, **dense_tensors(first, "w1", "b1", "m1"),
        **dense_tensors(second, "w2", "b2", "m2"), **operands,
    }  # fmt: skip
    attrs = {"shift1": first.shift, "shift2": second.shift, "hidden_zero_point": zero_point}
    return emit_call("ffn", tensors, c.length(var, call), **attrs, **epilogue.attrs()), out


def _attention(c: Quantization, var: relax.Var, call: relax.Call) -> tuple[Any, QuantParams]:
    (x, *weights), _, _ = parts(call)
    value, heads = c.operand(x), attributes(call)["heads"]
    groups, rotary = attributes(call).get("kv_heads", heads), kind(call) == "rotary_attention"
    weights = weights[: -2 if rotary else -1]
    arrays = [array_of(array).astype(np.float64) for array in weights]
    tensors: dict[str, Any] = {"x": value.expr}
    form = {key: value for key, value in attributes(call).items() if key in ("before", "after", "kv_heads")}
    attrs: dict[str, int] = {"heads": heads, **form}
    if rotary:
        tensors["rotary"] = constant(qparams.rotary_table(array_of(parts(call)[0][-1])))
    scales = {}
    folded = kind(call) == "folded_attention"
    for index, part in enumerate("qv" if folded else "qkv"):
        w, b = arrays[2 * index], arrays[2 * index + 1]
        steps = _key_steps(value, heads) if folded and part == "q" else np.ones(len(w))
        w, b = w * steps[:, np.newaxis], b * steps
        integers = c.integer_weights(var.name, f"w{part}", w, b, value.params, c.observed(x))
        count = heads if part == "q" else groups
        scales[part] = _projection_scales(c, var.name, part, count, integers.unit, steps)
        columns = np.repeat(scales[part], len(w) // count)
        turned = rotary and part in "qk"
        dense = qparams.dense(
            w, b, value.params, columns / 2.0**ROTARY_FRACTION_BITS if turned else columns,
            f"{var.name}.{part}", np.inf if turned else qparams.MAX_REAL_MULTIPLIER, integers,
        )  # fmt: skip
        tensors |= dense_tensors(dense, f"w{part}", f"b{part}", f"m{part}")
        attrs[f"{part}_shift"] = dense.shift
    scales = {part: np.repeat(found, heads // len(found)) for part, found in scales.items()}
    scales.setdefault("k", np.ones(heads))  # the keys of folded attention are integers
    attrs |= _softmax(c, tensors, scales, attributes(call)["scale"], len(arrays[0]) // heads, var.name)
    context = _context_scales(c, var, call, scales["v"] / 32)
    tensors["ratio"], attrs["value_shift"] = _ratio(scales["v"] / context, 255)
    qparams.check_shift(255 * 128 * c.max_tokens, attrs["value_shift"], f"{var.name}.context")
    wo, bo = arrays[-2:]
    params = QuantParams(np.repeat(context, wo.shape[1] // heads), 0)
    integers = c.integer_weights(var.name, "wo", wo, bo, params, c.statistics.get(f"{var.name}.context"))
    epilogue, scale, operands, out = c.epilogue(var, call, integers.unit, integers.bound)
    dense = qparams.dense(wo, bo, params, scale, f"{var.name}.o", np.inf, integers)
    attrs["o_shift"] = dense.shift
    tensors |= {**dense_tensors(dense, "wo", "bo", "mo"), **operands}
    return emit_call("attention", tensors, c.length(var, call), **attrs, **epilogue.attrs()), out


def _context_scales(c: Quantization, var: relax.Var, call: relax.Call, floor: Array) -> Array:
    """A scale for each head of what the output projection reads; in the same proportions where layers share it."""
    heads, projection = attributes(call)["heads"], array_of(_output_projection(call))
    own = c.head_scales(var.name, "context", heads)
    sharing = [
        c.head_scales(other.name, "context", heads)
        for other, value in c.graph
        if kind(value) == kind(call)
        and not other.same_as(var)
        and attributes(value)["heads"] == heads
        and np.array_equal(array_of(_output_projection(value)), projection)
    ]
    return qparams.shared_scales(own, sharing, floor) if sharing else np.maximum(own, floor)


def _output_projection(call: relax.Call) -> Any:
    return parts(call)[0][-4 if kind(call) == "rotary_attention" else -3]


def _key_steps(x: Value, heads: int) -> Array:
    """The real value of one step of each column of the keys of folded attention, which are the tokens (H * E,).

    The queries take it over, so that the integers of x are the keys. The zero point of x adds the same to all scores
    of a row and cancels in the softmax.
    """
    return np.tile(np.broadcast_to(np.asarray(x.params.scale, np.float64), shape_of(x.expr)[-1:]), heads)


def _projection_scales(
    c: Quantization, name: str, part: str, heads: int, unit: Array, factors: Array
) -> Array:
    scales = c.head_scales(name, part, heads, factors)
    floors = [qparams.floor_scale(float(s), u) for s, u in zip(scales, np.split(unit, heads), strict=True)]
    return np.array(floors)


def _softmax(
    c: Quantization, tensors: dict[str, Any], scales: dict[str, Array], factor: float, width: int, name: str
) -> dict[str, int]:
    step = qparams.EXP_RANGE / 255
    # From 255.5 steps a unit on, any distance but 0 has no weight: a larger factor would change no byte.
    real = np.minimum(np.abs(factor) * scales["q"] * scales["k"] / step, 255.5)
    multiplier, shift = qparams.fixed_point(real, limit=np.inf)
    qparams.check_shift(2 * 128 * 128 * width, shift, f"{name}.scores")
    if factor < 0:
        raise UserError(f"The attention '{name}' scales its scores by {factor}.", "Use a positive factor.")
    tensors["exp_table"] = constant(qparams.exponential_table())
    tensors["score_multiplier"] = constant(multiplier)
    return {"score_shift": shift}


def _layer_norm(c: Quantization, var: relax.Var, call: relax.Call) -> tuple[Any, QuantParams]:
    x, gamma, beta = call.args
    value = c.operand(x, int16=True)
    bits = qparams.norm_bits(shape_of(gamma)[0])
    out = c.norm_range(var.name, array_of(gamma), array_of(beta))
    shift = qparams.norm_shift(bits, value.bits)
    g, b, epsilon = qparams.norm_constants(
        array_of(gamma),
        array_of(beta),
        attributes(call)["epsilon"],
        float(value.params.scale) / 2**shift,
        out,
        kind(call) == "rms_norm",
    )
    epilogue = Epilogue(
        residual=True,
        wide_residual=value.bits == 16,
        residual_zero_point=int(value.params.zero_point),
        residual_shift=shift,
        bits=bits,
        norm=True,
        uncentred=kind(call) == "rms_norm",
        root_extent=root_extent(len(g)),
        epsilon=epsilon,
    )
    tensors = {"residual": value.expr, "gamma": constant(g), "beta": constant(b)}
    return emit_call("layer_norm", tensors, c.length(var, call), **epilogue.attrs()), out


def _scale(c: Quantization, var: relax.Var, call: relax.Call) -> tuple[Any, QuantParams]:
    x, gamma, beta = call.args
    value = c.operand(x, int16=True)
    shift = qparams.norm_shift(qparams.SUM_BITS, value.bits)
    g, b, out_shift, out = qparams.scale_constants(
        array_of(gamma),
        array_of(beta),
        float(value.params.scale) / 2**shift,
        c.range_of(var.name, "out"),
        var.name,
    )
    epilogue = Epilogue(
        residual=True,
        wide_residual=value.bits == 16,
        residual_zero_point=int(value.params.zero_point),
        residual_shift=shift,
        bits=qparams.SUM_BITS,
        scaled=True,
        shift=out_shift,
    )
    tensors = {"residual": value.expr, "gamma": constant(g), "beta": constant(b)}
    return emit_call("layer_norm", tensors, c.length(var, call), **epilogue.attrs()), out


def _mean(c: Quantization, var: relax.Var, call: relax.Call) -> tuple[Any, QuantParams]:
    value = c.operand(call.args[0], int16=True)
    if value.bits == 16:
        return _wide_mean(c, var, call, value)
    out = c.range_of(var.name, "out")
    out = dataclasses.replace(out, scale=max(out.scale, float(value.params.scale) / 32))
    numerator, shift = qparams.ratio(float(value.params.scale) / out.scale, 1)
    qparams.check_shift(255 * c.max_tokens, shift, var.name)
    attrs = {
        "epilogue": 0,
        "zero_point_in": int(value.params.zero_point),
        "ratio": int(numerator[0]),
        "shift": shift,
        "zero_point": int(out.zero_point),
    }
    return emit_call("mean", {"x": value.expr}, c.length(var, call), **attrs), out


def _wide_mean(c: Quantization, var: relax.Var, call: relax.Call, value: Value) -> tuple[Any, QuantParams]:
    """The mean of an int16 stream is at most as large as its elements: it stays in their unit until the epilogue."""
    numerator, shift = qparams.ratio(1.0, 1)
    qparams.check_shift(2.0**15 * c.max_tokens, shift, var.name)
    epilogue, operands, out = c.finish(var, call, Epilogue(), float(value.params.scale))
    attrs = {"epilogue": 1, "ratio": int(numerator[0]), "shift": shift, **epilogue.attrs()}
    return emit_call("mean", {"x": value.expr, **operands}, c.length(var, call), **attrs), out


def _first(c: Quantization, var: relax.Var, call: relax.Call) -> tuple[Any, QuantParams]:
    value = c.operand(call.args[0], int16=True)
    if value.bits == 8:
        return emit_call("first", {"x": value.expr}, c.length(var, call), epilogue=0), value.params
    epilogue, operands, out = c.finish(var, call, Epilogue(), float(value.params.scale))
    attrs = {"epilogue": 1, **epilogue.attrs()}
    return emit_call("first", {"x": value.expr, **operands}, c.length(var, call), **attrs), out


def _ratio(real: Array, divisor: int) -> tuple[Any, int]:
    numerators, shift = qparams.ratio(real, divisor)
    return constant(numerators), shift


_OPERATORS: dict[str, Callable[[Quantization, relax.Var, relax.Call], tuple[Any, QuantParams]]] = {
    "embed": quantize_embedding,
    "segment_embed": quantize_embedding,
    "dense": _dense,
    "convolution": _convolution,
    "attention": _attention,
    "folded_attention": _attention,
    "rotary_attention": _attention,
    "glu": quantize_glu,
    "ffn": _ffn,
    "layer_norm": _layer_norm,
    "rms_norm": _layer_norm,
    "scale": _scale,
    "depthwise": quantize_depthwise,
    "mean": _mean,
    "first": _first,
}
"""Fused operator -> its integer operator and the parameters of the result."""

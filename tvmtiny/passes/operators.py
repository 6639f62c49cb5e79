"""The fused operators that the passes speak: ordinary Relax operators under `relax.tvmtiny`.

All work on one sequence: matrices are (S, E) without a batch axis. `n` is a scalar int64 tensor, the number of tokens
that are present; rows from n on are undefined. After `quantize` the same operators return as `relax.tvmtiny.q_*`.

| operator | arguments | attributes |
|---|---|---|
| embed | ids (S,), token_table (V, E), position_table (S, E) | residual, norm |
| segment_embed | the same, segment_ids (S,), segment_table (G, E) | likewise |
| dense | x (M, K), weight (N, K), bias (N,) | activation, residual, norm |
| attention | x (S, E), wq, bq, wk, bk, wv, bv (H*P, E) and (H*P,), wo (E, H*P), bo, n | heads, scale, residual, norm |
| folded_attention | x (S, E), wq (H*E, E), bq (H*E,), wv, bv (H*P, E) and (H*P,), wo (E, H*P), bo, n | likewise |
| rotary_attention | those of `attention`, angles (S, P / 2) | likewise |
| glu | x (S, E), wg (F, E), bg, wu (F, E), bu, wd (E, F), bd | activation, residual, norm |
| convolution | x (S, C), weight (N, kernel * C), bias (N,) | kernel, stride, before, activation |
| ffn | x (S, E), w1 (F, E), b1, w2 (E, F), b2 | activation, residual, norm |
| layer_norm | x (S, E), gamma (E,), beta (E,) | epsilon |
| rms_norm | x (S, E), gamma (E,), beta (E,) | epsilon |
| scale | x (S, E), gamma (E,), beta (E,): x * gamma + beta | - |
| depthwise | x (H, W, C), weight (taps, taps, N), bias (N,) | activation, and the geometry below |
| mean | x (S, E), n | - |
| first | x (S, E) | - |
| softmax | scores (..., S), n | where attention does not absorb it |

`depthwise` is a convolution of each channel by itself: `rows` x `cols` places; along y and x each, `before` zeros of
padding, `stride` from a place to the next and `step` (dilation) from a tap to the next (`stride_y`, ...).

An attention with the attributes `before` and `after` lets token i attend to tokens i - before to i + after only. With
`kv_heads` it has fewer heads of K and V than of Q. A rotary attention turns the halves of each head of Q and K by the
angles of the token's position. A convolution goes over tokens: token p of its result sees `kernel` rows of x from row
p * stride - before on, with zeros before the first.

With `residual` an operator has one more argument that is added to its result; with `norm` two more, gamma and beta of
the LayerNorm or RMSNorm (`norm` is LAYER_NORM or RMS_NORM, attribute `epsilon`) or of the `scale` (`norm` is SCALE)
that follows.
"""

from __future__ import annotations

from typing import Any

import tvm_ffi
from tvm import ir, relax

PREFIX = "relax.tvmtiny."

LAYER_NORM, SCALE, RMS_NORM = 1, 2, 3
NORMS = {"layer_norm": LAYER_NORM, "scale": SCALE, "rms_norm": RMS_NORM}
"""Operators that an operator before them can take in, and the value of its attribute `norm` then; else it is 0."""

_CORE_ARGUMENTS = {
    "embed": 3,
    "segment_embed": 5,
    "dense": 3,
    "attention": 10,
    "folded_attention": 8,
    "rotary_attention": 11,
    "glu": 7,
    "convolution": 3,
    "ffn": 5,
    "layer_norm": 3,
    "scale": 3,
    "rms_norm": 3,
    "depthwise": 3,
    "mean": 2,
    "first": 1,
    "softmax": 2,
}

ATTENTIONS = ("attention", "folded_attention", "rotary_attention")

SUMS = ("embed", "segment_embed", "dense", *ATTENTIONS, "ffn", "glu")
"""Operators that end in an int32 sum, to which a residual may be added and which may be normalized."""

_DEFAULTS: dict[str, dict[str, Any]] = {name: {"residual": 0, "norm": 0} for name in SUMS}

MATRICES = {
    "dense": ("weight",),
    "convolution": ("weight",),
    "attention": ("wq", "wk", "wv", "wo"),
    "folded_attention": ("wq", "wv", "wo"),
    "rotary_attention": ("wq", "wk", "wv", "wo"),
    "ffn": ("w1", "w2"),
    "glu": ("wg", "wu", "wd"),
}
"""The weight matrices of fused operators, as their integer operators call them."""

WEIGHTED = tuple(MATRICES)
"""Fused operators with weight matrices, which read x as their first argument."""


def _matrix(rows: Any, cols: Any) -> relax.TensorType:
    return relax.TensorType([rows, cols], "float32")


def _shape(expr: Any) -> list[int]:
    return [int(extent) for extent in expr.ty.shape]


def _infer_embed(call: Any, _: Any) -> relax.TensorType:
    return _matrix(_shape(call.args[0])[0], _shape(call.args[1])[1])


def _infer_dense(call: Any, _: Any) -> relax.TensorType:
    return _matrix(_shape(call.args[0])[0], _shape(call.args[1])[0])


def _infer_convolution(call: Any, _: Any) -> relax.TensorType:
    return _matrix(_shape(call.args[0])[0] // int(call.attrs["stride"]), _shape(call.args[1])[0])


def _infer_same(call: Any, _: Any) -> relax.TensorType:
    return relax.TensorType(_shape(call.args[0]), "float32")


def _infer_depthwise(call: Any, _: Any) -> relax.TensorType:
    return _matrix(int(call.attrs["rows"]) * int(call.attrs["cols"]), _shape(call.args[1])[2])


def _infer_row(call: Any, _: Any) -> relax.TensorType:
    return _matrix(1, _shape(call.args[0])[1])


_INFER = {
    "embed": _infer_embed,
    "segment_embed": _infer_embed,
    "dense": _infer_dense,
    "attention": _infer_same,
    "folded_attention": _infer_same,
    "rotary_attention": _infer_same,
    "ffn": _infer_same,
    "glu": _infer_same,
    "convolution": _infer_convolution,
    "layer_norm": _infer_same,
    "scale": _infer_same,
    "rms_norm": _infer_same,
    "depthwise": _infer_depthwise,
    "mean": _infer_row,
    "first": _infer_row,
    "softmax": _infer_same,
}


def register_operator(name: str, infer: Any) -> None:
    """Register `relax.tvmtiny.<name>` once; `infer(call, builder)` returns its result type."""
    full = PREFIX + name
    if full in ir.Op.list_op_names():
        return
    tvm_ffi.get_global_func("ir.RegisterOp")(full, f"tvmtiny {name}")
    ir.register_op_attr(full, "FInferType", infer)
    ir.register_op_attr(full, "FPurity", True)


for _name, _infer in _INFER.items():
    register_operator(_name, _infer)


def call(name: str, args: list[Any], **attrs: Any) -> relax.Call:
    """A call of `relax.tvmtiny.<name>`; attributes are plain Python values."""
    attrs = {**_DEFAULTS.get(name, {}), **attrs}
    node = ir.make_node("ir.DictAttrs", **attrs) if attrs else None
    return relax.Call(ir.Op.get(PREFIX + name), args, node)


def kind(expr: Any) -> str:
    """The name after `relax.tvmtiny.` when expr calls one of these operators, else an empty string."""
    if isinstance(expr, relax.Call) and isinstance(expr.op, ir.Op) and expr.op.name.startswith(PREFIX):
        return expr.op.name[len(PREFIX) :]
    return ""


def attributes(expr: relax.Call) -> dict[str, Any]:
    """The attributes of a call as Python values."""
    return {} if expr.attrs is None else {str(key): value for key, value in expr.attrs.items()}


EMBEDDINGS = ("embed", "segment_embed")


def id_tables(expr: relax.Call) -> list[tuple[Any, Any]]:
    """The inputs of ids of an embedding, each with the table that it selects from; [] for other operators."""
    if kind(expr) not in EMBEDDINGS:
        return []
    ids, table, _, *second = parts(expr)[0]
    return [(ids, table), *([(second[0], second[1])] if second else [])]


MAX_TOKENS_ATTRIBUTE = "tvmtiny.max_tokens"
"""Function attribute of a model with a mask: how many tokens the mask has."""


def token_rows(graph: Any) -> int:
    """S: of the mask, else the most rows that a fused operator of a `Graph` reads or writes."""
    known = dict(graph.function.attrs or {}).get(MAX_TOKENS_ATTRIBUTE)
    if known is not None:
        return int(known)
    calls = [(var, value) for var, value in graph if kind(value)]
    return max((_shape(expr)[0] for var, value in calls for expr in (var, value.args[0])), default=1)


def parts(expr: relax.Call) -> tuple[list[Any], Any | None, tuple[Any, Any] | None]:
    """Split the arguments of a fused call into (core, residual or None, (gamma, beta) or None)."""
    attrs = attributes(expr)
    args = list(expr.args)
    count = _CORE_ARGUMENTS[kind(expr)]
    core, rest = args[:count], args[count:]
    residual = rest.pop(0) if attrs.get("residual") else None
    norm = (rest[0], rest[1]) if attrs.get("norm") else None
    return core, residual, norm

"""Evaluate small Relax expressions in NumPy.

Three uses: constants and shapes are folded; a mask is recognised by what it does rather than by how an exporter wrote
it (it is evaluated for every possible length); views (reshape, transpose, slices) are composed by applying them to an
array of indices. Operators outside the table are simply not evaluated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import ir, relax, tirx

from tvmtiny.errors import UserError
from tvmtiny.passes.graph import Graph, as_array, op_name, shape_of

Array = npt.NDArray[Any]
Evaluator = Callable[..., Array]


def _dtype(call: relax.Call) -> np.dtype[Any]:
    return np.dtype(str(call.attrs.dtype))


def _require_rows(index: Array, rows: int) -> None:
    """Raise UserError unless a table of `rows` rows has those of an index."""
    if index.size and (index.min() < -rows or index.max() >= rows):
        fit = int(np.count_nonzero(index < rows))  # RoBERTa's positions do not begin with row 0
        raise UserError(
            f"The model reads row {index.max()} of a table of {rows} rows.",
            f"If that is its table of positions, it takes at most {fit} tokens: give --max-tokens {fit} or less.",
        )


def _take(call: relax.Call, data: Array, index: Array) -> Array:
    axis = call.attrs.axis
    _require_rows(index, data.size if axis is None else data.shape[int(axis)])
    if axis is None:
        return np.take(data.reshape(-1), index, mode="wrap")
    return np.take(data, index, axis=int(axis), mode="wrap")


def _gather_nd(call: relax.Call, data: Array, indices: Array) -> Array:
    if int(call.attrs.batch_dims):
        raise NotImplementedError("gather_nd with batch_dims")
    return np.asarray(data[tuple(np.moveaxis(indices, -1, 0))])


def _axes(value: Any) -> tuple[int, ...] | None:
    return None if value is None else tuple(int(axis) for axis in value)


def _permute(call: relax.Call, data: Array) -> Array:
    return np.transpose(data, _axes(call.attrs.axes))


def _reshape(call: relax.Call, data: Array, _shape: Any = None) -> Array:
    return data.reshape(shape_of(call))


def _broadcast(call: relax.Call, data: Array, _shape: Any = None) -> Array:
    return np.broadcast_to(data, shape_of(call))


def _gather_elements(call: relax.Call, data: Array, index: Array) -> Array:
    axis = int(call.attrs.axis)
    _require_rows(index, data.shape[axis])
    return np.take_along_axis(data, index, axis)


def _strided_slice(
    call: relax.Call, data: Array, axes: Any, begin: Any, end: Any, strides: Any = None
) -> Array:
    steps = [1] * len(axes) if strides is None else strides
    slices = [slice(None)] * data.ndim
    for axis, low, high, step in zip(axes, begin, end, steps, strict=True):
        before_start = step < 0 and high < -data.shape[int(axis)]
        slices[int(axis)] = slice(int(low), None if before_start else int(high), int(step))
    return data[tuple(slices)]


def _reduce(function: Callable[..., Any]) -> Evaluator:
    def evaluate(call: relax.Call, data: Array) -> Array:
        return np.asarray(
            function(data, axis=_axes(call.attrs.axis), keepdims=bool(call.attrs.keepdims)), dtype=data.dtype
        )

    return evaluate


def _elementwise(function: Callable[..., Any]) -> Evaluator:
    def evaluate(call: relax.Call, *args: Array) -> Array:
        result = np.asarray(function(*args))
        return result.astype(str(call.ty.dtype)) if result.dtype != bool else result

    return evaluate


_erf = np.vectorize(math.erf, otypes=[np.float64])


def _cumsum(call: relax.Call, x: Array) -> Array:
    axis = None if call.attrs.axis is None else int(call.attrs.axis)
    total = np.cumsum(x, axis=axis, dtype=x.dtype)
    return total - x.reshape(total.shape) if bool(call.attrs.exclusive) else total


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "power": np.power,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "negative": np.negative,
    "abs": np.abs,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "tanh": np.tanh,
    "sin": np.sin,
    "cos": np.cos,
    "square": np.square,
    "erf": _erf,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "nn.relu": lambda x: np.maximum(x, 0),
    "nn.silu": lambda x: x / (1 + np.exp(-x)),
    "nn.gelu": lambda x: x * 0.5 * (1 + _erf(x / math.sqrt(2))),
    "nn.gelu_tanh": lambda x: x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "clip": np.clip,
    "where": np.where,
    "less": np.less,
    "less_equal": np.less_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "equal": np.equal,
    "not_equal": np.not_equal,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "logical_not": np.logical_not,
    "bitwise_and": np.bitwise_and,
    "bitwise_or": np.bitwise_or,
    "bitwise_not": np.invert,
    "isnan": np.isnan,
    "floor_divide": np.floor_divide,
}

ELEMENTWISE: dict[str, Evaluator] = {name: _elementwise(f) for name, f in _FUNCTIONS.items()}
ELEMENTWISE["divide"] = _elementwise(
    lambda a, b: np.trunc(np.divide(a, b)) if a.dtype.kind in "iu" else np.divide(a, b)
)
ELEMENTWISE["astype"] = lambda call, x: x.astype(_dtype(call))

VIEWS: dict[str, Evaluator] = {
    "reshape": _reshape,
    "permute_dims": _permute,
    "squeeze": _reshape,
    "expand_dims": _reshape,
    "flatten": _reshape,
    "take": _take,
    "strided_slice": _strided_slice,
    "broadcast_to": _broadcast,
}

_OTHERS: dict[str, Evaluator] = {
    "gather_nd": _gather_nd,
    "gather_elements": _gather_elements,
    "index_tensor": lambda call, data, indices: data[tuple(indices)],
    "arange": lambda call, start, end, step: np.arange(start, end, step).astype(_dtype(call)),
    "matmul": lambda call, a, b: np.matmul(a, b),
    "concat": lambda call, *fields: np.concatenate(fields, axis=int(call.attrs.axis)),
    "stack": lambda call, *fields: np.stack(fields, axis=int(call.attrs.axis)),
    "sum": _reduce(np.sum),
    "mean": _reduce(np.mean),
    "max": _reduce(np.max),
    "min": _reduce(np.min),
    "cumsum": _cumsum,
    "zeros": lambda call, _shape: np.zeros(shape_of(call), str(call.ty.dtype)),
    "ones": lambda call, _shape: np.ones(shape_of(call), str(call.ty.dtype)),
    "full": lambda call, _shape, value: np.full(shape_of(call), value, str(call.ty.dtype)),
    "zeros_like": lambda call, x: np.zeros_like(x),
    "ones_like": lambda call, x: np.ones_like(x),
    "full_like": lambda call, x, value: np.full_like(x, value),
    "trilu": lambda call, x: np.triu(x) if call.attrs.is_upper else np.tril(x),
    "tril": lambda call, x, k: np.tril(x, int(k)),
    "triu": lambda call, x, k: np.triu(x, int(k)),
}

EVALUATORS: dict[str, Evaluator] = {**ELEMENTWISE, **VIEWS, **_OTHERS}


def literal(expr: Any) -> Any | None:
    """The Python or NumPy value of an argument that needs no evaluation, or None."""
    if isinstance(expr, relax.ShapeExpr):
        values = [literal(extent) for extent in expr.values]
        return None if any(v is None for v in values) else np.asarray(values, np.int64)
    if isinstance(expr, tirx.IntImm | tirx.FloatImm):
        return expr.value
    if isinstance(expr, relax.Tuple):
        values = [literal(field) for field in expr.fields]
        return None if any(v is None for v in values) else values
    return as_array(expr)


def evaluate(graph: Graph | _NoBindings, expr: Any, known: dict[Any, Array | None]) -> Array | None:
    """The value of `expr` given the arrays in `known`, or None when it depends on something else.

    Args:
        known: values of variables; it is extended with every variable that was looked at (None: not evaluable).
    """
    if expr in known:
        return known[expr]
    value = graph.producer(expr)
    if value in known:
        return known[value]
    if not isinstance(value, relax.Call):
        return literal(value)
    known[value] = _evaluate_call(graph, value, known)
    if isinstance(expr, ir.Var):
        known[expr] = known[value]
    return known[value]


class _NoBindings:
    """In place of a Graph where calls are looked at before they are bound."""

    @staticmethod
    def producer(expr: Any) -> Any:
        return expr


def fold(call: relax.Call) -> Array | None:
    """The value of a call whose arguments are constants, or None."""
    return evaluate(_NoBindings(), call, {})


def _evaluate_call(
    graph: Graph | _NoBindings, call: relax.Call, known: dict[Any, Array | None]
) -> Array | None:
    name = op_name(call)
    if name in ("shape_of", "shape_to_tensor", "tensor_to_shape"):
        return _shape_value(graph, call, known)
    function = EVALUATORS.get(name)
    if function is None or not hasattr(call.ty, "shape") or call.ty.shape is None:
        return None
    args: list[Any] = []
    for arg in call.args:
        if isinstance(arg, relax.Tuple):
            fields = [evaluate(graph, field, known) for field in arg.fields]
            if any(field is None for field in fields):
                return None
            args += fields if name in ("concat", "stack") else [fields]
            continue
        value = evaluate(graph, arg, known)
        if value is None:
            return None
        args.append(value)
    with np.errstate(all="ignore"):
        return np.asarray(function(call, *args))


def _shape_value(
    graph: Graph | _NoBindings, call: relax.Call, known: dict[Any, Array | None]
) -> Array | None:
    if op_name(call) == "shape_of":
        return np.asarray(shape_of(call.args[0]), np.int64)
    return evaluate(graph, call.args[0], known)

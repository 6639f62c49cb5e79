"""Fold constants and shape arithmetic, and remove what exporters put in only to be safe.

- every expression of constants becomes a constant (weights transposed, position tables gathered, shapes)
- `where(isnan(p), 0, p)` after a softmax, or `where(all scores are -inf, 0, p)`: at least one token is present
- `where(ids < 0, ids + V, ids)`: indices counted from the end; ids are checked against the vocabulary at run time
- dropout, which does nothing in inference; BatchNorm, which is a factor and an offset a channel then
- casts to the type that a value already has; additions of zeros, such as a mask that removes nothing
- a comparison of two tensors becomes one of their difference with zero
- `split` becomes slices, `concat` of one tensor nothing, zeros around a tensor a `concat`
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax

from tvmtiny.passes.graph import Emit, Graph, constant, function_pass, op_name, rebuild, shape_of
from tvmtiny.passes.numeric import evaluate, literal

_COMPARISONS = ("less", "less_equal", "greater", "greater_equal")


def Simplify() -> tvm.transform.Pass:  # noqa: N802 - passes are named like TVM's own
    """The pass; idempotent."""
    return function_pass("Simplify", _simplify)


def _simplify(function: relax.Function) -> relax.Function:
    known: dict[Any, Any] = {}

    def rewrite(graph: Graph, var: relax.Var, value: Any, emit: Emit) -> Any | None:
        if isinstance(value, relax.TupleGetItem):
            part = _slice_of_split(graph, value)
            part = part if part is not None else _value_of_dropout(graph, value)
            return part if part is not None else _value_of_batch_norm(graph, value, emit)
        if not isinstance(value, relax.Call):
            return None
        array = evaluate(graph, var, known)
        if array is not None:
            return constant(array)
        if op_name(value) in _COMPARISONS:
            return _compared_with_zero(graph, value, emit)
        return _padded(value, emit) if op_name(value) == "nn.pad" else _drop_guard(graph, value)

    return rebuild(function, rewrite)


def _value_of_dropout(graph: Graph, item: relax.TupleGetItem) -> Any | None:
    dropout = graph.producer(item.tuple_value)
    return dropout.args[0] if item.index == 0 and graph.is_call(dropout, "nn.dropout") else None


def _value_of_batch_norm(graph: Graph, item: relax.TupleGetItem, emit: Emit) -> Any | None:
    """A BatchNorm in evaluation mode is a factor and an offset for each channel."""
    norm = graph.producer(item.tuple_value)
    if item.index != 0 or not graph.is_call(norm, "nn.batch_norm"):
        return None
    arrays = [literal(graph.producer(arg)) for arg in norm.args[1:]]
    if any(array is None for array in arrays) or bool(norm.attrs.training):
        return None
    gamma, beta, mean, variance = (np.asarray(array, np.float64) for array in arrays)
    factor = gamma / np.sqrt(variance + float(norm.attrs.epsilon))
    x, axis = norm.args[0], int(norm.attrs.axis)
    shape = [extent if i == axis % len(shape_of(x)) else 1 for i, extent in enumerate(shape_of(x))]
    parts = [part.reshape(shape).astype(np.float32) for part in (factor, beta - mean * factor)]
    return relax.op.add(emit(relax.op.multiply(x, constant(parts[0]))), constant(parts[1]))


def _slice_of_split(graph: Graph, item: relax.TupleGetItem) -> Any | None:
    split = graph.producer(item.tuple_value)
    if not graph.is_call(split, "split"):
        return None
    axis = int(split.attrs.axis)
    sizes = [int(field.shape[axis]) for field in split.ty.fields]
    begin = sum(sizes[: item.index])
    return relax.op.strided_slice(split.args[0], [axis], [begin], [begin + sizes[item.index]])


def _padded(pad: relax.Call, emit: Emit) -> Any | None:
    """Padding with a constant as a concatenation, axis by axis."""
    if str(pad.attrs.pad_mode) != "constant":
        return None
    result, shape = pad.args[0], list(shape_of(pad.args[0]))
    widths = np.asarray([int(width) for width in pad.attrs.pad_width]).reshape(-1, 2)
    for axis, (before, after) in enumerate(widths):
        filling = [
            np.full([*shape[:axis], width, *shape[axis + 1 :]], float(pad.attrs.pad_value), str(pad.ty.dtype))
            for width in (before, after)
        ]
        parts = [constant(filling[0]), result, constant(filling[1])]
        kept = [part for part, width in zip(parts, (before, 1, after), strict=True) if width]
        shape[axis] += int(before + after)
        result = emit(relax.op.concat(kept, axis)) if len(kept) > 1 else result
    return result


def _compared_with_zero(graph: Graph, call: relax.Call, emit: Emit) -> Any | None:
    """A comparison of two computed tensors is one of their difference with zero: a function of one tensor."""
    a, b = call.args
    computed = literal(graph.producer(a)) is None and literal(graph.producer(b)) is None
    if not computed or str(a.ty.dtype) != "float32":
        return None
    return relax.Call(call.op, [emit(relax.op.subtract(a, b)), relax.const(0.0, "float32")], call.attrs)


def _drop_guard(graph: Graph, call: relax.Call) -> Any | None:
    name = op_name(call)
    if name == "astype" and str(call.args[0].ty.dtype) == str(call.attrs.dtype):
        return call.args[0]
    if name == "add":
        return _without_zeros(graph, call)
    if name == "concat" and len(call.args[0].fields) == 1:
        return call.args[0].fields[0]
    if name != "where":
        return None
    condition, taken, otherwise = call.args
    if graph.is_call(condition, "isnan") and graph.producer(condition).args[0].same_as(otherwise):
        return otherwise
    if graph.is_call(otherwise, "nn.softmax") and _never_without_keys(graph, condition, otherwise):
        return otherwise
    if graph.is_call(condition, "less") and graph.is_call(taken, "add"):
        compared, limit = graph.producer(condition).args
        from_end = literal(limit) is not None and np.all(np.asarray(literal(limit)) == 0)
        integer = str(otherwise.ty.dtype).startswith(("int", "uint"))
        same = compared.same_as(otherwise) and graph.producer(taken).args[0].same_as(otherwise)
        if integer and from_end and same:
            return otherwise
    return None


def _without_zeros(graph: Graph, add: relax.Call) -> Any | None:
    for operand, other in ((add.args[0], add.args[1]), (add.args[1], add.args[0])):
        array = literal(graph.producer(other))
        if array is not None and not np.any(array) and shape_of(operand) == shape_of(add):
            return operand
    return None


def _never_without_keys(graph: Graph, condition: Any, softmax: Any) -> bool:
    """Whether a condition on the scores of a softmax is false wherever at least one score of a row is finite."""
    scores = graph.producer_variable(graph.producer(softmax).args[0])
    one_key = np.full(shape_of(scores), -np.inf, np.float32)
    one_key[..., 0] = 0
    value = evaluate(graph, condition, {scores: one_key})
    return value is not None and not np.any(value)

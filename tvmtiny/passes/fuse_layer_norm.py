"""LayerNorm over the last axis, as one operator or spelled out (ONNX before opset 17)."""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax

from tvmtiny.passes.graph import (
    Emit,
    Graph,
    column_vector,
    constant,
    function_pass,
    op_name,
    rebuild,
    shape_of,
)
from tvmtiny.passes.numeric import literal
from tvmtiny.passes.operators import call
from tvmtiny.passes.views import as_matrix, reshaped


def FuseLayerNorm() -> tvm.transform.Pass:  # noqa: N802
    """`nn.layer_norm`, or (x - mean) / sqrt(var + eps) * gamma + beta, becomes `tvmtiny.layer_norm`."""
    return function_pass("FuseLayerNorm", lambda function: rebuild(function, _rewrite))


def _rewrite(graph: Graph, var: relax.Var, value: Any, emit: Emit) -> Any | None:
    if not isinstance(value, relax.Call):
        return None
    if op_name(value) == "nn.layer_norm":
        found = _operator(value)
    elif op_name(value) == "add":
        found = _spelled_out(graph, value)
    elif op_name(value) == "multiply":
        found = _without_beta(graph, value, np.zeros(()))
    else:
        return None
    if found is None:
        return None
    x, *factors, epsilon = found
    vectors = [column_vector(np.asarray(factor, np.float32), shape_of(value)) for factor in factors]
    if shape_of(x) != shape_of(value) or any(vector is None for vector in vectors):
        return None
    args = [as_matrix(graph, x, emit), *(constant(np.asarray(vector)) for vector in vectors)]
    return reshaped(call("layer_norm", args, epsilon=epsilon), value, emit)


def _operator(value: relax.Call) -> tuple[Any, Any, Any, float] | None:
    axes = [int(axis) % len(shape_of(value)) for axis in value.attrs.axes]
    gamma, beta = literal(value.args[1]), literal(value.args[2])
    if axes != [len(shape_of(value)) - 1] or gamma is None or beta is None:
        return None
    return value.args[0], gamma, beta, float(value.attrs.epsilon)


def _spelled_out(graph: Graph, value: relax.Call) -> tuple[Any, Any, Any, float] | None:
    scaled, beta = _with_constant(graph, value)
    product: Any = graph.producer(scaled) if scaled is not None else None
    return _without_beta(graph, product, beta) if graph.is_call(product, "multiply") else None


def _without_beta(graph: Graph, product: relax.Call, beta: Any) -> tuple[Any, Any, Any, float] | None:
    """`_spelled_out` from the product with gamma on; beta is what is added after it."""
    normalized, gamma = _with_constant(graph, product)
    quotient: Any = graph.producer(normalized) if normalized is not None else None
    if not graph.is_call(quotient, "divide"):
        return None
    centered, deviation = quotient.args
    x = _centered(graph, centered)
    if x is None or not graph.is_call(deviation, "sqrt"):
        return None
    epsilon = _variance_epsilon(graph, graph.producer(deviation).args[0], centered)
    return None if epsilon is None else (x, gamma, beta, epsilon)


def _with_constant(graph: Graph, value: relax.Call) -> tuple[Any, Any]:
    """(operand, constant) of a commutative operator with one constant operand, else (None, None)."""
    for operand, other in ((value.args[0], value.args[1]), (value.args[1], value.args[0])):
        array = literal(graph.producer(other))
        if array is not None:
            return operand, array
    return None, None


def _centered(graph: Graph, expr: Any) -> Any | None:
    """x when expr is x - mean(x) over the last axis."""
    value = graph.producer(expr)
    if not graph.is_call(value, "subtract") or not graph.is_call(value.args[1], "mean"):
        return None
    mean = graph.producer(value.args[1])
    return value.args[0] if _over_last_axis(mean) and mean.args[0].same_as(value.args[0]) else None


def _over_last_axis(reduction: relax.Call) -> bool:
    rank = len(shape_of(reduction.args[0]))
    return [int(axis) % rank for axis in reduction.attrs.axis] == [rank - 1]


def _variance_epsilon(graph: Graph, expr: Any, centered: Any) -> float | None:
    """epsilon when expr is mean(centered ** 2) + epsilon."""
    value = graph.producer(expr)
    if not graph.is_call(value, "add"):
        return None
    variance, epsilon = _with_constant(graph, value)
    mean: Any = graph.producer(variance) if variance is not None else None
    if not graph.is_call(mean, "mean") or not _over_last_axis(mean) or np.size(epsilon) != 1:
        return None
    square = graph.producer(mean.args[0])
    if not graph.is_call(square, "power", "multiply"):
        return None
    exponent = literal(graph.producer(square.args[1]))
    squared = (
        exponent is not None and np.all(np.asarray(exponent) == 2)
        if op_name(square) == "power"
        else _same(graph, square.args[1], centered)
    )
    return (
        float(np.asarray(epsilon).reshape(())) if squared and _same(graph, square.args[0], centered) else None
    )


def _same(graph: Graph, left: Any, right: Any) -> bool:
    """The same value, or the same subtraction written twice (exporters repeat x - mean)."""
    if left.same_as(right):
        return True
    one, two = _centered(graph, left), _centered(graph, right)
    return one is not None and two is not None and one.same_as(two)

"""RMSNorm over the last axis: x / sqrt(mean(x * x) + epsilon) * gamma, however an exporter writes it."""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax

from tvmtiny.passes.fuse_layer_norm import _over_last_axis, _with_constant
from tvmtiny.passes.graph import Emit, Graph, column_vector, constant, function_pass, rebuild, shape_of
from tvmtiny.passes.numeric import literal
from tvmtiny.passes.operators import call
from tvmtiny.passes.views import as_matrix, reshaped


def FuseRmsNorm() -> tvm.transform.Pass:  # noqa: N802
    """Anchored at the product with gamma, or, without one, at the division by the root."""
    return function_pass("FuseRmsNorm", lambda function: rebuild(function, _rewrite))


def _rewrite(graph: Graph, var: relax.Var, value: Any, emit: Emit) -> Any | None:
    if not isinstance(value, relax.Call) or not graph.is_call(value, "multiply", "divide"):
        return None
    found, gamma = _quotient(graph, value), np.ones(())
    if found is None and graph.is_call(value, "multiply"):
        operand, gamma = _with_constant(graph, value)
        found = _quotient(graph, graph.producer(operand)) if operand is not None else None
    if found is None:
        return None
    x, epsilon = found
    factor = column_vector(np.asarray(gamma, np.float32), shape_of(value))
    if factor is None or shape_of(x) != shape_of(value):
        return None
    args = [as_matrix(graph, x, emit), constant(factor), constant(np.zeros_like(factor))]
    return reshaped(call("rms_norm", args, epsilon=epsilon), value, emit)


def _quotient(graph: Graph, value: Any) -> tuple[Any, float] | None:
    """x and epsilon when a value is x times the reciprocal of its root mean square."""
    if graph.is_call(value, "divide"):
        x, root = value.args
        if not graph.is_call(root, "sqrt"):
            return None
        epsilon = _epsilon(graph, graph.producer(root).args[0], x)
        return None if epsilon is None else (x, epsilon)
    if not graph.is_call(value, "multiply"):
        return None
    for x, rate in ((value.args[0], value.args[1]), (value.args[1], value.args[0])):
        mean = _under_the_root(graph, rate)
        epsilon = None if mean is None else _epsilon(graph, mean, x)
        if epsilon is not None:
            return x, epsilon
    return None


def _under_the_root(graph: Graph, rate: Any) -> Any | None:
    """y when `rate` is 1 / sqrt(y)."""
    if graph.is_call(rate, "rsqrt"):
        return graph.producer(rate).args[0]
    if not graph.is_call(rate, "divide"):
        return None
    one, root = graph.producer(rate).args
    unit = literal(graph.producer(one))
    is_reciprocal = unit is not None and np.all(np.asarray(unit) == 1) and graph.is_call(root, "sqrt")
    return graph.producer(root).args[0] if is_reciprocal else None


def _epsilon(graph: Graph, expr: Any, x: Any) -> float | None:
    """epsilon when expr is mean(x * x) + epsilon over the last axis."""
    if not graph.is_call(expr, "add"):
        return None
    mean, epsilon = _with_constant(graph, graph.producer(expr))
    if mean is None or not graph.is_call(mean, "mean") or np.size(epsilon) != 1:
        return None
    reduction = graph.producer(mean)
    square = graph.producer(reduction.args[0])
    if not _over_last_axis(reduction) or not graph.is_call(square, "power", "multiply"):
        return None
    exponent = literal(graph.producer(square.args[1]))
    squared = square.args[1].same_as(x) if exponent is None else bool(np.all(np.asarray(exponent) == 2))
    if exponent is not None and graph.is_call(square, "multiply"):
        return None
    return float(np.asarray(epsilon).reshape(())) if squared and square.args[0].same_as(x) else None

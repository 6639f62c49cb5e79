"""LayerNorm over the last axis, as one operator or spelled out (ONNX before opset 17, TensorFlow).

Spellings with a square root in the denominator are matched; any other is recognised by its values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import ir, relax

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
from tvmtiny.passes.numeric import ELEMENTWISE, evaluate, literal
from tvmtiny.passes.operators import call
from tvmtiny.passes.views import as_matrix, reshaped

Array = npt.NDArray[Any]

_PROBES = 4
_LARGE, _SMALL = 1e3, 1e-3
"""Sizes of rows: beside the first no epsilon counts, beside the second all do."""

_MOST_STEPS, _MOST_CANDIDATES = 24, 3
"""Operators of a spelling, and tensors of which one is normalized; the others are parts of the spelling."""


def FuseLayerNorm() -> tvm.transform.Pass:  # noqa: N802
    """`nn.layer_norm`, or (x - mean) / sqrt(var + eps) * gamma + beta, becomes `tvmtiny.layer_norm`."""
    return function_pass("FuseLayerNorm", lambda function: rebuild(function, _rewrite))


def _rewrite(graph: Graph, var: relax.Var, value: Any, emit: Emit) -> Any | None:
    if not isinstance(value, relax.Call):
        return None
    if op_name(value) == "nn.layer_norm":
        found = _operator(value)
    elif op_name(value) == "add":
        found = _spelled_out(graph, value) or _by_value(graph, var)
    elif op_name(value) == "multiply":
        found = _without_beta(graph, value, np.zeros(())) or _by_value(graph, var)
    elif op_name(value) == "subtract":
        found = _by_value(graph, var)
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


def _by_value(graph: Graph, var: relax.Var) -> tuple[Any, Array, Array, float] | None:
    """x, gamma, beta and epsilon when an expression with rsqrt and means is a LayerNorm of x on random rows.

    Large rows, where epsilon does not count, give gamma and beta; small ones then give epsilon.
    """
    for x in _candidates(graph, var):
        found = _of_candidate(graph, var, x) if shape_of(x) == shape_of(var) else None
        if found is not None:
            return x, *found
    return None


def _of_candidate(graph: Graph, var: relax.Var, x: Any) -> tuple[Array, Array, float] | None:
    random = np.random.default_rng(0)
    rows = [random.normal(size=shape_of(x)).astype(np.float32) for _ in range(_PROBES)]
    results = [[evaluate(graph, var, {x: row * size}) for row in rows] for size in (_LARGE, 1.0, _SMALL)]
    columns = shape_of(x)[-1]
    known = [[result for result in part if result is not None] for part in results]
    if any(len(part) < _PROBES for part in known):
        return None
    large, middle, small = (np.stack(part).reshape(-1, columns).astype(np.float64) for part in known)
    plain = np.concatenate(rows, axis=None).reshape(-1, columns).astype(np.float64)
    centred, variance = plain - plain.mean(axis=1, keepdims=True), plain.var(axis=1, keepdims=True)
    normal = centred / np.sqrt(variance)
    spread = normal - normal.mean(axis=0)
    gamma = np.sum(spread * large, axis=0) / np.sum(spread**2, axis=0)
    beta = large.mean(axis=0) - gamma * normal.mean(axis=0)
    pattern = gamma * centred * _SMALL
    rates = np.sum((small - beta) * pattern, axis=1) / np.maximum(np.sum(pattern**2, axis=1), 1e-300)
    with np.errstate(all="ignore"):
        epsilon = float(np.median(1 / rates**2 - variance[:, 0] * _SMALL**2))
    epsilon = max(epsilon, 1e-12)
    for values, size in ((large, _LARGE), (middle, 1.0), (small, _SMALL)):
        expected = gamma * centred * size / np.sqrt(variance * size**2 + epsilon) + beta
        if not np.allclose(values, expected, rtol=1e-3, atol=1e-3 * float(np.abs(expected).max())):
            return None
    return gamma, beta, epsilon


def _candidates(graph: Graph, var: relax.Var) -> list[Any]:
    """What an elementwise expression with rsqrt takes means of, over the last axis; the nearest first."""
    pending, means, rsqrt = [var], [], False
    for _ in range(_MOST_STEPS):
        if not pending:
            break
        value = graph.producer(pending.pop())
        if graph.is_call(value, "mean") and _over_last_axis(value):
            means.append(value.args[0])
        elif not isinstance(value, relax.Call) or op_name(value) not in ELEMENTWISE:
            continue
        rsqrt = rsqrt or graph.is_call(value, "rsqrt")
        pending += [arg for arg in value.args if isinstance(arg, ir.Var)]
    found = sorted(means, key=graph.position, reverse=True) if rsqrt else []
    return found[:_MOST_CANDIDATES]


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

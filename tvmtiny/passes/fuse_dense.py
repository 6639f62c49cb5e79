"""Matrix products with constant weights become `tvmtiny.dense`, with bias, input scaling and activation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import ir, relax

from tvmtiny.passes.graph import (
    Emit,
    Graph,
    as_array,
    column_vector,
    constant,
    function_pass,
    op_name,
    rebuild,
    shape_of,
)
from tvmtiny.passes.numeric import ELEMENTWISE, evaluate, literal
from tvmtiny.passes.operators import attributes, call, kind
from tvmtiny.passes.views import as_matrix, is_identity, reshaped, trace

Array = npt.NDArray[Any]

_erf = np.vectorize(math.erf, otypes=[np.float64])

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * 0.5 * (1 + _erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "relu6": lambda x: np.clip(x, 0, 6),
    "hardsigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "hardswish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "quick_gelu": lambda x: x / (1 + np.exp(-1.702 * x)),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
}
"""The activations of a dense layer, by their function of real numbers."""

_FAR = np.array([9.0, 10.5, 13.0, 21.0, 55.0, 300.0, 2e3, 1e4])
_PROBE = np.concatenate([-_FAR[::-1], np.linspace(-8, 8, 1601), _FAR])
"""Where activations are told apart: densely where they bend, and far out, where a clip may hide."""


def FuseDense() -> tvm.transform.Pass:  # noqa: N802
    """`matmul(x, W) + b` with constant W and b, whatever the rank of x."""
    return function_pass("FuseDense", lambda function: rebuild(function, _dense))


def FoldScaling() -> tvm.transform.Pass:  # noqa: N802
    """Scaling and shifting the input of a dense layer by constants a column goes into its weight and bias.

    The normalization of sensor values, for example. Run it after FuseActivation: a constant factor may be a part of
    an activation's spelling.
    """
    return function_pass("FoldScaling", lambda function: rebuild(function, _fold))


def FuseActivation() -> tvm.transform.Pass:  # noqa: N802
    """Any spelling of an activation behind a dense layer: recognised by its values, not by its graph."""
    return function_pass("FuseActivation", lambda function: rebuild(function, _activation))


def _dense(graph: Graph, var: relax.Var, value: Any, emit: Emit) -> Any | None:
    if not isinstance(value, relax.Call):
        return None
    product, bias = _product_and_bias(graph, value)
    if product is None:
        return None
    weight = _matrix(graph, product)
    assert weight is not None
    args = [as_matrix(graph, product.args[0], emit), constant(weight.T), constant(bias.astype(np.float32))]
    return reshaped(call("dense", args, activation="none"), value, emit)


def _product_and_bias(graph: Graph, value: relax.Call) -> tuple[Any | None, Array]:
    """The matmul by constants (K, N) behind `value` and its bias (N,), with `add` on either side, reshapes between."""
    if _matrix(graph, value) is not None:
        return value, np.zeros(shape_of(value)[-1])
    if op_name(value) == "add":
        for operand, other in ((value.args[0], value.args[1]), (value.args[1], value.args[0])):
            array = literal(graph.producer(other))
            if array is None:
                continue
            root = graph.producer(trace(graph, operand).root)
            if _matrix(graph, root) is None:
                continue
            shape = shape_of(value)
            vector = column_vector(np.asarray(array, np.float64), shape)
            unchanged = shape == shape_of(operand) and shape[-1] == shape_of(root)[-1]
            if vector is not None and unchanged and is_identity(trace(graph, operand)):
                return root, vector
    return None, np.zeros(0)


def _matrix(graph: Graph, value: Any) -> Array | None:
    """The constant matrix (K, N) that a value is a product with, once or the same for each row of a batch; or None."""
    weight = as_array(value.args[1]) if graph.is_call(value, "matmul") else None
    if weight is None or weight.ndim < 2:
        return None
    matrix: Array = weight[(0,) * (weight.ndim - 2)]
    return matrix if np.array_equal(weight, np.broadcast_to(matrix, weight.shape), equal_nan=True) else None


def _fold(graph: Graph, var: relax.Var, value: Any, emit: Emit) -> Any | None:
    """Fold constant scale and offset a column of x (M, K) into weight (N, K) and bias (N,)."""
    if kind(value) != "dense":
        return None
    x, weight, bias = value.args
    view = trace(graph, x, affine=True)
    scale, offset = view.scale, view.offset
    in_order = np.array_equal(view.index.reshape(-1), np.arange(np.prod(shape_of(view.root))))
    if view.is_plain or not in_order or isinstance(view.root, ir.GenericConst):
        return None
    if np.any(scale != scale[0]) or np.any(offset != offset[0]):
        return None
    matrix = as_array(weight)
    assert matrix is not None
    total = as_array(bias) + matrix.astype(np.float64) @ offset[0]
    root = view.root if shape_of(view.root) == shape_of(x) else emit(relax.op.reshape(view.root, shape_of(x)))
    args = [root, constant((matrix * scale[0]).astype(np.float32)), constant(total.astype(np.float32))]
    return call("dense", args, **attributes(value))


def _activation(graph: Graph, var: relax.Var, value: Any, emit: Emit) -> Any | None:
    if not isinstance(value, relax.Call) or op_name(value) not in ELEMENTWISE:
        return None
    roots: set[Any] = set()
    if not _unary_roots(graph, value, roots) or len(roots) != 1:
        return None
    root = roots.pop()
    dense = graph.producer(root)
    if attributes(dense).get("activation") != "none":
        return None
    values = _probe(graph, value, root)
    for name, function in ACTIVATIONS.items():
        with np.errstate(over="ignore"):
            expected = function(_PROBE)
        if values is not None and np.allclose(values, expected, rtol=1e-5, atol=3e-5):
            args = list(dense.args)
            return reshaped(call("dense", args, activation=name), value, emit)
    return None


def _unary_roots(graph: Graph, expr: Any, roots: set[Any]) -> bool:
    """Collect the dense layers that an elementwise expression depends on; False when there is anything else."""
    value = graph.producer(expr)
    if kind(value) == "dense":
        roots.add(value)
        return True
    scalar = literal(value)
    if scalar is not None:
        return np.size(scalar) == 1
    if not isinstance(value, relax.Call):
        return False
    if op_name(value) == "reshape":
        return _unary_roots(graph, value.args[0], roots)
    return op_name(value) in ELEMENTWISE and all(_unary_roots(graph, arg, roots) for arg in value.args)


def _probe(graph: Graph, expr: Any, root: Any) -> Array | None:
    """The values of a unary expression of `root` on the probe points."""
    known: dict[Any, Any] = {root: _PROBE}
    pending = [expr]
    while pending:  # reshapes between the layer and the activation do not change values
        value = graph.producer(pending.pop())
        if isinstance(value, relax.Call) and op_name(value) == "reshape":
            known[value] = _PROBE
        elif isinstance(value, relax.Call) and not value.same_as(root):
            pending += list(value.args)
    return evaluate(graph, expr, known)

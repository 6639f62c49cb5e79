"""See through reshapes, transposes, slices and per-column scaling to the tensor that they look at.

Every exporter splits and merges heads in its own way. Instead of knowing the ways, a chain of views is applied to an
array of element indices: what it does is then plain numbers. Scaling and shifting by constants is carried along.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import relax

from tvmtiny.passes.graph import Graph, op_name, shape_of
from tvmtiny.passes.numeric import VIEWS, literal

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class View:
    """element = root.flat[index] * scale + offset; the three arrays have the view's shape."""

    root: Any
    index: Array
    scale: Array
    offset: Array

    @property
    def is_plain(self) -> bool:
        """Whether values pass unchanged (only their places may differ)."""
        return bool(np.all(self.scale == 1) and np.all(self.offset == 0))


def trace(graph: Graph, expr: Any, *, affine: bool = False) -> View:
    """Follow views (and with `affine` also constant scaling and shifting) from `expr` back to its root.

    The root is a variable whose producer is neither; dropping elements is allowed, so `index` need not be a
    permutation.
    """
    value = graph.producer(expr)
    if isinstance(value, relax.Call):
        name = op_name(value)
        if name in VIEWS:
            view = _trace_view(graph, value, affine)
            if view is not None:
                return view
        if affine and name in ("add", "subtract", "multiply", "divide"):
            view = _trace_affine(graph, value, name)
            if view is not None:
                return view
    shape = shape_of(expr)
    root = graph.producer_variable(expr)
    return View(root, np.arange(int(np.prod(shape))).reshape(shape), np.ones(shape), np.zeros(shape))


def _trace_view(graph: Graph, call: relax.Call, affine: bool) -> View | None:
    others = [literal(graph.producer(arg)) for arg in list(call.args)[1:]]
    if any(other is None for other in others):
        return None
    inner = trace(graph, call.args[0], affine=affine)
    apply = VIEWS[op_name(call)]
    index, scale, offset = (
        np.asarray(apply(call, part, *others)) for part in (inner.index, inner.scale, inner.offset)
    )
    return View(inner.root, index, scale, offset)


def _trace_affine(graph: Graph, call: relax.Call, name: str) -> View | None:
    left, right = (literal(graph.producer(arg)) for arg in call.args)
    if (left is None) == (right is None) or (name == "divide" and right is None):
        return None
    constant = np.asarray(right if left is None else left, np.float64)
    inner = trace(graph, call.args[0] if left is None else call.args[1], affine=True)
    shape = shape_of(call)
    index, scale, offset = (np.broadcast_to(part, shape) for part in (inner.index, inner.scale, inner.offset))
    if name == "multiply":
        scale, offset = scale * constant, offset * constant
    elif name == "divide":
        scale, offset = scale / constant, offset / constant
    elif name == "add":
        offset = offset + constant
    elif left is None:
        offset = offset - constant
    else:
        scale, offset = -scale, constant - offset
    return View(inner.root, index, scale, offset)


def is_identity(view: View) -> bool:
    """Whether the view shows all elements of its root, unchanged and in order."""
    count = int(np.prod(shape_of(view.root)))
    return (
        view.is_plain
        and view.index.size == count
        and bool(np.array_equal(view.index.reshape(-1), np.arange(count)))
    )


def matrix_of(graph: Graph, expr: Any) -> tuple[int, int]:
    """Rows and columns of a tensor seen as a matrix over its last axis."""
    shape = shape_of(expr)
    return int(np.prod(shape[:-1], dtype=np.int64)), shape[-1]


def as_matrix(graph: Graph, expr: Any, emit: Any) -> Any:
    """`expr` as a rank-2 value (rows, last axis): its root when the chain of views does nothing, else a reshape."""
    rows, cols = matrix_of(graph, expr)
    view = trace(graph, expr)
    if is_identity(view) and shape_of(view.root) == (rows, cols):
        return view.root
    if shape_of(expr) == (rows, cols):
        return expr
    return emit(relax.op.reshape(expr, (rows, cols)))


def reshaped(value: Any, like: Any, emit: Any) -> Any:
    """A rank-2 result brought back to the shape of the expression that it replaces."""
    shape = shape_of(like)
    return value if len(shape) == 2 else relax.op.reshape(emit(value), shape)


def affine(index: Array) -> tuple[list[int], list[int], int] | None:
    """(extents, strides, base) of four axes when an index array (any rank) is affine in its coordinates, else None."""
    squeezed = index.reshape([extent for extent in index.shape if extent != 1] or [1])
    extents: list[int] = []
    strides: list[int] = []
    base = int(squeezed.flat[0])
    for axis, extent in enumerate(squeezed.shape):
        first = tuple(0 if i != axis else slice(None) for i in range(squeezed.ndim))
        steps = np.diff(squeezed[first])
        if len(steps) and np.any(steps != steps[0]):
            return None
        step = int(steps[0]) if len(steps) else 0
        if extents and strides[-1] == step * extent:  # one axis with the one before
            extents[-1], strides[-1] = extents[-1] * extent, step
        else:
            extents.append(extent)
            strides.append(step)
    expected = np.full(squeezed.shape, base, np.int64)
    for axis in range(squeezed.ndim):
        first = tuple(0 if i != axis else slice(None) for i in range(squeezed.ndim))
        steps = (squeezed[first] - base).reshape([-1 if i == axis else 1 for i in range(squeezed.ndim)])
        expected = expected + steps
    if len(extents) > 4 or not np.array_equal(expected, squeezed):
        return None
    missing = 4 - len(extents)
    return [1] * missing + extents, [0] * missing + strides, base

"""A factor and an offset for each column: MobileBERT's NoNorm, a BatchNorm in evaluation mode, a LayerScale.

Behind a dense layer they go into its weight and bias. Behind a sum, such as that with a residual, they become
`tvmtiny.scale`, which FuseNorm puts into the operator that makes the sum.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import relax

from tvmtiny.passes.fuse_feed_forward import readers
from tvmtiny.passes.graph import Emit, Graph, array_of, constant, function_pass, rebuild, shape_of
from tvmtiny.passes.operators import attributes, call, kind
from tvmtiny.passes.views import View, matrix_of, reshaped, trace

Array = npt.NDArray[Any]


def FuseScale() -> tvm.transform.Pass:  # noqa: N802
    """Expects `tvmtiny.dense` with activations; run it before FoldScaling, which looks the other way."""
    return function_pass("FuseScale", lambda function: rebuild(function, _rewrite))


def _rewrite(graph: Graph, var: relax.Var, value: Any, emit: Emit) -> Any | None:
    names = ("add", "subtract", "multiply", "divide")
    if not isinstance(value, relax.Call) or not graph.is_call(value, *names) or len(shape_of(value)) < 2:
        return None
    view = trace(graph, var, affine=True)
    rows, cols = matrix_of(graph, value)
    factors = _factors(view, rows, cols)
    if factors is None or shape_of(view.root)[-1] != cols:
        return None
    gamma, offset = factors
    root = graph.producer(view.root)
    if (
        kind(root) == "dense"
        and attributes(root)["activation"] == "none"
        and _is_chain(graph, view.root, var)
    ):
        return _scaled_dense(root, gamma, offset, value, emit)
    if not _is_sum(graph, root) or np.any(offset != offset[0]):
        return None
    matrix = emit(relax.op.reshape(view.root, (rows, cols)))
    args = [matrix, constant(gamma.astype(np.float32)), constant(offset[0].astype(np.float32))]
    return reshaped(call("scale", args), value, emit)


def _scaled_dense(dense: relax.Call, gamma: Array, offset: Array, like: Any, emit: Emit) -> Any:
    """The layer with its result scaled; offsets that differ from row to row (positions) are added to it."""
    by_row = bool(np.any(offset != offset[0]))
    weight = array_of(dense.args[1]) * gamma[:, None]
    bias = array_of(dense.args[2]) * gamma + (0 if by_row else offset[0])
    args = [dense.args[0], constant(weight.astype(np.float32)), constant(bias.astype(np.float32))]
    scaled = reshaped(call("dense", args, **attributes(dense)), like, emit)
    if not by_row:
        return scaled
    return relax.op.add(emit(scaled), constant(offset.reshape(shape_of(like)).astype(np.float32)))


def _factors(view: View, rows: int, cols: int) -> tuple[Array, Array] | None:
    """The factor of each column and the offset of each element; None where there is nothing to do for a column.

    That is where factors differ from row to row, and where one factor and one offset serve all columns: those may be a
    part of anything, of an attention's scores or an activation's spelling.
    """
    if not np.array_equal(view.index.reshape(-1), np.arange(rows * cols)):
        return None
    scale, offset = view.scale.reshape(rows, cols), view.offset.reshape(rows, cols)
    if np.any(scale != scale[0]):
        return None
    by_row = np.any(offset != offset[0])
    same = np.all(scale[0] == scale[0, 0]) and (by_row or np.all(offset == offset[0, 0]))
    return None if same else (scale[0], offset)


def _is_chain(graph: Graph, root: Any, var: relax.Var) -> bool:
    """Whether nothing but `var`, through intermediate steps, reads `root`."""
    found = readers(graph, root)
    while len(found) == 1 and not found[0].same_as(var):
        found = readers(graph, found[0])
    return len(found) == 1


def _is_sum(graph: Graph, root: Any) -> bool:
    """Whether a value is a sum with a dense layer as one term."""
    if not graph.is_call(root, "add"):
        return False
    terms = [graph.producer(trace(graph, arg).root) for arg in root.args]
    return any(kind(term) == "dense" or _is_sum(graph, term) for term in terms)

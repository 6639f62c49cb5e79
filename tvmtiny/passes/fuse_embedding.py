"""Token embedding and what is added to it (positions, token types) become `tvmtiny.embed`."""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import ir, relax

from tvmtiny.passes.graph import Emit, Graph, array_of, as_array, constant, function_pass, rebuild, shape_of
from tvmtiny.passes.operators import call, kind
from tvmtiny.passes.views import is_identity, matrix_of, reshaped, trace


def FuseEmbedding() -> tvm.transform.Pass:  # noqa: N802
    """`take(table, ids) * scale + positions`: the scale goes into the table, constants into positions."""
    return function_pass("FuseEmbedding", lambda function: rebuild(function, _rewrite))


def FuseSegments() -> tvm.transform.Pass:  # noqa: N802
    """A sum of two embeddings of different ids, and constants, becomes `tvmtiny.segment_embed`.

    That is how token types come in that are an input. Constants go into the table of positions. Of more than two
    embeddings the rest stays as it is. Run it after FuseEmbedding.
    """
    return function_pass("FuseSegments", lambda function: rebuild(function, _segments))


def _segments(graph: Graph, var: relax.Var, value: Any, emit: Emit) -> Any | None:
    is_sum = isinstance(value, relax.Call) and graph.is_call(value, "add")
    terms = _terms(graph, var) if is_sum else None
    if terms is None:
        return None
    embeds = [graph.producer(term) for term in terms if kind(graph.producer(term)) == "embed"]
    shape, (rows, cols) = shape_of(value), matrix_of(graph, value)
    if len(embeds) != 2 or any(shape_of(embed) != (rows, cols) for embed in embeds):
        return None
    first, second = sorted(embeds, key=lambda embed: -shape_of(embed.args[1])[0])
    constants = [array for term in terms if (array := as_array(term)) is not None]
    added = sum(np.broadcast_to(array, shape).reshape(rows, cols) for array in constants)
    positions = array_of(first.args[2]) + array_of(second.args[2]) + added
    args = [*first.args[:2], constant(positions.astype(np.float32)), *second.args[:2]]
    return reshaped(call("segment_embed", args), value, emit)


def _terms(graph: Graph, expr: Any) -> list[Any] | None:
    """Embeddings (variables of shape (S, E)) and constants that `expr` is the sum of; None when it is anything else."""
    if as_array(expr) is not None:
        return [expr]
    view = trace(graph, expr)
    if not is_identity(view):
        return None
    value = graph.producer(view.root)
    if kind(value) == "embed":
        return [view.root]
    if not graph.is_call(value, "add"):
        return None
    parts = [_terms(graph, arg) for arg in value.args]
    return None if any(part is None for part in parts) else [term for part in parts if part for term in part]


def _rewrite(graph: Graph, var: relax.Var, value: Any, emit: Emit) -> Any | None:
    if not graph.is_call(value, "take", "multiply", "divide", "add", "subtract") or len(shape_of(value)) < 2:
        return None
    view = trace(graph, var, affine=True)
    gather = graph.producer(view.root)
    if not graph.is_call(gather, "take") or int(gather.attrs.axis or 0) != 0:
        return None
    table = as_array(gather.args[0])
    ids = _ids(graph, gather.args[1])
    if table is None or table.ndim != 2 or ids is None:
        return None
    rows, cols = matrix_of(graph, value)
    scale, offset = view.scale.reshape(rows, cols), view.offset.reshape(rows, cols)
    in_order = np.array_equal(view.index.reshape(-1), np.arange(rows * cols))
    if not in_order or cols != table.shape[1] or np.any(scale != scale[0]):
        return None
    args = [
        relax.op.reshape(ids, (rows,)),
        constant((table * scale[0]).astype(np.float32)),
        constant(offset.astype(np.float32)),
    ]
    return reshaped(call("embed", [emit(args[0]), *args[1:]]), value, emit)


def _ids(graph: Graph, expr: Any) -> relax.Var | None:
    """The parameter that gives the indices, through reshapes and casts between integer types; else None."""
    while True:
        view = trace(graph, expr)
        if not is_identity(view):
            return None
        value = graph.bound(view.root)
        if value is None:
            return view.root if isinstance(view.root, ir.Var) else None
        if not graph.is_call(value, "astype"):
            return None
        expr = value.args[0]

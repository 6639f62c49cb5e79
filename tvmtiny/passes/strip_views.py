"""Views that do nothing disappear, and the first token of a sequence becomes `tvmtiny.first`."""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax

from tvmtiny.passes.graph import Emit, Graph, function_pass, rebuild, shape_of
from tvmtiny.passes.operators import attributes, call, kind
from tvmtiny.passes.views import as_matrix, matrix_of, reshaped, trace


def StripViews() -> tvm.transform.Pass:  # noqa: N802
    """Operands of fused operators are taken from behind reshapes that keep the order of elements."""
    return function_pass("StripViews", lambda function: rebuild(function, _strip))


def FuseFirstToken() -> tvm.transform.Pass:  # noqa: N802
    """`x[:, 0]` of a sequence (1, S, E): the CLS pooling."""
    return function_pass("FuseFirstToken", lambda function: rebuild(function, _first))


def _strip(graph: Graph, var: relax.Var, value: Any, emit: Emit) -> Any | None:
    if not kind(value):
        return None
    args = [
        as_matrix(graph, arg, emit) if len(getattr(arg.ty, "shape", None) or []) == 2 else arg
        for arg in value.args
    ]
    return call(kind(value), args, **attributes(value))


def _first(graph: Graph, var: relax.Var, value: Any, emit: Emit) -> Any | None:
    if not isinstance(value, relax.Call) or not graph.is_call(value, "take", "strided_slice"):
        return None
    view = trace(graph, var)
    if matrix_of(graph, var)[0] != 1 or not view.is_plain:
        return None
    rows, cols = matrix_of(graph, view.root)
    if rows == 1 or cols != shape_of(var)[-1] or not np.array_equal(view.index.reshape(-1), np.arange(cols)):
        return None
    return reshaped(call("first", [as_matrix(graph, view.root, emit)]), value, emit)

"""Two dense layers with an activation between become `tvmtiny.ffn`, whose hidden layer never exists as a whole."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

from tvmtiny.passes.graph import Emit, Graph, function_pass, rebuild, shape_of
from tvmtiny.passes.operators import attributes, call, kind
from tvmtiny.passes.views import as_matrix, is_identity, trace


def FuseFeedForward() -> tvm.transform.Pass:  # noqa: N802
    """Expects `tvmtiny.dense`; a hidden layer that something else reads too stays as it is."""
    return function_pass("FuseFeedForward", lambda function: rebuild(function, _rewrite))


def _rewrite(graph: Graph, var: relax.Var, value: Any, emit: Emit) -> Any | None:
    if kind(value) != "dense" or attributes(value)["activation"] != "none" or shape_of(value)[0] == 1:
        return None
    view = trace(graph, value.args[0])
    inner = graph.producer(view.root)
    if kind(inner) != "dense" or not is_identity(view) or attributes(inner)["activation"] == "none":
        return None
    if len(readers(graph, view.root)) != 1 or shape_of(value)[1] != shape_of(inner.args[0])[1]:
        return None  # the result of ffn has the shape of its input
    args = [as_matrix(graph, inner.args[0], emit), *inner.args[1:], *value.args[1:]]
    return call("ffn", args, activation=attributes(inner)["activation"])


def readers(graph: Graph, var: Any) -> list[Any]:
    """The variables that read `var`, seen through reshapes."""
    found = []
    for user in graph.users(var):
        through = graph.is_call(user, "reshape", "squeeze", "expand_dims", "permute_dims")
        found += readers(graph, user) if through else [user]
    return found

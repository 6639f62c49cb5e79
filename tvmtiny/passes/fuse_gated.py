"""A gated feed-forward block becomes `tvmtiny.glu`: down(activation(gate(x)) * up(x)), as SwiGLU and GEGLU."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

from tvmtiny.passes.fuse_dense import ACTIVATIONS
from tvmtiny.passes.fuse_feed_forward import readers
from tvmtiny.passes.graph import Emit, Graph, function_pass, rebuild, shape_of
from tvmtiny.passes.operators import attributes, call, kind
from tvmtiny.passes.views import as_matrix, is_identity, trace


def FuseGated() -> tvm.transform.Pass:  # noqa: N802
    """Expects `tvmtiny.dense` with activations; a hidden layer that something else reads too stays as it is."""
    return function_pass("FuseGated", lambda function: rebuild(function, _rewrite))


def _rewrite(graph: Graph, var: relax.Var, value: Any, emit: Emit) -> Any | None:
    if kind(value) != "dense" or attributes(value)["activation"] != "none":
        return None
    view = trace(graph, value.args[0])
    product = graph.producer(view.root)
    if not graph.is_call(product, "multiply") or not is_identity(view) or len(readers(graph, view.root)) != 1:
        return None
    branches = [branch for arg in product.args if (branch := _branch(graph, arg)) is not None]
    if len(branches) != 2:
        return None
    gate, up = sorted(branches, key=lambda branch: attributes(branch)["activation"] == "none")
    activation = attributes(gate)["activation"]
    sources = [trace(graph, branch.args[0]).root for branch in (gate, up)]
    if activation not in ACTIVATIONS or attributes(up)["activation"] != "none":
        return None
    if not sources[0].same_as(sources[1]) or shape_of(value)[1] != shape_of(gate.args[0])[1]:
        return None  # the result has the shape of its input
    args = [as_matrix(graph, gate.args[0], emit), *gate.args[1:], *up.args[1:], *value.args[1:]]
    return call("glu", args, activation=activation)


def _branch(graph: Graph, expr: Any) -> relax.Call | None:
    """The dense layer that an operand of the product is, read by nothing else."""
    view = trace(graph, expr)
    dense = graph.producer(view.root)
    if kind(dense) != "dense" or not is_identity(view) or len(readers(graph, view.root)) != 1:
        return None
    return None if attributes(dense)["residual"] or attributes(dense)["norm"] else dense

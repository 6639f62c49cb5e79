"""Residual additions and the LayerNorm after them go into the operator before: one rounding instead of three."""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import ir, relax

from tvmtiny.passes.fuse_feed_forward import readers
from tvmtiny.passes.graph import Emit, Graph, as_array, constant, function_pass, op_name, rebuild, shape_of
from tvmtiny.passes.operators import EMBEDDINGS, NORMS, attributes, call, kind
from tvmtiny.passes.views import as_matrix, is_identity, matrix_of, reshaped, trace

_HOSTS = ("attention", "rotary_attention", "ffn", "glu", "dense")


def FuseResidual() -> tvm.transform.Pass:  # noqa: N802
    """`x + f(x)` becomes f with a residual input; f is an attention, feed-forward or dense operator."""
    return function_pass("FuseResidual", lambda function: rebuild(function, _residual))


def FuseNorm() -> tvm.transform.Pass:  # noqa: N802
    """`layer_norm(f(x))` becomes f with a normalization, `rms_norm` and `scale` likewise; f may be an embedding."""
    return function_pass("FuseNorm", lambda function: rebuild(function, _norm))


def _residual(graph: Graph, var: relax.Var, value: Any, emit: Emit) -> Any | None:
    if not isinstance(value, relax.Call) or op_name(value) != "add":
        return None
    candidates = []
    for operand, other in ((value.args[0], value.args[1]), (value.args[1], value.args[0])):
        host = _host(graph, operand, _HOSTS)
        fits = as_array(other) is not None or shape_of(other) == shape_of(value)
        kept = shape_of(operand) == shape_of(value)
        if host is not None and not attributes(host)["residual"] and fits and kept:
            candidates.append((graph.position(trace(graph, operand).root), host, other))
    if not candidates:
        return None
    _, host, other = max(candidates, key=lambda candidate: candidate[0])
    attrs = {**attributes(host), "residual": 1}
    array = as_array(other)
    if array is None:
        residual = as_matrix(graph, other, emit)
    else:  # such as a table of positions, perhaps without the batch axis
        residual = constant(np.broadcast_to(array, shape_of(value)).reshape(matrix_of(graph, value)))
    args = [*host.args, residual]
    return reshaped(call(kind(host), args, **attrs), value, emit)


def _norm(graph: Graph, var: relax.Var, value: Any, emit: Emit) -> Any | None:
    if kind(value) not in NORMS:
        return None
    host = _host(graph, value.args[0], (*_HOSTS, *EMBEDDINGS))
    if host is None:
        return None
    if kind(host) == "dense" and attributes(host)["activation"] != "none":
        return None
    attrs = {**attributes(host), **attributes(value), "norm": NORMS[kind(value)]}
    return call(kind(host), [*host.args, value.args[1], value.args[2]], **attrs)


def _host(graph: Graph, expr: Any, kinds: tuple[str, ...]) -> relax.Call | None:
    """The fused operator behind expr when nothing else reads its result and it has no normalization yet."""
    view = trace(graph, expr)
    host = graph.producer(view.root)
    if kind(host) not in kinds or not is_identity(view) or not isinstance(view.root, ir.Var):
        return None
    if len(readers(graph, view.root)) != 1 or attributes(host)["norm"]:
        return None
    return host

"""Which tensors are the residual stream: what is only added up, normalised and pooled, and so may be int16.

In a pre-LayerNorm encoder that is everything between the LayerNorms: the embedding and the sum after every branch. A
matrix product takes int8, so a tensor that one reads is none. After a post-LayerNorm there is no stream: its sums stay
in the int32 accumulator until the LayerNorm, and what leaves that goes into products.
"""

from __future__ import annotations

from typing import Any

from tvm import ir, relax

from tvmtiny.passes.fuse_feed_forward import readers
from tvmtiny.passes.graph import Graph
from tvmtiny.passes.operators import NORMS, SUMS, attributes, kind, parts
from tvmtiny.passes.views import is_identity, trace

ADDED, NORMALIZED, POOLED, OTHER = "added", "normalized", "pooled", "other"

POOLS = ("mean", "first")


def residual_stream(graph: Graph) -> list[relax.Var]:
    """The variables of a fused module that are its residual stream, in order.

    A sum (of a branch with a residual, or one that a residual addition reads) without a LayerNorm of its own belongs
    to it when every reader adds, normalises or pools it. So does what is pooled from it, when only LayerNorms follow.
    """
    stream: list[relax.Var] = []
    results = [trace(graph, result).root for result in graph.results]
    for var, value in graph:
        uses = {use(graph, reader, var) for reader in readers(graph, var)} if kind(value) else {OTHER}
        if not uses or any(var.same_as(result) for result in results):
            continue
        if kind(value) in POOLS:
            source = trace(graph, value.args[0]).root
            belongs = uses == {NORMALIZED} and any(source.same_as(member) for member in stream)
        else:
            belongs = (
                OTHER not in uses
                and _is_sum(value)
                and (bool(attributes(value)["residual"]) or ADDED in uses)
            )
        if belongs:
            stream.append(var)
    return stream


def use(graph: Graph, reader: relax.Var, var: relax.Var) -> str:
    """What the expression of `reader` does with `var`."""
    value = graph.bound(reader)
    if not isinstance(value, relax.Call) or not kind(value):
        return OTHER
    core = parts(value)[0]
    if adds(graph, reader, var):
        return OTHER if any(_reads(graph, arg, var) for arg in core) else ADDED
    if not _is(graph, core[0], var):
        return OTHER
    return NORMALIZED if kind(value) in NORMS else POOLED if kind(value) in POOLS else OTHER


def adds(graph: Graph, reader: relax.Var, var: relax.Var) -> bool:
    """Whether the expression of `reader` is a sum with `var` as its residual."""
    value = graph.bound(reader)
    residual = parts(value)[1] if isinstance(value, relax.Call) and kind(value) else None
    return residual is not None and _is(graph, residual, var)


def reads_int16(graph: Graph, reader: relax.Var, var: relax.Var) -> bool:
    """Whether the expression of `reader` takes `var` in int16: adds, normalises or pools it, whatever else it does."""
    value = graph.bound(reader)
    first = kind(value) in (*NORMS, *POOLS) and _is(graph, value.args[0], var)
    return first or adds(graph, reader, var)


def _is_sum(value: Any) -> bool:
    """Whether an operator ends in an int32 sum that is rounded once."""
    if kind(value) not in SUMS or attributes(value)["norm"]:
        return False
    return kind(value) != "dense" or attributes(value)["activation"] == "none"


def _is(graph: Graph, expr: Any, var: relax.Var) -> bool:
    """Whether an operand is all of `var`, in order."""
    return _reads(graph, expr, var) and is_identity(trace(graph, expr))


def _reads(graph: Graph, expr: Any, var: relax.Var) -> bool:
    return (
        isinstance(expr, ir.Var) and hasattr(expr.ty, "shape") and bool(var.same_as(trace(graph, expr).root))
    )

"""Whose results are int16: the residual stream, or layers that the user names.

An operator that ends in an int32 sum can round it to int16 as well as to int8. Residual additions, normalizations and
pooling read int16; everything else reads an int8 copy, which is rounded once for all of them.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

from tvm import relax

from tvmtiny.errors import UserError
from tvmtiny.frontend.names import listed, suggestion
from tvmtiny.passes.fuse_feed_forward import readers
from tvmtiny.passes.graph import Graph
from tvmtiny.passes.operators import NORMS, SUMS, attributes, kind
from tvmtiny.passes.residual_stream import POOLS, reads_int16, residual_stream
from tvmtiny.passes.views import trace

RESIDUALS = ("int8", "int16")
"""Element types of the residual stream."""


def int16_layers(graph: Graph, residual: str = "int8", chosen: Sequence[str] = ()) -> list[relax.Var]:
    """The variables of a fused module whose integer tensors are int16, in order.

    Args:
        residual: "int16" takes the whole residual stream.
        chosen: layers by name or by pattern (as of file names), which takes what can be int16.

    Raises:
        UserError: a layer that does not exist or cannot be int16, or a model without a residual stream.
    """
    names = [var.name for var, _ in graph]
    matches = {entry: fnmatch.filter(names, entry) for entry in chosen}
    for entry, matched in matches.items():
        if not matched:
            raise UserError(f"--int16: the model has no layer '{entry}'.", suggestion(entry, names))
    wanted = {name for matched in matches.values() for name in matched}
    wanted |= {var.name for var in _whole_stream(graph)} if residual == "int16" else set()
    found: list[relax.Var] = []
    reasons: dict[str, str] = {}
    for var, _ in graph:
        why = obstacle(graph, var, found) if var.name in wanted else None
        if why is not None:
            reasons[var.name] = why
        elif var.name in wanted:
            found.append(var)
    for entry, matched in matches.items():
        if all(name in reasons for name in matched):
            raise _refusal(graph, entry, matched[0], reasons[matched[0]])
    return found


def candidates(graph: Graph) -> list[relax.Var]:
    """The variables whose integer tensors could be int16, in order."""
    found: list[relax.Var] = []
    for var, _ in graph:
        if obstacle(graph, var, found) is None:
            found.append(var)
    return found


def obstacle(graph: Graph, var: relax.Var, wide: Sequence[relax.Var]) -> str | None:
    """Why the result of a layer cannot be int16 beside the int16 tensors `wide`; None where it can."""
    if any(var.same_as(trace(graph, result).root) for result in graph.results):
        return "it is a result of the model, whose type its callers rely on"
    why = _of_operator(graph, var, wide)
    if why is None and not any(reads_int16(graph, reader, var) for reader in readers(graph, var)):
        why = "nothing adds, normalizes or pools its result, and matrix products and tables read int8"
    return why


def _of_operator(graph: Graph, var: relax.Var, wide: Sequence[relax.Var]) -> str | None:
    """What in the operator itself keeps its result int8."""
    value = graph.bound(var)
    if kind(value) in POOLS:
        source = trace(graph, value.args[0]).root
        known = any(source.same_as(member) for member in wide)
        return None if known else f"it pools int8 values: '{source.name}' would have to be int16, too"
    if kind(value) in NORMS or (kind(value) in SUMS and attributes(value)["norm"]):
        return "it ends in a normalization, which gives int8 from an int32 sum"
    if kind(value) not in SUMS:
        return "it is a plain operator, and these take and give int8"
    if kind(value) == "dense" and attributes(value)["activation"] != "none":
        return f"its {attributes(value)['activation']} is a table of int8 values, or a clamp to int8"
    return None


def _refusal(graph: Graph, entry: str, name: str, why: str) -> UserError:
    possible = [var.name for var in candidates(graph)]
    return UserError(
        f"--int16 {entry}: the result of '{name}' cannot be int16: {why}.",
        f"Layers of this model that can: {listed(possible)}."
        if possible
        else "This model has no layer that could: leave --int16 out.",
    )


def _whole_stream(graph: Graph) -> list[relax.Var]:
    """The residual stream, which the user wants in int16."""
    stream = residual_stream(graph)
    if not stream:
        raise UserError(
            "--residual int16: this model has no residual stream that could be int16. A tensor can when it is only "
            "added, normalised and pooled, as between the LayerNorms of a pre-LayerNorm encoder; where LayerNorm "
            "follows each sum (post-LayerNorm), matrix products read its result, and they take int8.",
            "Compile with --residual int8: the sums of such a model are int32 up to their LayerNorm in any case.",
        )
    return stream

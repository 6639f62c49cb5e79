"""Which layers of a fused module get int8 weights and which int4."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TypeAlias

import tvm

from tvmtiny.errors import UserError
from tvmtiny.passes.graph import Graph
from tvmtiny.passes.operators import MATRICES, WEIGHTED, kind
from tvmtiny.passes.views import trace
from tvmtiny.quant.qparams import WEIGHTS

WeightTypes: TypeAlias = dict[str, str]
"""Name of each layer with weights -> a type of `qparams.WEIGHTS`."""


def weight_types(
    fused: tvm.IRModule, default: str = "int8", chosen: Mapping[str, str] | None = None
) -> WeightTypes:
    """The type of the weights of every layer.

    Args:
        default: of all layers but the dense ones at the ends of a model, which stay int8: they are small, and what
            reads an input or makes a result (a classifier) has the most to lose.
        chosen: types by layer name, which go before the default.

    Raises:
        UserError: a type or a layer that does not exist.
    """
    for name, found in (("", default), *(chosen or {}).items()):
        if found not in WEIGHTS:
            raise UserError(
                f"Unknown type of weights '{found}'{f' of layer {name}' if name else ''}.",
                f"Use one of {', '.join(WEIGHTS)}.",
            )
    main = fused["main"]
    graph = Graph(main)
    results = [trace(graph, result).root for result in graph.results]
    types = {}
    for var, value in graph:
        if kind(value) in WEIGHTED:
            reads_input = trace(graph, value.args[0]).root in main.params
            at_end = kind(value) in ("dense", "convolution") and (
                reads_input or any(var.same_as(r) for r in results)
            )
            types[var.name] = "int8" if at_end else default
    for name in chosen or {}:
        if name not in types:
            near = difflib.get_close_matches(name, types, 1)
            raise UserError(
                f"The model has no layer '{name}' with weights{f'; did you mean {near[0]}?' if near else '.'}",
                f"Its layers with weights are {', '.join(types)}." if types else "It has none at all.",
            )
    return types | dict(chosen or {})


def matrices(fused: tvm.IRModule) -> list[str]:
    """The weight matrices of a fused module, `<layer>.<operand>`."""
    return [
        f"{var.name}.{operand}"
        for var, value in Graph(fused["main"])
        for operand in MATRICES.get(kind(value), ())
    ]

"""The result of a model keeps the name that its author gave it."""

from __future__ import annotations

import tvm
from tvm import relax

from tvmtiny.passes.graph import Graph, function_pass, rebuild
from tvmtiny.passes.views import trace

OUTPUT_ATTRIBUTE = "tvmtiny.output"
"""Function attribute that a front end sets: the name of the model's output."""


def NameResult() -> tvm.transform.Pass:  # noqa: N802
    """Name the variable behind the result after the attribute, if it is there."""
    return function_pass("NameResult", _rename)


def _rename(function: relax.Function) -> relax.Function:
    attrs = dict(function.attrs or {})
    if OUTPUT_ATTRIBUTE not in attrs:
        return function
    graph = Graph(function)
    root = trace(graph, graph.result).root
    return rebuild(function, lambda *_: None, names={root: str(attrs[OUTPUT_ATTRIBUTE])})

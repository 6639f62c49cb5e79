"""Every layer gets a name that reports and C can use: a unique ASCII identifier, the result that of the output."""

from __future__ import annotations

import re
from typing import Any

import tvm
from tvm import relax

from tvmtiny.passes.graph import Graph, function_pass, rebuild
from tvmtiny.passes.views import is_identity, trace

OUTPUTS_ATTRIBUTE = "tvmtiny.outputs"
"""Function attribute that a front end sets: the names of the model's outputs, in order."""


def NameLayers() -> tvm.transform.Pass:  # noqa: N802
    """Rename bound variables; names also differ from those of inputs, and not in case alone."""
    return function_pass("NameLayers", _rename)


def identifier(name: str) -> str:
    """A layer's name in the characters [A-Za-z0-9_], for reports: "/enc/layer.0/Add" is enc_layer_0_Add."""
    plain = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")
    return f"n{plain}" if not plain or plain[0].isdigit() else plain


def unique(name: str, taken: set[str]) -> str:
    """`name`, or `name_2` and so on when it is taken; upper and lower case count as equal. Takes the name."""
    candidate, count = name, 1
    while candidate.upper() in taken:
        count += 1
        candidate = f"{name}_{count}"
    taken.add(candidate.upper())
    return candidate


def _rename(function: relax.Function) -> relax.Function:
    graph = Graph(function)
    outputs = dict(function.attrs or {}).get(OUTPUTS_ATTRIBUTE, ())
    taken = {identifier(param.name).upper() for param in graph.params}
    names: dict[Any, str] = {}
    for output, result in zip(outputs, graph.results, strict=False):
        view = trace(graph, result)
        root = view.root if is_identity(view) else graph.producer_variable(result)
        if root not in names:
            names[root] = unique(identifier(str(output)), taken)
    for var, _ in graph:
        if var not in names:
            names[var] = unique(identifier(var.name), taken)
    return rebuild(function, lambda *_: None, names=names)

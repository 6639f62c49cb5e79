"""A mask that a model makes of its ids, `ids != padding`, becomes an input, of which RecognizeLength makes a length.

Padding may then stand behind the present tokens only. Data has to hold to it (`tvmtiny.frontend.data`), and the C,
which takes a length in place of padding, returns an error for that id among the present tokens.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax

from tvmtiny.passes.graph import Emit, Graph, function_pass, op_name, rebuild, shape_of
from tvmtiny.passes.numeric import literal
from tvmtiny.passes.recognize_length import is_gathered
from tvmtiny.passes.recognize_positions import PADDING_ATTRIBUTE


def RecognizeIdMask() -> tvm.transform.Pass:  # noqa: N802
    """Comparisons of ids with one id, in a model that has no other input."""
    return function_pass("RecognizeIdMask", _recognize)


def _recognize(function: relax.Function) -> relax.Function:
    graph = Graph(function)
    found = [pair for var, value in graph if (pair := _compared(graph, value)) is not None]
    if len(graph.params) != 1 or len({token for _, token in found}) != 1:
        return function
    ids, padding = found[0]
    mask = relax.Var(f"{ids.name}_mask", relax.TensorType(shape_of(ids), "int64"))

    def rewrite(graph: Graph, var: relax.Var, value: Any, _emit: Emit) -> Any | None:
        if _compared(graph, value) is None:
            return None
        return relax.Call(value.op, [mask, relax.const(0, "int64")], value.attrs)

    result = rebuild(function, rewrite, [*graph.params, mask])
    known = dict(dict(function.attrs or {}).get(PADDING_ATTRIBUTE, {}))
    tokens = sorted({*(int(token) for token in known.get(ids.name, ())), padding})
    return result.with_attr(PADDING_ATTRIBUTE, {**known, ids.name: tokens})


def _compared(graph: Graph, value: Any) -> tuple[relax.Var, int] | None:
    """The ids and the id that a binding compares them with."""
    if not isinstance(value, relax.Call) or op_name(value) not in ("equal", "not_equal"):
        return None
    ids, token = graph.producer_variable(value.args[0]), literal(graph.producer(value.args[1]))
    while graph.is_call(ids, "astype"):
        ids = graph.producer_variable(graph.producer(ids).args[0])
    if token is None or np.size(token) != 1 or not any(ids.same_as(param) for param in graph.params):
        return None
    return (ids, int(np.asarray(token).reshape(()))) if is_gathered(graph, ids) else None

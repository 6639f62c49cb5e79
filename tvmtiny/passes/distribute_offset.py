"""A constant that is added to a concatenation is added to its parts instead: position embeddings behind a CLS token.

concat(cls, dense(patches)) + positions = concat(cls + positions[:1], dense(patches) + positions[1:]). The first is a
constant then, and the dense layer takes the second into its sum: an operator and a rounding less.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax

from tvmtiny.passes.graph import Emit, Graph, as_array, constant, function_pass, op_name, rebuild, shape_of
from tvmtiny.passes.operators import attributes, kind
from tvmtiny.passes.views import is_identity, trace


def DistributeOffset() -> tvm.transform.Pass:  # noqa: N802
    """Expects `tvmtiny.dense`; applies where every part is a constant or a dense layer that only this reads."""
    return function_pass("DistributeOffset", lambda function: rebuild(function, _rewrite))


def _rewrite(graph: Graph, var: relax.Var, value: Any, emit: Emit) -> Any | None:
    if not isinstance(value, relax.Call) or op_name(value) != "add":
        return None
    for joined, other in ((value.args[0], value.args[1]), (value.args[1], value.args[0])):
        offset, concat = as_array(graph.producer(other)), graph.producer(joined)
        if offset is None or not graph.is_call(joined, "concat") or shape_of(joined) != shape_of(value):
            continue
        fields = list(concat.args[0].fields)
        once = len(graph.users(graph.producer_variable(joined))) == 1
        if once and all(_takes_offset(graph, field) for field in fields):
            axis = int(concat.attrs.axis)
            return _distributed(graph, fields, axis, np.broadcast_to(offset, shape_of(value)), emit)
    return None


def _takes_offset(graph: Graph, part: Any) -> bool:
    """Whether adding a constant to a part of a concatenation costs no operator."""
    if as_array(graph.producer(part)) is not None:
        return True
    view = trace(graph, part)
    dense = graph.producer(view.root)
    plain = kind(dense) == "dense" and attributes(dense)["activation"] == "none"
    return plain and is_identity(view) and len(graph.users(graph.producer_variable(part))) == 1


def _distributed(graph: Graph, fields: list[Any], axis: int, offset: Any, emit: Emit) -> Any:
    ends = np.cumsum([shape_of(field)[axis] for field in fields])[:-1]
    parts = []
    for field, own in zip(fields, np.split(offset, ends, axis=axis), strict=True):
        array = as_array(graph.producer(field))
        if array is not None:
            parts.append(constant((array + own).astype(array.dtype)))
        else:
            parts.append(emit(relax.op.add(field, constant(own))))
    return relax.op.concat(parts, axis=axis)

"""Positions that are counted from the ids become constants: RoBERTa's `padding_idx + 1, padding_idx + 2, ...`.

Such models leave ids of padding out of the count. What the count does is found by evaluating the exporter's arithmetic
on rows of ids: if it gives the same positions for all ids but a few, and those few, at the end of a row, change nothing
before them, then the few are padding. Padding is behind the tokens that are present, so positions are constants; data
with padding among the present tokens is refused (`tvmtiny.frontend.data`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import relax

from tvmtiny.passes.graph import Emit, Graph, as_array, constant, function_pass, op_name, rebuild, shape_of
from tvmtiny.passes.numeric import evaluate
from tvmtiny.passes.views import trace

Array = npt.NDArray[Any]
Positions = Callable[[Array], Array | None]

PADDING_ATTRIBUTE = "tvmtiny.padding"
"""Function attribute: by the name of an input of ids, the ids that must not be among the present tokens."""

_MOST_PADDING = 4
"""Ids that may be padding; where more change the positions, they are not a count of tokens."""


def RecognizePositions() -> tvm.transform.Pass:  # noqa: N802
    """Indices of a gather from a constant that count ids become constants. Run Simplify after it."""
    return function_pass("RecognizePositions", _recognize)


def _recognize(function: relax.Function) -> relax.Function:
    padding: dict[str, list[int]] = {}
    vocabularies = _vocabularies(Graph(function))

    def rewrite(graph: Graph, var: relax.Var, value: Any, _emit: Emit) -> Any | None:
        gathers = isinstance(value, relax.Call) and op_name(value) in ("take", "gather_elements")
        if not gathers or as_array(value.args[0]) is None:
            return None
        for ids, vocabulary in vocabularies:
            found = _counted(graph, value.args[1], ids, vocabulary)
            if found is not None:
                positions, left_out = found
                padding[ids.name] = sorted({*padding.get(ids.name, []), *left_out})
                return relax.Call(value.op, [value.args[0], constant(positions)], value.attrs)
        return None

    result = rebuild(function, rewrite)
    return result.with_attr(PADDING_ATTRIBUTE, padding) if padding else result


def _vocabularies(graph: Graph) -> list[tuple[relax.Var, int]]:
    """The inputs that select rows of a table, each with the number of rows."""
    found = []
    for _, value in graph:
        if isinstance(value, relax.Call) and op_name(value) == "take":
            table, index = as_array(value.args[0]), value.args[1]
            while graph.is_call(index, "astype", "reshape"):
                index = graph.producer(index).args[0]
            if table is not None and any(param.same_as(index) for param in graph.params):
                found.append((index, len(table)))
    return found


def _counted(graph: Graph, index: Any, ids: relax.Var, vocabulary: int) -> tuple[Array, list[int]] | None:
    """The positions that `index` gives for any ids but those of padding, and these; None when it counts no tokens."""
    if trace(graph, index).root.same_as(ids):
        return None
    tokens, dtype = shape_of(ids)[-1], str(ids.ty.dtype)

    def positions_of(row: Array) -> Array | None:
        return evaluate(graph, index, {ids: row.astype(dtype).reshape(shape_of(ids))})

    if shape_of(ids) != (1, tokens) or positions_of(np.zeros(tokens)) is None:
        return None
    expected = _most_common(positions_of, tokens, vocabulary)
    ordinary, padding = _sorted_out(positions_of, expected, tokens, vocabulary)
    if len(padding) > _MOST_PADDING or len(np.unique(expected)) != tokens or expected.shape[-1] != tokens:
        return None
    for n in range(1, tokens):
        for left_out in padding:
            row = np.where(np.arange(tokens) < n, ordinary[np.arange(tokens) % len(ordinary)], left_out)
            positions = positions_of(row)
            if positions is None or not np.array_equal(positions[..., :n], expected[..., :n]):
                return None
    return expected, padding


def _most_common(positions_of: Positions, tokens: int, vocabulary: int) -> Array:
    """The positions that most ids get: more ids are tried than may be padding."""
    tried = np.unique(np.linspace(0, vocabulary - 1, 2 * _MOST_PADDING + 1).astype(int))
    found = [np.asarray(positions_of(np.full(tokens, token))) for token in tried]
    (shape, content), _ = Counter((array.shape, array.tobytes()) for array in found).most_common(1)[0]
    return np.frombuffer(content, found[0].dtype).reshape(shape)


def _sorted_out(
    positions_of: Positions, expected: Array, tokens: int, vocabulary: int
) -> tuple[Array, list[int]]:
    """Ids that get the expected positions, in any place, and ids that do not."""
    padding: list[int] = []
    for start in range(0, vocabulary, tokens):
        chunk = np.arange(start, min(start + tokens, vocabulary))
        if np.array_equal(np.asarray(positions_of(np.resize(chunk, tokens))), expected):
            continue
        padding += [
            int(token)
            for token in chunk
            if not np.array_equal(np.asarray(positions_of(np.full(tokens, token))), expected)
        ]
    return np.setdiff1d(np.arange(vocabulary), padding), padding

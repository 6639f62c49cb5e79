"""A dense layer on overlapping patches of rows becomes `tvmtiny.convolution`, if it is causal over tokens.

The patches are those of `passes.convolution`, a view of rows with zeros in front. Which row and column each element
shows is known as numbers, so padding in front, or padding at both ends and the rest cut off, look the same.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import relax

from tvmtiny.passes.graph import Emit, Graph, as_array, constant, function_pass, rebuild, shape_of
from tvmtiny.passes.numeric import literal
from tvmtiny.passes.operators import attributes, call, kind
from tvmtiny.passes.views import as_matrix, matrix_of, trace

Array = npt.NDArray[Any]

_ZERO = -1
"""Place of an element of padding."""


def FuseConvolution() -> tvm.transform.Pass:  # noqa: N802
    """Expects `tvmtiny.dense` with activations. What sees later tokens stays a dense layer on copied patches."""
    return function_pass("FuseConvolution", lambda function: rebuild(function, _rewrite))


@dataclasses.dataclass(frozen=True)
class _Patches:
    """Patches of the rows of `source`: `kernel` rows each, `stride` apart, the first one after `before` rows of zeros.

    Attributes:
        order: the column of the patches for each element of a patch, row by row.
    """

    source: Any
    kernel: int
    stride: int
    before: int
    order: Array


def _rewrite(graph: Graph, var: relax.Var, value: Any, emit: Emit) -> Any | None:
    if kind(value) != "dense" or attributes(value)["residual"] or attributes(value)["norm"]:
        return None
    found = _patches(graph, value.args[0])
    weight = as_array(value.args[1])
    if found is None or weight is None:
        return None
    args = [as_matrix(graph, found.source, emit), constant(weight[:, found.order]), value.args[2]]
    return call(
        "convolution", args, kernel=found.kernel, stride=found.stride, before=found.before,
        activation=attributes(value)["activation"],
    )  # fmt: skip


def _patches(graph: Graph, expr: Any) -> _Patches | None:
    found = _places(graph, expr)
    if found is None:
        return None
    source, places = found
    (rows, columns), count = matrix_of(graph, source), len(places)
    last, previous = places[-1], places[-2] if count > 1 else places[-1]
    if count < 2 or rows < 2 or np.any(last == _ZERO):
        return None
    time = last // columns
    stride, kernel = int(time[0] - previous[0] // columns), int(time.max() - time.min()) + 1
    before = (count - 1) * stride - int(time.min())
    if stride < 1 or count * stride != rows or not max(1, kernel - stride) <= before < kernel:
        return None
    order = np.argsort(last, kind="stable")
    expected = (np.arange(count)[:, None] * stride - before) * columns + np.arange(kernel * columns)
    if expected.shape != places.shape or not np.array_equal(
        places[:, order], np.where(expected < 0, _ZERO, expected)
    ):
        return None
    return _Patches(source, kernel, stride, before, order)


def _places(graph: Graph, expr: Any) -> tuple[Any, Array] | None:
    """The tensor behind patches, and for each of their elements its place there, or _ZERO."""
    view = trace(graph, expr)
    if not view.is_plain or view.index.ndim != 2:
        return None
    concat = graph.producer(view.root)
    if not graph.is_call(concat, "concat"):
        return view.root, view.index
    parts, source = [], None
    for field in concat.args[0].fields:
        array = literal(graph.producer(field))
        if array is not None and not np.any(array):
            parts.append(np.full(shape_of(field), _ZERO))
            continue
        inner = trace(graph, field)
        if array is not None or source is not None or not inner.is_plain:
            return None
        source = inner.root
        parts.append(inner.index)
    if source is None:
        return None
    return source, np.concatenate(parts, axis=int(concat.attrs.axis)).reshape(-1)[view.index]

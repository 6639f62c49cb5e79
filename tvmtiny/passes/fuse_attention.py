"""Multi-head self-attention, however an exporter splits and merges the heads, becomes `tvmtiny.attention`.

The anchor is the dense layer behind `softmax(scores) @ V`. From the two matrix products the operands are traced back,
through every reshape, transpose and slice, to the dense layers that made them: which column of which projection
belongs to which head is then known as numbers, so fused and separate Q, K, V projections look the same.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import relax

from tvmtiny.passes.graph import Emit, Graph, as_array, constant, function_pass, rebuild, shape_of
from tvmtiny.passes.operators import attributes, call, kind
from tvmtiny.passes.recognize_length import REMOVED
from tvmtiny.passes.views import View, is_identity, trace

Array = npt.NDArray[Any]


def FuseAttention() -> tvm.transform.Pass:  # noqa: N802
    """Expects `tvmtiny.dense` and `tvmtiny.softmax` (run FuseDense and RecognizeLength before)."""
    return function_pass("FuseAttention", lambda function: rebuild(function, _rewrite))


@dataclasses.dataclass(frozen=True)
class _Projection:
    """One of Q, K, V: the dense layer's input, the tensor behind it, its weight (H, P, E) and bias (H, P)."""

    x: Any
    source: Any
    weight: Array
    bias: Array


def _rewrite(graph: Graph, var: relax.Var, value: Any, emit: Emit) -> Any | None:
    if kind(value) != "dense" or attributes(value)["activation"] != "none":
        return None
    context = trace(graph, value.args[0])
    product = graph.producer(context.root)
    if not graph.is_call(product, "matmul") or len(shape_of(product)) < 3:
        return None
    softmax_view, v_view = (trace(graph, arg, affine=True) for arg in product.args)
    softmax = graph.producer(softmax_view.root)
    if kind(softmax) != "softmax" or not is_identity(softmax_view):
        return None
    *_, heads, tokens, width = (1, *shape_of(product)) if len(shape_of(product)) == 3 else shape_of(product)
    parts = _score_parts(graph, softmax.args[0], heads, tokens)
    v = _projection(graph, v_view, (heads, tokens, width), "hsp")
    columns = _output_columns(context, heads, tokens, width)
    if parts is None or v is None or columns is None:
        return None
    q, k, scale, window = parts
    if q.weight.shape != v.weight.shape:
        return None  # Q, K and V of one width a head
    v = dataclasses.replace(v, weight=v.weight * v_view.scale.flat[0], bias=v.bias * v_view.scale.flat[0])
    if not (q.source.same_as(k.source) and q.source.same_as(v.source)):
        return None
    wo, bo = as_array(value.args[1]), value.args[2]
    if wo is None or wo.shape[0] != shape_of(q.x)[-1]:
        return None  # the result of attention has the shape of its input
    weights = [
        constant(a) for p in (q, k, v) for a in (_flat(p.weight), p.bias.reshape(-1).astype(np.float32))
    ]
    ordered = np.empty_like(wo)
    ordered[:, columns] = wo
    return call(
        "attention",
        [q.x, *weights, constant(ordered), bo, softmax.args[1]],
        heads=heads,
        scale=scale,
        **window,
    )


def _flat(weight: Array) -> Array:
    return weight.reshape(-1, weight.shape[-1]).astype(np.float32)


def _score_parts(
    graph: Graph, scores: Any, heads: int, tokens: int
) -> tuple[_Projection, _Projection, float, dict[str, int]] | None:
    """Q, K, the factor on Q K^T and the window from the argument of a softmax."""
    view = trace(graph, scores, affine=True)
    product = graph.producer(view.root)
    if not graph.is_call(product, "matmul") or np.any(view.scale != view.scale.flat[0]):
        return None
    if view.index.size != heads * tokens * tokens or not np.array_equal(
        view.index.reshape(-1), np.arange(view.index.size)
    ):
        return None
    window = _window(view.offset.reshape(heads, tokens, tokens))
    if window is None:
        return None
    q_view, k_view = (trace(graph, arg, affine=True) for arg in product.args)
    width = shape_of(product.args[0])[-1]
    q = _projection(graph, q_view, (heads, tokens, width), "hsp")
    k = _projection(graph, k_view, (heads, width, tokens), "hps")
    if q is None or k is None:
        return None
    factor = float(view.scale.flat[0]) * float(q_view.scale.flat[0]) * float(k_view.scale.flat[0])
    return q, k, factor, window


def _window(offset: Array) -> dict[str, int] | None:
    """How far back and ahead each token attends when a constant mask (H, S, S) is that: causal or local attention.

    Returns:
        `before` and `after`; {} where nothing is masked; None for any other mask.
    """
    if not np.any(offset):
        return {}
    kept, tokens = offset[0] == 0, offset.shape[-1]
    if np.any(offset != offset[:1]) or np.any(offset[0][~kept] > REMOVED) or not np.all(np.diagonal(kept)):
        return None
    distance = np.arange(tokens) - np.arange(tokens)[:, None]
    before, after = -int(distance[kept].min()), int(distance[kept].max())
    return (
        {"before": before, "after": after}
        if np.array_equal(kept, (distance >= -before) & (distance <= after))
        else None
    )


def _projection(graph: Graph, view: View, shape: tuple[int, int, int], order: str) -> _Projection | None:
    """The projection that an operand (H, S, P) in the given axis order shows, up to one scalar factor."""
    dense = graph.producer(view.root)
    if (
        kind(dense) != "dense"
        or attributes(dense)["activation"] != "none"
        or view.index.size != np.prod(shape)
    ):
        return None
    if np.any(view.offset != 0) or np.any(view.scale != view.scale.flat[0]):
        return None
    columns = shape_of(dense)[1]
    index = view.index.reshape(shape)
    index = index if order == "hsp" else index.transpose(0, 2, 1)
    row, column = index // columns, index % columns
    tokens = index.shape[1]
    if np.any(row != np.arange(tokens)[None, :, None]) or np.any(column != column[:, :1, :]):
        return None
    weight, bias = as_array(dense.args[1]), as_array(dense.args[2])
    if weight is None or bias is None:
        return None
    chosen = column[:, 0, :]
    x = trace(graph, dense.args[0])
    return _Projection(
        dense.args[0], x.root if is_identity(x) else dense.args[0], weight[chosen], bias[chosen]
    )


def _output_columns(context: View, heads: int, tokens: int, width: int) -> Array | None:
    """For each column of the output projection's input: its place h * P + p in head order."""
    if not context.is_plain or context.index.size != heads * tokens * width:
        return None
    index = context.index.reshape(tokens, heads * width)
    head, token, lane = np.unravel_index(index, (heads, tokens, width))
    place = head * width + lane
    if np.any(token != np.arange(tokens)[:, None]) or np.any(place != place[:1]):
        return None
    return place[0]

"""Multi-head self-attention, however an exporter splits and merges the heads, becomes `tvmtiny.attention`.

The anchor is the dense layer behind `softmax(scores) @ V`. From the two matrix products the operands are traced back,
through every reshape, transpose and slice, to the dense layers that made them: which column of which projection
belongs to which head is then known as numbers, so fused and separate Q, K, V projections look the same, heads of K and
V that serve several of Q are found, and a rotation of Q and K by position is seen for what it is (`passes.rotary`).
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
from tvmtiny.passes.rotary import Turned, turned
from tvmtiny.passes.views import View, is_identity, trace

Array = npt.NDArray[Any]


def FuseAttention() -> tvm.transform.Pass:  # noqa: N802
    """Expects `tvmtiny.dense` and `tvmtiny.softmax` (run FuseDense and RecognizeLength before)."""
    return function_pass("FuseAttention", lambda function: rebuild(function, _rewrite))


@dataclasses.dataclass(frozen=True)
class _Projection:
    """One of Q, K, V.

    Attributes:
        x: the dense layer's input. source: the tensor behind it.
        weight: (H, P, E). bias: (H, P).
        columns: of the layer, (H, P).
        rotation: of Q and K with rotary positions.
    """

    x: Any
    source: Any
    weight: Array
    bias: Array
    columns: Array
    rotation: Turned | None = None

    def heads(self, step: int) -> _Projection:
        """Every head that is a multiple of `step`."""
        return dataclasses.replace(
            self, weight=self.weight[::step], bias=self.bias[::step], columns=self.columns[::step]
        )


@dataclasses.dataclass(frozen=True)
class _Scores:
    """What the argument of a softmax is made of: Q, K, the factor on Q K^T, the window and the rotation."""

    q: _Projection
    k: _Projection
    scale: float
    window: dict[str, int]


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
    scores = _score_parts(graph, softmax.args[0], heads, tokens)
    v = _projection(graph, v_view, (heads, tokens, width), "hsp")
    columns = _output_columns(context, heads, tokens, width)
    if scores is None or v is None or columns is None:
        return None
    q, k = scores.q, scores.k
    if q.weight.shape != v.weight.shape:
        return None  # Q, K and V of one width a head
    v = dataclasses.replace(v, weight=v.weight * v_view.scale.flat[0], bias=v.bias * v_view.scale.flat[0])
    if not (q.source.same_as(k.source) and q.source.same_as(v.source)):
        return None
    wo, bo = as_array(value.args[1]), value.args[2]
    if wo is None or wo.shape[0] != shape_of(q.x)[-1]:
        return None  # the result of attention has the shape of its input
    served = _served(k, v)
    k, v = k.heads(served), v.heads(served)
    weights = [
        constant(a) for p in (q, k, v) for a in (_flat(p.weight), p.bias.reshape(-1).astype(np.float32))
    ]
    ordered = np.empty_like(wo)
    ordered[:, columns] = wo
    angles = [] if q.rotation is None else [constant(q.rotation.angles.astype(np.float32))]
    return call(
        "rotary_attention" if angles else "attention",
        [q.x, *weights, constant(ordered), bo, softmax.args[1], *angles],
        heads=heads,
        scale=scores.scale,
        **scores.window,
        **({"kv_heads": heads // served} if served > 1 else {}),
    )


def _served(k: _Projection, v: _Projection) -> int:
    """How many heads of Q, one after another, take the same columns of K and of V."""
    heads = len(k.columns)
    for count in range(heads, 1, -1):
        firsts = np.arange(heads) // count * count
        if heads % count == 0 and all(np.array_equal(p.columns, p.columns[firsts]) for p in (k, v)):
            return count
    return 1


def _flat(weight: Array) -> Array:
    return weight.reshape(-1, weight.shape[-1]).astype(np.float32)


def _score_parts(graph: Graph, scores: Any, heads: int, tokens: int) -> _Scores | None:
    """Q, K and so on from the argument of a softmax."""
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
    factor = float(view.scale.flat[0])
    if q is not None and k is not None:
        return _Scores(q, k, factor * float(q_view.scale.flat[0]) * float(k_view.scale.flat[0]), window)
    q = _turned_projection(graph, product.args[0], (heads, tokens, width), "hsp")
    k = _turned_projection(graph, product.args[1], (heads, width, tokens), "hps")
    if q is None or k is None or q.rotation is None or k.rotation is None:
        return None
    if not q.rotation.is_like(k.rotation):
        return None
    return _Scores(q, k, factor * q.rotation.scale * k.rotation.scale, window)


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
    return _of_columns(graph, dense, column[:, 0, :])


def _turned_projection(
    graph: Graph, expr: Any, shape: tuple[int, int, int], order: str
) -> _Projection | None:
    """As `_projection`, for an operand that is turned by its position: halves of a head are turned, then."""
    rotation = turned(graph, expr, shape, order)
    dense = None if rotation is None else graph.producer(rotation.dense)
    if rotation is None or attributes(dense)["activation"] != "none":
        return None
    found = _of_columns(graph, dense, rotation.columns)
    return None if found is None else dataclasses.replace(found, rotation=rotation)


def _of_columns(graph: Graph, dense: Any, columns: Array) -> _Projection | None:
    """The columns (H, P) of a dense layer."""
    weight, bias = as_array(dense.args[1]), as_array(dense.args[2])
    if weight is None or bias is None:
        return None
    x = trace(graph, dense.args[0])
    source = x.root if is_identity(x) else dense.args[0]
    return _Projection(dense.args[0], source, weight[columns], bias[columns], columns)


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

"""Rotary positions, however they are written: pairs of columns of a projection, turned by an angle a token.

An operand of Q K^T is evaluated as a sum of constant factors times elements of one dense layer. If every element of it
takes two columns of its token, as a rotation of them by an angle that depends on position and pair only, it is a
rotary embedding: halves of a head (GPT-NeoX, Llama of Hugging Face) or neighbours (RoFormer, Meta's Llama).

Source: J. Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", arXiv:2104.09864.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import relax

from tvmtiny.passes.graph import Graph, op_name, shape_of
from tvmtiny.passes.numeric import VIEWS, literal
from tvmtiny.passes.operators import kind

Array = npt.NDArray[Any]

_TOLERANCE = 2e-3
"""Of cosines and sines, which exporters compute in float32 from large angles."""

_ANGLE_STEP = 2.0**-20
"""Angles are multiples of it: float32 cosines say no more, and a model that is exported again has the same ones."""


@dataclasses.dataclass(frozen=True)
class Linear:
    """element = sum over terms of root.flat[index] * factor; both arrays are (terms, *shape)."""

    root: Any
    index: Array
    factor: Array


@dataclasses.dataclass(frozen=True)
class Turned:
    """A projection behind its rotation.

    Attributes:
        dense: the variable of the dense layer.
        columns: of it, (H, P): those that come first in their pairs, then the second ones.
        angles: (S, P / 2). places: (P / 2, 2): where in a head the results of each pair are.
        scale: a constant factor on everything.
    """

    dense: Any
    columns: Array
    angles: Array
    places: Array
    scale: float

    def is_like(self, other: Turned) -> bool:
        """Whether another projection is turned by the same angles in the same places."""
        if not np.array_equal(self.places, other.places) or self.angles.shape != other.angles.shape:
            return False
        return float(np.abs(np.exp(1j * self.angles) - np.exp(1j * other.angles)).max()) <= _TOLERANCE


def linear(graph: Graph, expr: Any) -> Linear | None:
    """`expr` as a linear function of a dense layer's result; None when it is none."""
    value = graph.producer(expr)
    if kind(value) == "dense":
        shape = shape_of(expr)
        index = np.arange(int(np.prod(shape))).reshape(1, *shape)
        return Linear(graph.producer_variable(expr), index, np.ones(index.shape))
    if not isinstance(value, relax.Call):
        return None
    name = op_name(value)
    if name in VIEWS:
        return _view(graph, value)
    if name in ("multiply", "divide"):
        return _scaled(graph, value, name)
    if name == "negative":
        inner = linear(graph, value.args[0])
        return None if inner is None else dataclasses.replace(inner, factor=-inner.factor)
    if name in ("add", "subtract"):
        parts = [linear(graph, arg) for arg in value.args]
        return _sum(parts, -1.0 if name == "subtract" else 1.0, shape_of(value))
    if name == "concat":
        parts = [linear(graph, field) for field in value.args[0].fields]
        return _concatenated(parts, int(value.attrs.axis) % len(shape_of(value)))
    return None


def _view(graph: Graph, call: relax.Call) -> Linear | None:
    others = [literal(graph.producer(arg)) for arg in list(call.args)[1:]]
    inner = None if any(other is None for other in others) else linear(graph, call.args[0])
    if inner is None:
        return None
    apply = VIEWS[op_name(call)]
    index, factor = (
        np.stack([np.asarray(apply(call, term, *others)) for term in terms])
        for terms in (inner.index, inner.factor)
    )
    return Linear(inner.root, index, factor)


def _scaled(graph: Graph, call: relax.Call, name: str) -> Linear | None:
    left, right = (literal(graph.producer(arg)) for arg in call.args)
    if (left is None) == (right is None) or (name == "divide" and right is None):
        return None
    inner = linear(graph, call.args[0] if left is None else call.args[1])
    if inner is None:
        return None
    constant = np.asarray(right if left is None else left, np.float64)
    shape = (len(inner.index), *shape_of(call))
    factor = np.broadcast_to(1 / constant if name == "divide" else constant, shape_of(call)) * inner.factor
    return Linear(inner.root, np.broadcast_to(inner.index, shape), np.broadcast_to(factor, shape))


def _sum(parts: list[Linear | None], sign: float, shape: tuple[int, ...]) -> Linear | None:
    left, right = parts
    if left is None or right is None or not left.root.same_as(right.root):
        return None
    if left.index.shape[1:] != shape or right.index.shape[1:] != shape:
        return None
    factor = np.concatenate([left.factor, sign * right.factor])
    return Linear(left.root, np.concatenate([left.index, right.index]), factor)


def _concatenated(parts: list[Linear | None], axis: int) -> Linear | None:
    found = [part for part in parts if part is not None]
    if len(found) != len(parts) or any(not part.root.same_as(found[0].root) for part in found):
        return None
    terms = max(len(part.index) for part in found)

    def filled(array: Array) -> Array:
        return np.concatenate([array, np.zeros((terms - len(array), *array.shape[1:]), array.dtype)])

    index, factor = (
        np.concatenate([filled(array) for array in arrays], axis=axis + 1)
        for arrays in ([part.index for part in found], [part.factor for part in found])
    )
    return Linear(found[0].root, index, factor)


def turned(graph: Graph, expr: Any, shape: tuple[int, int, int], order: str) -> Turned | None:
    """The rotation that an operand of Q K^T is; None when it is no rotation of a dense layer's result.

    Args:
        shape: of the operand. order: its axes, "hsp" or "hps" (heads, tokens, columns of a head).
    """
    form = linear(graph, expr)
    if form is None or form.index[0].size != int(np.prod(shape)):
        return None
    index, factor = (array.reshape(-1, *shape) for array in (form.index, form.factor))
    if order == "hps":
        index, factor = index.transpose(0, 1, 3, 2), factor.transpose(0, 1, 3, 2)
    row, column = index // shape_of(form.root)[-1], index % shape_of(form.root)[-1]
    _, heads, tokens, width = index.shape
    present = np.abs(factor) > 1e-12
    if width % 2 or tokens < 2 or np.any((row != np.arange(tokens)[:, None]) & present):
        return None
    return _pairs(form.root, column, np.where(present, factor, 0.0), heads, width)


def _pairs(dense: Any, column: Array, factor: Array, heads: int, width: int) -> Turned | None:
    """The pairs of each head, which must be in the same places and have the same angles in all heads."""
    used = [
        [tuple(np.unique(column[:, h, :, p][factor[:, h, :, p] != 0])) for p in range(width)]
        for h in range(heads)
    ]
    if any(len(columns) != 2 for row in used for columns in row):
        return None
    places = [
        (p, other) for p in range(width) for other in range(p + 1, width) if used[0][p] == used[0][other]
    ]
    if len({place for pair in places for place in pair}) != width or len(places) != width // 2:
        return None
    columns, rotations = np.zeros((heads, width), np.int64), []
    for h in range(heads):
        for i, (p, other) in enumerate(places):
            if used[h][p] != used[h][other]:
                return None
            found = _rotation(column[:, h], factor[:, h], used[h][p], p, other)
            if found is None:
                return None
            columns[h, [i, width // 2 + i]] = found[0]
            rotations.append(found[1])
    rotation = np.asarray(rotations).reshape(heads, width // 2, -1)  # scale * exp(i angle), (H, P / 2, S)
    scale = float(np.abs(rotation).mean())
    if np.abs(rotation - rotation[:1]).max() > _TOLERANCE * scale:
        return None
    if np.abs(np.abs(rotation) - scale).max() > _TOLERANCE * scale:
        return None
    scale = 1.0 if abs(scale - 1) < _ANGLE_STEP else scale
    steps, half_turn = np.round(np.angle(rotation[0]).T / _ANGLE_STEP), np.floor(np.pi / _ANGLE_STEP)
    angles = np.clip(steps, -half_turn, half_turn) * _ANGLE_STEP
    return Turned(dense, columns, angles, np.asarray(places), scale)


def _rotation(
    column: Array, factor: Array, pair: tuple[int, ...], p: int, other: int
) -> tuple[tuple[int, int], Array] | None:
    """Which of two columns is a in p = a cos - b sin, other = a sin + b cos; and scale * exp(i angle) by token."""

    def weight(place: int, of: int) -> Array:
        return np.asarray(np.where(column[..., place] == of, factor[..., place], 0.0).sum(axis=0))

    for a, b in (pair, pair[::-1]):
        cos, sin = weight(p, a), weight(other, a)
        close = _TOLERANCE * float(np.abs(cos).max() + np.abs(sin).max())
        if np.abs(weight(other, b) - cos).max() <= close and np.abs(weight(p, b) + sin).max() <= close:
            return (int(a), int(b)), cos + 1j * sin
    return None

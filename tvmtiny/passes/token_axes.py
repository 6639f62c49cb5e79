"""Along which axes of a tensor the tokens lie, and that nothing mixes the absent ones in.

With fewer than S tokens, rows of absent tokens hold anything. Fused operators leave them alone; of plain operators, a
product or a reduction over tokens must have zeros there, as behind a softmax with the length.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from tvm import ir, relax

from tvmtiny.errors import UserError
from tvmtiny.passes.graph import Graph, as_array, op_name, shape_of
from tvmtiny.passes.operators import ATTENTIONS, EMBEDDINGS, kind, token_rows
from tvmtiny.passes.resemblance import MIXING, refusal
from tvmtiny.passes.views import View, trace


@dataclasses.dataclass(frozen=True)
class TokenAxes:
    """Axes, counted from the last (-1) on.

    Attributes:
        tokens: those along which tokens lie.
        zeroed: those of them along which absent tokens are zeros.
    """

    tokens: frozenset[int] = frozenset()
    zeroed: frozenset[int] = frozenset()


ROWS = TokenAxes(frozenset([-2]))


def token_axes(graph: Graph, needed: set[Any]) -> dict[Any, TokenAxes]:
    """The token axes of the first operand of every operator of a model with a length, by the variable it makes.

    Args:
        needed: the variables that plain operators write as tensors.

    Raises:
        UserError: an operator mixes absent tokens in.
    """
    found: dict[Any, TokenAxes] = {}
    first: dict[Any, TokenAxes] = {}
    for var, value in graph:
        if kind(value) not in ("", "softmax"):
            first[var] = _of_fused_operand(graph, var, value, found)
            pooled = kind(value) in ("mean", "first") or -2 not in first[var].tokens
            found[var] = TokenAxes() if pooled else ROWS
        elif var in needed or kind(value):
            found[var] = _of_operator(graph, var, value, found)
    return first


def _of_fused_operand(graph: Graph, var: Any, value: relax.Call, found: dict[Any, TokenAxes]) -> TokenAxes:
    if kind(value) in EMBEDDINGS:
        return ROWS
    axes = _of_operand(graph, value.args[0], found, var)
    alone = kind(value) in (*ATTENTIONS, "convolution", "mean", "first") and axes.tokens != ROWS.tokens
    overlaps = kind(value) in ("convolution", "depthwise") and axes.tokens
    if (-1 in axes.tokens and -1 not in axes.zeroed) or alone or overlaps:
        raise _mixes(var)
    return axes


def _of_operator(graph: Graph, var: Any, value: relax.Call, found: dict[Any, TokenAxes]) -> TokenAxes:
    args = [field for arg in value.args for field in (arg.fields if isinstance(arg, relax.Tuple) else [arg])]
    axes = [_of_operand(graph, arg, found, var) for arg in args if hasattr(arg.ty, "shape")]
    name = kind(value) or op_name(value)
    if name == "softmax":
        return TokenAxes(axes[0].tokens | {-1}, axes[0].zeroed | {-1})
    if name == "matmul":
        return _of_product(var, *axes)
    if name in ("sum", "mean", "max", "min"):
        return _of_reduction(var, value, axes[0])
    if name in ("nn.softmax", "concat"):
        rank = len(shape_of(var))
        axis = -1 if name == "nn.softmax" else int(value.attrs.axis) % rank - rank
        if any(axis in part.tokens for part in axes):
            raise _mixes(var)
    tokens = frozenset(axis for part in axes for axis in part.tokens)
    zeroed = frozenset(axis for part in axes for axis in part.zeroed) if name == "multiply" else frozenset()
    return TokenAxes(tokens, zeroed)


def _of_product(var: Any, a: TokenAxes, b: TokenAxes) -> TokenAxes:
    if (-1 in a.tokens or -2 in b.tokens) and not (-1 in a.zeroed or -2 in b.zeroed):
        raise _mixes(var)
    tokens = {axis for axis in a.tokens if axis != -1} | {axis for axis in b.tokens if axis != -2}
    zeroed = {axis for axis in a.zeroed if axis != -1} | {axis for axis in b.zeroed if axis != -2}
    return TokenAxes(frozenset(tokens), frozenset(zeroed))


def _of_reduction(var: Any, value: relax.Call, x: TokenAxes) -> TokenAxes:
    rank = len(shape_of(value.args[0]))
    reduced = {int(axis) % rank - rank for axis in (value.attrs.axis or range(rank))}
    if x.tokens & reduced and not (op_name(value) == "sum" and x.tokens & reduced <= x.zeroed):
        raise _mixes(var)
    if bool(value.attrs.keepdims):
        return TokenAxes(x.tokens - reduced, x.zeroed - reduced)

    def moved(axes: frozenset[int]) -> frozenset[int]:
        return frozenset(axis + sum(other > axis for other in reduced) for axis in axes - reduced)

    return TokenAxes(moved(x.tokens), moved(x.zeroed))


def _of_operand(graph: Graph, expr: Any, found: dict[Any, TokenAxes], reader: Any) -> TokenAxes:
    if as_array(graph.producer(expr)) is not None:
        return TokenAxes()
    view = trace(graph, expr)
    if isinstance(view.root, ir.Var) and graph.bound(view.root) is None:  # features: a row a token
        shape = shape_of(view.root)
        inner = TokenAxes(
            frozenset([-2]) if len(shape) == 3 and shape[1] == token_rows(graph) else frozenset()
        )
    else:
        inner = found.get(view.root, TokenAxes())
    moved = {axis: _axis_in(view, axis, reader) for axis in inner.tokens}
    tokens = frozenset(axis for axis in moved.values() if axis is not None)
    zeroed = frozenset(axis for old in inner.zeroed if (axis := moved[old]) is not None)
    return TokenAxes(tokens, zeroed)


def _axis_in(view: View, axis: int, reader: Any) -> int | None:
    """The axis of a view along which the tokens of an axis of its root lie; None when it shows the first token only."""
    shape = shape_of(view.root)
    token = np.unravel_index(view.index, shape)[axis % len(shape)]
    if np.all(token == 0):
        return None
    for place in range(token.ndim):
        first = tuple(slice(None) if i == place else 0 for i in range(token.ndim))
        along = token[first]
        wide = along.reshape([-1 if i == place else 1 for i in range(token.ndim)])
        if np.array_equal(along, np.arange(shape[axis])) and np.all(token == wide):
            return place - token.ndim
    raise _mixes(reader)


def _mixes(var: Any) -> UserError:
    return refusal(f"Node '{var.name}' mixes tokens without regard to the mask", MIXING)

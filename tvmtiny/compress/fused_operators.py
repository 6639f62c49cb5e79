"""The fused operators of `tvmtiny.passes.operators` in torch, on batches: what `passes.decompose` says that they mean.

They are written so that what is exported of them is fused to the same operators again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from tvmtiny.passes.operators import NORMS

_ATTENTION = ("x", "wq", "bq", "wk", "bk", "wv", "bv", "wo", "bo", "n")
CORE = {
    "embed": ("ids", "tokens", "positions"),
    "segment_embed": ("ids", "tokens", "positions", "segment_ids", "segments"),
    "dense": ("x", "weight", "bias"),
    "attention": _ATTENTION,
    "rotary_attention": (*_ATTENTION, "angles"),
    "ffn": ("x", "w1", "b1", "w2", "b2"),
    "glu": ("x", "wg", "bg", "wu", "bu", "wd", "bd"),
    "convolution": ("x", "weight", "bias"),
    "layer_norm": ("x", "gamma", "beta"),
    "rms_norm": ("x", "gamma", "beta"),
    "scale": ("x", "gamma", "beta"),
    "mean": ("x", "n"),
    "first": ("x",),
}
"""Operators that can be trained, and the names of their arguments."""

FIXED = ("angles",)
"""Arguments that are constants and no parameters."""

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "relu6": F.relu6,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "elu": F.elu,
}
"""Those of `passes.fuse_dense`."""

_OUTSIDE = -1e9
"""What is added to the scores of tokens outside of a window, as `passes.decompose` does."""


class Observer(Protocol):
    """What stands between the operators: sees each value, and may put another in its place."""

    def value(self, name: str, key: str, x: Tensor) -> Tensor:
        """The value `<name>.<key>` of an operator, as in `passes.decompose`."""

    def weight(self, name: str, operand: str, w: Tensor) -> Tensor:
        """A matrix or table of an operator."""


class Plain:
    """An observer that changes nothing."""

    def value(self, name: str, key: str, x: Tensor) -> Tensor:
        """As it is."""
        return x

    def weight(self, name: str, operand: str, w: Tensor) -> Tensor:
        """As it is."""
        return w


@dataclass(frozen=True)
class Call:
    """One operator on a batch.

    Attributes:
        name: of the operator. kind, attrs: of `passes.operators`.
        operands: by argument, those of CORE that are tensors, and `residual`, `gamma`, `beta` where it has them.
        keep: bool (B, S), the tokens that are there; None where all are.
        observer: of its values.
    """

    name: str
    kind: str
    attrs: Mapping[str, Any]
    operands: Mapping[str, Tensor]
    keep: Tensor | None
    observer: Observer

    def __getitem__(self, argument: str) -> Tensor:
        return self.operands[argument]

    def __contains__(self, argument: str) -> bool:
        return argument in self.operands

    def see(self, key: str, x: Tensor) -> Tensor:
        """The value `key` as the observer wants it."""
        return self.observer.value(self.name, key, x)

    def dense(self, x: Tensor, weight: str, bias: str) -> Tensor:
        """x (..., K) through a matrix (N, K) and a bias."""
        return F.linear(x, self[weight], self[bias])

    def activated(self, x: Tensor) -> Tensor:
        """The operator's activation of x, which is its value `pre`."""
        name = self.attrs["activation"]
        return x if name == "none" else ACTIVATIONS[name](self.see("pre", x))


def run(c: Call) -> Tensor:
    """The result of an operator, with its residual and its normalization."""
    y = _OPERATORS[c.kind](c)
    if "residual" in c or c.attrs.get("norm"):
        y = c.see("branch", y)
    if "residual" in c:
        y = c.see("sum", y + c["residual"])
    if c.attrs.get("norm"):
        y = _normalized(c, c.attrs["norm"], y)
    return c.see("out", y)


def _normalized(c: Call, norm: int, x: Tensor) -> Tensor:
    epsilon = c.attrs.get("epsilon", 0.0)
    if norm == NORMS["layer_norm"]:
        return F.layer_norm(x, x.shape[-1:], c["gamma"], c["beta"], epsilon)
    rate = torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon) if norm == NORMS["rms_norm"] else 1.0
    scaled = x * rate * c["gamma"]
    return scaled + c["beta"] if "beta" in c else scaled


def _norm(c: Call) -> Tensor:
    return _normalized(c, NORMS[c.kind], c["x"])


def _embed(c: Call) -> Tensor:
    x = F.embedding(c["ids"], c["tokens"])
    x = x + c["positions"] if "positions" in c else x
    return x + F.embedding(c["segment_ids"], c["segments"]) if "segments" in c else x


def _dense(c: Call) -> Tensor:
    return c.activated(c.dense(c["x"], "weight", "bias"))


def _convolution(c: Call) -> Tensor:
    """Over rows (B, S, C), `before` rows of zeros in front: a dense layer on patches of `kernel` rows each."""
    x, kernel, stride = c["x"], int(c.attrs["kernel"]), int(c.attrs["stride"])
    rows = torch.cat([torch.zeros(len(x), int(c.attrs["before"]), x.shape[2]), x], dim=1)
    first = torch.arange(x.shape[1] // stride)[:, None] * stride * x.shape[2]
    places = first + torch.arange(kernel * x.shape[2])
    patches = rows.flatten(1).index_select(1, places.flatten()).reshape(len(x), *places.shape)
    return c.activated(c.dense(patches, "weight", "bias"))


def _ffn(c: Call) -> Tensor:
    hidden = c.see("hidden", c.activated(c.dense(c["x"], "w1", "b1")))
    return c.dense(hidden, "w2", "b2")


def _glu(c: Call) -> Tensor:
    gate = c.see("gate", c.activated(c.dense(c["x"], "wg", "bg")))
    up = c.see("up", c.dense(c["x"], "wu", "bu"))
    return c.dense(c.see("hidden", gate * up), "wd", "bd")


def _attention(c: Call) -> Tensor:
    heads = int(c.attrs["heads"])
    groups = int(c.attrs.get("kv_heads", heads))
    q, k, v = (_projected(c, part, heads if part == "q" else groups) for part in "qkv")
    k, v = (part.repeat_interleave(heads // groups, dim=1) if groups < heads else part for part in (k, v))
    scores = q @ k.transpose(2, 3) * c.attrs["scale"]
    if "before" in c.attrs:
        scores = scores + _outside(scores.shape[-1], c.attrs["before"], c.attrs["after"])
    if c.keep is not None:
        scores = scores.masked_fill(~c.keep[:, None, None, :], -math.inf)
    mixed = (torch.softmax(scores, dim=-1) @ v).transpose(1, 2)
    context = mixed.reshape(*mixed.shape[:2], -1)
    return c.dense(c.see("context", context), "wo", "bo")


def _projected(c: Call, part: str, heads: int) -> Tensor:
    """Q, K or V as (B, H, S, P), Q and K turned by their positions where they have angles."""
    x = c.dense(c["x"], f"w{part}", f"b{part}")
    if "angles" in c and part in "qk":
        x = _turned(x.reshape(*x.shape[:2], heads, -1), c["angles"]).reshape(x.shape)
    x = c.see(part, x)
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def _turned(x: Tensor, angles: Tensor) -> Tensor:
    """The halves of each head of x (B, S, H, P), turned by angles (S, P / 2)."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = (part[:, None, :] for part in (torch.cos(angles), torch.sin(angles)))
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


def _outside(tokens: int, before: int, after: int) -> Tensor:
    """(S, S), what is added to scores: 0 within each token's window."""
    distance = torch.arange(tokens) - torch.arange(tokens)[:, None]
    return torch.where((distance < -before) | (distance > after), _OUTSIDE, 0.0)


def _mean(c: Call) -> Tensor:
    x = c["x"]
    if c.keep is None:
        return x.mean(1, keepdim=True)
    present = c.keep.to(x.dtype)[:, :, None]
    return (x * present).sum(1, keepdim=True) / present.sum(1, keepdim=True)


def _first(c: Call) -> Tensor:
    return c["x"][:, :1]


_OPERATORS: dict[str, Callable[[Call], Tensor]] = {
    "embed": _embed,
    "segment_embed": _embed,
    "dense": _dense,
    "convolution": _convolution,
    "attention": _attention,
    "rotary_attention": _attention,
    "ffn": _ffn,
    "glu": _glu,
    "layer_norm": _norm,
    "rms_norm": _norm,
    "scale": _norm,
    "mean": _mean,
    "first": _first,
}
"""Fused operator -> its value before residual and normalization."""

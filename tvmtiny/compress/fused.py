"""A fused float module in torch: each operator of `tvmtiny.passes.operators` in plain operators, on batches.

It serves twice. As it is, it exports to the same fused module again. With an observer that rounds the named values of
each operator it is what gradients of quantization-aware training flow through.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
import tvm
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from tvmtiny.errors import UserError
from tvmtiny.passes.graph import Graph, array_of, as_array, shape_of
from tvmtiny.passes.operators import NORMS, attributes, kind, parts
from tvmtiny.passes.recognize_length import LENGTH_PARAMETER
from tvmtiny.passes.views import is_identity, trace

CORE = {
    "embed": ("ids", "tokens", "positions"),
    "segment_embed": ("ids", "tokens", "positions", "segment_ids", "segments"),
    "dense": ("x", "weight", "bias"),
    "attention": ("x", "wq", "bq", "wk", "bk", "wv", "bv", "wo", "bo", "n"),
    "ffn": ("x", "w1", "b1", "w2", "b2"),
    "layer_norm": ("x", "gamma", "beta"),
    "rms_norm": ("x", "gamma", "beta"),
    "scale": ("x", "gamma", "beta"),
    "mean": ("x", "n"),
    "first": ("x",),
}
"""Operators that can be trained, and the names of their arguments."""

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


class FusedGraph:
    """The operators of a fused module, and which constants they have.

    Attributes:
        constants: float arrays by `<operator>/<argument>`; matrices that are equal are one, under the first name.
        same: name of each such constant -> the name under which it is in `constants`.

    Raises:
        UserError: an operator that cannot be trained.
    """

    def __init__(self, fused: tvm.IRModule) -> None:
        self._graph = Graph(fused["main"])
        self.constants: dict[str, Any] = {}
        self.same: dict[str, str] = {}
        self._calls = [(var, value) for var, value in self._graph if kind(value)]
        for var, value in self._calls:
            _check(var, value)
        for var, value in self._calls:
            for expr in value.args:
                if hasattr(expr.ty, "shape") and as_array(self._graph.producer(expr)) is None:
                    self._root(expr, var)
        for var, value in self._calls:
            for argument, expr in arguments(value).items():
                self._collect(f"{var.name}/{argument}", expr)

    def _root(self, expr: Any, reader: Any) -> Any:
        """The variable whose elements an operand has, in order: a result of an operator or an input."""
        view = trace(self._graph, expr)
        known = kind(self._graph.bound(view.root)) or any(view.root.same_as(p) for p in self._graph.params)
        if not (known and is_identity(view)):
            raise UserError(
                f"What '{reader.name}' reads is neither an input nor the result of an operator as it is.",
                "Quantization-aware training knows chains of fused operators; quantize this model after training.",
            )
        return view.root

    def _collect(self, name: str, expr: Any) -> None:
        array = as_array(self._graph.producer(expr)) if hasattr(expr.ty, "shape") else None
        if array is None or array.dtype != np.float32:
            return
        shared = (
            known
            for known, other in self.constants.items()
            if array.ndim > 1 and np.any(array) and np.array_equal(other, array)
        )
        self.same[name] = next(shared, name)
        self.constants.setdefault(self.same[name], array)

    @property
    def expressions(self) -> dict[str, Any]:
        """The constants of the module themselves by name, all of those that are equal included."""
        return {
            f"{var.name}/{argument}": self._graph.producer(expr)
            for var, value in self._calls
            for argument, expr in arguments(value).items()
            if f"{var.name}/{argument}" in self.same
        }

    def names_of(self, other: FusedGraph) -> dict[str, str]:
        """By the name of each operator of another graph, its name in this one, which is the same model.

        Raises:
            UserError: operators or constants differ.
        """
        pairs = list(zip(other._calls, self._calls, strict=False))
        names = {theirs.name: ours.name for (theirs, _), (ours, _) in pairs}
        alike = len(other._calls) == len(self._calls) and all(kind(a) == kind(b) for (_, a), (_, b) in pairs)
        if not alike or any(not self._equal(other, name, names) for name in other.same):
            raise UserError(
                "The exported model is not the one that was trained: its operators or weights differ.",
                "Report this with the model: quantization-aware training cannot hand it over exactly.",
            )
        return names

    def _equal(self, other: FusedGraph, name: str, names: Mapping[str, str]) -> bool:
        """Whether a constant of another graph is the one at its place in this graph."""
        layer, argument = name.split("/")
        ours = self.expressions.get(f"{names[layer]}/{argument}")
        return ours is not None and np.array_equal(array_of(ours), array_of(other.expressions[name]))

    def run(
        self,
        constants: Mapping[str, Tensor],
        inputs: Mapping[str, Tensor],
        keep: Tensor | None,
        see: Observer,
    ) -> list[Tensor]:
        """The results of the module for a batch, in order.

        Args:
            constants: as the attribute. inputs: by name, (B, ...). keep: bool (B, S), the tokens that are there.
        """
        values: dict[Any, Tensor] = {
            param: inputs[param.name] for param in self._graph.params if param.name != LENGTH_PARAMETER
        }
        for var, value in self._calls:
            operands = {}
            for argument, expr in arguments(value).items():
                name = f"{var.name}/{argument}"
                if name in self.same:
                    w = constants[self.same[name]]
                    operands[argument] = see.weight(var.name, argument, w) if w.ndim > 1 else w
                elif argument != "n":
                    operands[argument] = self._operand(values, expr, var)
            values[var] = _run(var.name, value, operands, keep, see)
        return [self._result(values, result) for result in self._graph.results]

    def input_of(self, name: str) -> str:
        """The input of the model that an operator reads as its first argument; empty where it reads a result."""
        value = next(value for var, value in self._calls if var.name == name)
        root = trace(self._graph, value.args[0]).root
        return root.name if any(root.same_as(param) for param in self._graph.params) else ""

    def _operand(self, values: dict[Any, Tensor], expr: Any, reader: Any) -> Tensor:
        root = values[self._root(expr, reader)]
        return root.reshape(root.shape[0], *shape_of(expr))

    def _result(self, values: dict[Any, Tensor], expr: Any) -> Tensor:
        """A result has a batch axis, of one."""
        root = values[self._root(expr, self._graph.producer_variable(expr))]
        return root.reshape(root.shape[0], *shape_of(expr)[1:])


def _check(var: Any, call: Any) -> None:
    """Refuse an operator, or a form of it, that is not known here."""
    form = sorted({"before", "after", "kv_heads"} & set(attributes(call)))
    if kind(call) not in CORE or form:
        raise UserError(
            f"The operator '{var.name}' ({kind(call)}{f' with {form[0]}' if form else ''}) cannot be trained with "
            "quantization.",
            f"Quantization-aware training knows {', '.join(CORE)}; quantize this model after training.",
        )


def arguments(call: Any) -> dict[str, Any]:
    """The arguments of a fused call by name, `residual` and the `gamma` and `beta` that follow included.

    The beta of an RMSNorm, which has none, is left out where it is zeros.
    """
    core, residual, norm = parts(call)
    found = dict(zip(CORE[kind(call)], core, strict=True))
    if residual is not None:
        found["residual"] = residual
    if norm is not None:
        found |= dict(zip(("gamma", "beta"), norm, strict=True))
    uncentred = NORMS["rms_norm"] in (attributes(call).get("norm"), NORMS.get(kind(call)))
    if uncentred and not np.any(as_array(found["beta"])):
        del found["beta"]
    return found


def _run(name: str, call: Any, o: dict[str, Tensor], keep: Tensor | None, see: Observer) -> Tensor:
    """One operator with its residual and its normalization."""
    attrs = attributes(call)
    y = _OPERATORS[kind(call)](name, attrs, o, keep, see)
    if "residual" in o or attrs.get("norm"):
        y = see.value(name, "branch", y)
    if "residual" in o:
        y = see.value(name, "sum", y + o["residual"])
    if attrs.get("norm"):
        y = _normalized(attrs["norm"], y, o, attrs.get("epsilon", 0.0))
    return see.value(name, "out", y)


def _normalized(norm: int, x: Tensor, o: dict[str, Tensor], epsilon: float) -> Tensor:
    if norm == NORMS["layer_norm"]:
        return F.layer_norm(x, x.shape[-1:], o["gamma"], o["beta"], epsilon)
    rate = torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon) if norm == NORMS["rms_norm"] else 1.0
    scaled = x * rate * o["gamma"]
    return scaled + o["beta"] if "beta" in o else scaled


def _embed(
    name: str, attrs: dict[str, Any], o: dict[str, Tensor], keep: Tensor | None, see: Observer
) -> Tensor:
    x = F.embedding(o["ids"], o["tokens"]) + o["positions"]
    return x + F.embedding(o["segment_ids"], o["segments"]) if "segments" in o else x


def _dense(
    name: str, attrs: dict[str, Any], o: dict[str, Tensor], keep: Tensor | None, see: Observer
) -> Tensor:
    return _activated(name, attrs, F.linear(o["x"], o["weight"], o["bias"]), see)


def _activated(name: str, attrs: dict[str, Any], x: Tensor, see: Observer) -> Tensor:
    if attrs["activation"] == "none":
        return x
    return ACTIVATIONS[attrs["activation"]](see.value(name, "pre", x))


def _ffn(
    name: str, attrs: dict[str, Any], o: dict[str, Tensor], keep: Tensor | None, see: Observer
) -> Tensor:
    hidden = _activated(name, attrs, F.linear(o["x"], o["w1"], o["b1"]), see)
    return F.linear(see.value(name, "hidden", hidden), o["w2"], o["b2"])


def _attention(
    name: str, attrs: dict[str, Any], o: dict[str, Tensor], keep: Tensor | None, see: Observer
) -> Tensor:
    q, k, v = (
        _heads(see.value(name, part, F.linear(o["x"], o[f"w{part}"], o[f"b{part}"])), attrs["heads"])
        for part in "qkv"
    )
    scores = q @ k.transpose(2, 3) * attrs["scale"]
    if keep is not None:
        scores = scores.masked_fill(~keep[:, None, None, :], -math.inf)
    mixed = (torch.softmax(scores, dim=-1) @ v).transpose(1, 2)
    context = mixed.reshape(*mixed.shape[:2], -1)
    return F.linear(see.value(name, "context", context), o["wo"], o["bo"])


def _heads(x: Tensor, heads: int) -> Tensor:
    """(B, S, H * P) as (B, H, S, P)."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def _norm(kind_of_norm: str) -> Callable[..., Tensor]:
    def run(
        name: str, attrs: dict[str, Any], o: dict[str, Tensor], keep: Tensor | None, see: Observer
    ) -> Tensor:
        return _normalized(NORMS[kind_of_norm], o["x"], o, attrs.get("epsilon", 0.0))

    return run


def _mean(
    name: str, attrs: dict[str, Any], o: dict[str, Tensor], keep: Tensor | None, see: Observer
) -> Tensor:
    x = o["x"]
    if keep is None:
        return x.mean(1, keepdim=True)
    present = keep.to(x.dtype)[:, :, None]
    return (x * present).sum(1, keepdim=True) / present.sum(1, keepdim=True)


def _first(
    name: str, attrs: dict[str, Any], o: dict[str, Tensor], keep: Tensor | None, see: Observer
) -> Tensor:
    return o["x"][:, :1]


_OPERATORS: dict[str, Callable[..., Tensor]] = {
    "embed": _embed,
    "segment_embed": _embed,
    "dense": _dense,
    "attention": _attention,
    "ffn": _ffn,
    "layer_norm": _norm("layer_norm"),
    "rms_norm": _norm("rms_norm"),
    "scale": _norm("scale"),
    "mean": _mean,
    "first": _first,
}
"""Fused operator -> its value before residual and normalization."""

"""A fused float module in torch: each operator of `tvmtiny.passes.operators` in plain operators, on batches.

It serves twice. As it is, it exports to the same fused module again. With an observer that rounds the named values of
each operator it is what gradients of quantization-aware training flow through.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import tvm
from torch import Tensor

from tvmtiny.compress import fused_operators
from tvmtiny.compress.fused_operators import CORE, FIXED, Call, Observer
from tvmtiny.errors import UserError
from tvmtiny.passes.graph import Graph, array_of, as_array, function_pass, rebuild, shape_of
from tvmtiny.passes.operators import NORMS, attributes, call, kind, parts
from tvmtiny.passes.recognize_length import LENGTH_PARAMETER
from tvmtiny.passes.views import is_identity, trace

_FACTORS = ("scale", "epsilon")
"""Attributes that are real numbers."""


@dataclass(frozen=True)
class Source:
    """A tensor that an operator reads or the module returns: the elements of a value, in order.

    Attributes:
        value: name of an input, or of an operator for its result.
        shape: without the batch axis.
    """

    value: str
    shape: tuple[int, ...]

    def of(self, values: Mapping[str, Tensor]) -> Tensor:
        """The tensor, (B, ...)."""
        whole = values[self.value]
        return whole.reshape(len(whole), *self.shape)


@dataclass(frozen=True)
class Operator:
    """One operator: what is known of it before any batch.

    Attributes:
        name, kind, attrs: of its variable, and as in `passes.operators`.
        constants: argument -> the constant, an expression of the module.
        fixed: argument -> a constant that is no parameter.
        reads: argument -> what it reads.
    """

    name: str
    kind: str
    attrs: Mapping[str, Any]
    constants: Mapping[str, Any]
    fixed: Mapping[str, Tensor]
    reads: Mapping[str, Source]


class FusedGraph:
    """The operators of a fused module, and which constants they have.

    Attributes:
        constants: float arrays by `<operator>/<argument>`; matrices that are equal are one, under the first name.
        same: name of each such constant -> the name under which it is in `constants`.
        expressions: the constants of the module themselves by name, all of those that are equal included.

    Raises:
        UserError: an operator that cannot be trained.
    """

    def __init__(self, fused: tvm.IRModule) -> None:
        graph = Graph(fused["main"])
        calls = [(var, value) for var, value in graph if kind(value)]
        for var, value in calls:
            _check(var, value)
        self._operators = [_operator(graph, var, value) for var, value in calls]
        self._results = [
            _source(graph, result, graph.producer_variable(result).name, shape_of(result)[1:])
            for result in graph.results
        ]
        self.constants: dict[str, Any] = {}
        self.same: dict[str, str] = {}
        self.expressions: dict[str, Any] = {}
        for operator in self._operators:
            for argument, expr in operator.constants.items():
                self._collect(f"{operator.name}/{argument}", expr)

    def _collect(self, name: str, expr: Any) -> None:
        array = array_of(expr)
        shared = (
            known
            for known, other in self.constants.items()
            if array.ndim > 1 and np.any(array) and np.array_equal(other, array)
        )
        self.same[name] = next(shared, name)
        self.constants.setdefault(self.same[name], array)
        self.expressions[name] = expr

    def names_of(self, other: FusedGraph) -> dict[str, str]:
        """By the name of each operator of another graph, its name in this one, which is the same model.

        Raises:
            UserError: operators or constants differ.
        """
        pairs = list(zip(other._operators, self._operators, strict=False))
        names = {theirs.name: ours.name for theirs, ours in pairs}
        alike = len(other._operators) == len(self._operators) and all(_alike(*pair) for pair in pairs)
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
        values = dict(inputs)
        for operator in self._operators:
            operands = {argument: source.of(values) for argument, source in operator.reads.items()}
            for argument in operator.constants:
                w = constants[self.same[f"{operator.name}/{argument}"]]
                operands[argument] = see.weight(operator.name, argument, w) if w.ndim > 1 else w
            operands |= operator.fixed
            found = Call(operator.name, operator.kind, operator.attrs, operands, keep, see)
            values[operator.name] = fused_operators.run(found)
        return [result.of(values) for result in self._results]


def as_exported(fused: tvm.IRModule) -> tvm.IRModule:
    """A fused module with the factors that an ONNX file carries, which are float32."""

    def rewrite(graph: Graph, var: Any, value: Any, emit: Any) -> Any | None:
        attrs = attributes(value) if kind(value) else {}
        factors = {name: float(np.float32(attrs[name])) for name in _FACTORS if name in attrs}
        return call(kind(value), list(value.args), **{**attrs, **factors}) if factors else None

    return function_pass("AsExported", lambda function: rebuild(function, rewrite))(fused)


def _alike(one: Operator, other: Operator) -> bool:
    """Whether two operators are the same, but for their names, weights and what they read."""
    fixed = one.fixed.keys() == other.fixed.keys() and all(
        torch.equal(one.fixed[name], other.fixed[name]) for name in one.fixed
    )
    return fixed and one.kind == other.kind and one.attrs == other.attrs


def _check(var: Any, value: Any) -> None:
    """Refuse an operator that is not known here."""
    if kind(value) not in CORE:
        raise UserError(
            f"The operator '{var.name}' ({kind(value)}) cannot be trained with quantization.",
            f"Quantization-aware training knows {', '.join(CORE)}; quantize this model after training.",
        )


def _operator(graph: Graph, var: Any, value: Any) -> Operator:
    constants, fixed, reads = {}, {}, {}
    for argument, expr in arguments(value).items():
        array = as_array(graph.producer(expr)) if hasattr(expr.ty, "shape") else None
        if argument in FIXED:
            fixed[argument] = torch.from_numpy(array_of(graph.producer(expr)).copy())
        elif array is not None and array.dtype == np.float32:
            constants[argument] = graph.producer(expr)
        elif argument != "n":
            reads[argument] = _source(graph, expr, var.name, shape_of(expr))
    return Operator(var.name, kind(value), attributes(value), constants, fixed, reads)


def _source(graph: Graph, expr: Any, reader: str, shape: tuple[int, ...]) -> Source:
    """What an operator reads; raises UserError where it is no value in its order."""
    view = trace(graph, expr)
    inputs = [param for param in graph.params if param.name != LENGTH_PARAMETER]
    known = kind(graph.bound(view.root)) or any(view.root.same_as(param) for param in inputs)
    if not (known and is_identity(view)):
        raise UserError(
            f"What '{reader}' reads is neither an input nor the result of an operator as it is.",
            "Quantization-aware training knows chains of fused operators; quantize this model after training.",
        )
    return Source(view.root.name, shape)


def arguments(value: Any) -> dict[str, Any]:
    """The arguments of a fused call by name, `residual` and the `gamma` and `beta` that follow included.

    What a model does not have is left out: positions that are zeros, and the beta of an RMSNorm.
    """
    core, residual, norm = parts(value)
    found = dict(zip(CORE[kind(value)], core, strict=True))
    if residual is not None:
        found["residual"] = residual
    if norm is not None:
        found |= dict(zip(("gamma", "beta"), norm, strict=True))
    uncentred = NORMS["rms_norm"] in (attributes(value).get("norm"), NORMS.get(kind(value)))
    if uncentred and not np.any(as_array(found["beta"])):
        del found["beta"]
    if "positions" in found and not np.any(array_of(found["positions"])):
        del found["positions"]
    return found

"""The program of a model: which C functions run in which order on which bytes of the arena."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import relax

from tvmtiny.codegen.c_functions import CFunction, Parameter, emit_functions, item_bytes
from tvmtiny.codegen.planner import Buffer, Kind, Plan, Region, plan
from tvmtiny.kernels import kernels
from tvmtiny.passes.graph import Graph, as_array, shape_of

Array = npt.NDArray[Any]

TENSOR_ALIGN = 4
"""Alignment of every tensor: kernels load words, and a 32-bit bus gains nothing from more."""


@dataclasses.dataclass(frozen=True)
class Constant:
    """A constant array in flash."""

    symbol: str
    array: Array

    @property
    def dtype(self) -> str:
        """NumPy name of the element type."""
        return str(self.array.dtype)


@dataclasses.dataclass(frozen=True)
class Argument:
    """What one parameter of a call gets: a constant's symbol, a tensor of the arena, or the length."""

    parameter: Parameter
    constant: str = ""
    tensor: str = ""


@dataclasses.dataclass(frozen=True)
class Call:
    """One operator of the run."""

    function: CFunction
    arguments: tuple[Argument, ...]


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An input or output as the arena holds it."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Size in bytes."""
        return int(np.prod(self.shape)) * item_bytes(self.dtype)


@dataclasses.dataclass(frozen=True)
class Program:
    """Everything that the templates need to write C.

    Attributes:
        calls: in order.
        constants: each distinct array once.
        inputs, outputs: tensors of the caller.
        plan: offsets of all tensors by name.
    """

    calls: tuple[Call, ...]
    constants: tuple[Constant, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    plan: Plan

    @property
    def microkernels(self) -> set[str]:
        """Names of the micro-kernels in use."""
        return set().union(*(call.function.microkernels for call in self.calls))


def build_program(
    module: tvm.IRModule,
    prefix: str,
    tvm_target: Any,
    *,
    regions: Sequence[Region] = (),
    target: str = "the target",
    max_tokens: int | None = None,
) -> Program:
    """Emit the functions of a lowered and scheduled module, bind their arguments and plan the arena.

    Args:
        prefix: the model's C prefix; symbols of constants start with it.
        regions: RAM of the target for the arena; empty: no limit.

    Raises:
        UserError: the arena fits into none of the regions.
    """
    functions = {function.name: function for function in emit_functions(module, tvm_target)}
    graph = Graph(module["main"])
    binder = _Binder(prefix)
    calls, results = [], {}
    for var, value in graph:
        if not isinstance(value, relax.Call):
            continue
        function = functions[value.args[0].name_hint]
        tensors = [
            graph.producer_variable(arg) if as_array(arg) is None else arg for arg in value.args[1].fields
        ]
        calls.append(binder.bind(function, tensors, var))
        results[var] = calls[-1]
    output = graph.producer_variable(graph.result)
    inputs = tuple(
        Tensor(param.name, str(param.ty.dtype), shape_of(param))
        for param in graph.params
        if hasattr(param.ty, "shape")
    )
    outputs = (Tensor(output.name, str(output.ty.dtype), shape_of(output)),)
    buffers = _buffers(calls, inputs, outputs)
    planned = plan(buffers, regions=regions, target=target, max_tokens=max_tokens)
    return Program(tuple(calls), tuple(binder.constants.values()), inputs, outputs, planned)


class _Binder:
    """Names constants, one symbol for equal arrays, and binds arguments to parameters."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.constants: dict[tuple[str, bytes], Constant] = {}

    def bind(self, function: CFunction, args: list[Any], result: relax.Var) -> Call:
        values = iter(args)
        bound = []
        for parameter in function.parameters:
            if parameter.role == "argument":
                value = next(values)
                array = as_array(value)
                if array is not None:
                    bound.append(Argument(parameter, constant=self._constant(function, parameter, array)))
                else:
                    bound.append(Argument(parameter, tensor=value.name))
            elif parameter.role == "output":
                bound.append(Argument(parameter, tensor=result.name))
            elif parameter.role == "scratch":
                bound.append(Argument(parameter, tensor=f"{result.name}.{parameter.name}"))
            else:
                bound.append(Argument(parameter))
        used = tuple(argument for argument in bound if argument.parameter.first >= 0)
        return Call(function, used)

    def _constant(self, function: CFunction, parameter: Parameter, array: Array) -> str:
        key = (str(array.dtype), array.tobytes())
        if key not in self.constants:
            symbol = re.sub(r"\W", "_", f"{self.prefix}_{function.name}_{parameter.name}")
            self.constants[key] = Constant(symbol, np.asarray(array))
        return self.constants[key].symbol


def _buffers(calls: list[Call], inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> list[Buffer]:
    """Every tensor and scratch buffer with its lifetime, in steps of all functions one after another."""
    uses: dict[str, list[tuple[int, int]]] = {}
    sizes: dict[str, int] = {tensor.name: tensor.bytes for tensor in (*inputs, *outputs)}
    kinds: dict[str, Kind] = {}
    base = 0
    for call in calls:
        for argument in call.arguments:
            if argument.tensor:
                step = (base + argument.parameter.first, base + argument.parameter.last)
                uses.setdefault(argument.tensor, []).append(step)
                sizes.setdefault(argument.tensor, argument.parameter.bytes)
                kinds.setdefault(
                    argument.tensor, "scratch" if argument.parameter.role == "scratch" else "tensor"
                )
        base += call.function.steps
    kinds.update({tensor.name: "input" for tensor in inputs})
    kinds.update({tensor.name: "output" for tensor in outputs})
    last = {name: max(step[1] for step in steps) for name, steps in uses.items()}
    aliases = _aliases(calls, last)
    return [
        Buffer(
            name,
            sizes[name],
            TENSOR_ALIGN,
            min(s[0] for s in steps),
            last[name],
            kinds[name],
            aliases.get(name),
        )
        for name, steps in uses.items()
    ]


def _aliases(calls: list[Call], last: dict[str, int]) -> dict[str, str]:
    """Result -> operand in whose place it may be computed: one that dies in the step that writes the result."""
    aliases: dict[str, str] = {}
    base = 0
    for call in calls:
        output = next(argument for argument in call.arguments if argument.parameter.role == "output")
        step = base + output.parameter.first
        for argument in call.arguments:
            allowed = argument.parameter.name in kernels()[call.function.kernel].inplace
            if allowed and argument.tensor and last[argument.tensor] == step:
                aliases.setdefault(output.tensor, argument.tensor)
        base += call.function.steps
    return aliases

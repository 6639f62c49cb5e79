"""The program of a model: which C functions run in which order on which bytes of the arena."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import relax

from tvmtiny.codegen.c_functions import CFunction, Parameter, emit_functions, item_bytes
from tvmtiny.codegen.planner import Buffer, Kind, Plan, Region, plan
from tvmtiny.passes.graph import Graph, as_array, op_name, shape_of
from tvmtiny.passes.step import POSITION_PARAMETER, STATE_PARAMETERS
from tvmtiny.storage.choice import AS_THEY_ARE, BOOT, Storage

Array = npt.NDArray[Any]

READY = "ready"
"""In the plan, the word that says whether weights were decoded at boot."""

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
    """What one parameter of a call gets: a constant's symbol, a tensor of the arena, or a number."""

    parameter: Parameter
    constant: str = ""
    tensor: str = ""


@dataclasses.dataclass(frozen=True)
class Call:
    """One operator of the run."""

    function: CFunction
    arguments: tuple[Argument, ...]

    @property
    def result(self) -> str:
        """The tensor that it computes."""
        return next(argument.tensor for argument in self.arguments if argument.parameter.role == "output")

    @property
    def constants(self) -> list[str]:
        """Symbols of the constants that it reads."""
        return [argument.constant for argument in self.arguments if argument.constant]

    @property
    def decodes(self) -> bool:
        """Whether it brings constants to the form in which another one takes them."""
        return self.function.plain_bytes > 0


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An input or output as the arena holds it.

    Attributes:
        name: as in the source model.
        buffer: name in the plan: `name`, and more words where an operator's result is called like an input.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    buffer: str

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
        plan: offsets of all tensors by buffer name.
        state: what lives from run to run, of a model that runs in steps; the position, an int32, first.
        boot: calls that come once, before the first run; what they compute lives from then on.
        ready: where it is noted that they came; None where weights are not to be decoded at boot.
        storage: how weights were to lie in flash.
    """

    calls: tuple[Call, ...]
    constants: tuple[Constant, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    plan: Plan
    state: tuple[Tensor, ...] = ()
    boot: tuple[Call, ...] = ()
    ready: Tensor | None = None
    storage: Storage = AS_THEY_ARE

    @property
    def all_calls(self) -> tuple[Call, ...]:
        """Those of boot and those of a run."""
        return (*self.boot, *self.calls)

    @property
    def state_bytes(self) -> int:
        """Size of what lives from run to run."""
        return sum(tensor.bytes for tensor in self.state)

    @property
    def decoded_bytes(self) -> int:
        """Most bytes of decoded constants that the arena holds at once."""
        names = {call.result for call in self.all_calls if call.decodes}
        lives = [buffer for buffer in self.plan.buffers if buffer.name in names]
        return max(
            (sum(b.bytes for b in lives if b.first <= one.first <= b.last) for one in lives), default=0
        )

    @property
    def variants(self) -> list[str]:
        """Variants of micro-kernels in use, that of the most operators first."""
        used = [call.function.variant for call in self.all_calls]
        return sorted(set(used), key=lambda name: (-used.count(name), name))

    def microkernels(self, variant: str) -> set[str]:
        """Names of the micro-kernels of a variant that are in use."""
        used = (call.function.microkernels for call in self.all_calls if call.function.variant == variant)
        return set().union(*used)

    @property
    def weight_bytes(self) -> int:
        """Size of all constants in flash, with a multiplier and a zero point (int32) a column of feature inputs."""
        columns = sum(tensor.shape[-1] for tensor in self.inputs if tensor.dtype == "int8")
        return sum(constant.array.nbytes for constant in self.constants) + 8 * columns


def build_program(
    module: tvm.IRModule,
    prefix: str,
    tvm_target: Any,
    *,
    regions: Sequence[Region] = (),
    target: str = "the target",
    max_tokens: int | None = None,
    storage: Storage = AS_THEY_ARE,
) -> Program:
    """Emit the functions of a lowered and scheduled module, bind their arguments and plan the arena.

    Args:
        prefix: the model's C prefix; symbols of constants start with it.
        regions: RAM of the target for the arena; empty: no limit.
        storage: how weights were to lie in flash. An init function is there whenever they were to be decoded at boot,
            so that the interface does not depend on what was worth compressing.

    Raises:
        UserError: the arena fits into none of the regions.
        AssertionError: two results have one name, or an operator is called with a tensor smaller than it takes.
    """
    functions = {function.name: function for function in emit_functions(module, tvm_target)}
    graph = Graph(module["main"])
    steps = [
        (var, functions[value.args[0].name_hint], value.args[1].fields)
        for var, value in graph
        if isinstance(value, relax.Call) and op_name(value) != "reshape"
    ]
    params = [param for param in graph.params if hasattr(param.ty, "shape")]
    names = _buffer_names(params, [(var, function) for var, function, _ in steps])
    binder = _Binder(prefix, names)
    calls = [
        binder.bind(function, [graph.storage(arg) if as_array(arg) is None else arg for arg in args], var)
        for var, function, args in steps
    ]
    boot = tuple(call for call in calls if call.function.boot)
    ready = Tensor(READY, "uint32", (1,), _free(READY, names)) if storage.place == BOOT else None
    kept = list(dict(graph.function.attrs or {}).get(STATE_PARAMETERS, ()))
    inputs = tuple(_tensor(param, names) for param in params if param.name not in kept)
    state = tuple(_tensor(param, names) for param in params if param.name in kept)
    if kept:
        state = (_position(names), *state)
    outputs = tuple(_tensor(graph.storage(result), names, shape_of(result)) for result in graph.results)
    buffers = _buffers(calls, inputs, outputs, (*state, *([] if ready is None else [ready])))
    planned = plan(buffers, regions=regions, target=target, max_tokens=max_tokens)
    run = tuple(call for call in calls if not call.function.boot)
    return Program(
        run, tuple(binder.constants.values()), inputs, outputs, planned, state, boot, ready, storage
    )


def _tensor(var: relax.Var, names: dict[relax.Var, str], shape: tuple[int, ...] | None = None) -> Tensor:
    return Tensor(var.name, str(var.ty.dtype), shape or shape_of(var), names[var])


def _position(names: dict[relax.Var, str]) -> Tensor:
    """The number of earlier tokens."""
    return Tensor(POSITION_PARAMETER, "int32", (1,), _free(POSITION_PARAMETER, names))


def _free(wanted: str, names: dict[relax.Var, str]) -> str:
    """A name in the plan that no tensor has."""
    taken = {*names.values()}
    choices = itertools.chain([wanted], (f"{wanted} {i}" for i in itertools.count(2)))
    return next(name for name in choices if name not in taken)


def _buffer_names(
    params: list[relax.Var], results: list[tuple[relax.Var, CFunction]]
) -> dict[relax.Var, str]:
    """The name in the plan of every input and result; no two tensors, scratch included, share one.

    Results are called as their variables. Inputs have any name that the source model gave them, so they give way.
    """
    names = {var: var.name for var, _ in results}
    taken = [*names.values()]
    for var, function in results:
        taken += [_scratch(var.name, p) for p in function.parameters if p.role == "scratch"]
    shared = {name for name in taken if taken.count(name) > 1}
    assert not shared, f"two tensors are called {', '.join(sorted(shared))}"
    for param in params:
        choices = itertools.chain(
            [param.name, f"{param.name} (input)"], (f"{param.name} (input {i})" for i in itertools.count(2))
        )
        names[param] = next(name for name in choices if name not in taken)
        taken.append(names[param])
    return names


def _scratch(result: str, parameter: Parameter) -> str:
    return f"{result}.{parameter.name}"


class _Binder:
    """Names constants, one symbol for equal arrays, and binds arguments to parameters."""

    def __init__(self, prefix: str, names: dict[relax.Var, str]) -> None:
        self.prefix = prefix
        self.names = names
        self.constants: dict[tuple[str, bytes], Constant] = {}

    def bind(self, function: CFunction, args: list[Any], result: relax.Var) -> Call:
        values = iter(args)
        bound = []
        for parameter in function.parameters:
            if parameter.role in ("argument", "state"):
                value = next(values)
                array = as_array(value)
                if array is not None:
                    bound.append(Argument(parameter, constant=self._constant(function, parameter, array)))
                else:
                    bound.append(Argument(parameter, tensor=self.names[value]))
            elif parameter.role == "output":
                bound.append(Argument(parameter, tensor=self.names[result]))
            elif parameter.role == "scratch":
                bound.append(Argument(parameter, tensor=_scratch(self.names[result], parameter)))
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


def _buffers(
    calls: list[Call], inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], state: tuple[Tensor, ...]
) -> list[Buffer]:
    """Every tensor and scratch buffer with its lifetime, in steps of all functions one after another."""
    uses: dict[str, list[tuple[int, int]]] = {tensor.buffer: [(0, 0)] for tensor in state}
    sizes: dict[str, int] = {tensor.buffer: tensor.bytes for tensor in (*inputs, *outputs, *state)}
    kinds: dict[str, Kind] = {}
    base = 0
    for call in calls:
        for argument in call.arguments:
            if argument.tensor:
                step = (base + argument.parameter.first, base + argument.parameter.last)
                uses.setdefault(argument.tensor, []).append(step)
                size = sizes.setdefault(argument.tensor, argument.parameter.bytes)
                assert argument.parameter.bytes <= size, (
                    f"{call.function.name} takes {argument.parameter.bytes} bytes as {argument.parameter.name}, "
                    f"{argument.tensor} has {size}"
                )
                kinds.setdefault(
                    argument.tensor, "scratch" if argument.parameter.role == "scratch" else "tensor"
                )
        base += call.function.steps
    kinds.update({tensor.buffer: "input" for tensor in inputs})
    kinds.update({tensor.buffer: "output" for tensor in outputs})
    kinds.update({tensor.buffer: "state" for tensor in state})
    kinds.update({call.result: "state" for call in calls if call.function.boot})
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
    """Result -> operand in whose place it may be computed: one that dies in the step that writes the result.

    An operand of fewer bytes cannot be: int8 beside an int16 result.
    """
    aliases: dict[str, str] = {}
    base = 0
    for call in calls:
        output = next(argument for argument in call.arguments if argument.parameter.role == "output")
        for tensor in _overwritable(call, output.parameter.bytes):
            if last[tensor] == base + output.parameter.first:
                aliases.setdefault(output.tensor, tensor)
        base += call.function.steps
    return aliases


def _overwritable(call: Call, result_bytes: int) -> list[str]:
    """The tensors that the result of a call may overwrite: large enough, and no operand that it must not overwrite."""
    arguments = {a.parameter.name: a for a in call.arguments if a.tensor}
    kept = {a.tensor for name, a in arguments.items() if name not in call.function.inplace}
    allowed = [arguments[name] for name in call.function.inplace if name in arguments]
    return [a.tensor for a in allowed if a.tensor not in kept and a.parameter.bytes >= result_bytes]

"""Tuning tasks: the distinct kernels of compiled models, with how often each runs and the operands of one such call."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import relax, tirx

from tvmtiny.artifact import Artifact
from tvmtiny.errors import UserError
from tvmtiny.kernels import Blocking, Kernel, Operands, emit_call, kernel_calls, kernels
from tvmtiny.quant.reference import IntegerModel
from tvmtiny.schedule import space
from tvmtiny.schedule.signature import Signature
from tvmtiny.target import Target
from tvmtiny.verify import INTEGER_MODULE

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Use:
    """Where a kernel runs: an operator of a model."""

    model: str
    operator: str


@dataclasses.dataclass
class Task:
    """One distinct kernel.

    Attributes:
        signature: what its records are found by.
        kernel, operands: of its first use, as the integer module calls it.
        arrays: what that use is given in a run of one of the model's reference inputs, that with the most tokens.
        computed: which of it are no constants.
        n: tokens that are present in that run.
        uses: all operators that are this kernel.
        designs: its schedules on the target.
    """

    signature: Signature
    kernel: Kernel
    operands: Operands
    arrays: dict[str, Array]
    computed: set[str]
    n: int
    uses: list[Use]
    designs: list[space.Design]

    @property
    def size(self) -> int:
        """How many schedules there are."""
        return space.size(self.designs)

    @property
    def name(self) -> str:
        """Of its first use."""
        return f"{self.uses[0].model}/{self.uses[0].operator}"

    @property
    def default(self) -> Blocking:
        """The rules' schedule: the first point of the first design."""
        return next(self.designs[0].points())

    @functools.cached_property
    def workload(self) -> tvm.IRModule:
        """The kernel's TIR as the subject of schedules."""
        return space.workload(self.kernel, self.operands)

    def expected(self) -> Array:
        """The bytes of the result, by the NumPy reference."""
        return self.kernel.reference(Operands(self.arrays, None, self.operands.attrs), self.n)

    def module(self) -> tvm.IRModule:
        """A module of this one operator: activations, then the number of tokens where it varies, are parameters."""
        builder = relax.BlockBuilder()
        tensors = {
            name: _parameter(name, array) if name in self.computed else relax.const(array)
            for name, array in self.arrays.items()
        }
        n = tirx.Var("n", "int32") if self.signature.dynamic else self.operands.n
        params = [tensor for tensor in tensors.values() if isinstance(tensor, relax.Var)]
        with builder.function("main", [*params, *([n] if self.signature.dynamic else [])]):
            with builder.dataflow():
                call = emit_call(self.kernel.name, tensors, n, **self.operands.attrs)
                result = builder.emit_output(builder.emit(call, name_hint="result"))
            builder.emit_func_output(result)
        return builder.get()


def _parameter(name: str, array: Array) -> relax.Var:
    return relax.Var(name, relax.TensorType(list(array.shape), str(array.dtype)))


def tasks_of(artifacts: Sequence[Artifact], target: Target, *, wide_weights: bool) -> list[Task]:
    """The kernels of models that have more than one schedule on a target, in the order of their first uses.

    Args:
        wide_weights: whether flash may hold weights as int16.

    Raises:
        UserError: a directory lacks its integer module.
    """
    found: dict[Signature, Task] = {}
    kernels()  # registers the operators that the modules use
    for artifact in artifacts:
        for task in _tasks(artifact, target, wide_weights):
            known = found.setdefault(task.signature, task)
            if known is not task:
                known.uses.extend(task.uses)
    return [task for task in found.values() if task.size >= space.LEAST_SIZE]


def _tasks(artifact: Artifact, target: Target, wide_weights: bool) -> list[Task]:
    path = artifact.directory / INTEGER_MODULE
    if not path.is_file():
        raise UserError(f"{artifact.directory} lacks {INTEGER_MODULE}.", "Compile the model again.")
    module = tvm.ir.load_json(path.read_text("utf-8"))
    with np.load(artifact.reference_inputs) as data:
        longest = int(np.argmax(data["n_tokens"]))
        n = int(data["n_tokens"][longest])
        inputs = {name: data[name][longest] for name in data.files if name != "n_tokens"}
    model = IntegerModel(module)
    given = model.operands(inputs, n)
    spaces: dict[Signature, list[space.Design]] = {}
    tasks = []
    for name, kernel, operands in kernel_calls(module):
        signature = Signature.of(kernel, operands)
        if signature not in spaces:
            spaces[signature] = space.designs(kernel, operands, target, wide_weights=wide_weights)
        uses = [Use(artifact.name, name)]
        tasks.append(Task(signature, kernel, operands, *given[name], n, uses, spaces[signature]))
    return tasks

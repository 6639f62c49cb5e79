"""What a recipe trains for: the model, its data, its loss and what is measured. Written by the user, in a Python file.

The file beside the recipe defines `task(seed: int, **parameters) -> Task`; everything in this package takes its result.
Names of inputs and outputs are those of the exported model, so that the same arrays train the module and feed the C.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tvmtiny.errors import UserError

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Split:
    """Samples that nothing is trained on.

    Attributes:
        inputs: by name, samples along the first axis, in the order in which the module takes them.
        targets: by name, samples along the first axis; class indices, or whatever `Task.loss` and `Task.metrics` read.
    """

    inputs: Arrays
    targets: Arrays

    def __post_init__(self) -> None:
        counts = {name: len(values) for name, values in (*self.inputs.items(), *self.targets.items())}
        if not self.inputs or len(set(counts.values())) != 1 or 0 in counts.values():
            raise UserError(
                f"The arrays of a split need the same number of samples, at least one: {counts}.",
                "Correct the task of the recipe.",
            )

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))


@dataclass(frozen=True)
class Task:
    """One thing to be learnt, for one seed.

    Attributes:
        model: makes the untrained student; its forward takes the inputs in order, returns a tensor or a tuple of them.
        outputs: names of what the forward returns, in its order.
        batches: an epoch of (inputs, targets) to train on, augmented as the task likes; called once an epoch.
        steps: batches an epoch, by which learning rates are planned.
        loss: of the outputs by name and the targets, a scalar.
        metrics: of the outputs by name, as arrays of all samples, and the targets: values by name, larger is better,
            0 to 1; the first is what budgets and tables speak of.
        selection: what choices are made on.
        test: read once a reported figure.
        calibration: inputs that show the ranges of activations.
        teacher: makes the trained teacher, when there is one; its outputs have the same names and sizes. Called once
            more for the checks before a run.
        augment: inputs and targets to further ones, for distillation: the teacher labels them.
        files: what `tvmtiny compile` is to be given besides: its arguments `tokenizer`, `features`, `labels`.
        depends: files that the module depends on besides the Python files beside the task's, such as those of a
            teacher: when one of them changes, checkpoints do not count any more.
    """

    model: Callable[[], nn.Module]
    outputs: tuple[str, ...]
    batches: Callable[[], Iterator[tuple[Tensors, Tensors]]]
    steps: int
    loss: Callable[[Tensors, Tensors], Tensor]
    metrics: Callable[[Arrays, Arrays], dict[str, float]]
    selection: Split
    test: Split
    calibration: Arrays
    teacher: Callable[[], nn.Module] | None = None
    augment: Callable[[Tensors, Tensors], tuple[Tensors, Tensors]] | None = None
    files: Mapping[str, Any] = field(default_factory=dict)
    depends: tuple[Path, ...] = ()

    def forward(self, module: nn.Module, inputs: Tensors) -> dict[str, Tensor]:
        """The outputs of `module` by name."""
        found = module(*inputs.values())
        values = (found,) if isinstance(found, Tensor) else tuple(found)
        if len(values) != len(self.outputs):
            raise UserError(
                f"The module returns {len(values)} tensors; the task names {len(self.outputs)}: "
                f"{', '.join(self.outputs)}.",
                "Name each of them in the task's `outputs`.",
            )
        return dict(zip(self.outputs, values, strict=True))

    @torch.no_grad()
    def predict(self, module: nn.Module, inputs: Arrays, batch: int = 256) -> dict[str, Array]:
        """The outputs of all samples by name, in evaluation mode."""
        module.eval()
        rows = len(next(iter(inputs.values())))
        found = [
            self.forward(module, {name: torch.from_numpy(x[at : at + batch]) for name, x in inputs.items()})
            for at in range(0, rows, batch)
        ]
        return {name: np.concatenate([part[name].numpy() for part in found]) for name in self.outputs}

    def measure(self, module: nn.Module, split: Split) -> dict[str, float]:
        """The metrics of `module` over `split`, as floating point on this computer."""
        return self.metrics(self.predict(module, split.inputs), split.targets)

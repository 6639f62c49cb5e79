"""Batches that a teacher has labelled once, and that a student learns from again and again.

A small student needs many epochs, and little time for each of them where a larger teacher need not run.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from tvmtiny.compress.checks import batches_of
from tvmtiny.compress.task import Task, Tensors
from tvmtiny.compress.training import set_seed


class Labelled(dict[str, Tensor]):
    """The targets of a batch, and the outputs of the teacher by name, in half precision."""

    def __init__(self, targets: Tensors, said: Mapping[str, Tensor]) -> None:
        super().__init__(targets)
        self.said = said


def teacher_outputs(task: Task, teacher: nn.Module, inputs: Tensors, targets: Tensors) -> dict[str, Tensor]:
    """What the teacher says of a batch: what is kept of it, or what it says now."""
    if isinstance(targets, Labelled):
        return {name: values.float() for name, values in targets.said.items()}
    with torch.no_grad():
        return task.forward(teacher, inputs)


class Lessons:
    """Epochs of a task's batches, labelled when they are first wanted.

    Which lesson an epoch gives follows from the seed of the epoch, and what a lesson holds from its own, so that a
    training that goes on from a checkpoint ends as one that was never stopped.
    """

    def __init__(self, task: Task, teacher: nn.Module, count: int, seed: int) -> None:
        self._task, self._teacher, self._count, self._seed = task, teacher, count, seed
        self._made: dict[int, list[tuple[Tensors, Labelled]]] = {}

    def batches(self) -> Iterator[tuple[Tensors, Tensors]]:
        """An epoch: the batches of one lesson in a new order."""
        chosen, order = random.randrange(self._count), random.getrandbits(32)
        if chosen not in self._made:
            set_seed(f"{self._seed}/lesson/{chosen}")
            self._made[chosen] = [self._labelled(*batch) for batch in batches_of(self._task)]
        # Also for what is random later: it must not matter whether the lesson was there.
        set_seed(f"{self._seed}/order/{order}")
        lesson = self._made[chosen]
        for at in torch.randperm(len(lesson)).tolist():
            yield lesson[at]

    def _labelled(self, inputs: Tensors, targets: Tensors) -> tuple[Tensors, Labelled]:
        said = teacher_outputs(self._task, self._teacher, inputs, targets)
        return inputs, Labelled(targets, {name: values.half() for name, values in said.items()})

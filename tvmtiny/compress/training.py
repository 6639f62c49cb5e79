"""The training loop of every step: AdamW, linear warm-up, cosine decay to zero, the last epoch's weights.

A training is a function of the module, the data and the seed: each epoch is seeded anew, so one that goes on from its
checkpoint ends as one that was never stopped (with the same number of threads: sums are taken in another order).
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from tvmtiny.compress.checks import attempt, batches_of
from tvmtiny.compress.progress import Checkpoint, Progress
from tvmtiny.compress.task import Task, Tensors
from tvmtiny.errors import EnvironmentProblem, UserError

Loss = Callable[[nn.Module, Tensors, Tensors], Tensor]
"""Of the module that is trained, a batch's inputs and its targets: a scalar."""


@dataclass(frozen=True)
class Training:
    """How a module is trained; batches are the task's.

    Attributes:
        epochs: over the task's batches.
        learning_rate: at the end of the warm-up.
        weight_decay: of matrices; biases and the parameters of normalizations have none.
        warmup: share of all batches in which the learning rate rises.
        clip: largest norm of the gradient.
    """

    epochs: Annotated[int, Ge(1)] = 10
    learning_rate: Annotated[float, Gt(0)] = 1e-3
    weight_decay: Annotated[float, Ge(0)] = 0.01
    warmup: Annotated[float, Interval(ge=0, le=1)] = 0.1
    clip: Annotated[float, Gt(0)] = 1.0


def set_seed(name: str) -> None:
    """Seed every generator, from a name."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def fit(
    module: nn.Module, task: Task, training: Training, *, progress: Progress, loss: Loss | None = None
) -> None:
    """Train `module` in place; it ends in evaluation mode.

    Args:
        loss: the task's, of the module's outputs, when None.

    Raises:
        UserError: the loss is not a finite number, or the task's batches fail or are not as many as it says.
        EnvironmentProblem: a checkpoint cannot be written or read, or is one of another model.
    """
    checkpoint = progress.training()
    if progress.dry:
        module.eval()
        return
    optimizer = torch.optim.AdamW(
        parameter_groups(module, training.weight_decay), lr=training.learning_rate, betas=(0.9, 0.98)
    )
    steps = training.epochs * task.steps
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda at: rate(at, steps, training.warmup))
    parts: dict[str, Any] = {"module": module, "optimizer": optimizer, "schedule": schedule}
    start = _restore(checkpoint, parts)
    progress.restored |= start > 0
    for epoch in range(start, training.epochs):
        set_seed(f"{checkpoint.name}/{epoch}")
        where = f"{progress.step or 'training'}, epoch {epoch + 1} of {training.epochs}"
        mean, count = _epoch(module, task, loss or _of_task(task), optimizer, schedule, training.clip, where)
        if epoch == 0 and count != task.steps:
            raise UserError(
                f"An epoch has {count} batches; the task says {task.steps}, by which learning rates are planned.",
                "Correct `steps` of the task.",
            )
        done = epoch + 1 == training.epochs
        kept = {"module": module} if done else parts
        checkpoint.save({"epoch": epoch + 1, **{name: part.state_dict() for name, part in kept.items()}})
        progress.report("training", epoch + 1, training.epochs, loss=mean)
    module.eval()


def _restore(checkpoint: Checkpoint, parts: dict[str, Any]) -> int:
    """Load what was saved; returns the number of epochs that are done."""
    state = checkpoint.load()
    if state is None:
        return 0
    try:
        for name, part in parts.items():
            if name in state:
                part.load_state_dict(state[name])
        return int(state["epoch"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise EnvironmentProblem(
            f"The checkpoint {checkpoint.path} is of another model: {str(error).strip().splitlines()[0]}",
            "Something that the task reads has changed: run with --no-resume.",
        ) from error


def _epoch(
    module: nn.Module,
    task: Task,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LambdaLR,
    clip: float,
    where: str,
) -> tuple[float, int]:
    """One epoch; returns the mean loss and the number of batches."""
    total, count = 0.0, 0
    module.train()
    for inputs, targets in batches_of(task):
        count += 1
        value = attempt(f"the loss in {where}, batch {count},", partial(loss, module, inputs, targets))
        if not torch.isfinite(value):
            raise UserError(
                f"The loss is {value.item()} in {where}, batch {count}, learning rate {schedule.get_last_lr()[0]:.3g}.",
                "Lower learning_rate, lengthen warmup, or look for such values in the data.",
            )
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(module.parameters(), clip)
        optimizer.step()
        schedule.step()
        total += value.item()
    return total / max(1, count), count


def _of_task(task: Task) -> Loss:
    return lambda module, inputs, targets: task.loss(task.forward(module, inputs), targets)


def rate(step: int, steps: int, warmup: float) -> float:
    """Factor on the learning rate at `step` of `steps`."""
    start = max(1, int(steps * warmup))
    if step < start:
        return (step + 1) / start
    done = min(1, (step - start) / max(1, steps - start))  # an epoch may have more batches than the first
    return 0.5 * (1 + math.cos(math.pi * done))


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Decay matrices; leave biases and normalizations alone."""
    trained = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]

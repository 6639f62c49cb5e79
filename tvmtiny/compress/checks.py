"""What can be wrong with a task, found before anything is trained."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from tvmtiny.compress.task import Array, Split, Task, Tensors
from tvmtiny.errors import UserError

_REMEDY = "Correct the task of the recipe."
_T = TypeVar("_T")


def check_task(task: Task, module: nn.Module) -> None:
    """Run one batch through a module and the loss, and both splits through the module and the metrics.

    Raises:
        UserError: arrays, names or shapes that do not go together, a target with the name of an input, targets of one
            class only, or a metric that is no number.
    """
    names = list(task.selection.inputs)
    for what, given in (("test", task.test.inputs), ("calibration", task.calibration)):
        if list(given) != names:
            raise UserError(f"The inputs of {what} are {list(given)}, of selection {names}.", _REMEDY)
    for what, split in (("selection", task.selection), ("test", task.test)):
        _check_names(split)
        _check_classes(what, split)
        _check_finite(what, split.inputs)
    _check_batch(task, module, names)
    _check_metrics(task, module)


def _check_names(split: Split) -> None:
    twice = sorted(set(split.inputs) & set(split.targets))
    if twice:  # both go into one file of the result
        raise UserError(f"Inputs and targets share the names {twice}.", "Rename the targets of the task.")


def _check_classes(what: str, split: Split) -> None:
    """Targets of classes (whole numbers; negative ones count for nothing) have at least two."""
    for name, target in split.targets.items():
        values = np.asarray(target)
        classes = np.unique(values[values >= 0]) if values.dtype.kind in "iu" else None
        if classes is not None and len(classes) < 2 <= len(split):
            found = f"the class {classes[0]} only" if len(classes) else "no class at all"
            raise UserError(
                f"The targets '{name}' of {what} hold {found}.", f"Check how rows are split. {_REMEDY}"
            )


def _check_finite(what: str, arrays: Mapping[str, Array]) -> None:
    for name, values in arrays.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise UserError(f"The input '{name}' of {what} holds values that are not finite.", _REMEDY)


def _check_batch(task: Task, module: nn.Module, names: list[str]) -> None:
    if task.steps < 1:
        raise UserError(f"The task has {task.steps} batches an epoch.", _REMEDY)
    batch = next(batches_of(task), None)
    if batch is None:
        raise UserError("An epoch of the task has no batch.", _REMEDY)
    inputs, targets = batch
    if list(inputs) != names:
        raise UserError(f"Batches have the inputs {list(inputs)}, the selection split {names}.", _REMEDY)
    loss = attempt(
        "the loss of the first batch", lambda: task.loss(task.forward(module.eval(), inputs), targets)
    )
    if not isinstance(loss, torch.Tensor) or loss.ndim != 0:
        shape = tuple(getattr(loss, "shape", ()))
        raise UserError(f"The loss is no scalar tensor: {type(loss).__name__} {shape}.", _REMEDY)


def _check_metrics(task: Task, module: nn.Module) -> None:
    for what, split in (("selection", task.selection), ("test", task.test)):
        found = attempt(f"the metrics of {what}", partial(task.measure, module, split))
        if not found or not all(
            isinstance(v, float | int | np.number) and np.isfinite(v) for v in found.values()
        ):
            raise UserError(f"The metrics of {what} are no numbers by name: {found}.", _REMEDY)


def present_tokens(inputs: Tensors, mask: str, targets: Tensors | None = None) -> Tensor | None:
    """bool (B, S): the tokens that count; None for all of them.

    Args:
        mask: name of the input that is 1 where a token is there, or of the target that is below 0 where it tells
            nothing; "" for none.

    Raises:
        UserError: there is none of that name, or it is not of shape (B, S).
    """
    if not mask:
        return None
    if mask in inputs:
        present = inputs[mask].bool()
    elif targets is not None and mask in targets:
        present = targets[mask] >= 0
    else:
        names = ", ".join([*inputs, *(targets or {})])
        raise UserError(f"mask = '{mask}' is none of {names}.", "Correct the recipe.")
    if present.ndim != 2:
        raise UserError(
            f"mask = '{mask}' has the shape {list(present.shape)}: it tells nothing of tokens.",
            "Name an input or target of shape [B, S].",
        )
    return present


def batches_of(task: Task, count: int | None = None) -> Iterator[tuple[Tensors, Tensors]]:
    """The batches of an epoch, or the first `count`; raises UserError for whatever goes wrong in making them."""
    rows = attempt("the batches", lambda: iter(task.batches()))
    yield from islice(iter(lambda: attempt("the batches", lambda: next(rows, None)), None), count)


def attempt(what: str, compute: Callable[[], _T]) -> _T:
    """What `compute` gives; whatever goes wrong there is the task's."""
    try:
        return compute()
    except UserError:
        raise
    except Exception as error:
        line = (str(error).strip().splitlines() or [""])[0]
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(frame.filename).name}, line {frame.lineno}"
        raise UserError(
            f"Computing {what} failed: {type(error).__name__}: {line} ({place})", _REMEDY
        ) from error

"""What a step is told of the run that it is part of: who listens, which seed, and where its training is kept."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tvmtiny.codegen.directory import check_writable, write_whole
from tvmtiny.errors import EnvironmentProblem


@dataclass(frozen=True)
class Event:
    """What a listener is told.

    Attributes:
        step: name of the step, such as "2 prune".
        text: what is going on.
        done, total: units of it, such as epochs; 0 where it has none.
        values: figures by name, such as the loss.
    """

    step: str
    text: str
    done: int = 0
    total: int = 0
    values: dict[str, float] = field(default_factory=dict)


Listener = Callable[[Event], None]


@dataclass
class Progress:
    """The run as one step sees it; without arguments, that of a step which is called alone.

    A step is a function of its input, its parameters and the seed, so a run that was killed is run again: every
    training of it that had been finished, or begun, is taken from its checkpoint.

    Attributes:
        step: name of the step, for messages.
        listener: is told what happens.
        seed: from which all that is random follows.
        dry: train nothing; only sizes matter.
        checkpoints: beginning of the paths of checkpoints; None: keep none.
        restored: whether a training was taken from its checkpoint, or a part of it.
    """

    step: str = ""
    listener: Listener | None = None
    seed: int = 0
    dry: bool = False
    checkpoints: Path | None = None
    restored: bool = field(default=False, init=False)
    _trainings: int = field(default=0, init=False)

    def report(self, text: str, done: int = 0, total: int = 0, **values: float) -> None:
        """Tell the listener."""
        if self.listener is not None:
            self.listener(Event(self.step, text, done, total, values))

    def training(self) -> Checkpoint:
        """The place and the seeds of the step's next training."""
        self._trainings += 1
        name = f"{self.step}/{self._trainings}"
        if self.checkpoints is None:
            return Checkpoint(None, f"{self.seed}/{name}")
        path = self.checkpoints.with_name(f"{self.checkpoints.name}-{self._trainings}.pt")
        return Checkpoint(path, f"{self.seed}/{name}")


@dataclass(frozen=True)
class Checkpoint:
    """State of one training: tensors and plain values only, so that reading it runs no code.

    Attributes:
        path: its file; None: kept nowhere.
        name: what its seeds are derived from.
    """

    path: Path | None
    name: str

    def load(self) -> dict[str, Any] | None:
        """What was saved last, if anything that can be read."""
        if self.path is None or not self.path.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self.path, weights_only=True)
        except Exception as error:  # zip, pickle: each of its readers raises its own
            raise EnvironmentProblem(
                f"The checkpoint {self.path} is damaged: {error}.", "Remove it, or run with --no-resume."
            ) from error
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Write beside, then rename: a run that is killed leaves the old state or the new one."""
        if self.path is not None:
            write(self.path, state_bytes(state))


def state_bytes(state: Mapping[str, Any]) -> bytes:
    """A file of tensors and plain values; torch.save on a path hides why it cannot be written."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def check_place(directory: Path) -> None:
    """Make a directory; raises EnvironmentProblem when it cannot be written, before anything is trained for it."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        check_writable(directory)
    except OSError as error:
        raise EnvironmentProblem(
            f"Cannot write {directory}: {error.strerror or error}.", "Give another directory with -o."
        ) from error


def write(path: Path, data: bytes) -> None:
    """Write a file that is whole or not there.

    Raises:
        EnvironmentProblem: the disk is full, or the place cannot be written.
    """
    try:
        write_whole(path, data)
    except OSError as error:
        raise EnvironmentProblem(
            f"Cannot write {path}: {error.strerror or error}.",
            "Make room or give another directory with -o; what was trained so far is kept, and the run goes on there.",
        ) from error

"""Where an image of candidates runs, and what it tells of each: the interface that every place has.

`--on qemu` and `--on serial:PORT` are here; `rpc.py` has the boards of a lab.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import statistics
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np

from tvmtiny.artifact import Artifact
from tvmtiny.errors import EnvironmentProblem, TvmtinyError, UserError
from tvmtiny.project.api import ProjectAPI
from tvmtiny.report.blocks import Program
from tvmtiny.report.cycles import core_model
from tvmtiny.runner import Sample, run
from tvmtiny.runner.api import split
from tvmtiny.target import Target
from tvmtiny.tune.image import NAME

NOT_RUN = -1
WARM_UP, REPETITIONS = 1, 5
"""Of each candidate on a board: runs that fill caches, and runs that count."""


@dataclasses.dataclass(frozen=True)
class Image:
    """A built firmware: its artifact, build directory and number of candidates."""

    artifact: Artifact
    build_dir: Path
    candidates: int


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one candidate did.

    Attributes:
        cycles: estimated on an emulated core, the median on a board.
        instructions: exact on an emulated core, else 0.
        spread: (highest - lowest) / cycles; 0 on an emulated core.
        wrong: bytes that differ from the reference.
        error: why there is no figure; then the others say nothing.
    """

    cycles: int = 0
    instructions: int = 0
    spread: float = 0.0
    wrong: int = 0
    error: str = ""


class Place(Protocol):
    """Something that runs candidates."""

    name: str

    def run(self, image: Image, first: int, count: int) -> list[Outcome]:
        """Run some candidates of an image. Raises TvmtinyError when that fails as a whole: one of them may hang."""

    @property
    def parallel(self) -> int:
        """How many runs it can do at once."""


class Qemu:
    """The emulated core of a target: exact instruction counts and the cycle estimate of report/cycles.py."""

    name = "qemu"

    def __init__(self, target: Target, timeout_s: float, jobs: int = 0) -> None:
        self._target, self._timeout_s = target, timeout_s
        self._model = core_model(target.cpu)
        self._program_of = functools.lru_cache(maxsize=1)(self._read)  # parts of an image share it
        self._reading = threading.Lock()
        self.parallel = jobs or os.cpu_count() or 1

    def run(self, image: Image, first: int, count: int) -> list[Outcome]:
        """One process."""
        indices = range(first, first + count)
        phases = ["tune_prepare", "tune_compare", *(f"tune_run_{index}" for index in indices)]
        result = run(
            image.artifact,
            "qemu",
            [request(first, count)],
            target=self._target,
            blocks=True,
            phases=phases,
            build_dir=image.build_dir,
            lean=True,
            timeout_s=self._timeout_s,
        )
        if result.instructions is None:
            raise EnvironmentProblem(
                "This QEMU was built without plugins, so that it cannot count instructions.",
                "Debian's and Ubuntu's can: sudo apt-get install qemu-system-arm",
            )
        wrong = result.outputs[0]["wrong"]
        with self._reading:
            program = self._program_of(result.run_elf)
        cycles, instructions = np.zeros(len(phases) + 1, np.int64), np.zeros(len(phases) + 1, np.int64)
        for block, spent in zip(result.blocks, program.cycles_in_place(result.blocks), strict=True):
            cycles[block.phase] += spent
            instructions[block.phase] += block.instructions * block.entered
        return [
            Outcome(int(cycles[phase]), int(instructions[phase]), wrong=int(wrong[index]))
            for phase, index in enumerate(indices, start=3)
        ]

    def _read(self, elf: Path) -> Program:
        return Program(elf, self._target, self._model)


class Serial:
    """A board on a serial line: one candidate a run, its cycles by the board's own counter."""

    parallel = 1

    def __init__(self, target: Target, port: str, timeout_s: float) -> None:
        self.name = f"serial:{port}"
        self._target, self._timeout_s = target, timeout_s
        self._flashed: Path | None = None

    def run(self, image: Image, first: int, count: int) -> list[Outcome]:
        """Flash the image, once; what preparing and comparing take is measured, of each candidate, and taken off."""
        self._flash(image)
        indices = range(first, first + count)
        pairs = [request(index, sign) for index in indices for sign in (-1, 1)]
        result = run(
            image.artifact,
            self.name,
            pairs or [request(first, 0)],
            target=self._target,
            build_dir=image.build_dir,
            timeout_s=self._timeout_s,
            repeat=WARM_UP + REPETITIONS,
        )
        if not result.cycles:
            raise EnvironmentProblem(
                f"The firmware on {self.name} counts no cycles.",
                "Tune on QEMU (--on qemu), whose counts are exact.",
            )
        counted = [cycles[WARM_UP:] for cycles in result.cycles]
        return [
            _timed(
                counted[2 * number], counted[2 * number + 1], result.outputs[2 * number + 1]["wrong"][index]
            )
            for number, index in enumerate(indices)
        ]

    def _flash(self, image: Image) -> None:
        if self._flashed != image.build_dir:
            api = ProjectAPI(self._target.project)
            api.generate_project(image.artifact, self._target, image.build_dir)
            api.build()
            api.flash()
            self._flashed = image.build_dir


def _timed(idle: Sequence[int], timed: Sequence[int], wrong: int) -> Outcome:
    """The outcome from the cycles of requests that prepare and compare a candidate only, and of those that run it."""
    cycles = max(1, round(statistics.median(timed) - statistics.median(idle)))
    return Outcome(cycles, 0, (max(timed) - min(timed)) / cycles, int(wrong))


def request(first: int, count: int) -> Sample:
    """The input of an image that makes it run some candidates; with a negative count, prepare and compare them only."""
    return Sample({"request": np.array([first, count], np.int32)}, 1)


def run_all(place: Place, images: Sequence[Image]) -> list[list[Outcome]]:
    """The outcomes of every candidate of every image; one that stops its image is found by halving.

    Raises TvmtinyError when the place itself fails: no emulator, no board on the line.
    """
    parts = []
    share = max(1, place.parallel // max(1, len(images)))
    for number, image in enumerate(images):
        for indices in split(range(image.candidates), share):
            parts.append((number, indices[0], len(indices)))
    with ThreadPoolExecutor(place.parallel) as pool:
        outcomes = list(pool.map(lambda part: _run(place, images[part[0]], part[1], part[2]), parts))
    found: list[list[Outcome]] = [[] for _ in images]
    for (number, _, _), some in zip(parts, outcomes, strict=True):
        found[number].extend(some)
    return found


def _run(place: Place, image: Image, first: int, count: int) -> list[Outcome]:
    try:
        return place.run(image, first, count)
    except TvmtinyError as error:
        if count == 1:
            place.run(image, 0, 0)  # raises where nothing runs there any more: then no candidate is to blame
            return [Outcome(error=error.message)]
        half = count // 2
        return [*_run(place, image, first, half), *_run(place, image, first + half, count - half)]


def place_of(on: str, target: Target, *, timeout_s: float, jobs: int) -> Place:
    """The place that `--on` names. Raises UserError for another."""
    kind, _, argument = on.partition(":")
    if kind == "qemu":
        return Qemu(target, timeout_s, jobs)
    if kind == "serial" and argument:
        return Serial(target, argument, timeout_s)
    if kind == "rpc" and argument:
        from tvmtiny.tune.rpc import Rpc  # needs tornado, which the other places do without

        return Rpc(target, argument, timeout_s)
    raise UserError(f"Cannot tune on {on!r}.", "Give qemu, serial:PORT or rpc:HOST:PORT.")


__all__ = ["NAME", "Image", "Outcome", "Place", "Qemu", "Serial", "place_of", "request", "run_all"]

"""Builds and measures points of tasks, with or without MetaSchedule: batches of candidates, an image each."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tvmtiny.errors import UserError
from tvmtiny.kernels import Blocking
from tvmtiny.runner.build import BuildFailure, build, require_tools
from tvmtiny.target import Target
from tvmtiny.tune.image import Candidate, Lowering, code_bytes, write_image
from tvmtiny.tune.places import Image, Outcome, Place, run_all
from tvmtiny.tune.store import Measurement, Store
from tvmtiny.tune.tasks import Task

IMAGE_CANDIDATES = 16
"""At most so many candidates are in an image: a board's flash must hold them."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a schedule may take, in bytes; None: as much as it likes.

    They hold for one run: what is measured goes to the store as it is, and is judged on its way out.
    """

    scratch_bytes: int | None = None
    code_bytes: int | None = None

    def judged(self, task: Task, found: Measurement) -> Measurement:
        """A measurement, with an error where it takes too much; the rules' own schedule is exempt."""
        if found.error or found.point == task.default:
            return found
        error = ""
        if self.scratch_bytes is not None and found.scratch_bytes > self.scratch_bytes:
            error = f"scratch {found.scratch_bytes} > {self.scratch_bytes} bytes"
        elif self.code_bytes is not None and found.code_bytes > self.code_bytes:
            error = f"code {found.code_bytes} > {self.code_bytes} bytes"
        return dataclasses.replace(found, error=error)


@dataclasses.dataclass
class Built:
    """A candidate in an image, or why it is in none.

    Attributes:
        error: what is wrong with it, whatever the limits.
        refused: whether it is not run because it takes more scratch memory than the limits of this run allow.
    """

    task: Task
    point: Blocking
    image: Image | None = None
    index: int = 0
    sizes: dict[str, int] = dataclasses.field(default_factory=dict)
    error: str = ""
    refused: bool = False


class Engine:
    """Builds and runs candidates for one target at one place; everything measured goes to the store.

    Args:
        folder: for images; a batch's are removed once it has run.

    Raises:
        EnvironmentProblem: a tool to build with is missing.
    """

    def __init__(self, target: Target, place: Place, store: Store, limits: Limits, folder: Path) -> None:
        require_tools(target)
        self.target, self.place, self.store, self.limits = target, place, store, limits
        self._lowering = Lowering(target)
        self._folder = folder

    def measure(self, wanted: Sequence[tuple[Task, Blocking]]) -> list[Measurement]:
        """What is known of points, and what is not known measured."""
        return self.run(self.build(wanted))

    def build(self, wanted: Sequence[tuple[Task, Blocking]]) -> list[Built]:
        """Put the points that are not known yet into images; one that does not build is a result, too.

        Raises:
            EnvironmentProblem, OSError: building fails, whatever the candidate.
        """
        built = [Built(task, point) for task, point in wanted]
        fresh = [one for one in built if self.store.find(one.task.signature, one.point) is None]
        with ThreadPoolExecutor(
            1
        ) as compiler:  # compiles an image while the next one's candidates are lowered
            images = [compiler.submit(self._build, part) for part in self._parts(fresh)]
            for image in images:
                image.result()
        return built

    def _parts(self, fresh: Sequence[Built]) -> Iterator[list[tuple[Built, Candidate]]]:
        """Candidates, lowered, an image at a time; without those that cannot be or are not to be run."""
        lowered = ((one, candidate) for one in fresh if (candidate := self._lowered(one)) is not None)
        while part := list(itertools.islice(lowered, IMAGE_CANDIDATES)):
            yield part

    def run(self, built: Sequence[Built]) -> list[Measurement]:
        """Measure what was built; results are in the store before this returns. Raises OSError."""
        images: list[Image] = []
        for one in built:
            if one.image is not None and not any(one.image is image for image in images):
                images.append(one.image)
        outcomes = {
            (id(image), index): outcome
            for image, some in zip(images, run_all(self.place, images), strict=True)
            for index, outcome in enumerate(some)
        }
        rows = []
        for one in built:
            if not one.refused and self.store.find(one.task.signature, one.point) is None:
                outcome = outcomes.get((id(one.image), one.index), Outcome(error=one.error))
                rows.append((one.task.signature, _measurement(one, outcome)))
        if rows:
            self.store.add(rows)
        for image in images:
            shutil.rmtree(image.artifact.directory, ignore_errors=True)
        return [self._result(one) for one in built]

    def _result(self, one: Built) -> Measurement:
        """What the store knows of a candidate, or its sizes where it was not run because of them; by the limits."""
        known = self.store.find(one.task.signature, one.point)
        return self.limits.judged(one.task, known or _measurement(one, Outcome()))

    def _lowered(self, one: Built) -> Candidate | None:
        try:
            candidate = self._lowering.candidate(one.task, one.point)
        except Exception as error:  # a schedule that TVM refuses is a result, not a crash
            if one.point == one.task.default or isinstance(error, OSError):
                raise
            one.error = f"not lowered: {error}"
            return None
        one.sizes = {"scratch_bytes": candidate.scratch_bytes, "weight_bytes": candidate.weight_bytes}
        one.refused = bool(self.limits.judged(one.task, _measurement(one, Outcome())).error)
        return None if one.refused else candidate

    def _build(self, part: Sequence[tuple[Built, Candidate]]) -> None:
        """One image; where that fails, halves of it, down to the candidate that is at fault."""
        directory = Path(tempfile.mkdtemp(prefix="image-", dir=self._folder))
        try:
            artifact = write_image([candidate for _, candidate in part], self.target, directory)
            project = build(artifact, self.target, directory / "build", lean=True)
        except (BuildFailure, UserError) as error:  # the compiler refuses it, or it does not fit the target
            shutil.rmtree(directory, ignore_errors=True)
            if len(part) == 1:
                self._blame(part[0][0], error)
                return
            half = len(part) // 2
            self._build(part[:half])
            self._build(part[half:])
            return
        image = Image(artifact, directory / "build", len(part))
        for index, (one, _) in enumerate(part):
            one.image, one.index = image, index
            one.sizes["code_bytes"] = code_bytes(project.directory, index)

    def _blame(self, one: Built, error: BuildFailure | UserError) -> None:
        """Note that a candidate does not build.

        Raises `error` instead where the rules' own schedule does not build either, e.g. on a full disk.
        """
        default = Built(one.task, one.task.default)
        if one.point == default.point:
            raise error
        self._build([(default, self._lowering.candidate(default.task, default.point))])
        one.error = f"not built: {error.message.splitlines()[-1]}"


def _measurement(one: Built, outcome: Outcome) -> Measurement:
    figures: dict[str, Any] = {**dataclasses.asdict(outcome), **one.sizes}
    return Measurement(one.point, **figures)

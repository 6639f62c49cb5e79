"""What a kind of runner is: the interface of the modules in kinds/."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tvmtiny.artifact import Artifact
from tvmtiny.runner.plugin import Counts
from tvmtiny.runner.project import Project
from tvmtiny.runner.protocol import Response, Sample
from tvmtiny.target import Target


@dataclasses.dataclass(frozen=True)
class Job:
    """What is to run.

    Attributes:
        artifact: the compiled model.
        target: whose flags and memory to build with.
        argument: what follows the colon in `--on KIND:ARGUMENT`, else "".
        build_dir: where to build, or None for the default.
        blocks: whether the execution counts of code blocks are wanted (a profiler's).
        phases: C functions at whose entry these counts begin anew.
        lean: whether to leave out of the build what a run does not need (`build`).
    """

    artifact: Artifact
    target: Target
    argument: str = ""
    build_dir: Path | None = None
    blocks: bool = False
    phases: tuple[str, ...] = ()
    lean: bool = False


@dataclasses.dataclass(frozen=True)
class Answer:
    """The results of the samples, and exact counts where the place of execution can tell."""

    response: Response
    counts: Counts | None = None


class Runner(Protocol):
    """A module of kinds/."""

    PARALLEL: bool
    """Whether several executions at once are possible."""

    def prepare(self, job: Job) -> Project:
        """Build (and load) the program. Raises UserError or EnvironmentProblem."""

    def execute(self, job: Job, project: Project, samples: Sequence[Sample], timeout_s: float) -> Answer:
        """Run the program on samples; may be called from several threads if `PARALLEL`.

        Raises EnvironmentProblem, with what the program said last, when it crashes, faults or takes longer
        than `timeout_s` seconds.
        """

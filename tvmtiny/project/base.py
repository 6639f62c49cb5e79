"""What a kind of project is: the interface of microtvm_projects/<kind>/handler.py."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Protocol

from tvmtiny.artifact import Artifact
from tvmtiny.link.line import Line
from tvmtiny.runner.project import Plan, Project
from tvmtiny.target import Target


@dataclasses.dataclass(frozen=True)
class KindInfo:
    """What a kind says of itself: a line for people, what `build` needs, and whether there is something to flash."""

    description: str
    tools: tuple[str, ...]
    flashes: bool


class Kind(Protocol):
    """A handler: one function a verb."""

    def info(self) -> KindInfo:
        """What this kind is."""

    def serves(self, target: Target) -> bool:
        """Whether there are projects of this kind for a target."""

    def generate(self, artifact: Artifact, target: Target, directory: Path, *, debug: bool) -> Project:
        """Write a project; raises UserError when the model does not fit the target's RAM."""

    def build(self, project: Project, name: str, *, strict: bool) -> None:
        """Build every program of the model `name`; raises EnvironmentProblem when that fails."""

    def flash(self, project: Project, tool: str | None) -> None:
        """Put the program on a device with `tool`, or the first tool that is installed and knows the target."""

    def open_line(self, project: Project, port: str | None) -> Line:
        """A line to the running program; `port` where it hangs on a serial port."""


class MakeKind(Kind, Protocol):
    """A kind whose programs `make` builds from one set of objects: runner/project.py and runner/build.py."""

    def plan(self, artifact: Artifact, target: Target) -> Plan:
        """Which programs a project consists of; raises UserError when the model does not fit the target's RAM."""

"""What a kind of project is: the interface of microtvm_projects/<kind>/handler.py."""

from __future__ import annotations

import dataclasses
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
    """A handler. The verbs that are the same for every kind (generate, build) are in api.py."""

    def info(self) -> KindInfo:
        """What this kind is."""

    def plan(self, artifact: Artifact, target: Target) -> Plan:
        """Which programs a project consists of; raises UserError when the model does not fit the target's RAM."""

    def flash(self, project: Project, tool: str | None) -> None:
        """Put the program on a device with `tool`, or the first tool that is installed and knows the target."""

    def open_line(self, project: Project, port: str | None) -> Line:
        """A line to the running program; `port` where it hangs on a serial port."""

"""The verbs of a project, in process: info, generate_project, build, flash, open, write, read and close a transport.

They are those of the former microTVM Project API, without its server in a process of its own.

    api = ProjectAPI("baremetal")
    api.generate_project(artifact, target, Path("app"))
    api.build()
    api.flash()
    api.open_transport("/dev/ttyACM0")
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from tvmtiny.artifact import Artifact
from tvmtiny.errors import UserError
from tvmtiny.link.line import Line
from tvmtiny.project.kinds import load_kind
from tvmtiny.runner.project import Project
from tvmtiny.target import Target, list_targets


class ProjectAPI:
    """One project of the kind called `kind`; raises UserError when there is no such kind."""

    def __init__(self, kind: str) -> None:
        self._name = kind
        self._kind = load_kind(kind)
        self._model = ""
        self._project: Project | None = None
        self._line: Line | None = None

    def info(self) -> dict[str, Any]:
        """What the kind is, what it needs, and the targets that it serves."""
        targets = [target.name for target in list_targets() if self._kind.serves(target)]
        return {"kind": self._name, **dataclasses.asdict(self._kind.info()), "targets": targets}

    def generate_project(
        self, artifact: Artifact, target: Target, directory: Path, *, debug: bool = False
    ) -> Project:
        """Write the project; `debug` lets the host look into the arena. Raises UserError for a wrong target."""
        if not self._kind.serves(target):
            raise UserError(
                f"{target.name} is a target of the kind {target.project}, not {self._name}.",
                f"Targets of {self._name}: {', '.join(self.info()['targets'])}.",
            )
        self._model = artifact.name
        self._project = self._kind.generate(artifact, target, directory, debug=debug)
        return self._project

    def build(self, *, strict: bool = False) -> Path:
        """Build every program; the path of the target's own. `strict` makes warnings errors."""
        project = self._generated()
        self._kind.build(project, self._model, strict=strict)
        return project.elf

    def flash(self, tool: str | None = None) -> None:
        """Put the target's program on the device that is plugged in."""
        self._kind.flash(self._generated(), tool)

    def open_transport(self, port: str | None = None) -> Line:
        """Open the line to the running program."""
        self.close_transport()
        self._line = self._kind.open_line(self._generated(), port)
        return self._line

    def write_transport(self, data: bytes) -> None:
        """Send bytes."""
        self._opened().write(data)

    def read_transport(self, timeout_s: float) -> bytes:
        """Bytes that have arrived; waits at most `timeout_s` seconds for the first."""
        return self._opened().read(timeout_s)

    def close_transport(self) -> None:
        """Release the line, if there is one."""
        if self._line is not None:
            self._line.close()
            self._line = None

    def _generated(self) -> Project:
        if self._project is None:
            raise UserError("There is no project yet.", "Call generate_project first.")
        return self._project

    def _opened(self) -> Line:
        if self._line is None:
            raise UserError("There is no line yet.", "Call open_transport first.")
        return self._line

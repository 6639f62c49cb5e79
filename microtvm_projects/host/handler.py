"""Projects for the developer's machine: the model's program as a process."""

from __future__ import annotations

from pathlib import Path

from tvmtiny.artifact import Artifact
from tvmtiny.errors import UserError
from tvmtiny.link.line import Line
from tvmtiny.link.process_line import ProcessLine
from tvmtiny.project.base import KindInfo
from tvmtiny.runner.build import make
from tvmtiny.runner.project import ELF, SERIAL_ELF, Link, Plan, Project, input_bytes, write_project
from tvmtiny.target import Target


def info() -> KindInfo:
    """What this kind is."""
    return KindInfo("a program of the developer's machine", ("make", "cc"), flashes=False)


def serves(target: Target) -> bool:
    """Targets that name this kind as their project."""
    return target.project == "host"


def generate(artifact: Artifact, target: Target, directory: Path, *, debug: bool) -> Project:
    """Write the programs of `plan`, to be built with `make`."""
    return write_project(artifact, target, directory, debug=debug)


def build(project: Project, name: str, *, strict: bool) -> None:
    """Call `make`."""
    make(project, name, strict=strict)


def plan(artifact: Artifact, target: Target) -> Plan:
    """One program on files, one on standard input and output."""
    links = (Link(ELF, ("transport_stdio.c",)), Link(SERIAL_ELF, ("transport_stream.c",)))
    return Plan(links, ELF, SERIAL_ELF, ("measures.c",), {}, input_bytes(artifact))


def flash(project: Project, tool: str | None) -> None:
    """There is nothing to flash."""
    raise UserError("A program of the host is not flashed.", f"Run it: {project.elf}")


def open_line(project: Project, port: str | None) -> Line:
    """Start the program; its standard input and output are the line."""
    return ProcessLine([str(project.serial_elf)])

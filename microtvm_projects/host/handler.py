"""Projects for the developer's machine: the model's program as a process."""

from __future__ import annotations

from tvmtiny.artifact import Artifact
from tvmtiny.errors import UserError
from tvmtiny.link.line import Line
from tvmtiny.link.process_line import ProcessLine
from tvmtiny.project.base import KindInfo
from tvmtiny.runner.project import ELF, SERIAL_ELF, Link, Plan, Project, input_bytes
from tvmtiny.target import Target


def info() -> KindInfo:
    """What this kind is."""
    return KindInfo("a program of the developer's machine", ("make", "cc"), flashes=False)


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

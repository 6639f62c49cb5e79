"""Firmware on the Zephyr RTOS: an application that answers a host on the UART of the console, built by CMake."""

from __future__ import annotations

import os
from pathlib import Path

from tvmtiny.artifact import Artifact
from tvmtiny.errors import EnvironmentProblem, UserError
from tvmtiny.link.line import Line
from tvmtiny.link.process_line import ProcessLine
from tvmtiny.link.serial_line import SerialLine
from tvmtiny.project.base import KindInfo
from tvmtiny.runner.process import find_tool, last_lines, run_program, shell_line
from tvmtiny.runner.project import Project
from tvmtiny.target import Target
from tvmtiny.zephyr.application import BUILD, write_application


def info() -> KindInfo:
    """What this kind is."""
    return KindInfo("an application for the Zephyr RTOS", ("cmake", "ninja", "dtc"), flashes=True)


def serves(target: Target) -> bool:
    """Boards and machines of which the target's file says how Zephyr calls them."""
    return bool(target.zephyr_board)


def generate(artifact: Artifact, target: Target, directory: Path, *, debug: bool) -> Project:
    """Write the application; it stands alone but for Zephyr."""
    return write_application(artifact, target, directory, debug=debug)


def build(project: Project, name: str, *, strict: bool) -> None:
    """Configure and build with the Zephyr that ZEPHYR_BASE names."""
    if not os.environ.get("ZEPHYR_BASE"):
        raise EnvironmentProblem(
            "ZEPHYR_BASE does not say where Zephyr is.",
            f"source zephyr/zephyr-env.sh, or west build -b {project.target.zephyr_board} {project.directory}",
        )
    place = project.directory / BUILD
    configure = ["-G", "Ninja", "-S", str(project.directory), "-B", str(place)]
    configure += [f"-DBOARD={project.target.zephyr_board}"]
    configure += ["-DCONFIG_COMPILER_WARNINGS_AS_ERRORS=y"] if strict else []
    cmake = find_tool("cmake")
    for command in ([cmake, *configure], [cmake, "--build", str(place)]):
        finished = run_program(command, cwd=project.directory)
        if finished.status != 0:
            raise EnvironmentProblem(
                f"Building {name} for {project.target.zephyr_board} failed in {place}:\n"
                f"{shell_line(command)}\n{last_lines(finished.output)}"
            )


def flash(project: Project, tool: str | None) -> None:
    """`west flash`, with the runner `tool` if one is named."""
    command = [find_tool("west"), "flash", "--build-dir", str(project.directory / BUILD)]
    finished = run_program([*command, "--runner", tool] if tool else command, cwd=project.directory)
    if finished.status != 0:
        raise EnvironmentProblem(f"Flashing failed:\n{last_lines(finished.output)}")


def open_line(project: Project, port: str | None) -> Line:
    """The serial port of a board, or that of QEMU for a target that is a machine."""
    if port is not None:
        return SerialLine(port)
    machine = project.target.qemu_machine
    if not machine:
        raise UserError("A board is reached by its serial port.", "Name it, for example /dev/ttyACM0.")
    options = ["-machine", machine, "-display", "none", "-monitor", "none", "-serial", "stdio"]
    return ProcessLine([find_tool("qemu-system-arm"), *options, "-kernel", str(project.elf)])

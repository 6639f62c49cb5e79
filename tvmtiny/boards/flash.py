"""Put a program into a board's flash, with whichever tool is installed.

A target names its tools in its `[flash]` table, each with what that needs to know of the board; the first that is
installed is taken.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

from tvmtiny.boards import uf2
from tvmtiny.errors import EnvironmentProblem, UserError
from tvmtiny.runner.process import find_tool, last_lines, run_program, shell_line
from tvmtiny.target import Target

TIMEOUT_S = 180


@dataclasses.dataclass(frozen=True)
class Tool:
    """A program that flashes boards.

    Attributes:
        program: what is called.
        install: how to get it.
        command: its arguments for an ELF and the target's value.
    """

    program: str
    install: str
    command: Callable[[Path, str], list[str]]


def _openocd(elf: Path, value: str) -> list[str]:
    """`value`: configuration files, separated by spaces. The path stands in braces for Tcl."""
    files = [part for name in value.split() for part in ("-f", name)]
    return [*files, "-c", f"program {{{elf}}} verify reset exit"]


def _pyocd(elf: Path, value: str) -> list[str]:
    """`value`: pyOCD's name of the target."""
    return ["flash", "--no-wait", "--target", value, str(elf)]


def _st_flash(elf: Path, value: str) -> list[str]:
    """`value`: address of the flash; the file is the bare image."""
    return ["--reset", "write", str(_image(elf)), value]


def _picotool(elf: Path, value: str) -> list[str]:
    """`value`: type of the file."""
    return ["load", "--update", "--verify", "--execute", str(elf), "-t", value]


def _jlink(elf: Path, value: str) -> list[str]:
    """`value`: SEGGER's name of the device."""
    script = elf.with_suffix(".jlink")
    script.write_text(f"r\nh\nloadfile {elf}\nr\ng\nexit\n")
    interface = ["-if", "SWD", "-speed", "4000", "-autoconnect", "1", "-ExitOnError", "1"]
    return ["-device", value, *interface, "-CommandFile", str(script)]


TOOLS = {
    "openocd": Tool("openocd", "sudo apt-get install openocd", _openocd),
    "pyocd": Tool("pyocd", "pip install pyocd", _pyocd),
    "st-flash": Tool("st-flash", "sudo apt-get install stlink-tools", _st_flash),
    "picotool": Tool(
        "picotool", "https://github.com/raspberrypi/picotool, or apt-get install picotool", _picotool
    ),
    "jlink": Tool("JLinkExe", "https://www.segger.com/downloads/jlink (J-Link software)", _jlink),
}
UF2 = "uf2"
"""Needs no program: a file is copied to the drive that a board in its boot loader shows."""


def flash_elf(target: Target, elf: Path, tool: str | None = None) -> str:
    """Flash `elf` with `tool`, or with the first of the target's tools that is there; returns which it was.

    Raises:
        UserError: the target has no tools, or not this one.
        EnvironmentProblem: none is installed (with how to get each), or it failed (with what it said).
    """
    name = choose_tool(target, tool)
    if name == UF2:
        uf2.copy_to_drive(elf, int(target.flash[UF2], 0))
        return name
    command = flash_command(target, elf, name)
    finished = run_program(command, timeout_s=TIMEOUT_S)
    if finished.status != 0:
        raise EnvironmentProblem(
            f"{name} could not flash {target.name}:\n{shell_line(command)}\n{last_lines(finished.output)}",
            "Is the board plugged in and powered (tvmtiny board list)? May this user open it (udev rules)?",
        )
    return name


def choose_tool(target: Target, tool: str | None = None) -> str:
    """The tool to flash `target` with; raises as `flash_elf` does."""
    known = [name for name in target.flash if name in TOOLS or name == UF2]
    if tool is not None and tool not in known:
        raise UserError(
            f"{target.path} does not say how {tool} flashes {target.name}.",
            f"It has {', '.join(known) or 'no tool'} in its table [flash]; docs/boards.md lists the tools.",
        )
    if not known:
        raise UserError(
            f"{target.path} does not say how {target.name} is flashed.",
            "Give it a table [flash]; docs/boards.md lists the tools.",
        )
    wanted = [tool] if tool else known
    for name in wanted:
        if name == UF2 and (tool or uf2.find_drive()):
            return name
        if name != UF2 and shutil.which(TOOLS[name].program):
            return name
    ways = "; ".join(f"{name}: {TOOLS[name].install}" for name in wanted if name != UF2)
    raise EnvironmentProblem(
        f"None of {', '.join(wanted)} is there to flash {target.name}.", f"Install {ways}."
    )


def flash_command(target: Target, elf: Path, name: str) -> list[str]:
    """The command line that flashes `elf` with the tool `name`; raises EnvironmentProblem if it is missing."""
    tool = TOOLS[name]
    return [find_tool(tool.program), *tool.command(elf.resolve(), target.flash[name])]


def _image(elf: Path) -> Path:
    """The bare bytes of `elf` from its lowest address in flash on, in a file beside it."""
    path = elf.with_suffix(".bin")
    segments = uf2.loaded_segments(elf)
    start = min(address for address, _ in segments)
    image = bytearray(max(address + len(data) for address, data in segments) - start)
    for address, data in segments:
        image[address - start : address - start + len(data)] = data
    path.write_bytes(image)
    return path

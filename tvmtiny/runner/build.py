"""Build a model's program: write its project, call `make`, and say what went wrong in the user's terms."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tvmtiny.artifact import Artifact
from tvmtiny.errors import EnvironmentProblem, UserError
from tvmtiny.runner.process import find_tool, host_compiler, last_lines, run_program, shell_line
from tvmtiny.runner.project import BOARD_SCRIPT, Project, write_project
from tvmtiny.target import HOST, Target

DEFAULT_PREFIX = "arm-none-eabi-"
_OVERFLOW = re.compile(r"region `(\w+)' overflowed by (\d+) bytes")


class BuildFailure(EnvironmentProblem):
    """`make` was called and failed: of a source that the compiler refuses, or for want of disk or memory."""


def build(
    artifact: Artifact,
    target: Target,
    directory: Path | None = None,
    *,
    strict: bool = False,
    lean: bool = False,
) -> Project:
    """Compile and link `artifact` for `target`.

    Objects are reused from an earlier call where their sources have not changed. Several processes may build
    the same directory: they take turns.

    Args:
        artifact: the compiled model.
        target: board, machine or host.
        directory: where to build; `build/<target>` inside the model's directory if not given.
        strict: make compiler warnings errors.
        lean: the same instructions for less work: no debug information, no warnings, no program for a serial line.

    Raises:
        UserError: the program does not fit the target's memory.
        EnvironmentProblem: a tool is missing.
        BuildFailure: compiling failed.
    """
    directory = directory or artifact.directory / "build" / target.name
    require_tools(target)
    with _locked(directory):
        project = write_project(artifact, target, directory)
        make(project, artifact.name, strict=strict, lean=lean)
    return project


def make(project: Project, name: str, *, strict: bool = False, lean: bool = False) -> None:
    """Call `make` in a project of the model `name`; raises as `build` does."""
    target = project.target
    command = [find_tool("make"), f"-j{os.cpu_count() or 1}", "--no-print-directory", *_compiler(target)]
    if strict:
        command.append("WERROR=-Werror")
    if lean:
        programs = dict.fromkeys((project.elf, project.run_elf))
        command += ["DEBUG=", "WARNINGS=-w", *(str(elf.relative_to(project.directory)) for elf in programs)]
    finished = run_program(command, cwd=project.directory)
    if finished.status != 0:
        _refuse_overflow(name, target, finished.output)
        raise BuildFailure(
            f"Building {name} for {target.name} failed in {project.directory}:\n"
            f"{shell_line(command)}\n{last_lines(finished.output)}"
        )


def compile_object(source: Path, target: Target, include: Path) -> Path:
    """Compile one C file for a core as a project's Makefile does; returns the object beside it. Raises BuildFailure."""
    compiler = find_tool(f"{os.environ.get('CROSS_COMPILE', DEFAULT_PREFIX)}gcc")
    result = source.with_suffix(".o")
    sections = ("-ffunction-sections", "-fdata-sections")
    command = [compiler, *target.flags, "-std=c11", target.optimize, *sections, "-w", f"-I{include}"]
    finished = run_program([*command, "-c", str(source), "-o", str(result)])
    if finished.status != 0:
        raise BuildFailure(
            f"Compiling {source} failed:\n{shell_line(command)}\n{last_lines(finished.output)}"
        )
    return result


def require_tools(target: Target) -> None:
    """Raise EnvironmentProblem when `make` or the compiler for a target is missing."""
    find_tool("make")
    _compiler(target)


def _compiler(target: Target) -> list[str]:
    """Variables for make; raises EnvironmentProblem when the compiler is missing."""
    if target.cpu == HOST:
        return [f"CC={host_compiler()}"]
    prefix = os.environ.get("CROSS_COMPILE", DEFAULT_PREFIX)
    find_tool(f"{prefix}gcc")
    return [f"CROSS_COMPILE={prefix}"]


def _refuse_overflow(name: str, target: Target, output: str) -> None:
    """Raise UserError when the linker says that a region is too small."""
    overflows = dict(_OVERFLOW.findall(output))
    if not overflows:
        return
    script = BOARD_SCRIPT if not target.qemu_machine else "qemu.ld"
    sizes = {region.name: region.bytes for region in target.memory}
    parts = []
    for region, excess in overflows.items():
        available = sizes.get(region) or sum(sizes[part] for part in _joined(region, sizes))
        parts.append(f"{region}: needs {available + int(excess)} bytes, has {available}")
    raise UserError(
        f"{name} does not fit {target.name} ({'; '.join(parts)}; {script} has the memory map).",
        "Use a smaller model or fewer tokens (--max-tokens), or a target with more memory.",
    )


def _joined(name: str, sizes: dict[str, int]) -> list[str]:
    """The regions that layout.py joined under `name`."""
    return [region for region in sizes if region in name]


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

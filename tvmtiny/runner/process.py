"""Running other programs: time limit, the last lines that they said, what to install when one is missing."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tvmtiny.errors import EnvironmentProblem

TAIL_LINES = 20

# Debian's and Ubuntu's package of each program.
PACKAGES = {
    "arm-none-eabi-gcc": "gcc-arm-none-eabi libnewlib-arm-none-eabi",
    "qemu-system-arm": "qemu-system-arm",
    "make": "make",
    "cc": "gcc libc6-dev",
}


@dataclasses.dataclass(frozen=True)
class Finished:
    """A program that has ended: its exit status (negative: the signal that killed it) and what it said."""

    status: int
    output: str

    @property
    def tail(self) -> str:
        """The last lines."""
        return last_lines(self.output)


class TimeLimitExceeded(EnvironmentProblem):
    """A program did not end in time and was killed; `said` is the end of its output."""

    def __init__(self, program: str, timeout_s: float, said: str) -> None:
        super().__init__(f"{program} did not end within {timeout_s:g} s and was stopped." + quoted(said))
        self.said = said


def quoted(said: str) -> str:
    """The end of a message that repeats what a program said, if anything."""
    return f" It said:\n{said}" if said else ""


def last_lines(text: str) -> str:
    """The last lines of `text`, for an error message."""
    return "\n".join(text.strip().splitlines()[-TAIL_LINES:])


def find_tool(name: str) -> str:
    """Path of the program `name`; raises EnvironmentProblem that says how to install it."""
    path = shutil.which(name)
    if path is None:
        package = PACKAGES.get(name)
        remedy = f"Install it: sudo apt-get install {package}" if package else f"Put {name} on the PATH."
        raise EnvironmentProblem(f"{name} is needed and was not found.", remedy)
    return path


def host_compiler() -> str:
    """The C compiler of this machine: $CC, or the first of cc, gcc and clang."""
    named = os.environ.get("CC")
    if named:
        return find_tool(named)
    found = (shutil.which(name) for name in ("cc", "gcc", "clang"))
    return next((path for path in found if path), None) or find_tool("cc")


def run_program(
    command: Sequence[str], *, cwd: Path | None = None, timeout_s: float | None = None
) -> Finished:
    """Run `command` to its end, with no standard input.

    Raises TimeLimitExceeded after `timeout_s` seconds, when it and its children have been killed.
    """
    with subprocess.Popen(
        command,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            _kill_group(process)
            output, _ = process.communicate()
            said = last_lines(output.decode(errors="replace"))
            raise TimeLimitExceeded(Path(command[0]).name, error.timeout, said) from error
        except BaseException:
            _kill_group(process)
            raise
    return Finished(process.returncode, output.decode(errors="replace"))


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def shell_line(command: Sequence[str]) -> str:
    """`command` as a person would type it."""
    return shlex.join(command)

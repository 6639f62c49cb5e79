"""The QEMU plugin that counts instructions: built on first use, and what it reports.

It lies in the user's cache under a hash of its source and compiler, so that an update builds a new one and
several processes can build it at once.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import platformdirs

from tvmtiny.errors import EnvironmentProblem
from tvmtiny.runner.process import find_tool, host_compiler, run_program, shell_line

SOURCE = Path(__file__).parent / "qemu_plugin" / "tvmt_count.c"
COUNT_FILE = "tvmt_count.txt"
_FLAGS = ("-shared", "-fPIC", "-O2", "-fvisibility=hidden")


@dataclasses.dataclass(frozen=True)
class Block:
    """A stretch of code that was executed as a whole in one phase of the first measurement.

    Attributes:
        address: of its first instruction.
        instructions: how many it has.
        phase: 0 before any phase began, else the number of the function that was entered last, from 1.
        entered: how often it was executed. Blocks may overlap: a branch into one begins another.
        left: how often execution went on elsewhere than behind it: a branch, a call or a return was taken.
    """

    address: int
    instructions: int
    phase: int
    entered: int
    left: int


@dataclasses.dataclass(frozen=True)
class Counts:
    """Instructions of the first measurement, of all `runs` and of each; blocks of the first, if asked for."""

    first: int
    total: int
    runs: int
    each: tuple[int, ...]
    blocks: tuple[Block, ...]


def plugin_path() -> Path:
    """The compiled plugin. Raises EnvironmentProblem when the host compiler is missing or fails."""
    compiler = host_compiler()
    identity = "\0".join((SOURCE.read_text(), compiler, platform.platform(), *_FLAGS))
    name = hashlib.sha256(identity.encode()).hexdigest()[:16]
    folder = Path(platformdirs.user_cache_dir("tvmtiny")) / "qemu_plugin"
    path = folder / f"tvmt_count-{name}.so"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _compile(compiler, path)
    return path


def plugin_argument(begin: int, end: int, *, blocks: bool, phases: Sequence[int] = ()) -> str:
    """The value of QEMU's option -plugin that measures between the functions at `begin` and `end`.

    Args:
        blocks: also count blocks; by phase, where a phase begins at the entry of each function of `phases`.
    """
    path = str(plugin_path()).replace(",", ",,")
    extra = "".join((",blocks=on", *(f",phase={address:#x}" for address in phases))) if blocks else ""
    return f"{path},begin={begin:#x},end={end:#x},out={COUNT_FILE}{extra}"


@functools.cache
def plugins_supported() -> bool:
    """Whether this QEMU was built with plugins; some distributions leave them out."""
    return "-plugin " in run_program([find_tool("qemu-system-arm"), "--help"], timeout_s=30).output


def read_counts(path: Path) -> Counts | None:
    """What the plugin wrote to `path`; None when it wrote nothing or no measurement was completed."""
    if not path.is_file():
        return None
    rows = [line.split() for line in path.read_text().splitlines()]
    values = {row[0]: int(row[1]) for row in rows if len(row) == 2}
    if not values.get("runs"):
        return None
    blocks = (Block(*map(int, row[1:])) for row in rows if row[0] == "block")
    ordered = tuple(sorted(blocks, key=lambda block: (block.phase, block.address, block.instructions)))
    each = tuple(int(row[1]) for row in rows if row[0] == "run")
    return Counts(values["first"], values["total"], values["runs"], each, ordered)


def _compile(compiler: str, path: Path) -> None:
    undefined = ("-undefined", "dynamic_lookup") if sys.platform == "darwin" else ("-ldl",)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".so")
    os.close(handle)
    command = [compiler, *_FLAGS, "-o", temporary, str(SOURCE), *undefined]
    try:
        finished = run_program(command, timeout_s=120)
        if finished.status != 0:
            raise EnvironmentProblem(
                f"Building the instruction counter failed:\n{shell_line(command)}\n{finished.tail}",
                "It needs a C compiler for this machine: sudo apt-get install gcc libc6-dev",
            )
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)

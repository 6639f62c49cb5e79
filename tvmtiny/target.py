"""A target: a board, an emulated machine or the host, as one TOML file says it.

Files are found by listing `targets/` and the folders named in TVMTINY_TARGETS (separated as in PATH; a later
folder overrides an earlier one, and any of them overrides a file that tvmtiny ships). The file's name is the
target's name. docs/adding-a-target.md describes the fields; a file that does not follow it is refused.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvmtiny.errors import UserError
from tvmtiny.resources import data_dir
from tvmtiny.target_fields import Field, Fields, Table

if TYPE_CHECKING:
    import tvm

ENVIRONMENT_VARIABLE = "TVMTINY_TARGETS"
TAG_PREFIX = "tvmtiny/"
HOST = "host"
NO_BOARD = "none"


@dataclasses.dataclass(frozen=True)
class Core:
    """What a core can do. Source: the Arm technical reference manual of each core, chapter "About"."""

    dsp: bool = False
    mve: bool = False
    dual_issue: bool = False
    fpus: tuple[str, ...] = ()


# `fpus` are the values of GCC's -mfpu that the core may be built with; every core may also have none.
CORES = {
    "cortex-m0": Core(),
    "cortex-m0plus": Core(),
    "cortex-m3": Core(),
    "cortex-m4": Core(dsp=True, fpus=("fpv4-sp-d16",)),
    "cortex-m7": Core(dsp=True, dual_issue=True, fpus=("fpv5-sp-d16", "fpv5-d16")),
    "cortex-m23": Core(),
    "cortex-m33": Core(dsp=True, fpus=("fpv5-sp-d16",)),
    "cortex-m55": Core(dsp=True, mve=True, fpus=("auto",)),
    HOST: Core(fpus=("auto",)),
}
TRUSTZONE_CORES = ("cortex-m23", "cortex-m33", "cortex-m55")
REGION_USES = ("code", "weights", "arena", "data", "boot")


@dataclasses.dataclass(frozen=True)
class MemoryRegion:
    """A run of addresses of one kind of memory.

    Attributes:
        name: as in the manual, in lower case: "flash", "dtcm".
        kind: "flash" or "ram".
        origin: address of the first byte.
        bytes: size in bytes.
        wait_states: extra core cycles of an access that no cache or prefetch serves, at `Target.clock_hz`.
        uses: what may be placed there: "code", "weights", "arena" (activations), "data" (data, bss, stack), "boot" (a
            boot loader that belongs to the program, and nothing else).
    """

    name: str
    kind: str
    origin: int
    bytes: int
    wait_states: int
    uses: tuple[str, ...]

    @property
    def end(self) -> int:
        """Address after the last byte."""
        return self.origin + self.bytes

    @property
    def boot(self) -> bool:
        """Whether it holds a boot loader instead of the program."""
        return "boot" in self.uses


@dataclasses.dataclass(frozen=True)
class Target:
    """A validated target file.

    Attributes:
        name: the file's name without .toml.
        description: one line for people.
        cpu: "cortex-m7" and the like (a value of GCC's -mcpu), or "host".
        dsp, mve: whether the core has the DSP extension, the M-profile vector extension (Helium). GCC uses vector
            instructions only where there is an FPU too.
        dual_issue: whether it issues two 32-bit instructions a cycle.
        fpu: GCC's -mfpu, or "none".
        clock_hz: core clock in hertz; 0 for a machine without a notion of time.
        memory: regions; RAM in the order in which the arena prefers it, fastest first.
        flags: compiler flags of the core, then those of the file.
        optimize: "-O2" and the like.
        runner: "qemu" or "host": what executes it on the developer's machine.
        project: folder of microtvm_projects/ that builds its firmware.
        qemu_machine: -machine of QEMU; "" when the target is not an emulated machine.
        emulated_by: name of the target whose QEMU machine stands in for this board; "" when none does.
        board: start-up code and serial port: a file of microtvm_projects/baremetal/boards/, without .c.
        zephyr_board: what Zephyr calls it ("stm32f746g_disco", "mps2/an386"); "" where that is not known.
        uart_base: address of the serial port, where `board` leaves that to the target; else 0.
        usb: VID:PID of the board's own debug probe or USB port, lower case hexadecimal.
        flash: by tool, what that needs to know to program the board; tvmtiny.boards.flash has the tools.
        stack_bytes: stack that a build reserves.
        power_ma: supply current in mA while running at `clock_hz`, or None when the file does not say.
        supply_v: supply in volt at which it draws that current, or None.
        power_source: where both figures come from, for people; "" when the file does not say.
        mpu, trustzone: whether the core has a memory protection unit, the security extension.
        path: the file.
    """

    name: str
    description: str
    cpu: str
    dsp: bool
    mve: bool
    dual_issue: bool
    fpu: str
    clock_hz: int
    memory: tuple[MemoryRegion, ...]
    flags: tuple[str, ...]
    optimize: str
    runner: str
    project: str
    qemu_machine: str
    emulated_by: str
    board: str
    zephyr_board: str
    uart_base: int
    usb: tuple[str, ...]
    flash: dict[str, str]
    stack_bytes: int
    power_ma: float | None
    supply_v: float | None
    power_source: str
    mpu: bool
    trustzone: bool
    path: Path

    @property
    def flash_bytes(self) -> int:
        """Flash for a program in bytes, all regions together."""
        return sum(region.bytes for region in self.memory if region.kind == "flash" and not region.boot)

    @property
    def ram_bytes(self) -> int:
        """RAM that an arena may use, in bytes, all regions together."""
        return sum(region.bytes for region in self.arena_regions)

    @property
    def arena_regions(self) -> tuple[MemoryRegion, ...]:
        """RAM that an arena may use, fastest first."""
        return tuple(region for region in self.memory if region.kind == "ram" and "arena" in region.uses)

    @property
    def code_ram(self) -> MemoryRegion | None:
        """RAM for hot code (an ITCM), if the target has one."""
        hot = (region for region in self.memory if region.kind == "ram" and "code" in region.uses)
        return next(hot, None)

    @property
    def has_uart(self) -> bool:
        """Whether its firmware serves the link on a serial port."""
        return self.board != NO_BOARD

    def emulator(self) -> Target:
        """The target whose QEMU machine runs this one: itself when it is such a machine.

        Raises UserError when no machine stands in for it.
        """
        if self.qemu_machine:
            return self
        if self.emulated_by:
            return load_target(self.emulated_by)
        raise UserError(
            f"Target {self.name!r} has no QEMU machine (no qemu_machine, no emulated_by in {self.path}).",
            "Run it on the host, or name another target, e.g. --target qemu-m4.",
        )

    def tvm_config(self) -> dict[str, str]:
        """The target as TVM's JSON configuration."""
        return {"kind": "c"} if self.cpu == HOST else {"kind": "c", "mcpu": self.cpu}

    def tvm_target(self) -> tvm.target.Target:
        """The target as TVM's own object; imports TVM, which takes seconds."""
        from tvm.target import Target as TVMTarget

        return TVMTarget(self.tvm_config())


def load_target(name: str) -> Target:
    """Read the target called `name`.

    Raises UserError when there is none of that name (and suggests the nearest), or when its file is wrong.
    """
    files = _files()
    if name not in files:
        near = difflib.get_close_matches(name.lower(), files, n=1, cutoff=0.4)
        suggestion = f"Did you mean {near[0]!r}? " if near else ""
        raise UserError(
            f"Unknown target {name!r}.",
            f"{suggestion}Targets: {', '.join(sorted(files))}. Your own folder: {ENVIRONMENT_VARIABLE}.",
        )
    return _read(files[name])


def list_targets() -> list[Target]:
    """Every target, by name. Raises UserError at the first file that is wrong."""
    return [_read(path) for _, path in sorted(_files().items())]


def register_tags() -> None:
    """Make every target known to TVM as a tag: `tvm.target.Target("tvmtiny/<name>")`; imports TVM."""
    from tvm.target import tag

    for target in list_targets():
        tag.register_tag(TAG_PREFIX + target.name, target.tvm_config(), override=True)


def _files() -> dict[str, Path]:
    folders = [data_dir("targets")]
    for entry in os.environ.get(ENVIRONMENT_VARIABLE, "").split(os.pathsep):
        if not entry:
            continue
        folder = Path(entry)
        if not folder.is_dir():
            raise UserError(
                f"{ENVIRONMENT_VARIABLE} names {folder}, which is not a folder.",
                "Correct or unset the variable.",
            )
        folders.append(folder)
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.toml"))}


def _read(path: Path) -> Target:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path} is not a target: {error}", "See docs/adding-a-target.md.") from error
    table = Table(path, data)
    values = table.check(_TARGET_FIELDS)
    regions = tuple(_region(row) for row in table.rows(data.get("memory", [])))
    core = CORES[values["cpu"]]
    target = Target(
        name=path.stem,
        dsp=core.dsp,
        mve=core.mve and values["fpu"] != "none",
        dual_issue=core.dual_issue,
        path=path,
        **{**values, "memory": regions, "flags": (*_core_flags(values), *values["flags"])},
    )
    _check_core(table, target)
    _check_execution(table, target)
    _check_flash(table, target)
    _check_memory(table, target)
    return target


def _core_flags(values: dict[str, Any]) -> tuple[str, ...]:
    if values["cpu"] == HOST:
        return ()
    core = (f"-mcpu={values['cpu']}", "-mthumb")
    if values["fpu"] == "none":
        return (*core, "-mfloat-abi=soft")
    return (*core, "-mfloat-abi=hard", f"-mfpu={values['fpu']}")


def _region(row: Table) -> MemoryRegion:
    return MemoryRegion(**row.check(_REGION_FIELDS))


def _check_core(table: Table, target: Target) -> None:
    fpus = ("none", *CORES[target.cpu].fpus)
    if target.fpu not in fpus:
        table.refuse("fpu", target.fpu, f"for cpu {target.cpu}: " + ", ".join(fpus))
    if target.trustzone and target.cpu not in TRUSTZONE_CORES:
        table.refuse("trustzone", True, f"false for cpu {target.cpu}; true for {', '.join(TRUSTZONE_CORES)}")


def _check_execution(table: Table, target: Target) -> None:
    if (target.cpu == HOST) != (target.runner == HOST) or (target.cpu == HOST) != (target.project == HOST):
        table.refuse("cpu", target.cpu, 'cpu, runner and project all "host", or none of them')
    if target.qemu_machine and target.emulated_by:
        table.refuse("emulated_by", target.emulated_by, "absent where qemu_machine is given")
    if target.runner == "qemu" and not (target.qemu_machine or target.emulated_by):
        table.refuse("emulated_by", None, "the name of a target with a qemu_machine, or give qemu_machine")


def _check_flash(table: Table, target: Target) -> None:
    family = target.flash.get("uf2", "0x0")
    if not re.fullmatch(r"0x[0-9a-fA-F]{1,8}", family):
        table.refuse("flash.uf2", family, 'the number of the chip\'s family, as "0xe48bff56"')


def _check_memory(table: Table, target: Target) -> None:
    if target.cpu == HOST:
        if target.memory:
            table.refuse("memory", f"{len(target.memory)} regions", 'none for cpu "host"')
        return
    for kind in ("flash", "ram"):
        if not any(region.kind == kind for region in target.memory):
            table.refuse(
                "memory", f"no region of kind {kind}", "at least one of kind flash and one of kind ram"
            )
    _check_regions(table, target)
    for use, kind in (("code", "flash"), ("weights", "flash"), ("arena", "ram"), ("data", "ram")):
        if not any(use in region.uses for region in target.memory if region.kind == kind):
            table.refuse(
                "memory.uses", f"no {kind} region for {use}", f"a {kind} region with {use!r} in uses"
            )


def _check_regions(table: Table, target: Target) -> None:
    names = [region.name for region in target.memory]
    for name in names:
        if names.count(name) > 1:
            table.refuse("memory.name", name, "a name of its own for each region")
    ordered = sorted(target.memory, key=lambda region: region.origin)
    for region in ordered:
        if region.end > 1 << 32:
            table.refuse("memory.bytes", region.bytes, f"a region inside 32-bit addresses ({region.name})")
        if region.kind == "flash" and set(region.uses) & {"arena", "data"}:
            table.refuse("memory.uses", list(region.uses), f'"code", "weights" for flash ({region.name})')
    for low, high in itertools.pairwise(ordered):
        if low.end > high.origin:
            table.refuse("memory.origin", hex(high.origin), f"{high.name} after {low.name} ({low.end:#x})")


_RUNNERS = ("qemu", HOST)
_OPTIMIZE = ("-O0", "-O1", "-O2", "-O3", "-Os", "-Og")

_TARGET_FIELDS: Fields = {
    "description": Field(str, required=True),
    "cpu": Field(str, required=True, allowed=tuple(CORES)),
    "fpu": Field(str, default="none"),
    "clock_hz": Field(int, default=0, minimum=0),
    "flags": Field(tuple, default=()),
    "optimize": Field(str, default="-O2", allowed=_OPTIMIZE),
    "runner": Field(str, required=True, allowed=_RUNNERS),
    "project": Field(str, required=True, pattern=r"[a-z0-9_]+"),
    "qemu_machine": Field(str, default=""),
    "emulated_by": Field(str, default=""),
    "board": Field(str, default=NO_BOARD, pattern=r"[a-z0-9_]+"),
    "zephyr_board": Field(str, default="", pattern=r"[a-z0-9_/]*"),
    "uart_base": Field(int, default=0, minimum=0, multiple=4),
    "usb": Field(tuple, default=(), pattern=r"[0-9a-f]{4}:[0-9a-f]{4}"),
    "flash": Field(dict, default={}),
    "stack_bytes": Field(int, default=4096, minimum=256, multiple=8),
    "power_ma": Field(float, default=None, minimum=0),
    "supply_v": Field(float, default=None, minimum=0),
    "power_source": Field(str, default=""),
    "mpu": Field(bool, default=False),
    "trustzone": Field(bool, default=False),
    "memory": Field(list, default=()),
}
_REGION_FIELDS: Fields = {
    "name": Field(str, required=True, pattern=r"[a-z][a-z0-9_]*"),
    "kind": Field(str, required=True, allowed=("flash", "ram")),
    "origin": Field(int, required=True, minimum=0, multiple=4),
    "bytes": Field(int, required=True, minimum=256, multiple=4),
    "wait_states": Field(int, default=0, minimum=0),
    "uses": Field(tuple, required=True, allowed=REGION_USES),
}

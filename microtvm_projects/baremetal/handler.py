"""Firmware without an operating system: start-up code, linker scripts, a serial port, and QEMU's twin of each board.

The objects are compiled once. They are linked for the board's memory, and for the QEMU machine of its core twice: with
semihosting for exact counts, and with an emulated serial port.
"""

from __future__ import annotations

from pathlib import Path

from tvmtiny.artifact import Artifact
from tvmtiny.errors import UserError
from tvmtiny.link.line import Line
from tvmtiny.link.serial_line import SerialLine
from tvmtiny.project.base import KindInfo
from tvmtiny.runner.build import make
from tvmtiny.runner.layout import Placement, place, translate
from tvmtiny.runner.project import (
    BOARD_SCRIPT,
    ELF,
    EMULATED_ELF,
    EMULATED_SCRIPT,
    SERIAL_ELF,
    Link,
    Plan,
    Project,
    guard_bytes,
    input_bytes,
    write_project,
)
from tvmtiny.target import Target

_SEMIHOSTING = ("transport_semihosting.c", "counter_none.c")
_UART = ("transport_uart.c", "counter_core.c")


def info() -> KindInfo:
    """What this kind is."""
    return KindInfo("firmware without an operating system", ("make", "arm-none-eabi-gcc"), flashes=True)


def serves(target: Target) -> bool:
    """Targets that name this kind as their project."""
    return target.project == "baremetal"


def generate(artifact: Artifact, target: Target, directory: Path, *, debug: bool) -> Project:
    """Write the programs of `plan`, to be built with `make`."""
    return write_project(artifact, target, directory, debug=debug)


def build(project: Project, name: str, *, strict: bool) -> None:
    """Call `make`."""
    make(project, name, strict=strict)


def plan(artifact: Artifact, target: Target) -> Plan:
    """The board's program first; a machine has only those for QEMU."""
    placement, saved_bytes = _place(artifact, target)
    board = f"boards/{target.board}.c"
    links = []
    if not target.qemu_machine:
        title = f"Memory map of {target.name}."
        served = _UART if target.has_uart else _SEMIHOSTING
        links.append(Link(ELF, (board, *served), BOARD_SCRIPT, placement, title))
    machine = target if target.qemu_machine else target.emulator() if target.emulated_by else None
    if machine:
        links += _machine_links(target, machine, placement)
    run_elf = EMULATED_ELF if machine and machine is not target else ELF
    serial_elf = SERIAL_ELF if machine else ELF
    common = ("stack_painted.c", "startup.c")
    return Plan(tuple(links), run_elf, serial_elf, common, _defines(target, machine), saved_bytes)


def flash(project: Project, tool: str | None) -> None:
    """Put the board's program into its flash."""
    from tvmtiny.boards.flash import flash_elf

    flash_elf(project.target, project.elf, tool)


def open_line(project: Project, port: str | None) -> Line:
    """Open the serial port on which the board, or an emulated one, answers."""
    if port is None:
        raise UserError("A board is reached by its serial port.", "Name it, for example /dev/ttyACM0.")
    return SerialLine(port)


def _place(artifact: Artifact, target: Target) -> tuple[Placement, int]:
    """Regions, and how many bytes of inputs can be kept aside: all, or none where RAM is short."""
    alignment = max(artifact.arena_align, 16)
    arena_bytes = -(-artifact.arena_bytes // alignment) * alignment + 2 * guard_bytes(artifact, target)
    saved_bytes = input_bytes(artifact)
    plain = place(target, arena_bytes)
    try:
        roomy = place(target, arena_bytes, saved_bytes)
    except UserError:
        return plain, 0
    return (roomy, saved_bytes) if roomy.arena == plain.arena else (plain, 0)


def _machine_links(target: Target, machine: Target, placement: Placement) -> list[Link]:
    if machine is target:
        title, elf = f"Memory map of {target.name}.", ELF
    else:
        title = f"Memory of {target.name} at addresses of {machine.name} (QEMU {machine.qemu_machine})."
        placement, elf = translate(placement, target, machine), EMULATED_ELF
    board = f"boards/{machine.board}.c"
    return [
        Link(elf, (board, *_SEMIHOSTING), EMULATED_SCRIPT, placement, title),
        Link(SERIAL_ELF, (board, *_UART), EMULATED_SCRIPT, placement, title),
    ]


def _defines(target: Target, machine: Target | None) -> dict[str, str]:
    """Where the model's weights and hot code go, and where the machine's serial port is."""
    defines = {
        "TVMT_ARENA_SECTION": '".tvmt_arena"',
        "TVMT_WEIGHTS_SECTION": '__attribute__((section(".tvmt_weights")))',
    }
    if target.code_ram:
        defines["TVMT_CODE_SECTION"] = '__attribute__((section(".tvmt_code")))'
    if machine and machine.uart_base:
        defines["TVMT_UART_BASE"] = f"{machine.uart_base:#x}u"
    return defines

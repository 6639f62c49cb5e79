"""`tvmtiny targets`: the boards, cores and emulated machines that models can be compiled for."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tvmtiny.cli import console
from tvmtiny.cli.console import kilobytes

if TYPE_CHECKING:
    from tvmtiny.target import MemoryRegion, Target


def _row(target: Target) -> dict[str, Any]:
    return {
        "name": target.name,
        "description": target.description,
        "cpu": target.cpu,
        "clock_hz": target.clock_hz,
        "flash_bytes": target.flash_bytes,
        "ram_bytes": target.ram_bytes,
        "runner": target.runner,
        "qemu_machine": _machine(target),
    }


def _machine(target: Target) -> str | None:
    """The QEMU machine that runs it: its own, or the one that stands in for a board."""
    return target.emulator().qemu_machine if target.qemu_machine or target.emulated_by else None


def _clock(hertz: int | None) -> str:
    return f"{hertz / 1e6:g} MHz" if hertz else "-"


def _size(count: int | None) -> str:
    return kilobytes(count) if count else "-"


def _show_all(rows: list[dict[str, Any]]) -> None:
    table = console.table(
        "Targets", "name", "cpu", "clock", "flash", "RAM", "runs on", right=("clock", "flash", "RAM")
    )
    for row in rows:
        runner = f"QEMU {row['qemu_machine']}" if row["qemu_machine"] else row["runner"]
        sizes = (_clock(row["clock_hz"]), _size(row["flash_bytes"]), _size(row["ram_bytes"]))
        table.add_row(row["name"], row["cpu"], *sizes, runner)
    console.show(table, "Details of one: tvmtiny targets NAME")


def _features(target: Target) -> str:
    fpu = f"FPU {target.fpu}"
    features = {"DSP": target.dsp, "MVE": target.mve, fpu: target.fpu != "none", "MPU": target.mpu}
    features["TrustZone"] = target.trustzone
    return ", ".join(name for name, present in features.items() if present) or "none"


def _emulation(target: Target) -> str:
    machine = _machine(target)
    if machine is None:
        return "this computer" if target.runner == "host" else "nothing"
    stand_in = (
        "" if target.qemu_machine else f", target {target.emulated_by}, with the limits of {target.name}"
    )
    return f"QEMU machine {machine}{stand_in}"


def _power(target: Target) -> str:
    if target.power_ma is None:
        return "not stated"
    supply = f" and {target.supply_v:g} V" if target.supply_v else ""
    return f"{target.power_ma:g} mA at this clock{supply}" + (
        f" ({target.power_source})" if target.power_source else ""
    )


def _facts(target: Target) -> dict[str, str]:
    return {
        "cpu": target.cpu,
        "features": _features(target),
        "clock": _clock(target.clock_hz),
        "power": _power(target),
        "compiler flags": " ".join((*target.flags, target.optimize)),
        "runs on": _emulation(target),
        "project": target.project,
        "limit of flash": f"{_size(target.flash_bytes)}: weights, tables and code",
        "limit of arena": _size(target.ram_bytes),
        "stack": kilobytes(target.stack_bytes),
        "file": str(target.path),
    }


def _memory_table(regions: tuple[MemoryRegion, ...]) -> Any:
    table = console.table(
        "Memory", "region", "kind", "origin", "size", "wait states", "used for", right=("size", "wait states")
    )
    for region in regions:
        uses = ", ".join(region.uses)
        origin = f"0x{region.origin:08x}"
        wait = str(region.wait_states)
        table.add_row(region.name, region.kind, origin, kilobytes(region.bytes), wait, uses)
    return table


def _show_one(target: Target) -> None:
    facts = console.table(f"{target.name}: {target.description}", "", "")
    facts.show_header = False
    for name, value in _facts(target).items():
        facts.add_row(name, value)
    console.show(facts)
    if target.memory:
        console.show(_memory_table(target.memory))


def command(
    name: Annotated[
        str | None, typer.Argument(help="Show this target in detail.", show_default=False)
    ] = None,
    as_json: console.JsonOption = False,
) -> None:
    """List the targets, or show the memory map, flags and limits of one."""
    from tvmtiny.target import list_targets, load_target

    if name is not None:
        target = load_target(name)
        if as_json:
            console.show_json({**dataclasses.asdict(target), **_row(target)})
        else:
            _show_one(target)
        return
    rows = [_row(target) for target in list_targets()]
    if as_json:
        console.show_json({"rows": rows})
    else:
        _show_all(rows)

"""Which memory region of a target holds what, and where an emulated machine keeps that region.

A board's program is linked for the board's own addresses and, from the same objects, for a machine that
stands in for its core. Both links have the board's regions with the board's sizes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from tvmtiny.errors import UserError
from tvmtiny.target import MemoryRegion, Target

# What the program keeps in RAM besides arena and stack: two frames of the link, its variables, and the stack for
# reporting faults. It serves to choose a region; the linker has the last word.
VARIABLES_BYTES = 1024
# QEMU tracks code by pages: regions of code and of data do not share one.
PAGE_BYTES = 4096


@dataclasses.dataclass(frozen=True)
class Placement:
    """Regions of one link, in bytes and addresses; `flash`, `code`, `data` and `arena` are names of regions.

    `code` is where hot code runs: a RAM for it (ITCM) or the same as `flash`.
    """

    regions: tuple[MemoryRegion, ...]
    flash: str
    code: str
    data: str
    arena: str
    stack_bytes: int


def place(target: Target, arena_bytes: int, further_bytes: int = 0) -> Placement:
    """Choose regions for an arena of `arena_bytes` (guards included) and for stack and variables.

    Variables are those of every program and `further_bytes` more.

    The arena goes to the fastest region that holds it, with stack and variables beside it where they fit.
    Only an arena larger than every region spans several contiguous ones. Raises UserError with the sizes when
    none will do.
    """
    work_bytes = target.stack_bytes + VARIABLES_BYTES + further_bytes
    for area in _areas(target):
        free = area.bytes - arena_bytes
        if free >= work_bytes and "data" in area.uses:
            return _placement(target, area, area.name)
        for other in target.memory:
            fits = other.kind == "ram" and "data" in other.uses and other.bytes >= work_bytes
            if free >= 0 and fits and not _overlap(area, other):
                return _placement(target, area, other.name)
    rams = ", ".join(f"{region.name} {region.bytes}" for region in target.arena_regions)
    raise UserError(
        f"An arena of {arena_bytes} bytes and {work_bytes} bytes of stack and variables do not fit the RAM "
        f"of {target.name}, {target.ram_bytes} bytes ({rams}).",
        "Use fewer tokens (--max-tokens), a smaller model, or a target with more RAM.",
    )


def translate(placement: Placement, board: Target, machine: Target) -> Placement:
    """The same regions at addresses of `machine`; contiguous regions stay so.

    Raises UserError when the machine has less memory than the board.
    """
    shifts = _shifts(board, machine)
    regions = tuple(
        dataclasses.replace(region, origin=region.origin + shifts[region.origin])
        for region in placement.regions
        if not region.boot
    )
    return dataclasses.replace(placement, regions=regions)


def _placement(target: Target, area: MemoryRegion, data: str) -> Placement:
    flash = next(region for region in target.memory if region.kind == "flash" and "code" in region.uses)
    code = target.code_ram or flash
    others = tuple(region for region in target.memory if not _overlap(region, area))
    return Placement((*others, area), flash.name, code.name, data, area.name, target.stack_bytes)


def _areas(target: Target) -> Iterator[MemoryRegion]:
    """Where an arena may lie: single regions in the target's order, then joined ones, fewest first."""
    yield from target.arena_regions
    ordered = sorted(target.arena_regions, key=lambda region: region.origin)
    for length in range(2, len(ordered) + 1):
        for start in range(len(ordered) - length + 1):
            run = ordered[start : start + length]
            if run[-1].end - run[0].origin == sum(region.bytes for region in run):
                yield _join(run)


def _join(run: list[MemoryRegion]) -> MemoryRegion:
    return MemoryRegion(
        name="_".join(region.name for region in run),
        kind="ram",
        origin=run[0].origin,
        bytes=sum(region.bytes for region in run),
        wait_states=max(region.wait_states for region in run),
        uses=tuple(use for use in run[0].uses if all(use in region.uses for region in run)),
    )


def _overlap(one: MemoryRegion, other: MemoryRegion) -> bool:
    return one.origin < other.end and other.origin < one.end


def _shifts(board: Target, machine: Target) -> dict[int, int]:
    """By origin of each region of the board: what to add to get the machine's address."""
    free = {region.name: region.origin for region in machine.memory}
    shifts: dict[int, int] = {}
    for run in _runs(board):
        size = run[-1].end - run[0].origin
        room = (
            region
            for region in machine.memory
            if region.kind == run[0].kind and free[region.name] + size <= region.end
        )
        home = next(room, None)
        if home is None:
            names = ", ".join(region.name for region in run)
            raise UserError(
                f"{board.name} has {size} bytes of {names}; {machine.name}, which stands in for it, has not.",
                f"Name a larger machine as emulated_by in {board.path}.",
            )
        shift = free[home.name] - run[0].origin
        shifts.update({region.origin: shift for region in run})
        free[home.name] += -(-size // PAGE_BYTES) * PAGE_BYTES
    return shifts


def _runs(board: Target) -> list[list[MemoryRegion]]:
    """Regions of one kind that follow each other without a gap."""
    runs: list[list[MemoryRegion]] = []
    for region in sorted(board.memory, key=lambda region: region.origin):
        if region.boot:
            continue  # a machine starts the program itself
        if runs and runs[-1][-1].end == region.origin and runs[-1][-1].kind == region.kind:
            runs[-1].append(region)
        else:
            runs.append([region])
    return runs

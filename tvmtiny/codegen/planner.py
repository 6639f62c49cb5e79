"""The static memory plan: an offset in the one arena for every buffer of a model.

Buffers are inputs, outputs, intermediate tensors and scratch, each with a size and the steps in which it is
live; the search for offsets is in `plan_search`, printing in `plan_report`, the method in
docs/memory-planner.md. The stack is no part of the arena. Nothing here imports TVM.

In place: a buffer may begin at the offset of the buffer named by its `alias_of`, in the step that reads the
last of one and writes the first of the other. This is used unless the arena is smaller without, if the other
one dies in that step and is not smaller. They overlap at no other offset: a kernel that works in place reads
element k before it writes element k, and relies on both having the same address.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, get_args

from tvmtiny.codegen.plan_search import Item, Pair, solve
from tvmtiny.errors import UserError

Kind = Literal["input", "output", "state", "tensor", "scratch"]

BEFORE_RUN = -1  # the step in which the caller writes the inputs
ARENA_ALIGN = 16  # the generated C asks for at least this


class Region(Protocol):
    """What the planner needs to know of a memory region; `tvmtiny.target.MemoryRegion` is one."""

    @property
    def name(self) -> str:
        """As in the manual: "dtcm"."""

    @property
    def origin(self) -> int:
        """Address of the first byte that the arena may have."""

    @property
    def bytes(self) -> int:
        """Bytes that the arena may have."""


@dataclasses.dataclass(frozen=True)
class Buffer:
    """A run of bytes that a model needs for some of its steps.

    Attributes:
        name: unique in a plan.
        bytes: size, at least 1.
        align: the offset is a multiple of this power of two.
        first: first step that writes it. An input or state is live from step -1, whatever is said here.
        last: last step that uses it, inclusive. An output or state is live until after the last step of all.
        kind: "input", "output", "state" (which lives from run to run), "tensor" or "scratch".
        alias_of: name of a buffer in whose place this one may be computed, or None.
    """

    name: str
    bytes: int
    align: int
    first: int
    last: int
    kind: Kind = "tensor"
    alias_of: str | None = None


@dataclasses.dataclass(frozen=True)
class Place:
    """Where an arena goes: the names of one region, or of adjacent ones by address, and its first address."""

    regions: tuple[str, ...]
    origin: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """Where everything is in the arena.

    Attributes:
        buffers: as planned, with the lifetimes of inputs and outputs extended.
        offsets: name of a buffer -> offset in bytes.
        arena_bytes: the highest end of a buffer.
        align: alignment in bytes that the arena's start needs.
        lower_bound: bytes that no plan can go below; see `lower_bound`.
        optimal: whether `arena_bytes` is proven to be the least possible.
        in_place: name of a buffer -> name of the buffer that it overwrites.
        place: memory for the arena, or None when the plan was made without regions.
    """

    buffers: tuple[Buffer, ...]
    offsets: Mapping[str, int]
    arena_bytes: int
    align: int
    lower_bound: int
    optimal: bool
    in_place: Mapping[str, str]
    place: Place | None = None

    @property
    def steps(self) -> range:
        """All steps, from the one before the run to the one after it."""
        return range(BEFORE_RUN, max(buffer.last for buffer in self.buffers) + 1)

    @property
    def total_bytes(self) -> int:
        """Bytes that the buffers would need without any reuse."""
        return sum(buffer.bytes for buffer in self.buffers)

    def live_bytes(self) -> dict[int, int]:
        """Step -> bytes in use; what lies in place of something else counts once."""
        live = {}
        for step in self.steps:
            present = {buffer.name: buffer for buffer in self.buffers if buffer.first <= step <= buffer.last}
            live[step] = sum(
                buffer.bytes
                for name, buffer in present.items()
                # Not larger than what it overwrites, so it adds nothing while that is live too.
                if self.in_place.get(name) not in present
            )
        return live

    def rows(self) -> list[dict[str, Any]]:
        """A row a buffer, by offset and then by first step; plain values, for JSON and templates."""
        ordered = sorted(self.buffers, key=lambda buffer: (self.offsets[buffer.name], buffer.first))
        return [
            {
                "name": buffer.name,
                "kind": buffer.kind,
                "offset": self.offsets[buffer.name],
                "bytes": buffer.bytes,
                "align": buffer.align,
                "first_step": buffer.first,
                "last_step": buffer.last,
                "in_place_of": self.in_place.get(buffer.name),
            }
            for buffer in ordered
        ]

    def to_json(self) -> dict[str, Any]:
        """The plan as `metadata.json` keeps it; `from_json` reads it back."""
        return {
            "bytes": self.arena_bytes,
            "align": self.align,
            "lower_bound_bytes": self.lower_bound,
            "optimal": self.optimal,
            "regions": list(self.place.regions) if self.place else [],
            "origin": self.place.origin if self.place else None,
            "plan": self.rows(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """Read back what `to_json` wrote."""
        rows = data["plan"]
        return cls(
            buffers=tuple(
                Buffer(
                    row["name"], row["bytes"], row["align"], row["first_step"], row["last_step"], row["kind"]
                )
                for row in rows
            ),
            offsets={row["name"]: row["offset"] for row in rows},
            arena_bytes=data["bytes"],
            align=data["align"],
            lower_bound=data["lower_bound_bytes"],
            optimal=data["optimal"],
            in_place={row["name"]: row["in_place_of"] for row in rows if row["in_place_of"]},
            place=Place(tuple(data["regions"]), data["origin"]) if data["regions"] else None,
        )

    def check(self) -> None:
        """Verify the plan by comparing every two buffers; shares nothing with the search.

        Raises AssertionError, which is a defect of the planner.
        """
        for buffer in self.buffers:
            offset = self.offsets[buffer.name]
            _require(
                offset >= 0 and offset + buffer.bytes <= self.arena_bytes, f"{buffer.name} leaves the arena"
            )
            aligned = offset % buffer.align == 0 and self.align % buffer.align == 0
            _require(aligned, f"{buffer.name} is not aligned to {buffer.align}")
        for a, b in itertools.combinations(self.buffers, 2):
            apart_in_time = a.last < b.first or b.last < a.first
            start_a, start_b = self.offsets[a.name], self.offsets[b.name]
            apart_in_memory = start_a + a.bytes <= start_b or start_b + b.bytes <= start_a
            in_place = start_a == start_b and (may_overwrite(a, b) or may_overwrite(b, a))
            _require(apart_in_time or apart_in_memory or in_place, f"{a.name} and {b.name} overlap")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def may_overwrite(child: Buffer, parent: Buffer) -> bool:
    """Whether `child` may be computed in place of `parent`: asked for, dying just then, and not smaller."""
    return (
        child.alias_of == parent.name
        and child.name != parent.name
        and parent.last == child.first
        and child.bytes <= parent.bytes
    )


def plan(
    buffers: Sequence[Buffer],
    *,
    regions: Sequence[Region] = (),
    target: str = "the target",
    max_tokens: int | None = None,
    align: int = ARENA_ALIGN,
) -> Plan:
    """Place `buffers` in one arena, and the arena in memory.

    Args:
        buffers: at least one.
        regions: RAM that the arena may use, in order of preference (`Target.arena_regions`); empty: no limit.
        target: its name, for the message.
        max_tokens: tokens that the buffers are sized for, if fewer are a remedy.
        align: least alignment of the arena's start.

    Raises UserError when the arena fits nowhere, and ValueError for buffers that make no sense.
    """
    extended = extend_lifetimes(buffers)
    items = [Item(buffer.bytes, buffer.align, buffer.first, buffer.last) for buffer in extended]
    pairs = _pairs(extended)
    bound = lower_bound(extended)
    solution = solve(items, pairs, bound)
    align = max(align, *(buffer.align for buffer in extended))
    result = Plan(
        buffers=extended,
        offsets={buffer.name: offset for buffer, offset in zip(extended, solution.offsets, strict=True)},
        arena_bytes=solution.peak,
        align=align,
        lower_bound=bound,
        optimal=solution.optimal,
        in_place={extended[child].name: extended[parent].name for child, parent in solution.pairs},
        place=place(solution.peak, align, regions, target, max_tokens) if regions else None,
    )
    result.check()
    return result


def lower_bound(buffers: Sequence[Buffer]) -> int:
    """Bytes that no plan can go below: the most that must be live at once in any step.

    Of what may lie in place of one buffer, the largest is left out. Every start is a multiple of the smallest
    alignment present, so all but the topmost buffer occupy whole multiples of it.
    """
    extended = extend_lifetimes(buffers)
    overwrites: dict[int, list[int]] = {}
    for child, parent in _pairs(extended):
        overwrites.setdefault(parent, []).append(child)
    shared = {
        max(children, key=lambda i: extended[i].bytes): parent for parent, children in overwrites.items()
    }
    bound = 0
    for step in {buffer.first for buffer in extended}:
        live = [i for i, buffer in enumerate(extended) if buffer.first <= step <= buffer.last]
        grain = min(extended[i].align for i in live)
        sizes = [extended[i].bytes for i in live if shared.get(i) not in live]
        rounded = [_round_up(size, grain) for size in sizes]
        slack = max(whole - size for whole, size in zip(rounded, sizes, strict=True))
        bound = max(bound, sum(rounded) - slack)
    return bound


def extend_lifetimes(buffers: Sequence[Buffer]) -> tuple[Buffer, ...]:
    """Make inputs live from before the run, outputs until after it, and state all the time.

    Raises ValueError for buffers that make no sense: the caller's defect, not the user's.
    """
    _check_buffers(buffers)
    ends = [buffer.first if buffer.kind in ("output", "state") else buffer.last for buffer in buffers]
    after_run = 1 + max(ends)
    return tuple(
        dataclasses.replace(
            buffer,
            first=BEFORE_RUN if buffer.kind in ("input", "state") else buffer.first,
            last=after_run if buffer.kind in ("output", "state") else buffer.last,
        )
        for buffer in buffers
    )


def _check_buffers(buffers: Sequence[Buffer]) -> None:
    if not buffers:
        raise ValueError("no buffers to plan")
    names = [buffer.name for buffer in buffers]
    if len(set(names)) < len(names):
        raise ValueError(f"buffer names are not unique: {sorted(names)}")
    for buffer in buffers:
        if buffer.bytes < 1:
            raise ValueError(f"{buffer.name}: {buffer.bytes} bytes, at least 1 is required")
        if buffer.align < 1 or buffer.align & (buffer.align - 1):
            raise ValueError(f"{buffer.name}: alignment {buffer.align} is no power of two")
        if not BEFORE_RUN <= buffer.first <= buffer.last:
            raise ValueError(f"{buffer.name}: live from step {buffer.first} to {buffer.last}")
        if buffer.kind not in get_args(Kind):
            raise ValueError(f"{buffer.name}: kind {buffer.kind!r} is none of {get_args(Kind)}")
        if buffer.alias_of is not None and buffer.alias_of not in names:
            raise ValueError(f"{buffer.name}: alias_of names {buffer.alias_of!r}, which is no buffer")


def _pairs(buffers: Sequence[Buffer]) -> list[Pair]:
    index = {buffer.name: i for i, buffer in enumerate(buffers)}
    return [
        (i, index[buffer.alias_of])
        for i, buffer in enumerate(buffers)
        if buffer.alias_of is not None and may_overwrite(buffer, buffers[index[buffer.alias_of]])
    ]


# -- memory regions ------------------------------------------------------------------------------------------


def place(
    arena_bytes: int, align: int, regions: Sequence[Region], target: str, max_tokens: int | None
) -> Place:
    """The most preferred region that holds the arena, else the fewest adjacent ones, the preferred first.

    Raises UserError when the arena fits nowhere.
    """
    runs = _runs(regions)
    for run in runs:
        if arena_bytes <= _available(run, align):
            return Place(tuple(region.name for region in run), _round_up(run[0].origin, align))
    largest = max(runs, key=lambda run: _available(run, align))
    available = _available(largest, align)
    names = "+".join(region.name.upper() for region in largest)
    raise UserError(
        f"arena {kilobytes(arena_bytes, up=True)} > {kilobytes(available)} {names} of {target}",
        _remedy(arena_bytes, available, max_tokens),
    )


def _runs(regions: Sequence[Region]) -> list[tuple[Region, ...]]:
    """All runs of regions without a gap between their addresses, in the order in which to try them."""
    preference = {region.name: i for i, region in enumerate(regions)}
    ordered = sorted(regions, key=lambda region: region.origin)
    runs = [
        tuple(ordered[start:stop])
        for start, stop in itertools.combinations(range(len(ordered) + 1), 2)
        if all(a.origin + a.bytes == b.origin for a, b in itertools.pairwise(ordered[start:stop]))
    ]
    return sorted(runs, key=lambda run: (len(run), sorted(preference[region.name] for region in run)))


def _available(run: Sequence[Region], align: int) -> int:
    return run[-1].origin + run[-1].bytes - _round_up(run[0].origin, align)


def _remedy(arena_bytes: int, available: int, max_tokens: int | None) -> str:
    larger = "choose a target with more RAM or train a narrower model"
    if max_tokens is None:
        return f"{larger[0].upper()}{larger[1:]}."
    # Buffers grow with the number of tokens, or do not: proportion is an estimate, a little too high.
    tokens = max_tokens * available // arena_bytes
    tokens -= tokens % 8 if tokens > 8 else 0
    return f"try --max-tokens {tokens}, or {larger}." if tokens else f"{larger[0].upper()}{larger[1:]}."


def _round_up(value: int, align: int) -> int:
    return (value + align - 1) & -align


def kilobytes(count: int, *, up: bool = False) -> str:
    """A size in KB with one decimal where it is not whole; rounded so that too large never reads as equal."""
    tenths = -(-count * 10 // 1024) if up else count * 10 // 1024
    return f"{tenths // 10} KB" if tenths % 10 == 0 else f"{tenths / 10} KB"

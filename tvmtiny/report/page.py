"""A profile as one HTML page: figures, timeline, memory map, tables. It loads nothing from anywhere."""

from __future__ import annotations

import dataclasses
from typing import Any

from tvmtiny import __version__
from tvmtiny.report.arena import Buffer, buffers
from tvmtiny.report.profile import Operator, Profile
from tvmtiny.templates import jinja_environment

# Chart colours by kernel, on light and dark ground alike; other kernels share the last one.
COLORS = {
    "attention": "#4e79d6",
    "ffn": "#e08a2e",
    "embed": "#2fa36b",
    "dense": "#b65fcf",
    "layer_norm": "#17a2b8",
    "mean": "#c9a227",
    "first": "#d1607d",
}
OTHER_COLOR = "#8a93a3"
KIND_COLORS = {
    "input": "#2fa36b",
    "tensor": "#4e79d6",
    "scratch": "#8a93a3",
    "output": "#e08a2e",
    "state": "#9a6cc4",
}

MAP_WIDTH, MAP_HEIGHT = 1000, 380
CHARACTER = 7.2
"""Width in pixels of a character of a label in the memory map."""


@dataclasses.dataclass(frozen=True)
class Bar:
    """An operator on the time line; `start` and `width` in per cent of the whole."""

    operator: Operator
    start: float
    width: float
    color: str
    latency_ms: float | None


@dataclasses.dataclass(frozen=True)
class Rectangle:
    """A buffer on the memory map, in pixels; `label` is empty where it would not fit."""

    x: float
    y: float
    width: float
    height: float
    color: str
    label: str
    about: str


def page(found: Profile) -> str:
    """The page of a profile."""
    environment = jinja_environment("tvmtiny.report", html=True)
    environment.filters["thousands"] = lambda value: f"{value:,}"
    bars = timeline(found)
    return environment.get_template("profile.html.j2").render(
        profile=found,
        version=__version__,
        tiles=_tiles(found),
        bars=bars,
        kernels={bar.operator.kernel: bar.color for bar in bars if bar.operator.kernel},
        map=memory_map(found),
        kinds=KIND_COLORS,
    )


def timeline(found: Profile) -> list[Bar]:
    """Operators in the order in which they run, the run function first."""
    total = max(1, found.estimated_cycles)
    bars, before = [], 0
    for row in found.operators:
        bars.append(
            Bar(
                operator=row,
                start=100 * before / total,
                width=100 * row.estimated_cycles / total,
                color=COLORS.get(row.kernel, OTHER_COLOR),
                latency_ms=found.latency_ms(row.estimated_cycles),
            )
        )
        before += row.estimated_cycles
    return bars


def memory_map(found: Profile) -> dict[str, Any]:
    """Buffers as rectangles: steps to the right, offsets in the arena upwards."""
    plan = buffers(found.artifact)
    first = min((buffer.first for buffer in plan), default=0)
    last = max((buffer.last for buffer in plan), default=0)
    step = MAP_WIDTH / (last - first + 1)
    scale = MAP_HEIGHT / max(1, found.artifact.arena_bytes)
    operators = [row for row in found.operators if row.kernel]
    return {
        "width": MAP_WIDTH,
        "height": MAP_HEIGHT,
        "rectangles": [_rectangle(buffer, plan, first, step, scale) for buffer in plan],
        "operators": [
            {
                "x": (row.first_step - first) * step,
                "width": (row.last_step - row.first_step + 1) * step,
                "color": COLORS.get(row.kernel, OTHER_COLOR),
                "label": _fitting(row.kernel, (row.last_step - row.first_step + 1) * step),
                "about": row.name,
            }
            for row in operators
        ],
    }


def _rectangle(buffer: Buffer, plan: list[Buffer], first: int, step: float, scale: float) -> Rectangle:
    width, height = (buffer.last - buffer.first + 1) * step, buffer.bytes * scale
    alone = (
        min([buffer.last + 1, *(other.first for other in plan if _takes_place(other, buffer))]) - buffer.first
    )
    return Rectangle(
        x=(buffer.first - first) * step,
        y=MAP_HEIGHT - (buffer.offset + buffer.bytes) * scale,
        width=width,
        height=height,
        color=KIND_COLORS[buffer.kind],
        label=_fitting(buffer.name.rpartition(".")[2], alone * step) if height >= 14 else "",
        about=f"{buffer.name} ({buffer.kind}): {buffer.bytes:,} bytes at {buffer.offset:,}, "
        f"steps {buffer.first} to {buffer.last}",
    )


def _takes_place(other: Buffer, buffer: Buffer) -> bool:
    """Whether `other` begins over `buffer` while that is live: a result computed in place."""
    shared = other.offset < buffer.offset + buffer.bytes and buffer.offset < other.offset + other.bytes
    return shared and buffer.first < other.first <= buffer.last


def _fitting(label: str, width: float) -> str:
    return label if len(label) * CHARACTER + 8 <= width else ""


def _tiles(found: Profile) -> list[tuple[str, str, str]]:
    """Title, figure, remark."""
    milliseconds = found.latency_ms(found.estimated_cycles)
    flash = found.sizes.code_bytes + found.sizes.table_bytes + found.sizes.weight_bytes
    tiles = [
        ("Instructions", f"{found.instructions:,}", "exact"),
        ("Cycles", f"{found.estimated_cycles:,}", "estimate"),
    ]
    if milliseconds is not None:
        tiles.append(
            ("Latency", f"{milliseconds:.2f} ms", f"estimate, at {found.target.clock_hz / 1e6:g} MHz")
        )
    if found.macs:
        tiles.append(("Cycles per MAC", f"{found.estimated_cycles / found.macs:.2f}", f"{found.macs:,} MACs"))
    tiles += [
        ("Arena", f"{found.artifact.arena_bytes:,} B", "input, output and scratch"),
        ("Flash", f"{flash:,} B", f"{found.sizes.weight_bytes:,} B of it weights"),
    ]
    if found.stack_bytes is not None:
        tiles.append(("Stack", f"{found.stack_bytes:,} B", "deepest, measured"))
    return tiles

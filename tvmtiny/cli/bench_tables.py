"""The tables of `tvmtiny bench`: figures by target and group, their peers, and what changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tvmtiny.cli import console

if TYPE_CHECKING:
    from rich.table import Table

    from tvmtiny.bench.compare import Change, Comparison
    from tvmtiny.bench.results import Report, Row

_NOTE = (
    "Instructions are exact, cycles are estimates (docs/profile.md). Ratio: the other's figure divided by that here; "
    "above 1, less is needed here."
)


def show_report(report: Report) -> None:
    """Print tables for each target, and where the figures of others come from."""
    for target in dict.fromkeys(row.target for row in report.rows):
        kernels, encoders, front_ends = (
            [row for row in report.rows if (row.target, row.group) == (target, group)]
            for group in ("kernels", "encoders", "features")
        )
        if kernels:
            console.show(_kernels(kernels))
        if encoders:
            console.show(_encoders(encoders), _memory(encoders))
        if front_ends:
            console.show(_front_ends(front_ends))
        if any(row.peers for row in encoders):
            console.show(_beside_others(encoders))
    for item in report.skipped:
        console.message(f"Skipped {item.name} on {item.target}: {item.reason}")
    peers = {peer.title: peer.method for row in report.rows for peer in row.peers}
    console.show(_NOTE, *(f"{title}: {method}" for title, method in peers.items()))
    console.show(f"C compiler: {report.compiler}.")


def _kernels(rows: Sequence[Row]) -> Table:
    each = ("MACs or\nelements", "instruc-\ntions", "each", "estimated\ncycles", "each ", "ratio")
    table = console.table(
        f"Kernels on {_core(rows)}",
        "kernel",
        *each[:-1],
        "others, each",
        "ratio",
        right=(*each, "others, each"),
    )
    table.padding = (0, 1, 0, 0)
    for row in rows:
        others, ratios = _others(row)
        table.add_row(
            row.name,
            f"{row.units or 0:,}",
            f"{row.instructions:,}",
            _each(row, row.instructions),
            f"{row.estimated_cycles:,}",
            _each(row, row.estimated_cycles),
            others,
            ratios,
        )
    return table


def _encoders(rows: Sequence[Row]) -> Table:
    timed = rows[0].latency_ms is not None
    numbers = ("MACs", "instructions", "/MAC", "est. cycles", "/MAC ", *(["ms"] if timed else []))
    table = console.table(f"Encoders on {_core(rows)}", "model", *numbers, right=numbers)
    for row in rows:
        counts = (_count(row.macs), _count(row.instructions), _each(row, row.instructions))
        cycles = (_count(row.estimated_cycles), _each(row, row.estimated_cycles))
        table.add_row(row.name, *counts, *cycles, *([f"{row.latency_ms:,.2f}"] if timed else []))
    return table


def _front_ends(rows: Sequence[Row]) -> Table:
    numbers = ("instructions", "est. cycles", "RAM", "code", "tables")
    table = console.table(
        f"Front ends on {_core(rows)}, a second of input", "front end", *numbers, right=numbers
    )
    for row in rows:
        figures = (row.instructions, row.estimated_cycles, row.arena_bytes, row.code_bytes, row.table_bytes)
        table.add_row(row.name, *map(_count, figures))
    return table


def _memory(rows: Sequence[Row]) -> Table:
    numbers = ("arena", "stack", "code", "tables", "weights", "flash")
    table = console.table(f"Bytes on {_core(rows)}", "model", *numbers, right=numbers)
    for row in rows:
        sizes = (row.arena_bytes, row.stack_bytes, row.code_bytes, row.table_bytes, row.weight_bytes)
        table.add_row(row.name, *map(_count, sizes), _count(row.flash_bytes))
    return table


def _beside_others(rows: Sequence[Row]) -> Table:
    numbers = ("here", "there", "ratio")
    table = console.table(
        f"Beside others, {rows[0].cpu}", "model", "other", "figure", *numbers, right=numbers
    )
    for row in rows:
        for peer in row.peers:
            values = (f"{peer.own:,.0f}", f"{peer.value:,.0f}", f"{peer.ratio:.2f}")
            table.add_row(row.name, peer.title, peer.figure.replace("_", " "), *values)
    return table


def _core(rows: Sequence[Row]) -> str:
    return f"{rows[0].target} ({rows[0].cpu})"


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _each(row: Row, count: float) -> str:
    value = row.per_unit(count)
    return "" if value is None else f"{value:.2f}"


def _others(row: Row) -> tuple[str, str]:
    """Figures of peers, a multiply-accumulate or element each, and ratios; a line a peer."""
    figures, ratios = [], []
    for peer in row.peers:
        value = row.per_unit(peer.value) if peer.figure in ("instructions", "cycles") else peer.value
        unit = "cycles" if peer.figure.startswith("cycles") else "instr."
        figures.append(f"{peer.title} {value or 0:.2f} {unit}")
        ratios.append(f"{peer.ratio:.2f}")
    return "\n".join(figures), "\n".join(ratios)


def show_comparison(comparison: Comparison) -> None:
    """Print what changed, largest change first."""
    if comparison.compilers is not None:
        before, after = comparison.compilers
        console.message(f"The earlier figures hold for {before}, these for {after}: other code.")
    if comparison.changes:
        numbers = ("before", "after", "difference", "per cent")
        table = console.table("Changes", "benchmark", "target", "figure", *numbers, right=numbers)
        for change in comparison.changes:
            table.add_row(*_change(change))
        console.show(table)
    for title, places in (("New", comparison.new), ("No longer measured", comparison.vanished)):
        if places:
            console.show(f"{title}: " + ", ".join(f"{name} on {target}" for name, target in places))
    console.show(f"{len(comparison.changes)} of {comparison.figures} figures changed.")


def _change(change: Change) -> tuple[str, ...]:
    colour = "red" if change.difference > 0 else "green"
    percent = f"{change.percent:+.2f} %" if change.percent is not None else ""
    return (
        change.name,
        change.target,
        change.figure,
        f"{change.before:,}",
        f"{change.after:,}",
        f"[{colour}]{change.difference:+,}[/]",
        f"[{colour}]{percent}[/]",
    )

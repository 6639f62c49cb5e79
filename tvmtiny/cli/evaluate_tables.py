"""What `tvmtiny evaluate` prints: a figure a line, a column for the float model and for each target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from tvmtiny.cli import console

if TYPE_CHECKING:
    from tvmtiny.evaluate import Dataset, Spread
    from tvmtiny.evaluate.baseline import Change
    from tvmtiny.evaluate.report import Row


def show(data: Dataset, rows: Sequence[Row], real: dict[str, Any] | None) -> None:
    """Print the table, and what its figures rest on."""
    first = rows[0].found
    columns = ["float"] * bool(real) + [row.found.target.name for row in rows]
    table = console.table(
        f"{first.artifact.name}: {len(data)} {data.kind} of {escape(data.source)}",
        "",
        *columns,
        right=tuple(columns),
    )
    for title, cells in _lines(rows, real):
        if any(cells):
            table.add_row(title, *cells)
    console.show(table)
    for note in _notes(rows, real):
        console.show_plain(note)


def _lines(rows: Sequence[Row], real: dict[str, Any] | None) -> list[tuple[str, list[str]]]:
    blank = [""] * bool(real)

    def line(title: str, cell: Callable[[Row], str]) -> tuple[str, list[str]]:
        return title, blank + [cell(row) for row in rows]

    lines = []
    for name in rows[0].found.metrics:
        values = [real["metrics"][name]] * bool(real) if real else []
        values += [row.found.metrics[name] for row in rows]
        lines.append((escape(name), [_value(value) for value in values]))
    several = len(rows[0].found.artifact.outputs) > 1
    for name in rows[0].snr_db:
        of = f" of {escape(name)}" if several else ""
        lines.append(
            line(f"same class as float{of}", lambda row, n=name: _percent(row.agreement[n]))  # type: ignore[misc]
        )
        lines.append(line(f"signal to noise{of}", lambda row, n=name: f"{row.snr_db[n]:.1f} dB"))  # type: ignore[misc]
    lines += [
        line("bytes as the integer reference", lambda row: _percent(row.bit_exact)),
        line("tokens, p50 / p95", lambda row: _pair(row.found.tokens)),
        line("instructions, p50 / p95", lambda row: _pair(row.found.instructions)),
        line("cycles, p50 / p95", lambda row: _pair(row.found.cycles, "" if row.found.measured else "~")),
        line(
            "latency, p50 / p95 (ms)",
            lambda row: _pair(row.found.latency_ms, "" if row.found.measured else "~", 3),
        ),
        line(
            "energy, p50 (µJ)", lambda row: f"~{row.found.energy_uj.p50:,.0f}" if row.found.energy_uj else ""
        ),
        line("RAM (bytes)", lambda row: _count(row.found.ram_bytes)),
        line("  arena", lambda row: _count(row.found.arena_bytes)),
        line("  state of the front end", lambda row: _count(row.found.state_bytes or None)),
        line("  stack", lambda row: _count(row.found.stack_bytes)),
        line("flash (bytes)", lambda row: _part(row, "flash_bytes")),
        *(line(f"  {title}", lambda row, k=key: _part(row, k)) for title, key in _FLASH),  # type: ignore[misc]
    ]
    return lines


_FLASH = (
    ("weights", "weight_bytes"),
    ("tables", "table_bytes"),
    ("code", "code_bytes"),
    ("tokenizer", "tokenizer_bytes"),
    ("front end", "front_end_bytes"),
)


def _part(row: Row, key: str) -> str:
    return _count(getattr(row.found.flash, key) or None) if row.found.flash else ""


def _value(value: float) -> str:
    """A metric: a share in per cent, anything else as it is."""
    return _percent(value) if 0 <= value <= 1 else f"{value:.4g}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f} %"


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _pair(spread: Spread | None, mark: str = "", digits: int = 0) -> str:
    return "" if spread is None else f"{mark}{spread.p50:,.{digits}f} / {mark}{spread.p95:,.{digits}f}"


def _notes(rows: Sequence[Row], real: dict[str, Any] | None) -> list[str]:
    from tvmtiny.evaluate.report import energy_source
    from tvmtiny.schedule.rules import family
    from tvmtiny.target import load_target

    found = [row.found for row in rows]
    notes = []
    if real:
        notes.append(f"float: {real['model']} by {real['engine']}.")
    if found[0].flash:
        notes.append("Flash is the model's own; start-up code and C library come on top.")
    if any(e.cycles and not e.measured for e in found):
        notes.append(
            "~ Estimate: cycles by a model of the core, for the samples at these percentiles of instructions "
            "(tvmtiny profile --explain)."
        )
    notes += [
        f"Energy is an estimate: {e.target.name} draws {energy_source(e)}." for e in found if e.energy_uj
    ]
    own = load_target(found[0].artifact.target)
    notes += [
        f"The C was compiled for {own.name}: for {e.target.name} compile it again, its best kernels are others."
        for e in found
        if family(e.target) != family(own)
    ]
    return notes


def show_changes(changes: Sequence[Change], before: str | None, now: str | None) -> None:
    """Print what is no longer as in the baseline, regressions first."""
    if before != now:
        console.message(f"The baseline holds for {before}, these figures for {now}: other code.")
    changed = [change for change in changes if change.worse]
    if not changed:
        console.show(f"All {len(changes)} figures are those of the baseline.")
        return
    numbers = ("before", "now", "worse by", "tolerated")
    table = console.table("Beside the baseline", "target", "figure", *numbers, "", right=numbers)
    for change in changed:
        colour = "red" if change.regressed else "green" if change.worse < 0 else "yellow"
        verdict = "REGRESSED" if change.regressed else "better" if change.worse < 0 else "tolerated"
        table.add_row(change.place[1], escape(change.figure.name), *_cells(change), f"[{colour}]{verdict}[/]")
    console.show(table)
    console.show(f"{len(changes) - len(changed)} of {len(changes)} figures are those of the baseline.")


def _cells(change: Change) -> tuple[str, str, str, str]:
    if change.figure.kind == "snr_db":
        return (
            f"{change.before:.2f} dB",
            f"{change.figure.value:.2f} dB",
            f"{change.worse:+.2f} dB",
            f"{change.tolerance:g} dB",
        )
    if change.figure.larger_is_better:
        return (
            f"{change.before:.4f}",
            f"{change.figure.value:.4f}",
            f"{change.worse:+.4f}",
            f"{change.tolerance:g}",
        )
    return (
        f"{change.before:,.0f}",
        f"{change.figure.value:,.0f}",
        f"{change.worse:+.2f} %",
        f"{change.tolerance:g} %",
    )

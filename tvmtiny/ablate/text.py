"""An ablation's figures as people read them, and the table of a README."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from tvmtiny.ablate.summary import FLOAT_PREFIX, Row, Stat, Summary
from tvmtiny.ablate.variants import CHANGE, PREFIX, WHOLE, WITHOUT
from tvmtiny.codegen.directory import write_whole
from tvmtiny.errors import UserError

SECTIONS = {
    WHOLE: "The recipe",
    PREFIX: "Step by step",
    WITHOUT: "One step left out",
    CHANGE: "One thing changed",
}
TITLES = {
    "flash_bytes": "flash (B)",
    "ram_bytes": "RAM (B)",
    "instructions_p50": "instructions",
    "latency_p50_ms": "latency (ms)",
}
"""Titles of costs; the last two are medians over the test samples."""


def title(name: str) -> str:
    """The title of a figure's column."""
    return TITLES.get(name, name.replace("_", " "))


def columns(summary: Summary) -> list[str]:
    """The figures of a table: metrics, the first of them as float, costs."""
    real = [f"{FLOAT_PREFIX}{name}" for name in summary.metrics[:1]]
    return [*summary.metrics, *real, *summary.costs]


def value(name: str, stat: Stat) -> str:
    """A figure with its spread."""
    shown = _formatter(name, stat.mean)
    spread = shown(stat.stdev).removesuffix(" %") if stat.stdev else ""
    return f"{shown(stat.mean)} ± {spread}" if _shows(spread) else shown(stat.mean)


def delta(name: str, own: Stat | None, difference: Stat | None) -> str:
    """How a figure differs from the recipe's: points for shares, per cent for costs; empty if it rounds to none."""
    if own is None or difference is None:
        return ""
    if name in TITLES:
        before = own.mean - difference.mean
        text = f"{100 * difference.mean / before:+.1f} %" if before else ""
    else:
        text = f"{100 * difference.mean:+.2f}" if _is_share(own.mean) else f"{difference.mean:+.3g}"
    return text if _shows(text) else ""


def cell(row: Row, name: str) -> str:
    """A figure with its difference in parentheses."""
    own, change = row.figures.get(name), changed(row, name)
    if own is None:
        return ""
    return f"{value(name, own)} ({change})" if change else value(name, own)


def changed(row: Row, name: str) -> str:
    """How a variant's figure differs from the recipe's; empty for the recipe itself."""
    return delta(name, row.figures.get(name), row.deltas.get(name)) if row.kind != WHOLE else ""


def note(summary: Summary, command: str, target: str, samples: str) -> str:
    """What the figures are, in one paragraph.

    Args:
        command: that shows them. target: of the recipe. samples: which ones of the test split, for people.
    """
    seeds = max(row.seeds for row in summary.rows)
    spread = f"Mean ± sample standard deviation of {seeds} seeds. " if seeds > 1 else "One seed. "
    return (
        f"By `{command}`. {spread}Metrics are of the compiled model on {samples}, float ones of the trained module on "
        f"all of it. {_about_costs(summary, target)}In parentheses: the difference to the recipe, seed by seed, in "
        "points or per cent."
    )


def _about_costs(summary: Summary, target: str) -> str:
    if not summary.costs:
        return f"The models ran on the computer that compiled them: costs on {target} are not measured. "
    return (
        f"Flash (weights, tables, code, tokenizer), RAM (arena, stack) and instructions are for {target}: "
        "instructions are exact, latency is an estimate, both the median. "
    )


def markdown(summary: Summary, about: str) -> str:
    """The table in Markdown, with what it says below."""
    names = columns(summary)
    lines = [
        f"| | {' | '.join(title(name) for name in names)} |",
        f"| --- | {' | '.join('---:' for _ in names)} |",
    ]
    kind = WHOLE
    for row in summary.rows:
        if row.kind != kind:
            kind = row.kind
            lines.append(f"| *{SECTIONS[kind].lower()}* |{' |' * len(names)}")
        own = f"**{row.variant}**" if kind == WHOLE else row.variant
        cells = [cell(row, name) for name in names]
        if row.failure:
            cells = [f"not possible: {row.failure.splitlines()[0]}", *[""] * (len(names) - 1)]
        lines.append("| " + " | ".join(_escaped(text) for text in (own, *cells)) + " |")
    return "\n".join([*lines, "", about])


def markers(recipe: str) -> tuple[str, str]:
    """The lines between which a README holds the table of a recipe."""
    return f"<!-- tvmtiny ablate {recipe} -->", "<!-- end of tvmtiny ablate -->"


def check_readme(path: Path, recipe: str) -> re.Match[str]:
    """Where a README has the markers: the two lines, once.

    Raises:
        UserError: it cannot be read, or has not.
    """
    begin, end = markers(recipe)
    try:
        text = path.read_bytes().decode("utf-8")  # ends of lines as they are
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read {path}: {error}.", "Give a Markdown file with --readme.") from error
    place = rf"^{re.escape(begin)}[ \t]*(?P<newline>\r?\n)(?P<table>(?:.*?\n)??){re.escape(end)}"
    found = list(re.finditer(place, text, re.DOTALL | re.MULTILINE))
    if len(found) != 1 or text.count(begin) != 1:
        raise UserError(
            f"{path} has no place for the table.", f"Put these lines where it is to be, once:\n{begin}\n{end}"
        )
    return found[0]


def write_readme(path: Path, recipe: str, table: str) -> None:
    """Put a table between the markers of a README; all else stays. Raises as `check_readme`."""
    place = check_readme(path, recipe)
    start, end = place.span("table")
    lines = f"\n{table}\n\n".replace("\n", place["newline"])
    try:
        write_whole(path, (place.string[:start] + lines + place.string[end:]).encode())
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror or error}.") from error


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _shows(number: str) -> bool:
    """Whether anything but zeros is left of a number when it is rounded."""
    return any(digit in number for digit in "123456789")


def _is_share(mean: float) -> bool:
    return 0 <= mean <= 1


def _formatter(name: str, mean: float) -> Callable[[float], str]:
    if name == "latency_p50_ms":
        return lambda x: f"{x:.3f}"
    if name in TITLES:
        return lambda x: f"{x:,.0f}"
    if _is_share(mean):
        return lambda x: f"{100 * x:.2f} %"
    return lambda x: f"{x:.4g}"

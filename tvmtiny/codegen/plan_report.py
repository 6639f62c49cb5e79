"""A memory plan for people: a table of its buffers and a picture of the arena over time."""

from __future__ import annotations

import string

from rich import box
from rich.table import Table

from tvmtiny.codegen.planner import Plan

BAR_COLUMNS = 32
PICTURE_COLUMNS = 72
PICTURE_ROWS = 16
# One character a buffer, from the lowest offset; a plan with more buffers than characters begins anew.
SYMBOLS = string.ascii_letters + string.digits


def render(plan: Plan) -> Table:
    """A table with a row a buffer: its symbol in `picture`, place, size, and lifetime as a bar."""
    result = Table(title="memory plan", title_justify="left", box=box.SIMPLE_HEAD, caption=summary(plan))
    result.caption_justify = "left"
    for name in ("", "buffer", "kind", "offset", "bytes", "lifetime", "in place of"):
        result.add_column(name, justify="right" if name in ("offset", "bytes") else "left", overflow="fold")
    symbols = _symbols(plan)
    for row in plan.rows():
        result.add_row(
            symbols[row["name"]],
            row["name"],
            row["kind"],
            f"{row['offset']:,}",
            f"{row['bytes']:,}",
            _bar(plan, row["first_step"], row["last_step"]),
            row["in_place_of"] or "",
        )
    return result


def summary(plan: Plan) -> str:
    """One line: size of the arena, how it compares, and where it goes."""
    if plan.arena_bytes == plan.lower_bound:
        verdict = "the lower bound"
    else:
        verdict = f"lower bound {plan.lower_bound:,}" + (", proven optimal" if plan.optimal else "")
    place = f", in {'+'.join(plan.place.regions)} at {plan.place.origin:#010x}" if plan.place else ""
    reuse = f"without reuse {plan.total_bytes:,}"
    return f"arena {plan.arena_bytes:,} bytes ({verdict}; {reuse}), aligned to {plan.align}{place}"


def picture(plan: Plan, columns: int = PICTURE_COLUMNS, rows: int = PICTURE_ROWS) -> str:
    """The arena drawn with addresses upward and steps to the right, a character a buffer.

    A character shows what lies in the middle of its addresses at its step; small buffers may not show.
    """
    symbols = _symbols(plan)
    steps = _sampled(plan, columns)
    rows = min(rows, plan.arena_bytes)
    # A buffer in place of another one is drawn over it.
    drawn = sorted(plan.buffers, key=lambda buffer: buffer.first)
    lines = []
    for row in reversed(range(rows)):
        address = plan.arena_bytes * (2 * row + 1) // (2 * rows)
        line = ["·"] * len(steps)
        for buffer in drawn:
            if 0 <= address - plan.offsets[buffer.name] < buffer.bytes:
                for column, step in enumerate(steps):
                    if buffer.first <= step <= buffer.last:
                        line[column] = symbols[buffer.name]
        lines.append(f"{plan.arena_bytes * row // rows:>9,} {''.join(line)}")
    return "\n".join(lines)


def _symbols(plan: Plan) -> dict[str, str]:
    return {row["name"]: SYMBOLS[i % len(SYMBOLS)] for i, row in enumerate(plan.rows())}


def _bar(plan: Plan, first: int, last: int) -> str:
    """The lifetime, from before the run to after it; a column stands for one step or several."""
    count = len(plan.steps)
    columns = min(count, BAR_COLUMNS)
    start, stop = (first - plan.steps.start) * columns // count, (last - plan.steps.start) * columns // count
    return "·" * start + "█" * (stop - start + 1) + "·" * (columns - stop - 1)


def _sampled(plan: Plan, columns: int) -> list[int]:
    count = len(plan.steps)
    return [plan.steps[column * count // min(count, columns)] for column in range(min(count, columns))]

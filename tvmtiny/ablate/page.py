"""An ablation as one HTML page: fronts, the difference that each change makes, the table. It loads nothing."""

from __future__ import annotations

import dataclasses

from tvmtiny import __version__
from tvmtiny.ablate import chart as charts
from tvmtiny.ablate.run import COSTS
from tvmtiny.ablate.summary import Row, Summary
from tvmtiny.ablate.text import SECTIONS, changed, columns, delta, title, value
from tvmtiny.ablate.variants import WHOLE
from tvmtiny.templates import jinja_environment

_FRONTS = ("flash_bytes", "ram_bytes", "latency_p50_ms")


@dataclasses.dataclass(frozen=True)
class Bar:
    """A difference to the recipe: `start` and `width` in per cent of the track, the middle of which is none."""

    label: str
    start: float
    width: float
    good: bool


def page(summary: Summary, recipe: str, about: str) -> str:
    """The page of an ablation.

    Args:
        recipe: its title. about: what the figures are.
    """
    whole = summary.rows[0]
    fronts = [name for name in _FRONTS if name in summary.costs]
    if "latency_p50_ms" not in fronts and "instructions_p50" in summary.costs:
        fronts.append("instructions_p50")
    drawn = fronts if summary.possible and summary.metrics else []
    shown = [*summary.metrics[:1], *summary.costs]
    rows = [row for row in summary.possible if row.kind != WHOLE and row.deltas]
    return (
        jinja_environment("tvmtiny.report", html=True)
        .get_template("ablation.html.j2")
        .render(
            recipe=recipe,
            about=about.replace("`", ""),
            version=__version__,
            tiles=[
                (title(name), value(name, whole.figures[name])) for name in shown if name in whole.figures
            ],
            size=charts,
            charts=[charts.chart(summary, summary.metrics[0], name) for name in drawn],
            kinds={SECTIONS[row.kind]: charts.COLORS[row.kind] for row in summary.rows},
            bars={title(name): _bars(rows, name) for name in shown},
            rows=summary.rows,
            sections=SECTIONS,
            columns=columns(summary),
            title=title,
            value=value,
            changed=changed,
        )
    )


def _bars(rows: list[Row], name: str) -> list[tuple[str, Bar]]:
    """The difference of each variant in one figure, on a common scale."""
    relative = {row.variant: _relative(row, name) for row in rows if name in row.deltas}
    largest = max((abs(share) for share in relative.values()), default=0) or 1
    found = []
    for row in rows:
        if row.variant in relative:
            label = delta(name, row.figures[name], row.deltas[name])
            width = 50 * abs(relative[row.variant]) / largest if label else 0
            less = relative[row.variant] < 0
            bar = Bar(
                label=label or "0",
                start=50 - width if less else 50,
                width=width,
                good=less if name in COSTS else not less,
            )
            found.append((row.variant, bar))
    return found


def _relative(row: Row, name: str) -> float:
    """A difference on the scale of the bars: relative for costs, absolute for metrics."""
    difference = row.deltas[name].mean
    before = row.figures[name].mean - difference
    return difference / before if name in COSTS and before else difference

"""Runs of an ablation as rows: means and spreads over seeds, and the difference to the whole recipe, seed by seed."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Sequence

from tvmtiny.ablate.run import COSTS, Run
from tvmtiny.ablate.variants import WHOLE

FLOAT_PREFIX = "float "


@dataclasses.dataclass(frozen=True)
class Stat:
    """A figure over seeds: its mean, and the sample standard deviation, None for one seed."""

    mean: float
    stdev: float | None


@dataclasses.dataclass(frozen=True)
class Row:
    """A variant.

    Attributes:
        figures: metrics, metrics of the float module ("float NAME"), and costs (`run.COSTS` and their parts), by name.
        deltas: of each figure, this variant's minus the whole recipe's with the same seed.
        seeds: how many; of a variant that failed, those that did not.
        failure: why it is not possible; empty for one that is.
    """

    variant: str
    kind: str
    figures: dict[str, Stat]
    deltas: dict[str, Stat]
    seeds: int
    failure: str


@dataclasses.dataclass(frozen=True)
class Summary:
    """All rows, the whole recipe first.

    Attributes:
        metrics: names; the first is the one that fronts are drawn for.
        costs: those of `run.COSTS` that are known.
    """

    rows: tuple[Row, ...]
    metrics: tuple[str, ...]
    costs: tuple[str, ...]

    @property
    def possible(self) -> tuple[Row, ...]:
        """The rows that did not fail."""
        return tuple(row for row in self.rows if not row.failure)


def summarize(runs: Sequence[Run]) -> Summary:
    """The rows of runs, in the order of their variants."""
    by_variant: dict[str, list[Run]] = {}
    for run in runs:
        by_variant.setdefault(run.variant, []).append(run)
    whole = {run.seed: _figures(run) for run in runs if run.kind == WHOLE and not run.failure}
    rows = tuple(_row(own, whole) for own in by_variant.values())
    metrics = dict.fromkeys(name for run in runs for name in run.metrics)
    known = {name for row in rows for name in row.figures}
    return Summary(rows, tuple(metrics), tuple(name for name in COSTS if name in known))


def pareto_front(summary: Summary, metric: str, cost: str) -> set[str]:
    """The variants that no other one beats: none is at least as good and as cheap, and better or cheaper."""
    points = {
        row.variant: (row.figures[metric].mean, -row.figures[cost].mean)
        for row in summary.possible
        if metric in row.figures and cost in row.figures
    }
    return {
        name for name, own in points.items() if not any(_dominates(other, own) for other in points.values())
    }


def _dominates(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))


def _figures(run: Run) -> dict[str, float]:
    real = {f"{FLOAT_PREFIX}{name}": value for name, value in run.float_metrics.items()}
    costs = {name: value for name, value in run.figures.items() if value is not None}
    return {**run.metrics, **real, **costs}


def _row(runs: Sequence[Run], whole: dict[int, dict[str, float]]) -> Row:
    good = [run for run in runs if not run.failure]
    failure = next((run.failure for run in runs if run.failure), "")
    figures = [_figures(run) for run in good]
    differences = [
        {name: value - whole[run.seed][name] for name, value in own.items() if name in whole[run.seed]}
        for run, own in zip(good, figures, strict=True)
        if run.seed in whole
    ]
    return Row(runs[0].variant, runs[0].kind, _stats(figures), _stats(differences), len(good), failure)


def _stats(rows: Sequence[dict[str, float]]) -> dict[str, Stat]:
    """Of each figure that all rows have."""
    names = [name for name in (rows[0] if rows else ()) if all(name in row for row in rows)]
    return {name: _stat(row[name] for row in rows) for name in names}


def _stat(values: Iterable[float]) -> Stat:
    known = list(values)
    return Stat(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None)

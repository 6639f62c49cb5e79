"""What changed between two reports of benchmarks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from tvmtiny.bench.results import Report, Row, by_place
from tvmtiny.errors import TvmtinyError

COMPARED = ("instructions", "estimated_cycles", "arena_bytes", "flash_bytes", "stack_bytes")
JUDGED = ("instructions", "arena_bytes", "flash_bytes")
"""Figures that a limit applies to: exact ones that a user pays for."""


class RegressionError(TvmtinyError):
    """A figure got worse by more than was allowed."""


@dataclasses.dataclass(frozen=True)
class Change:
    """A figure of a benchmark on a target that is not what it was. More is worse, for every figure."""

    name: str
    target: str
    figure: str
    before: int
    after: int

    @property
    def difference(self) -> int:
        """Above 0: worse."""
        return self.after - self.before

    @property
    def percent(self) -> float | None:
        """Of what it was; None where that was 0."""
        return 100 * self.difference / self.before if self.before else None

    def to_json(self) -> dict[str, Any]:
        """The fields, difference and per cent."""
        return {**dataclasses.asdict(self), "difference": self.difference, "percent": self.percent}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A report beside an earlier one.

    Attributes:
        changes: largest first, in per cent of what was.
        figures: how many were compared.
        new, vanished: rows (benchmark, target) of only the later or the earlier report.
        compilers: of the earlier and the later report, where they differ: the figures then hold for different code.
    """

    changes: tuple[Change, ...]
    figures: int
    new: tuple[tuple[str, str], ...]
    vanished: tuple[tuple[str, str], ...]
    compilers: tuple[str, str] | None

    def check(self, percent: float) -> None:
        """Raise RegressionError when a judged figure got worse by more than `percent`."""
        worse = [
            change
            for change in self.changes
            if change.figure in JUDGED and change.difference > 0 and (change.percent or 0) > percent
        ]
        if worse:
            lines = (
                f"{change.name} on {change.target}: {change.figure} {change.before:,} -> {change.after:,} "
                f"(+{change.percent:.2f} %)"
                for change in worse
            )
            raise RegressionError(
                f"{len(worse)} figure{'s' * (len(worse) > 1)} got worse by more than {percent:g} %:\n"
                + "\n".join(lines)
            )

    def to_json(self) -> dict[str, Any]:
        """For --json."""

        def places(rows: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
            return [{"name": name, "target": target} for name, target in rows]

        return {
            "rows": [change.to_json() for change in self.changes],
            "figures": self.figures,
            "new": places(self.new),
            "vanished": places(self.vanished),
            "compilers": self.compilers,
        }


def compare(before: Report, after: Report, expected: Sequence[tuple[str, str]]) -> Comparison:
    """The changes from one report to another.

    Args:
        expected: (benchmark, target) of rows of `before` that `after` was meant to measure again.
    """
    old, new = by_place(before.rows), by_place(after.rows)
    both = [place for place in new if place in old]
    pairs = [pair for place in both for pair in _figures(old[place], new[place])]
    changes = [pair for pair in pairs if pair.difference]
    return Comparison(
        changes=tuple(sorted(changes, key=_size)),
        figures=len(pairs),
        new=tuple(place for place in new if place not in old),
        vanished=tuple(place for place in expected if place not in new),
        compilers=(before.compiler, after.compiler) if before.compiler != after.compiler else None,
    )


def _figures(before: Row, after: Row) -> list[Change]:
    pairs = ((figure, getattr(before, figure), getattr(after, figure)) for figure in COMPARED)
    return [
        Change(after.name, after.target, figure, was, now)
        for figure, was, now in pairs
        if was is not None and now is not None
    ]


def _size(change: Change) -> tuple[float, str, str, str]:
    share = abs(change.percent) if change.percent is not None else float("inf")
    return (-share, change.name, change.target, change.figure)

"""Points of a chart in pixels: a metric against a cost, with spreads, ticks and the Pareto front."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from tvmtiny.ablate.summary import Stat, Summary, pareto_front
from tvmtiny.ablate.text import cell, title, value
from tvmtiny.ablate.variants import CHANGE, PREFIX, WHOLE, WITHOUT

WIDTH, HEIGHT = 420, 280
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 20, 42
COLORS = {WHOLE: "#e08a2e", PREFIX: "#2fa36b", WITHOUT: "#4e79d6", CHANGE: "#b65fcf"}
"""Colours by kind of variant, on light and dark ground alike."""
CHARACTER, LINE, OFFSET, RADIUS = 6.2, 12, 7, 5
"""Width of a character and height of a line of a label, how far it is from its point, and how large that is."""
LONGEST = 28
"""Characters of a label; the page's table has names in full."""
MARGIN = 0.08
"""Share of the range that is left free at either end of an axis."""


@dataclasses.dataclass(frozen=True)
class Point:
    """A variant.

    Attributes:
        half_x, half_y: half the lengths of its spreads.
        about: all that is known of it.
    """

    x: float
    y: float
    half_x: float
    half_y: float
    color: str
    about: str
    on_front: bool


@dataclasses.dataclass(frozen=True)
class Label:
    """A name beside its point: where its text begins, and its base line."""

    text: str
    left: float
    y: float

    @property
    def right(self) -> float:
        """Where it ends, about."""
        return self.left + CHARACTER * len(self.text)

    def covers(self, other: Label) -> bool:
        """Whether the two cannot both be read."""
        apart = self.right < other.left or other.right < self.left or abs(self.y - other.y) > LINE
        return not apart

    def hides(self, point: Point) -> bool:
        """Whether a point lies in the text."""
        beside = point.x + RADIUS < self.left or self.right < point.x - RADIUS
        return not beside and self.y - LINE < point.y + RADIUS and point.y - RADIUS < self.y

    @property
    def inside(self) -> bool:
        """Whether it is within the picture."""
        return self.left >= 0 and self.right <= WIDTH and self.y - LINE >= 0


@dataclasses.dataclass(frozen=True)
class Tick:
    """A mark of an axis."""

    at: float
    label: str


@dataclasses.dataclass(frozen=True)
class Chart:
    """A metric (upwards) against a cost (to the right); `front` is a line through the front's points."""

    title: str
    x_title: str
    y_title: str
    points: tuple[Point, ...]
    labels: tuple[Label, ...]
    front: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


@dataclasses.dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    start: float
    length: float

    @classmethod
    def of(cls, stats: Sequence[Stat], start: float, length: float) -> _Axis:
        ends = [s.mean + sign * (s.stdev or 0) for s in stats for sign in (-1, 1)]
        free = MARGIN * ((max(ends) - min(ends)) or abs(max(ends)) or 1)
        return cls(min(ends) - free, max(ends) + free, start, length)

    def at(self, x: float) -> float:
        return self.start + self.length * (x - self.low) / (self.high - self.low)

    def ticks(self, count: int) -> list[float]:
        """Round numbers (1, 2 or 5 times a power of ten apart) inside the axis."""
        rough = (self.high - self.low) / count
        power = 10 ** math.floor(math.log10(rough))
        step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough)
        first = math.ceil(self.low / step)
        return [step * n for n in range(first, math.floor(self.high / step) + 1)]


def chart(summary: Summary, metric: str, cost: str) -> Chart:
    """The chart of the variants that have both figures; there is at least one."""
    rows = [row for row in summary.possible if metric in row.figures and cost in row.figures]
    x = _Axis.of([row.figures[cost] for row in rows], LEFT, WIDTH - LEFT - RIGHT)
    y = _Axis.of([row.figures[metric] for row in rows], HEIGHT - BOTTOM, -(HEIGHT - BOTTOM - TOP))
    front = pareto_front(summary, metric, cost)
    points = [
        Point(
            x=x.at(row.figures[cost].mean),
            y=y.at(row.figures[metric].mean),
            half_x=abs(x.at(row.figures[cost].stdev or 0) - x.at(0)),
            half_y=abs(y.at(row.figures[metric].stdev or 0) - y.at(0)),
            color=COLORS[row.kind],
            about=f"{row.variant}: {title(metric)} {cell(row, metric)}, {title(cost)} {cell(row, cost)}",
            on_front=row.variant in front,
        )
        for row in rows
    ]
    line = sorted((p for p in points if p.on_front), key=lambda p: p.x)
    return Chart(
        title=f"{title(metric)} against {title(cost).partition(' (')[0]}",
        x_title=title(cost),
        y_title=title(metric),
        points=tuple(points),
        labels=_labels(
            [
                (row.variant, point)
                for row, point in zip(rows, points, strict=True)
                if point.on_front or row.kind == WHOLE
            ],
            points,
        ),
        front=" ".join(f"{p.x:.1f},{p.y:.1f}" for p in line),
        x_ticks=tuple(Tick(x.at(v), _plain(cost, v)) for v in x.ticks(4)),
        y_ticks=tuple(Tick(y.at(v), _plain(metric, v)) for v in y.ticks(5)),
    )


def _labels(named: Sequence[tuple[str, Point]], points: Sequence[Point]) -> tuple[Label, ...]:
    """Names beside points, where they hide neither a point nor an earlier name; left out if there is no such place."""
    found: list[Label] = []
    for name, point in named:
        text = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
        free = (
            label
            for label in _places(text, point)
            if label.inside
            and not any(label.covers(other) for other in found)
            and not any(label.hides(other) for other in points)
        )
        if (label := next(free, None)) is not None:
            found.append(label)
    return tuple(found)


def _places(text: str, point: Point) -> list[Label]:
    """Where a name may stand, the best place first: above or below its point, on the side where there is more room."""
    sides = [point.x + OFFSET, point.x - OFFSET - CHARACTER * len(text)]
    if point.x >= WIDTH / 2:
        sides.reverse()
    return [Label(text, left, y) for left in sides for y in (point.y - OFFSET, point.y + OFFSET + LINE / 2)]


def _plain(name: str, x: float) -> str:
    """A number of an axis, without needless digits."""
    text = value(name, Stat(x, None))
    number, _, unit = text.partition(" ")
    short = number.rstrip("0").rstrip(".") if "." in number else number
    return f"{short} {unit}".strip()

"""How long inferences took, from what the device counted: minimum, median and 95th percentile."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from tvmtiny.link.messages import Counter

COUNTED_BY = {
    Counter.DWT: "the core's cycle counter",
    Counter.SYSTICK: "SysTick",
    Counter.HOST: "this computer's clock",
    Counter.EMULATED: "an emulated timer, which says nothing of a real core",
}


@dataclasses.dataclass(frozen=True)
class Latency:
    """Of `runs` inferences.

    Attributes:
        minimum, p50, p95: cycles; percentiles by nearest rank.
        clock_hz: cycles a second; 0 where time says nothing, and there are no milliseconds.
    """

    runs: int
    minimum: int
    p50: int
    p95: int
    clock_hz: int
    counter: Counter

    @property
    def p50_ms(self) -> float | None:
        """Median in milliseconds."""
        return self._ms(self.p50)

    @property
    def p95_ms(self) -> float | None:
        """95th percentile in milliseconds."""
        return self._ms(self.p95)

    def to_json(self) -> dict[str, Any]:
        """Figures with their units."""
        return {
            "runs": self.runs,
            "counter": self.counter.name.lower(),
            "clock_hz": self.clock_hz or None,
            "cycles_minimum": self.minimum,
            "cycles_p50": self.p50,
            "cycles_p95": self.p95,
            "latency_minimum_ms": self._ms(self.minimum),
            "latency_p50_ms": self.p50_ms,
            "latency_p95_ms": self.p95_ms,
        }

    def text(self) -> str:
        """One line for people."""
        counted = f"counted by {COUNTED_BY.get(self.counter, 'the device')}"
        if self.p50_ms is None or self.p95_ms is None:
            return f"Latency of {self.runs} runs: median {self.p50:,}, p95 {self.p95:,} ticks, {counted}"
        if self.counter == Counter.HOST:
            return f"Latency of {self.runs} runs: median {self.p50_ms:.3f} ms, p95 {self.p95_ms:.3f} ms, {counted}"
        return (
            f"Latency of {self.runs} runs: median {self.p50_ms:.3f} ms ({self.p50:,} cycles), "
            f"p95 {self.p95_ms:.3f} ms ({self.p95:,}), {counted}"
        )

    def _ms(self, cycles: int) -> float | None:
        return 1000 * cycles / self.clock_hz if self.clock_hz else None


def percentile(values: Sequence[int], percent: float) -> int:
    """The least value that at least `percent` of all do not exceed (nearest rank)."""
    return sorted(values)[max(1, math.ceil(len(values) * percent / 100)) - 1]


def latency(cycles: Sequence[Sequence[int]], clock_hz: int, counter: Counter) -> Latency | None:
    """Of the cycles of each repetition of each sample; None where nothing counts."""
    values = [value for one in cycles for value in one]
    if not values:
        return None
    return Latency(
        len(values), min(values), percentile(values, 50), percentile(values, 95), clock_hz, counter
    )

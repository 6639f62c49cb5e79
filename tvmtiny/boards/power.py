"""Energy of inferences: a trace of current, cut where the firmware holds its pin high."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tvmtiny.boards.trace import Trace
from tvmtiny.errors import UserError


@dataclasses.dataclass(frozen=True)
class Energy:
    """Of the runs in a trace.

    Attributes:
        joules: of each run.
        seconds: how long the pin was high.
        idle_a: mean current between the runs, in ampere.
        channel: the digital input that saw the pin.
    """

    joules: np.ndarray
    seconds: np.ndarray
    idle_a: float
    channel: str

    @property
    def mean_mj(self) -> float:
        """Energy of a run in mJ, the idle current included."""
        return 1000 * float(self.joules.mean())

    def to_json(self) -> dict[str, Any]:
        """Figures with their units."""
        return {
            "runs": len(self.joules),
            "channel": self.channel,
            "energy_mj": self.mean_mj,
            "energy_p50_mj": 1000 * float(np.median(self.joules)),
            "energy_p95_mj": 1000 * float(np.percentile(self.joules, 95)),
            "duration_p50_ms": 1000 * float(np.median(self.seconds)),
            "idle_ma": 1000 * self.idle_a,
        }

    def text(self) -> str:
        """One line for people."""
        median_ms = 1000 * float(np.median(self.seconds))
        return (
            f"Energy of {len(self.joules)} runs: {self.mean_mj:.4f} mJ an inference in {median_ms:.3f} ms "
            f"(pin on {self.channel}; {1000 * self.idle_a:.2f} mA between)"
        )


def energy(trace: Trace, runs: int, voltage_v: float | None = None, channel: str | None = None) -> Energy:
    """Energy of each of `runs` runs.

    Args:
        voltage_v: supply voltage, for a trace without one.
        channel: digital input that the pin is on; the only one that changes if not given.

    Raises UserError when the pin is not in the trace, another number of runs is, or the voltage is not known.
    """
    name = channel.lower() if channel else _active(trace)
    if name not in trace.digital:
        raise UserError(
            f"The trace has no digital input {name!r}; it has {', '.join(trace.digital) or 'none'}.",
            "Connect the board's pin for runs (docs/boards.md) to one, and export the digital inputs too.",
        )
    volts = trace.voltage_v if trace.voltage_v is not None else voltage_v
    if volts is None:
        raise UserError("The trace has no voltage.", "Give the supply with --voltage, for example 3.3.")
    spans = _spans(trace.digital[name])
    if len(spans) != runs:
        raise UserError(
            f"The pin was high {len(spans)} times in the trace; {runs} runs were made.",
            "Start recording before the first run, and stop after the last.",
        )
    watts = trace.current_a * volts
    # Each sample stands for the time until the next.
    step = np.append(np.diff(trace.time_s), trace.time_s[-1] - trace.time_s[-2])
    joules = np.array([np.sum((watts * step)[start:end]) for start, end in spans])
    seconds = np.array([np.sum(step[start:end]) for start, end in spans])
    idle = trace.current_a[~trace.digital[name]]
    return Energy(joules, seconds, float(idle.mean()) if len(idle) else 0.0, name)


def _active(trace: Trace) -> str:
    """The digital input that changes."""
    changing = [name for name, values in trace.digital.items() if values.any() and not values.all()]
    if len(changing) == 1:
        return changing[0]
    if not changing:
        raise UserError(
            f"No digital input of the trace ever changes ({', '.join(trace.digital) or 'there is none'}).",
            "Connect the board's pin for runs (docs/boards.md) to one, and export the digital inputs too.",
        )
    raise UserError(
        f"Several digital inputs of the trace change: {', '.join(changing)}.",
        "Name one with --power-channel.",
    )


def _spans(high: np.ndarray) -> list[tuple[int, int]]:
    """Where `high` is true from, and to, for spans that begin and end in the trace."""
    edges = np.flatnonzero(np.diff(high.astype(np.int8))) + 1
    starts = edges if not high[0] else edges[1:]
    return list(zip(starts[::2].tolist(), starts[1::2].tolist(), strict=False))

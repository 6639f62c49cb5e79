"""What a tuner makes of measurements: the best of each kernel for an objective, the Pareto front, records."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

import tvm
import tvm_ffi
from tvm import s_tir

from tvmtiny.kernels import Blocking
from tvmtiny.schedule import space
from tvmtiny.schedule.records import Figures, Record
from tvmtiny.schedule.variants import Variant
from tvmtiny.tune.store import Measurement
from tvmtiny.tune.tasks import Task

TOLERANCE = 0.003
"""Schedules within this of the best are as good: of them the one with the least scratch memory and code is taken."""

CERTAIN = 0.01
"""Part of a kernel's cycles that a schedule has to save for a model to gain, too.

In a model the C compiler lets kernels of equal rows share functions, and inlines what one kernel alone uses: 0.9 % of a
kernel's cycles was the largest difference seen.
"""

LEAST_SHARE = 0.005
"""Kernels that take less of a run than this keep the rules' schedule."""

WEIGHTS = {
    "latency": {"cycles": 1.0},
    "flash": {"cycles": 0.05, "flash": 1.0, "memory": 0.02},
    "balanced": {"cycles": 4.0, "flash": 2.0, "memory": 1.0},
}
"""What each per cent counts in an objective: cycles, flash and memory of the arena, relative to the rules' schedule."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a kernel takes, or models: cycles, bytes of flash (code and constants) and of memory (scratch or arena)."""

    cycles: int
    flash: int
    memory: int


def score(found: Measurement, default: Measurement, objective: str) -> float:
    """`overall` of a schedule beside the rules' one; infinite for what failed."""
    if not found.valid:
        return math.inf
    return overall(_alone(found), _alone(default), objective)


def _alone(found: Measurement) -> Cost:
    return Cost(found.cycles, found.flash_bytes, found.scratch_bytes)


def overall(found: Cost, rules: Cost, objective: str) -> float:
    """What is to become small: a mean weighted by WEIGHTS, relative to what the rules' schedules take: 1.

    Compiles take the records of `balanced` by default: to it nothing is better that does not take CERTAIN fewer cycles
    than the rules' schedules, or that takes more flash.
    """
    before = dataclasses.asdict(rules)
    terms = {name: (value + 1) / (before[name] + 1) for name, value in dataclasses.asdict(found).items()}
    if objective == "balanced" and (terms["cycles"] > 1 - CERTAIN or terms["flash"] > 1):
        return max(1.0, terms["cycles"], terms["flash"])
    weights = WEIGHTS[objective]
    return sum(weight * terms[name] for name, weight in weights.items()) / sum(weights.values())


def best(measured: Sequence[Measurement], default: Measurement, objective: str) -> Measurement:
    """The best valid measurement; the rules' own where nothing beats it."""
    valid = [found for found in measured if found.valid] or [default]
    least = min(score(found, default, objective) for found in valid)
    good = [found for found in valid if score(found, default, objective) <= least * (1 + TOLERANCE)]
    if any(found.point == default.point for found in good):
        return default
    return min(good, key=lambda found: (found.scratch_bytes, found.flash_bytes, found.cycles))


def pareto(measured: Sequence[Measurement], tolerance: float = 0) -> list[Measurement]:
    """Valid measurements that no other equals or beats in cycles, flash and scratch at once, by cycles.

    Args:
        tolerance: part of each by which another one may be worse, and still makes a measurement dispensable.
    """
    valid = [found for found in measured if found.valid]
    valid.sort(key=lambda found: (found.cycles, found.flash_bytes, found.scratch_bytes))
    front, allowed = list[Measurement](), 1 + tolerance
    for found in valid:
        if not any(
            other.cycles <= found.cycles * allowed
            and other.flash_bytes <= found.flash_bytes * allowed
            and other.scratch_bytes <= found.scratch_bytes * allowed
            for other in front
        ):
            front.append(found)
    return front


def figures(found: Measurement) -> Figures:
    """As a record has them."""
    return Figures(found.cycles, found.code_bytes, found.weight_bytes, found.scratch_bytes)


def record(
    task: Task,
    measured: Sequence[Measurement],
    objective: str,
    place: str,
    compiler: str,
    share: float = 1,
    chosen: Measurement | None = None,
) -> Record | None:
    """The record of a task; None when the rules' schedule was not measured, or nothing else is worth its code.

    Args:
        share: part of a run that the task takes. Another variant of micro-kernels is code of its own, which a
            classifier that takes a thousandth of the run does not repay.
        chosen: the schedule; when None, the best of what was measured.
    """
    default = default_of(task, measured)
    if default is None or not default.valid or share < LEAST_SHARE:
        return None
    chosen = chosen or best(measured, default, objective)
    front = pareto(measured, CERTAIN) if objective == "balanced" else []
    return Record(
        signature=task.signature,
        trace=trace(task, chosen.point),
        schedule=space.describe(chosen.point),
        figures=figures(chosen),
        default=figures(default),
        points=task.size,
        measured=len(measured),
        place=place,
        compiler=compiler,
        front=tuple((space.describe(found.point), figures(found)) for found in front),
    )


def default_of(task: Task, measured: Sequence[Measurement]) -> Measurement | None:
    """The measurement of the rules' schedule."""
    return next((found for found in measured if found.point == task.default), None)


def scheduled(task: Task, point: Blocking, module: tvm.IRModule) -> s_tir.Schedule:
    """The schedule of a task's TIR whose trace is a point."""
    variant = Variant.parse(point.variant)
    design = next(d for d in task.designs if (d.columns, d.family) == (point.weights, variant.family))
    defaults = {name: values[0] for name, values in design.choices.items()}
    loops = {"rows": point.rows, "tokens_outer": int(point.tokens_outer)}
    return design.sample(s_tir.Schedule(module), {**defaults, **dict(variant.settings), **loops})


def trace(task: Task, point: Blocking) -> Any:
    """The trace of a point as plain JSON."""
    schedule = scheduled(task, point, task.workload)
    return json.loads(json.dumps(schedule.trace.as_json(), default=_plain))


def _plain(value: Any) -> Any:
    if isinstance(value, tvm_ffi.Array):
        return list(value)
    if hasattr(value, "value"):
        return value.value
    return str(value)

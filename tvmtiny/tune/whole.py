"""Schedules of whole models: which variant of micro-kernels is best when code that operators share counts once.

A candidate is measured alone, with all the code that it calls. In a model, the operators of a variant share what they
have in common, and a further variant is code beside the others'. So where flash counts, one variant is chosen for all
matrix products: by code, weights and arena of the models, whose operators are compiled for each variant.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

import tvm

from tvmtiny.artifact import Artifact
from tvmtiny.codegen.directory import write_files
from tvmtiny.codegen.program import Program, build_program
from tvmtiny.kernels import Blocking, Kernel, Operands
from tvmtiny.passes.lower import Lower
from tvmtiny.runner.build import compile_object
from tvmtiny.schedule.rules import Schedule, blocking, family
from tvmtiny.schedule.signature import Signature
from tvmtiny.schedule.variants import Variant
from tvmtiny.target import Target
from tvmtiny.templates import jinja_environment
from tvmtiny.tune.image import allocated_bytes
from tvmtiny.tune.results import best, overall, score
from tvmtiny.tune.store import Measurement
from tvmtiny.tune.tasks import Task
from tvmtiny.verify import INTEGER_MODULE

NAME = "whole"
PROMISING = 3
"""Variants of each kernel that are tried for all: so many that share code, and so many that do not."""

Plan: TypeAlias = dict[Signature, Measurement]
"""A schedule for each task, as it was measured alone."""

Known: TypeAlias = Mapping[Signature, Sequence[Measurement]]
"""What is known of each task."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of all models together: cycles of their tasks, bytes of their operators' code and weights, of their arenas."""

    cycles: int
    flash: int
    memory: int


def promising(tasks: Sequence[Task], known: Known, objective: str) -> list[str]:
    """The best variants of each product, judged alone, in the order in which they are found.

    Alone, code that is not shared is small: those variants do not compete with the others here.
    """
    found: dict[str, None] = {}
    for task in _products(tasks):
        own = [one for one in known[task.signature] if one.valid]
        default = next((one for one in own if one.point == task.default), None)
        if default is None:
            continue
        own.sort(key=lambda one, default=default: score(one, default, objective))  # type: ignore[misc]
        variants = list(dict.fromkeys(one.point.variant for one in own))
        for shared in (True, False):
            found |= dict.fromkeys([name for name in variants if _shares(name) is shared][:PROMISING])
    return list(found)


def _products(tasks: Sequence[Task]) -> list[Task]:
    """Those that must have one variant where flash counts."""
    return [task for task in tasks if task.kernel.multiplies]


def _shares(variant: str) -> bool:
    return not dict(Variant.parse(variant).settings).get("inlined")


def missing(tasks: Sequence[Task], known: Known, objective: str) -> list[tuple[Task, Blocking]]:
    """What has to be measured until every product is known in every promising variant that it can have.

    One point each: with the loops of the task's best one.
    """
    wanted = []
    for variant in promising(tasks, known, objective):
        for task in _products(tasks):
            own = [one for one in known[task.signature] if one.valid]
            if not own or any(one.point.variant == variant for one in own):
                continue
            loops = _loops(min(own, key=lambda one: one.cycles).point)
            points = [p for design in task.designs for p in design.points() if p.variant == variant]
            points.sort(key=lambda point, loops=loops: _loops(point) != loops)  # type: ignore[misc]
            wanted += [(task, point) for point in points[:1]]
    return wanted


def _loops(point: Blocking) -> tuple[int, bool]:
    return point.rows, point.tokens_outer


def chosen(
    tasks: Sequence[Task],
    known: Known,
    objective: str,
    cost_of: Callable[[Plan], Cost],
) -> Plan:
    """The schedules that are best for the models: those of the rules, or the best ones of one variant.

    Args:
        cost_of: `Models.cost`.
    """
    defaults = {
        task.signature: next(one for one in known[task.signature] if one.point == task.default)
        for task in tasks
    }
    plans = [defaults]
    for variant in promising(tasks, known, objective):
        plan = _plan(tasks, known, defaults, objective, variant)
        if plan is not None and plan not in plans:
            plans.append(plan)
    costs = [cost_of(plan) for plan in plans]
    scores = [overall(dataclasses.asdict(cost), dataclasses.asdict(costs[0]), objective) for cost in costs]
    return plans[min(range(len(plans)), key=scores.__getitem__)]


def _plan(tasks: Sequence[Task], known: Known, defaults: Plan, objective: str, variant: str) -> Plan | None:
    """The best schedules whose products have a variant; None where one has none."""
    plan = {}
    for task in tasks:
        default = defaults[task.signature]
        own = [
            one
            for one in known[task.signature]
            if one.valid and (not task.kernel.multiplies or one.point.variant == variant)
        ]
        if not own:
            return None
        plan[task.signature] = best(own, default, objective)
    return plan


class Models:
    """Integer models whose operators are compiled with one schedule or another.

    Args:
        folder: for sources and objects.

    Raises:
        EnvironmentProblem, BuildFailure: by `cost`, where compiling fails.
    """

    def __init__(
        self, tasks: Sequence[Task], artifacts: Iterable[Artifact], target: Target, folder: Path
    ) -> None:
        self._tasks, self._target, self._folder = tasks, target, folder
        self._modules = [
            tvm.ir.load_json((artifact.directory / INTEGER_MODULE).read_text("utf-8"))
            for artifact in artifacts
        ]
        self._count = 0

    def cost(self, plan: Plan) -> Cost:
        """Of a plan; operators that are no tasks have the rules' schedule."""
        rules = blocking(family(self._target))

        def rule(kernel: Kernel, operands: Operands) -> Blocking:
            found = plan.get(Signature.of(kernel, operands))
            return rules(kernel, operands) if found is None else found.point

        programs = [self._program(module, rule) for module in self._modules]
        cycles = sum(plan[task.signature].cycles * len(task.uses) for task in self._tasks)
        weights = sum(program.weight_bytes for program in programs)
        return Cost(cycles, self._code_bytes(programs) + weights, sum(p.plan.arena_bytes for p in programs))

    def _program(self, module: tvm.IRModule, rule: Callable[[Kernel, Operands], Blocking]) -> Program:
        scheduled = Schedule(family(self._target))(Lower(rule)(module))
        return build_program(scheduled, NAME, self._target.tvm_target())

    def _code_bytes(self, programs: Sequence[Program]) -> int:
        sources = [self._write(program, variant) for program in programs for variant in program.variants]
        with ThreadPoolExecutor() as pool:
            objects = pool.map(lambda path: compile_object(path, self._target, path.parent), sources)
            return sum(allocated_bytes(path) for path in objects)

    def _write(self, program: Program, name: str) -> Path:
        """The C file of the operators of a variant, as a model has it, in a folder with its headers."""
        directory = self._folder / f"operators-{self._count}"
        self._count += 1
        used = program.microkernels(name) | {"tvmt_platform"}
        template = jinja_environment("tvmtiny.tune").get_template("operators.c.j2")
        calls = [call.function for call in program.all_calls if call.function.variant == name]
        text = template.render(headers=sorted(used), functions=calls)
        write_files(directory, {"operators.c": text, **Variant.parse(name).headers(used)})
        return directory / "operators.c"

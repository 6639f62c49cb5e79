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
from tvmtiny.codegen.program import Program
from tvmtiny.kernels import Blocking, Kernel, Operands, kernel_calls
from tvmtiny.lowering import Stages, build
from tvmtiny.passes.quantize import QuantizedModel
from tvmtiny.runner.build import BuildFailure, compile_object
from tvmtiny.schedule.records import product_variants
from tvmtiny.schedule.rules import blocking, family
from tvmtiny.schedule.signature import Signature
from tvmtiny.schedule.variants import Variant
from tvmtiny.storage.choice import AS_THEY_ARE, Storage
from tvmtiny.target import Target
from tvmtiny.templates import jinja_environment
from tvmtiny.tune.image import allocated_bytes
from tvmtiny.tune.results import Cost, best, overall, score
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

    One point each: with the loops of the task's best one for the objective.
    """
    wanted = []
    for variant in promising(tasks, known, objective):
        for task in _products(tasks):
            own = [one for one in known[task.signature] if one.valid]
            default = next((one for one in own if one.point == task.default), None)
            if default is None or any(one.point.variant == variant for one in own):
                continue
            loops = _loops(best(own, default, objective).point)
            points = [p for design in task.designs for p in design.points() if p.variant == variant]
            points.sort(key=lambda point, loops=loops: _loops(point) != loops)  # type: ignore[misc]
            wanted += [(task, point) for point in points[:1]]
    return wanted


def _loops(point: Blocking) -> tuple[int, bool]:
    return point.rows, point.tokens_outer


@dataclasses.dataclass(frozen=True)
class Choice:
    """The schedules that are best for whole models.

    Attributes:
        cost, rules: what the models take with this plan, and with the rules' schedules.
    """

    plan: Plan
    cost: Cost
    rules: Cost


def chosen(
    tasks: Sequence[Task],
    known: Known,
    objective: str,
    cost_of: Callable[[Plan], Cost | None],
) -> Choice:
    """The schedules that are best for the models: those of the rules, or the best ones of one variant.

    Args:
        cost_of: `Models.cost`. A plan that does not build is not chosen.

    Raises:
        BuildFailure: the rules' schedules do not build.
    """
    defaults = {
        task.signature: next(one for one in known[task.signature] if one.point == task.default)
        for task in tasks
    }
    rules = cost_of(defaults)
    assert rules is not None
    plans, costs = [defaults], [rules]
    for variant in promising(tasks, known, objective):
        plan = _plan(tasks, known, defaults, objective, variant)
        cost = None if plan is None or plan in plans else _cost_if_built(plan, cost_of)
        if plan is not None and cost is not None:
            plans.append(plan)
            costs.append(cost)
    scores = [overall(cost, rules, objective) for cost in costs]
    least = min(range(len(plans)), key=scores.__getitem__)
    return Choice(plans[least], costs[least], rules)


def _cost_if_built(plan: Plan, cost_of: Callable[[Plan], Cost | None]) -> Cost | None:
    try:
        return cost_of(plan)
    except BuildFailure:
        return None


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
    """Integer models whose operators are compiled with one schedule or another, and stored as the models' weights are.

    Args:
        folder: for sources and objects.

    Raises:
        EnvironmentProblem, BuildFailure: by `cost`, where compiling fails.
    """

    def __init__(
        self, tasks: Sequence[Task], artifacts: Iterable[Artifact], target: Target, folder: Path
    ) -> None:
        self._tasks, self._target, self._folder = tasks, target, folder
        self._models = [(_integer_model(artifact), _storage(artifact)) for artifact in artifacts]
        self._count = 0

    def cost(self, plan: Plan) -> Cost | None:
        """Of all models together: cycles of their tasks, their operators' code with all weights, their arenas.

        Operators that are no tasks have the rules' schedule. None where the products of a model had several variants:
        a compile would take the rules' schedules.
        """
        own = family(self._target)
        rules = blocking(own)

        def rule(kernel: Kernel, operands: Operands) -> Blocking:
            found = plan.get(Signature.of(kernel, operands))
            return rules(kernel, operands) if found is None else found.point

        if any(len(product_variants(kernel_calls(model.module), rule, own)) > 1 for model, _ in self._models):
            return None
        programs = [
            build(model, self._target, NAME, own, Stages(), rule=rule, storage=storage)
            for model, storage in self._models
        ]
        cycles = sum(plan[task.signature].cycles * len(task.uses) for task in self._tasks)
        weights = sum(program.weight_bytes for program in programs)
        return Cost(cycles, self._code_bytes(programs) + weights, sum(p.plan.arena_bytes for p in programs))

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


def _integer_model(artifact: Artifact) -> QuantizedModel:
    """What `lowering.build` takes of a compiled model."""
    module = tvm.ir.load_json((artifact.directory / INTEGER_MODULE).read_text("utf-8"))
    return QuantizedModel(module, {}, (), {}, artifact.max_tokens, artifact.has_length)


def _storage(artifact: Artifact) -> Storage:
    """How flash holds the weights of a compiled model."""
    said = artifact.metadata["storage"]
    return Storage(said["form"], said["decode"]) if said["decode"] is not None else AS_THEY_ARE

"""MetaSchedule's parts as this tuner needs them: the tasks, mutations, a cost model's features, and two plain searches.

MetaSchedule's evolutionary search proposes traces, its XGBoost model ranks them, and its task scheduler divides the
trials among tasks by what they promise. Its own mutators and features know the loops of a CPU; a point of our spaces is
a handful of decisions instead, so both are written here.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import sys
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm.ir.utils import derived_object
from tvm.s_tir import Schedule
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.schedule import Trace

from tvmtiny.kernels import Blocking
from tvmtiny.schedule import space
from tvmtiny.schedule.variants import KNOBS
from tvmtiny.target import Target
from tvmtiny.tune.results import scheduled
from tvmtiny.tune.store import DATABASE, key_of
from tvmtiny.tune.tasks import Task

TASK_ATTRIBUTE = "tvmtiny.task"
STRATEGIES = ("xgb", "evolutionary", "random", "sweep")

MODELLED = ("xgb", "evolutionary")
"""Strategies that ask the cost model."""

POPULATION, GENERATIONS = 96, 3
"""Of the evolutionary search: the spaces have hundreds of points, not millions."""

WARM_UP_SAMPLES = 8
"""Points of a task that are measured before the cost model is asked."""

EXPLORED = 8
"""Of so many points that the cost model ranks first, one is left out for a random one."""

FEATURES = ("rows", "blocks", "waste", "wide", "plain", "tokens_outer", *KNOBS)


def workload(task: Task) -> tvm.IRModule:
    """The TIR that MetaSchedule tunes; its attribute says which task it is."""
    return tvm.IRModule({"main": task.workload["main"].with_attr(TASK_ATTRIBUTE, key_of(task.signature))})


@derived_object
class MutateDecision(ms.mutator.PyMutator):
    """Draws one decision of a trace anew."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._random = random.Random(seed)

    def _initialize_with_tune_context(self, context: Any) -> None:
        pass

    def apply(self, trace: Trace, _: Any) -> Trace | None:
        """The trace with another decision; None where there is nothing to choose."""
        open_choices = [
            found
            for found in trace.insts
            if str(found.kind.name) == "SampleCategorical" and len(found.attrs[0]) > 1
        ]
        if not open_choices:
            return None
        chosen = self._random.choice(open_choices)
        old = int(trace.decisions[chosen])
        others = [index for index in range(len(chosen.attrs[0])) if index != old]
        return trace.with_decision(chosen, self._random.choice(others), True)

    def clone(self) -> Any:
        """Another one, with a seed of its own."""
        return MutateDecision(self._random.randrange(1 << 30))


@derived_object
class Decisions(ms.feature_extractor.PyFeatureExtractor):
    """A point's decisions and the extents of its kernel, as one row."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        super().__init__()
        self._tasks = {key_of(task.signature): task for task in tasks}

    def extract_from(self, _context: Any, candidates: list[Any]) -> list[Any]:
        """A row a candidate."""
        return [tvm.runtime.tensor(self._row(candidate.sch.mod)) for candidate in candidates]

    def _row(self, module: tvm.IRModule) -> np.ndarray:
        task = self._tasks[str(module["main"].attrs[TASK_ATTRIBUTE])]
        found = space.features(space.blocking_of(module), space.tokens_of(task.kernel, task.operands))
        extents = [np.log2(shape[-1]) for _, shape in task.signature.shapes[:2]]
        return np.array([[*(found.get(name, -1.0) for name in FEATURES), *extents]], np.float64)


@derived_object
class InOrder(ms.search_strategy.PySearchStrategy):
    """Every point once: in the order of the space, or in a random one; the rules' own first.

    Args:
        known: points that need no trial.
    """

    def __init__(self, task: Task, seed: int | None, known: Sequence[Blocking] = ()) -> None:
        super().__init__()
        first, *others = (point for design in task.designs for point in design.points())
        if seed is not None:
            random.Random(f"{seed} {task.name}").shuffle(others)
        self._task, self._seed, self._known = task, seed, known
        self._left = [point for point in (first, *others) if point not in known]
        self._batch = 0

    def _initialize_with_tune_context(self, context: Any) -> None:
        pass

    def pre_tuning(
        self, max_trials: int, num_trials_per_iter: int, design_spaces: Any, database: Any, cost_model: Any
    ) -> None:
        """Note how many points make a batch."""
        self._batch = num_trials_per_iter
        self._left = self._left[:max_trials]

    def post_tuning(self) -> None:
        """Nothing is kept."""

    def generate_measure_candidates(self) -> list[Any] | None:
        """The next batch; None at the end."""
        batch, self._left = self._left[: self._batch], self._left[self._batch :]
        return [candidate(self._task, point) for point in batch] or None

    def notify_runner_results(self, measure_candidates: Any, results: Any) -> None:
        """Results change nothing."""

    def clone(self) -> Any:
        """Another one that begins anew."""
        return InOrder(self._task, self._seed, self._known)


@derived_object
class Ranked(ms.search_strategy.PySearchStrategy):
    """The points that the cost model ranks first among all that are left, and a few random ones.

    The spaces are so small that every point can be ranked: evolution, which proposes points where there are too many
    for that, costs more time here and finds less.

    Args:
        known: points that need no trial.
    """

    def __init__(self, task: Task, seed: int, known: Sequence[Blocking]) -> None:
        super().__init__()
        self._task, self._seed, self._known = task, seed, known
        self._random = random.Random(f"{seed} {task.name}")
        self._context: Any = None
        self._model: Any = None
        self._left: dict[Blocking, Any] = {}
        self._batch, self._seen = 0, len(known)

    def _initialize_with_tune_context(self, context: Any) -> None:
        self._context = context

    def pre_tuning(
        self, max_trials: int, num_trials_per_iter: int, design_spaces: Any, database: Any, cost_model: Any
    ) -> None:
        """Note what is left, how many points make a batch and who ranks them."""
        self._left = {
            point: candidate(self._task, point) for point in self._mixed() if point not in self._known
        }
        self._batch, self._model = num_trials_per_iter, cost_model

    def _mixed(self) -> list[Blocking]:
        """All points in random order, but of each design in turn: the model has to see every one soon."""
        designs = [list(design.points()) for design in self._task.designs]
        for points in designs:
            self._random.shuffle(points)
        turns = itertools.zip_longest(*designs)
        return [point for turn in turns for point in turn if point is not None]

    def post_tuning(self) -> None:
        """Nothing is kept."""

    def generate_measure_candidates(self) -> list[Any] | None:
        """The next batch; None at the end."""
        if not self._left:
            return None
        ranked = list(self._left)
        if self._seen >= WARM_UP_SAMPLES:
            scores = self._model.predict(self._context, list(self._left.values()))
            ranked = [ranked[index] for index in np.argsort(-np.asarray(scores), kind="stable")]
        best = self._batch - self._batch // EXPLORED
        rest = ranked[best:]
        chosen = ranked[:best] + self._random.sample(rest, min(self._batch - best, len(rest)))
        self._seen += len(chosen)
        return [self._left.pop(point) for point in chosen]

    def notify_runner_results(self, measure_candidates: Any, results: Any) -> None:
        """The cost model is told by a callback of MetaSchedule's."""

    def clone(self) -> Any:
        """Another one that begins anew."""
        return Ranked(self._task, self._seed, self._known)


def candidate(task: Task, point: Blocking) -> Any:
    """A point as MetaSchedule's candidate for measurement."""
    schedule = scheduled(task, point, workload(task))
    return ms.MeasureCandidate(schedule, ms.arg_info.ArgInfo.from_prim_func(schedule.mod["main"]))


def fresh_database(directory: Path) -> Any:
    """MetaSchedule's database in a folder, empty: scores of another objective or condition do not belong into it.

    Nor could one that a kill or a full disk left be read: TVM crashes on a record that is none.
    """
    for name in DATABASE:
        (directory / name).unlink(missing_ok=True)
    return ms.database.JSONDatabase(work_dir=str(directory))


def commit(database: Any, context: Any, candidates: Sequence[Any], scores: Sequence[float]) -> None:
    """Put candidates of a context into a database, as measured."""
    known = database.commit_workload(context.mod)
    for one, value in zip(candidates, scores, strict=True):
        record = ms.database.TuningRecord(one.sch.trace, known, [value], context.target, one.args_info)
        database.commit_tuning_record(record)


def _strategy(task: Task, name: str, seed: int, known: Sequence[Blocking]) -> Any:
    if name == "xgb":
        return Ranked(task, seed, known)
    if name == "random":
        return InOrder(task, seed, known)
    if name == "sweep":
        return InOrder(task, None)
    return ms.search_strategy.EvolutionarySearch(
        population_size=POPULATION,
        init_measured_ratio=0.3,
        init_min_unmeasured=8,
        genetic_num_iters=GENERATIONS,
        eps_greedy=0.15,
    )


def context(task: Task, target: Target, strategy: str, seed: int, known: Sequence[Blocking] = ()) -> Any:
    """A tuning context of MetaSchedule; `xgb` and `random` do not propose points that are `known` again."""

    def designs(schedule: Schedule) -> list[Schedule]:
        return [design.sample(schedule.copy()) for design in task.designs]

    with _without_intrinsics():
        return ms.TuneContext(
            mod=workload(task),
            target=target.tvm_target(),
            space_generator=ms.space_generator.ScheduleFn(
                designs, sch_rules=[], postprocs=[], mutator_probs={MutateDecision(seed): 1.0}
            ),
            search_strategy=_strategy(task, strategy, seed, known),
            task_name=task.name,
            rand_state=1 + seed,  # TVM takes 0 for 1
            num_threads=1,
        )


@contextlib.contextmanager
def _without_intrinsics() -> Iterator[None]:
    """Within the block, TuneContext finds no tensor intrinsics.

    It imports those of every GPU and CPU that TVM knows, whose scripts take TVM's parser 40 s of a processor. None of
    them belongs to target `c`.
    """
    name = "tvm.s_tir.tensor_intrin"
    absent = name not in sys.modules
    if absent:
        sys.modules[name] = types.ModuleType(name)
    try:
        yield
    finally:
        if absent:
            del sys.modules[name]


def scheduler(strategy: str, seed: int) -> Any:
    """What divides trials among tasks: by what they promise; in turn where every point is measured anyway."""
    if strategy == "sweep":
        return ms.task_scheduler.RoundRobin()
    return ms.task_scheduler.GradientBased(seed=1 + seed)


def cost_model(tasks: Sequence[Task], strategy: str, seed: int) -> Any:
    """XGBoost on decisions; none for searches that do not ask."""
    if strategy not in MODELLED:
        return ms.cost_model.RandomModel(seed=seed)
    # Not MetaSchedule's gamma of 0.001: it allows no split between schedules that differ by less than a few per cent.
    config = ms.cost_model.xgb_model.XGBConfig(max_depth=4, gamma=0, min_child_weight=0, seed=seed, nthread=1)
    return ms.cost_model.XGBModel(
        extractor=Decisions(tasks), config=config, num_warmup_samples=WARM_UP_SAMPLES, adaptive_training=False
    )

"""One tuning run: MetaSchedule's scheduler over tasks, with this package's builder, runner and store."""

from __future__ import annotations

import collections
import dataclasses
import json
import logging
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms

from tvmtiny.artifact import Artifact
from tvmtiny.errors import TvmtinyError
from tvmtiny.kernels import Blocking
from tvmtiny.schedule import space
from tvmtiny.schedule.records import Record, TunedRule
from tvmtiny.schedule.rules import family
from tvmtiny.target import Target
from tvmtiny.tune import search, whole
from tvmtiny.tune.engine import Built, Engine, Limits
from tvmtiny.tune.places import Place
from tvmtiny.tune.results import default_of, record, score
from tvmtiny.tune.store import Measurement, Store, key_of
from tvmtiny.tune.tasks import Task

ARTIFACT = "candidate.json"
NEAREST_RECORDS = 3
"""How many records of a kernel are tried before a search."""

FAILED_SECONDS = 1e10
"""What MetaSchedule's cost model takes for a candidate that failed."""


@dataclasses.dataclass
class Progress:
    """How far one task is.

    Attributes:
        curve: after each trial, the best score so far, relative to the rules' schedule.
        failed, wrong: candidates without a figure, and those with other bytes than the reference.
    """

    task: Task
    curve: list[float] = dataclasses.field(default_factory=list)
    failed: int = 0
    wrong: int = 0

    @property
    def trials(self) -> int:
        """Candidates so far."""
        return len(self.curve)

    @property
    def best(self) -> float:
        """The best score so far; 1 is the rules' schedule."""
        return self.curve[-1] if self.curve else 1.0

    def add(self, found: Measurement, value: float) -> None:
        """Note a trial."""
        self.failed += bool(found.error)
        self.wrong += bool(found.wrong) and not found.error
        self.curve.append(min(self.best, value))


@dataclasses.dataclass(frozen=True)
class Options:
    """How to search.

    Attributes:
        strategy: one of search.STRATEGIES.
        trials: candidates over all tasks; the batch that reaches so many is the last. To choose for whole models,
            further ones are measured where kernels lack variants of others (`whole.missing`).
        batch: candidates that are built and measured at once.
        from_records: whether to begin with the schedules of records. Without them a seed gives the same trials again,
            whatever was found before.
    """

    objective: str
    strategy: str
    trials: int
    batch: int
    seed: int
    from_records: bool = True


OnBatch = Callable[[Sequence[Progress], float], None]
"""Called after each batch with the progress of all tasks and the seconds since the start."""


class Session:
    """Tunes tasks on a target at a place.

    Args:
        models: those of the tasks. Where flash counts, they are compiled at the end of a run, to choose a variant of
            micro-kernels for all products; without them these keep that of the rules.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        target: Target,
        place: Place,
        store: Store,
        limits: Limits,
        options: Options,
        on_batch: OnBatch = lambda progress, seconds: None,
        models: Sequence[Artifact] = (),
    ) -> None:
        self.tasks, self.target, self.store, self.options = tasks, target, store, options
        self._models = models
        self.choice: whole.Choice | None = None
        self._by_key = {key_of(task.signature): task for task in tasks}
        self.progress = [Progress(task) for task in tasks]
        self._place, self._limits, self._on_batch = place, limits, on_batch
        self._started = time.monotonic()
        self._failure: BaseException | None = None
        self._built: dict[str, Built] = {}
        self._defaults: dict[str, Measurement] = {}

    def run(self) -> None:
        """Measure the rules' schedules, search, then choose for whole models.

        Raises:
            UserError, EnvironmentProblem: a tool fails; what was measured before is in the store.
            OSError: the store cannot be written.
        """
        self._started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="tvmtiny-tune-") as folder:
            engine = Engine(self.target, self._place, self.store, self._limits, Path(folder))
            self._measure_defaults(engine)
            if self.options.from_records:
                self._measure_records(engine)
            left = self.options.trials - sum(one.trials for one in self.progress)
            if left > 0:
                self._search(engine, Path(folder), left)
            if self._by_models:
                self.choice = self._choose(engine, Path(folder))

    @property
    def _by_models(self) -> bool:
        """Whether schedules are chosen for whole models."""
        return bool(self._models) and self.options.objective != "latency"

    @property
    def decided(self) -> bool:
        """Whether the records are those of the objective: not where the choice for whole models is still to come."""
        return self.choice is not None or not self._by_models

    def _measure_defaults(self, engine: Engine) -> None:
        """The rules' schedules, against which all others count."""
        found = engine.measure([(task, task.default) for task in self.tasks])
        for task, measured, progress in zip(self.tasks, found, self.progress, strict=True):
            if not measured.valid:
                raise TvmtinyError(
                    f"The rules' schedule of {task.name} does not run on {self._place.name}: "
                    + (measured.error or f"{measured.wrong} bytes differ from the reference."),
                )
            self._defaults[key_of(task.signature)] = measured
            progress.add(measured, 1.0)
        self._report()

    def _measure_records(self, engine: Engine) -> None:
        """Begin with what records know: the kernels' own and those of the nearest shapes."""
        rule = TunedRule(self.target, self.options.objective, family(self.target))
        wanted: list[tuple[Task, Blocking]] = []
        for task in self.tasks:
            points = {point for design in task.designs for point in design.points()}
            near = dict.fromkeys(one.blocking for one in rule.near(task.kernel, task.operands))
            wanted += [(task, point) for point in near if point in points][:NEAREST_RECORDS]
        for (task, _), found in zip(wanted, engine.measure(wanted), strict=True):
            self._note(task, found)
        if wanted:
            self._report()

    def _note(self, task: Task, found: Measurement) -> float:
        """Count a trial; returns its score."""
        value = score(found, self._defaults[key_of(task.signature)], self.options.objective)
        self.progress[self.tasks.index(task)].add(found, value)
        return value

    def _teach(self, model: Any, database: Any, contexts: Sequence[Any]) -> None:
        """Show the cost model and the database what is known of the tasks already."""
        for task, context in zip(self.tasks, contexts, strict=True):
            default = self._defaults[key_of(task.signature)]
            known = [found for found in self.found(task) if found.valid]
            candidates = [search.candidate(task, found.point) for found in known]
            scores = [score(found, default, self.options.objective) for found in known]
            model.update(context, candidates, [ms.runner.RunnerResult([value], None) for value in scores])
            search.commit(database, context, candidates, scores)

    def _search(self, engine: Engine, folder: Path, trials: int) -> None:
        logging.getLogger("tvm.s_tir.meta_schedule").setLevel(logging.ERROR)
        random.seed(self.options.seed)
        np.random.seed(self.options.seed)  # MetaSchedule's XGBModel draws from it until it has data
        options = self.options
        batch = min(options.batch, trials)
        trials -= trials % batch  # the scheduler ends with the batch that reaches its limit
        contexts = [
            search.context(
                task, self.target, options.strategy, options.seed, [one.point for one in self.found(task)]
            )
            for task in self.tasks
        ]
        model = search.cost_model(self.tasks, options.strategy, options.seed)
        database = search.fresh_database(self.store.directory)
        self._teach(model, database, contexts)
        try:
            ms.tune.tune_tasks(
                tasks=contexts,
                task_weights=[float(len(task.uses)) for task in self.tasks],
                work_dir=str(self.store.directory),
                max_trials_global=trials,
                num_trials_per_iter=batch,
                builder=_Builder(self, engine, folder),
                runner=_Runner(self, engine),
                database=database,
                cost_model=model,
                measure_callbacks=[
                    ms.measure_callback.AddToDatabase(),
                    ms.measure_callback.UpdateCostModel(),
                    ms.measure_callback.RemoveBuildArtifact(),
                ],
                task_scheduler=search.scheduler(options.strategy, options.seed),
            )
        except BaseException:
            if self._failure is not None:
                raise self._failure from None
            raise

    def _choose(self, engine: Engine, folder: Path) -> whole.Choice:
        """The schedules that are best for the models as a whole."""
        objective = self.options.objective
        wanted = whole.missing(self.tasks, self._known(), objective)
        for (task, _), found in zip(wanted, engine.measure(wanted), strict=True):
            self._note(task, found)
        models = whole.Models(self.tasks, self._models, self.target, folder)
        return whole.chosen(self.tasks, self._known(), objective, models.cost)

    def _known(self) -> whole.Known:
        return {task.signature: self.found(task) for task in self.tasks}

    def records(self, compiler: str) -> list[Record]:
        """Of the tasks whose schedules are worth one, by all that is known of them."""
        made = (self._record(task, compiler) for task in self.tasks)
        return [one for one in made if one is not None]

    def _record(self, task: Task, compiler: str) -> Record | None:
        known, share = self.found(task), self.share(task)
        chosen = None if self.choice is None else self.choice.plan.get(task.signature)
        if chosen is not None and chosen.point.variant != task.default.variant:
            share = 1.0  # all products of a model have that variant, small ones too
        if chosen is None and self.options.objective != "latency":
            known = [found for found in known if found.point.variant == task.default.variant]
        return record(task, known, self.options.objective, self._place.name, compiler, share, chosen)

    def built(self, engine: Engine, modules: Sequence[Any]) -> list[tuple[str, Built]]:
        """Build a batch of scheduled modules; each with a name for its runner."""
        wanted = [
            (self._by_key[str(m["main"].attrs[search.TASK_ATTRIBUTE])], space.blocking_of(m)) for m in modules
        ]
        found = engine.build(wanted)
        names = [f"{len(self._built) + index}" for index in range(len(found))]
        self._built |= dict(zip(names, found, strict=True))
        return list(zip(names, found, strict=True))

    def measured(self, engine: Engine, names: Sequence[str]) -> list[float]:
        """Run a batch; scores, infinite for what failed."""
        built = [self._built.pop(name) for name in names]
        found = engine.run(built)
        scores = [self._note(one.task, measured) for one, measured in zip(built, found, strict=True)]
        self._report()
        return scores

    def failed(self, error: BaseException) -> None:
        """Remember what stopped the run: on its way through MetaSchedule an exception loses its type."""
        self._failure = self._failure or error

    def _report(self) -> None:
        self._on_batch(self.progress, time.monotonic() - self._started)

    def share(self, task: Task) -> float:
        """Part of a run by the rules that a task takes, in the model where that is most; 0 before it is measured."""
        of_models, own = collections.Counter[str](), collections.Counter[str]()
        for other in self.tasks:
            cycles = found.cycles if (found := self._defaults.get(key_of(other.signature))) else 0
            for use in other.uses:
                of_models[use.model] += cycles
                own[use.model] += cycles if other is task else 0
        return max((own[model] / max(1, of_models[model]) for model in own), default=0)

    def found(self, task: Task) -> list[Measurement]:
        """Everything known of a task's schedules, by the limits of this run."""
        points = {point for design in task.designs for point in design.points()}
        known = (found for found in self.store.known(task.signature) if found.point in points)
        return [self._limits.judged(task, found) for found in known]


@derived_object
class _Builder(ms.builder.PyBuilder):
    def __init__(self, session: Session, engine: Engine, folder: Path) -> None:
        super().__init__()
        self._session, self._engine, self._folder = session, engine, folder

    def build(self, build_inputs: list[Any]) -> list[Any]:
        try:
            built = self._session.built(self._engine, [one.mod for one in build_inputs])
        except BaseException as error:
            self._session.failed(error)
            raise
        return [self._result(name) for name, _ in built]

    def _result(self, name: str) -> Any:
        # MetaSchedule removes the parent of every artifact: each has a folder of its own.
        path = Path(tempfile.mkdtemp(prefix="candidate-", dir=self._folder)) / ARTIFACT
        path.write_text(json.dumps(name))
        return ms.builder.BuilderResult(str(path), None)


@derived_object
class _Measured(ms.runner.PyRunnerFuture):
    def __init__(self, value: float) -> None:
        super().__init__()
        self._value = value

    def done(self) -> bool:
        return True

    def result(self) -> Any:
        if self._value == float("inf"):
            return ms.runner.RunnerResult([FAILED_SECONDS], None)
        return ms.runner.RunnerResult([self._value], None)


@derived_object
class _Runner(ms.runner.PyRunner):
    def __init__(self, session: Session, engine: Engine) -> None:
        super().__init__()
        self._session, self._engine = session, engine

    def run(self, runner_inputs: list[Any]) -> list[Any]:
        names = [json.loads(Path(str(one.artifact_path)).read_text()) for one in runner_inputs]
        try:
            scores = self._session.measured(self._engine, names)
        except BaseException as error:
            self._session.failed(error)
            raise
        return [_Measured(value) for value in scores]


__all__ = ["OnBatch", "Options", "Progress", "Session", "default_of"]

"""One run of an ablation: a variant with a seed, trained, compiled, and evaluated on the emulated core."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvmtiny import __version__
from tvmtiny.ablate.variants import Variant
from tvmtiny.errors import UserError
from tvmtiny.target import load_target

if TYPE_CHECKING:
    from tvmtiny.compress.runner import Result
    from tvmtiny.evaluate import Metrics
    from tvmtiny.evaluate.metrics import Arrays

COSTS = ("flash_bytes", "ram_bytes", "instructions_p50", "latency_p50_ms")
"""Figures of a run that are to be small; those that cannot be told are None."""


@dataclasses.dataclass(frozen=True)
class Job:
    """A run that is to be done, wherever: it holds paths and plain values only.

    Attributes:
        checkpoints: directory of what has been trained, which all runs share.
        on: where the compiled model is evaluated. limit: test samples, or None for all.
    """

    variant: Variant
    seed: int
    checkpoints: Path
    on: str
    limit: int | None

    @functools.cached_property
    def key(self) -> str:
        """Tells the run from any other: by recipe, task file, seed, how it is measured, and tvmtiny's version.

        Of the files that the recipe compiles with, and of its target, by contents: paths say nothing of a change. Told
        once: a file that is edited while runs are done is another's.
        """
        recipe = self.variant.recipe
        state = {
            "trained": recipe.key(self.seed, len(recipe.steps)),
            "compile": _contents(recipe.compile),
            "target": dataclasses.asdict(load_target(recipe.compile["target"])),
            "measured": (self.on, self.limit),
            "version": __version__,
        }
        return hashlib.sha256(json.dumps(state, default=str, sort_keys=True).encode()).hexdigest()[:16]


def _contents(value: Any) -> Any:
    """Arguments of tvmtiny.compile with digests in place of files."""
    if isinstance(value, Mapping):
        return {name: _contents(item) for name, item in value.items()}
    return hashlib.sha256(value.read_bytes()).hexdigest() if isinstance(value, Path) else value


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run gave.

    Attributes:
        variant, kind: of the variant.
        metrics: of the compiled model on the test split, larger is better. float_metrics: of the trained module.
        figures: by name, COSTS and what they consist of.
        failure: why the variant is not possible; empty for one that is.
    """

    variant: str
    kind: str
    seed: int
    metrics: dict[str, float]
    float_metrics: dict[str, float]
    figures: dict[str, float | None]
    failure: str = ""


def perform(job: Job) -> Run:
    """Do a run.

    A variant that cannot be trained, compiled or fitted to its target is a result too: `Run.failure` says why.

    Raises:
        EnvironmentProblem: a tool is missing or fails, the disk is full.
    """
    import torch

    torch.set_num_threads(1)  # the same sums, and so the same figures, wherever the run is done
    name, kind = job.variant.name, job.variant.kind
    try:
        with tempfile.TemporaryDirectory(prefix="tvmtiny-ablate-") as folder:
            metrics, float_metrics, figures = _measured(job, Path(folder))
    except UserError as error:
        return Run(name, kind, job.seed, {}, {}, {}, error.message)
    return Run(name, kind, job.seed, metrics, float_metrics, figures)


def _measured(job: Job, folder: Path) -> tuple[dict[str, float], dict[str, float], dict[str, float | None]]:
    from tvmtiny.compiler import compile as compile_model
    from tvmtiny.compress.directory import read_options
    from tvmtiny.compress.runner import run_recipe
    from tvmtiny.evaluate import evaluate
    from tvmtiny.evaluate.data import dataset_of

    result = run_recipe(job.variant.recipe, folder / "result", seed=job.seed, checkpoints=job.checkpoints)
    artifact = compile_model(**read_options(folder / "result"), output=folder / "model")
    split = result.task.test
    data = dataset_of(artifact, {**split.inputs, **split.targets}, source="the test split").limited(job.limit)
    found = evaluate(artifact, data, _metrics(result), on=job.on, jobs=1)
    flash = found.flash
    figures: dict[str, float | None] = {
        "flash_bytes": flash.flash_bytes if flash else None,
        **(dataclasses.asdict(flash) if flash else {}),
        "ram_bytes": found.ram_bytes,
        "arena_bytes": found.arena_bytes,
        "stack_bytes": found.stack_bytes,
        "instructions_p50": found.instructions.p50 if found.instructions else None,
        "instructions_p95": found.instructions.p95 if found.instructions else None,
        "latency_p50_ms": found.latency_ms.p50 if found.latency_ms else None,
        "latency_p95_ms": found.latency_ms.p95 if found.latency_ms else None,
    }
    return found.metrics, _floats(result.test), figures


def _metrics(result: Result) -> Metrics:
    """The task's metrics, which get outputs in the shapes that its module gives."""
    task = result.task
    one = {name: values[:1] for name, values in task.test.inputs.items()}
    shapes = {name: values.shape[1:] for name, values in task.predict(result.module, one).items()}

    def metrics(outputs: Arrays, targets: Arrays) -> dict[str, float]:
        shaped = {name: outputs[name].reshape(-1, *shape) for name, shape in shapes.items()}
        return _floats(task.metrics(shaped, {name: targets[name] for name in task.test.targets}))

    return metrics


def _floats(values: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of a user's metrics, which may be NumPy's, as plain ones."""
    return {name: float(value) for name, value in values.items()}

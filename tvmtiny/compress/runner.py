"""Runs a recipe: trains, takes step after step, measures what stands after each."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from tvmtiny.compress.checks import attempt, check_task
from tvmtiny.compress.directory import CHECKPOINTS, write_result
from tvmtiny.compress.export import check_export, estimate, to_onnx
from tvmtiny.compress.options import compile_options
from tvmtiny.compress.progress import Listener, Progress, check_place
from tvmtiny.compress.quantized_module import QuantizedModule
from tvmtiny.compress.recipe import Recipe
from tvmtiny.compress.task import Task
from tvmtiny.compress.training import fit, set_seed
from tvmtiny.errors import UserError


@dataclass(frozen=True)
class Stage:
    """What stands after a step, the first row after the training. Sizes are those of `tvmtiny inspect`.

    Attributes:
        step: its name, such as "2 prune".
        parameters: trained numbers in the operators of the fused model.
        macs: multiply-accumulates with all tokens.
        weight_bytes, arena_bytes: as a compile gives them.
        code_bytes, estimated_cycles: estimates; None where there are no figures for the core.
        metrics: of the module on the selection split, behind the step qat of its integers; empty in a dry run.
        seconds: that the step took; None where a training was taken from a checkpoint.
    """

    step: str
    parameters: int
    macs: int
    weight_bytes: int
    arena_bytes: int
    code_bytes: int | None
    estimated_cycles: int | None
    metrics: dict[str, float]
    seconds: float | None

    @property
    def flash_bytes(self) -> int:
        """Weights, code and tables; no tokenizer and no front end."""
        return self.weight_bytes + (self.code_bytes or 0)


@dataclass(frozen=True)
class Result:
    """What a recipe gave.

    Attributes:
        module: in evaluation mode.
        task: that it was made for.
        stages: what stood after the training and after each step.
        test: metrics of the module on the test split.
        options: arguments of tvmtiny.compile: the recipe's, the task's files, and those of the module.
        export_error: largest difference between the exported model and the module.
        directory: where the files are.
    """

    module: nn.Module
    task: Task
    stages: tuple[Stage, ...]
    test: dict[str, float]
    options: dict[str, Any]
    export_error: float
    directory: Path

    @property
    def computes_integers(self) -> bool:
        """Whether metrics are those of the integers of the generated C: after quantization-aware training."""
        return isinstance(self.module, QuantizedModule)


def run_recipe(
    recipe: Recipe,
    output: Path | str,
    *,
    seed: int = 0,
    resume: bool = True,
    on_progress: Listener | None = None,
    checkpoints: Path | str | None = None,
) -> Result:
    """Run a recipe and write its result.

    Args:
        output: directory of the result, made if need be; files of an earlier result there are replaced at the end.
        seed: of everything random.
        resume: take up what an earlier run of the same recipe, task file and seed has trained; else train it anew.
        on_progress: is told what happens.
        checkpoints: directory of what has been trained, `output`/checkpoints when None. Recipes that begin alike
            share what they have in common there.

    Raises:
        UserError: the task, a step or the model cannot be used.
        EnvironmentProblem: the disk is full; the next run goes on from the last epoch.
    """
    directory = Path(output)
    kept = Path(checkpoints) if checkpoints is not None else directory / CHECKPOINTS
    task = recipe.task(seed)
    _rehearse(recipe, task, Progress(seed=seed, dry=True))
    if not resume:
        _forget(recipe, task, seed, kept)
    for place in (directory, kept):
        check_place(place)
    run = Progress(listener=on_progress, seed=seed, checkpoints=kept)
    standings = list(_run(recipe, task, run))
    module, proto = standings[-1].module, standings[-1].proto
    options = _options(recipe, task, module)
    result = Result(
        module=module,
        task=task,
        stages=tuple(standing.stage for standing in standings),
        test=task.measure(module, task.test),
        options=options,
        export_error=check_export(proto, module, task),
        directory=directory,
    )
    write_result(directory, module, proto, task, options, _figures(recipe, seed, result))
    return result


def preview(recipe: Recipe, *, seed: int = 0, on_progress: Listener | None = None) -> list[Stage]:
    """What each step would change, by sizes alone: nothing is trained or written.

    Steps that choose sizes by trained weights (a rank by energy) choose them by untrained ones here.
    """
    task = recipe.task(seed)
    return _rehearse(recipe, task, Progress(listener=on_progress, seed=seed, dry=True))


@dataclass(frozen=True)
class _Standing:
    """What stands after a step: the module, exported and measured."""

    module: nn.Module
    proto: onnx.ModelProto
    stage: Stage


def _untrained(task: Task, seed: int) -> nn.Module:
    set_seed(f"{seed}/model")
    return attempt("the model", task.model)


def _rehearse(recipe: Recipe, task: Task, dry: Progress) -> list[Stage]:
    """All steps without training: finds what is wrong with data, model, steps or target before hours are spent."""
    check_task(task, _untrained(task, dry.seed))
    return [standing.stage for standing in _run(recipe, task, dry)]


def _run(recipe: Recipe, task: Task, run: Progress) -> Iterator[_Standing]:
    """The training, then each step."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        module = _untrained(task, run.seed)
        for number in range(len(recipe.steps) + 1):
            start = time.perf_counter()
            progress = _progress(recipe, task, run, number)
            set_seed(f"{run.seed}/{progress.step}")
            if number:
                module = recipe.steps[number - 1].apply(module, task, progress)
            elif recipe.train is not None:
                fit(module, task, recipe.train, progress=progress)
            module.eval()
            progress.report("measuring")
            proto = to_onnx(module, task)
            seconds = None if progress.restored else time.perf_counter() - start
            yield _Standing(module, proto, _stage(recipe, task, module, proto, progress, seconds))
    finally:
        torch.use_deterministic_algorithms(deterministic)


def _progress(recipe: Recipe, task: Task, run: Progress, number: int) -> Progress:
    """The run as the step of a number sees it; 0 is the training."""
    name = f"{number} {recipe.steps[number - 1].kind}" if number else "train"
    place = None if run.checkpoints is None else run.checkpoints / recipe.key(run.seed, number, task)
    return Progress(step=name, listener=run.listener, seed=run.seed, dry=run.dry, checkpoints=place)


def _stage(
    recipe: Recipe,
    task: Task,
    module: nn.Module,
    proto: onnx.ModelProto,
    progress: Progress,
    seconds: float | None,
) -> Stage:
    inspection, fit_ = estimate(proto, _options(recipe, task, module))
    return Stage(
        step=progress.step,
        parameters=sum(row.parameters for row in inspection.operators),
        macs=sum(row.macs or 0 for row in inspection.operators),
        weight_bytes=fit_.weight_bytes,
        arena_bytes=fit_.arena_bytes,
        code_bytes=fit_.code_bytes,
        estimated_cycles=fit_.estimated_cycles,
        metrics={} if progress.dry else task.measure(module, task.selection),
        seconds=seconds,
    )


def _options(recipe: Recipe, task: Task, module: nn.Module) -> dict[str, Any]:
    """Arguments of tvmtiny.compile: the task's files, the recipe's, and those that its steps decided on."""
    own = compile_options(module)
    if twice := sorted(set(own) & set(task.files)):
        raise UserError(
            f"A step of the recipe decides on {', '.join(twice)}, which the task's `files` have too.",
            "Leave it out of `files`, or leave the step out.",
        )
    return {**task.files, **recipe.compile, **own}


def _forget(recipe: Recipe, task: Task, seed: int, checkpoints: Path) -> None:
    """Remove the checkpoints of this recipe and seed."""
    for number in range(len(recipe.steps) + 1):
        for path in checkpoints.glob(f"{recipe.key(seed, number, task)}-*.pt"):
            path.unlink()


def _figures(recipe: Recipe, seed: int, result: Result) -> dict[str, Any]:
    """figures.json: how the result came about and what was measured."""
    return {
        "recipe": recipe.path.name,
        "seed": seed,
        "threads": torch.get_num_threads(),
        "rows": [{**asdict(stage), "flash_bytes": stage.flash_bytes} for stage in result.stages],
        "test": result.test,
        "test_samples": len(result.task.test),
        "selection_samples": len(result.task.selection),
        "export_error": result.export_error,
    }

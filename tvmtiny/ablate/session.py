"""An ablation: all runs of a recipe's variants, kept as they finish, so that one that was killed goes on."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from tvmtiny.ablate.execution import executor
from tvmtiny.ablate.run import Job, Run
from tvmtiny.ablate.variants import WHOLE, Variant
from tvmtiny.compress.progress import write
from tvmtiny.errors import UserError

OnRun = Callable[[Run, int, int], None]
"""Called after each run with it, how many are done, and how many there are."""

CHECKPOINTS, RUNS = "checkpoints", "runs"


@dataclasses.dataclass(frozen=True)
class Settings:
    """How an ablation is done.

    Attributes:
        seeds: each variant runs with 0 to `seeds` - 1.
        on: where compiled models are evaluated.
        limit: test samples, or None for all.
        jobs: runs at once; above 1 it needs Ray.
        address: of a Ray cluster; the directory and the recipe lie where all its machines see them.
        resume: whether to take up finished runs; what has been trained is taken up in any case.
    """

    seeds: int = 1
    on: str = "qemu"
    limit: int | None = None
    jobs: int = 1
    address: str | None = None
    resume: bool = True


def ablate(
    variants: Sequence[Variant],
    output: Path,
    settings: Settings = Settings(),
    on_run: OnRun = lambda *_: None,
) -> list[Run]:
    """Run every variant with every seed.

    Args:
        variants: of `load_variants`.
        output: directory of finished runs and checkpoints; those of an earlier call there are taken up.

    Returns:
        the runs in the order of variants, then seeds.

    Raises:
        UserError: the recipe itself fails, so that there is nothing to compare with.
        EnvironmentProblem: Ray or a tool is missing, or the disk is full; what has finished is kept.
    """
    output = output.resolve()
    planned = [
        Job(variant, seed, output / CHECKPOINTS, settings.on, settings.limit)
        for variant in variants
        for seed in range(settings.seeds)
    ]
    found = {}
    for job in planned:
        run = _read(job, _file(output, job)) if settings.resume else None
        if run is not None:
            found[job.key] = run
            on_run(run, len(found), len(planned))
    left = [job for job in planned if job.key not in found]
    # Whole recipes go first: the variants take up what they begin with.
    parts = [[job for job in left if (job.variant.kind == WHOLE) == whole] for whole in (True, False)]
    with executor(min(settings.jobs, max(1, len(left))), settings.address) as execute:
        for job, run in itertools.chain.from_iterable(map(execute, parts)):
            _keep(_file(output, job), run)
            found[job.key] = run
            on_run(run, len(found), len(planned))
    return [found[job.key] for job in planned]


def _keep(file: Path, run: Run) -> None:
    """Write a run for later calls, but none that failed: what it failed for may be mended by then.

    Raises:
        UserError: it is one of the whole recipe, and failed.
    """
    if not run.failure:
        write(file, (json.dumps(dataclasses.asdict(run), indent=1) + "\n").encode())
    elif run.kind == WHOLE:
        raise UserError(
            f"The recipe itself fails with seed {run.seed}: {run.failure}",
            "Correct it: variants are compared with the recipe.",
        )


def _file(output: Path, job: Job) -> Path:
    return output / RUNS / f"{job.key}.json"


def _read(job: Job, file: Path) -> Run | None:
    """A run that has finished before, under the name that the variant has now; None if there is none to be read."""
    try:
        run = Run(**json.loads(file.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return dataclasses.replace(run, variant=job.variant.name, kind=job.variant.kind)

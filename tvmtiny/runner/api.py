"""Run a compiled model on samples, wherever that is, and check what the harness reports."""

from __future__ import annotations

import dataclasses
import importlib
import os
import pkgutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar, cast

import numpy as np

from tvmtiny.artifact import Artifact
from tvmtiny.errors import ResultMismatch, TvmtinyError, UserError
from tvmtiny.link.messages import Counter
from tvmtiny.runner import kinds
from tvmtiny.runner.base import Answer, Job, Runner
from tvmtiny.runner.plugin import Block, Counts
from tvmtiny.runner.project import Project
from tvmtiny.runner.protocol import Guard, Response, Sample, sample_bytes
from tvmtiny.runner.size import Sizes, read_sizes
from tvmtiny.target import Target, load_target

T = TypeVar("T")


class MemoryViolationError(TvmtinyError):
    """A program wrote outside its arena."""


@dataclasses.dataclass(frozen=True)
class RunResult:
    """What a run gave.

    Attributes:
        outputs: by sample, the outputs by name; empty where `status` is not 0.
        status: by sample, what the model's run function returned.
        instructions: exact number for the first sample's inference, or None where it cannot be told.
        total_instructions: of all samples, likewise.
        sample_instructions: of each sample, of its first repetition; empty where it cannot be told. A model that runs
            in steps is counted step by step.
        stack_bytes: deepest stack of any inference, or None where it cannot be told.
        elf: the program for the target itself.
        run_elf: the program that was executed.
        sizes: bytes of `elf` by purpose.
        blocks: with `blocks=True`, executions of each block of code of `run_elf` by the first sample.
        cycles: by sample, those of each of its repetitions; empty where nothing counts them.
        clock_hz: of what counts them; 0 where time says nothing, as on an emulated core.
        counter: what counts them.
    """

    outputs: list[dict[str, np.ndarray]]
    status: list[int]
    instructions: int | None
    total_instructions: int | None
    stack_bytes: int | None
    elf: Path
    run_elf: Path
    sizes: Sizes
    blocks: tuple[Block, ...] = ()
    cycles: tuple[tuple[int, ...], ...] = ()
    clock_hz: int = 0
    counter: Counter = Counter.NONE
    sample_instructions: tuple[int, ...] = ()


def run(
    artifact: Artifact,
    on: str,
    samples: Sequence[Sample],
    *,
    target: Target | str | None = None,
    timeout_s: float = 60,
    repeat: int = 1,
    jobs: int = 1,
    blocks: bool = False,
    phases: Sequence[str] = (),
    build_dir: Path | None = None,
    lean: bool = False,
) -> RunResult:
    """Build `artifact` for `target` and run it on `samples`.

    Args:
        artifact: the compiled model.
        on: "host", "qemu" or another kind of runner, with its argument after a colon.
        samples: inputs; all of them run in one process, or in `jobs` processes.
        target: whose core and memory; the artifact's own if not given.
        timeout_s: time limit in seconds of each process, not counting the build.
        repeat: how often each sample runs; every repetition must give the same bytes.
        jobs: processes among which the samples are divided; 0 takes one for each processor.
        blocks: also count the executions of code blocks (QEMU only).
        phases: C functions; blocks are counted apart by which of them was entered last.
        build_dir: where to build; inside the model's directory if not given.
        lean: build without debug information and warnings (QEMU only).

    Raises:
        UserError: unknown kind or target, samples that do not fit, a program that does not fit the target.
        EnvironmentProblem: a tool is missing, or the program crashed, faulted or ran out of time.
        MemoryViolationError: the program wrote outside its arena.
        ResultMismatch: repetitions differ.
    """
    if not samples or repeat < 1:
        raise UserError(
            f"At least one sample and one repetition are required; found {len(samples)}, {repeat}."
        )
    kind, _, argument = on.partition(":")
    runner = _runner(kind)
    chosen = load_target(target or artifact.target) if not isinstance(target, Target) else target
    job = Job(artifact, chosen, argument, build_dir, blocks, tuple(phases), lean)
    parts = split(samples, (jobs or os.cpu_count() or 1) if runner.PARALLEL else 1)
    repeated = [[sample for sample in part for _ in range(repeat)] for part in parts]
    for index, sample in enumerate(samples):
        sample_bytes(artifact, sample, index)  # refuses what does not fit, before anything is built
    project = runner.prepare(job)
    with ThreadPoolExecutor(len(parts)) as pool:
        answers = list(pool.map(lambda part: runner.execute(job, project, part, timeout_s), repeated))
    return _result(artifact, project, [answer.response for answer in answers], answers, repeat)


def split(items: Sequence[T], parts: int) -> list[Sequence[T]]:
    """Divide `items` into at most `parts` runs of about the same length, in order, none empty."""
    parts = max(1, min(parts, len(items)))
    bounds = [len(items) * index // parts for index in range(parts + 1)]
    return [items[bounds[index] : bounds[index + 1]] for index in range(parts)]


def runner_kinds() -> list[str]:
    """The kinds of runner: the modules in kinds/."""
    return sorted(module.name for module in pkgutil.iter_modules(kinds.__path__))


def _runner(kind: str) -> Runner:
    if kind not in runner_kinds():
        raise UserError(f"Cannot run on {kind!r}.", f"Give one of {', '.join(runner_kinds())}.")
    return cast(Runner, importlib.import_module(f"{kinds.__name__}.{kind}"))


def _result(
    artifact: Artifact, project: Project, responses: list[Response], answers: list[Answer], repeat: int
) -> RunResult:
    before = 0
    for response in responses:
        _check_guard(artifact, response.guard, (before + response.guard.sample) // repeat)
        before += len(response.status)
    status = [value for response in responses for value in response.status]
    outputs = [value for response in responses for value in response.outputs]
    _check_repetitions(artifact, status, outputs, repeat)
    counts = [answer.counts for answer in answers if answer.counts]
    complete = len(counts) == len(answers)
    return RunResult(
        outputs=outputs[::repeat],
        status=status[::repeat],
        instructions=counts[0].first if complete else None,
        total_instructions=sum(count.total for count in counts) if complete else None,
        stack_bytes=max(response.stack_bytes for response in responses) or None,
        elf=project.elf,
        run_elf=project.run_elf,
        sizes=read_sizes(project.elf),
        blocks=counts[0].blocks if complete else (),
        cycles=_cycles(responses, repeat),
        clock_hz=responses[0].info.clock_hz,
        counter=responses[0].info.counter,
        sample_instructions=_by_sample(counts, repeat) if complete else (),
    )


def _by_sample(counts: list[Counts], repeat: int) -> tuple[int, ...]:
    return tuple(value for count in counts for value in count.each)[::repeat]


def _cycles(responses: list[Response], repeat: int) -> tuple[tuple[int, ...], ...]:
    if responses[0].info.counter == Counter.NONE:
        return ()
    cycles = [value for response in responses for value in response.cycles]
    return tuple(tuple(cycles[start : start + repeat]) for start in range(0, len(cycles), repeat))


def _check_guard(artifact: Artifact, guard: Guard, sample: int) -> None:
    if guard.bytes:
        where = (
            f"{-guard.offset} bytes before the arena"
            if guard.offset < 0
            else f"{guard.offset - artifact.arena_bytes} bytes past the arena's end"
        )
        raise MemoryViolationError(
            f"{artifact.name} wrote outside its arena of {artifact.arena_bytes} bytes: {guard.bytes} bytes "
            f"around it changed, the first {where}, in sample {sample}.",
            "This is a defect of the generated code or of a kernel; please report it with the model.",
        )


def check_status(artifact: Artifact, status: Sequence[int]) -> None:
    """Refuse a run of which the model itself refused a sample."""
    for sample, value in enumerate(status):
        if value != 0:
            raise UserError(
                f"{artifact.name} refused sample {sample} with status {value}.",
                f"See enum {artifact.name}_status in {artifact.directory / artifact.name}.h for its meaning.",
            )


def _check_repetitions(
    artifact: Artifact, status: list[int], outputs: list[dict[str, np.ndarray]], repeat: int
) -> None:
    for index in range(len(status)):
        base = index - index % repeat
        if status[index] != status[base] or not _equal(outputs[base], outputs[index]):
            raise ResultMismatch(
                f"{artifact.name} gave different bytes for sample {base // repeat} when it ran again.",
                "A run must not depend on what the arena held before; please report it with the model.",
            )


def _equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)

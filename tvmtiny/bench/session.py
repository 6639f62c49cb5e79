"""One call of `tvmtiny bench`: every chosen benchmark on every chosen target."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tvmtiny.bench import encoders, features, kernels
from tvmtiny.bench.catalog import Benchmark, EncoderBenchmark, FeatureBenchmark, KernelBenchmark
from tvmtiny.bench.results import Report, Row, Skipped
from tvmtiny.errors import EnvironmentProblem, UserError
from tvmtiny.runner.build import DEFAULT_PREFIX
from tvmtiny.runner.process import find_tool, run_program
from tvmtiny.target import HOST, Target

OnStart = Callable[[str, str, int, int], None]
"""Called with benchmark, target, its number from 1 and how many there are."""


def measure_all(
    benchmarks: Sequence[Benchmark],
    targets: Sequence[Target],
    *,
    timeout_s: float,
    on_start: OnStart = lambda *_: None,
) -> Report:
    """Measure benchmarks on targets, in this order, target by target.

    What does not fit a target is skipped, and the report says why.

    Raises:
        UserError: nothing fits, or nothing can be counted on a target.
        EnvironmentProblem: a tool is missing or fails.
        ResultMismatch: the outputs of an encoder or a front end are not those of its reference.
    """
    for target in targets:
        _check(target)
    compiler = c_compiler()
    rows: list[Row] = []
    skipped: list[Skipped] = []
    refused: UserError | None = None
    with tempfile.TemporaryDirectory(prefix="tvmtiny-bench-") as folder:
        work = [(item, target) for target in targets for item in benchmarks]
        for number, (item, target) in enumerate(work, start=1):
            on_start(item.name, target.name, number, len(work))
            try:
                rows.append(measure(item, target, Path(folder), timeout_s=timeout_s))
            except UserError as error:
                refused = error
                skipped.append(Skipped(item.name, target.name, error.message))
    if refused is not None and not rows:
        raise refused
    return Report(tuple(rows), tuple(skipped), compiler)


def measure(benchmark: Benchmark, target: Target, directory: Path, *, timeout_s: float) -> Row:
    """Measure one benchmark on one target; builds below `directory`. Raises as `measure_all`."""
    if isinstance(benchmark, KernelBenchmark):
        program = directory / f"kernels-{target.name}-{benchmark.weights}"
        return kernels.measure(benchmark, target, program, timeout_s=timeout_s)
    if isinstance(benchmark, FeatureBenchmark):
        return features.measure(benchmark, target, directory, timeout_s=timeout_s)
    assert isinstance(benchmark, EncoderBenchmark)
    return encoders.measure(benchmark, target, directory, timeout_s=timeout_s)


def c_compiler() -> str:
    """The cross compiler and its version: counts hold for its code. Raises EnvironmentProblem when it is missing."""
    name = f"{os.environ.get('CROSS_COMPILE', DEFAULT_PREFIX)}gcc"
    finished = run_program([find_tool(name), "-dumpfullversion"], timeout_s=30)
    if finished.status != 0:
        raise EnvironmentProblem(f"{name} does not tell its version:\n{finished.tail}")
    return f"{name} {finished.output.strip()}"


def _check(target: Target) -> None:
    if target.cpu == HOST:
        raise UserError(
            f"Nothing can be counted exactly on the target {target.name!r}.",
            "Give a target with a Cortex-M core, e.g. --target qemu-m4 (`tvmtiny targets` lists them).",
        )
    target.emulator()

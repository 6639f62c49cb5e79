"""Measures front ends: instructions for a second of audio, or for 100 samples of a sensor; checks their bytes."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tvmtiny.bench.catalog import FeatureBenchmark
from tvmtiny.bench.results import Row, row
from tvmtiny.errors import EnvironmentProblem, ResultMismatch
from tvmtiny.features.firmware import measure as measure_firmware
from tvmtiny.features.rows import feature_rows
from tvmtiny.features.spec import AudioSpec, Spec, parse_spec
from tvmtiny.features.tables import build_tables
from tvmtiny.report.blocks import Program
from tvmtiny.report.cycles import core_model
from tvmtiny.target import Target

ROWS = 10
"""Rows that are computed: their samples fit the RAM of the smallest machine."""
SENSOR_RATE = 100
_LEVEL = 3000


def measure(benchmark: FeatureBenchmark, target: Target, directory: Path, *, timeout_s: float) -> Row:
    """Run a front end on the emulated core of a target, on noise of the level of speech.

    Raises:
        UserError: no machine has the target's core, or the front end does not fit its memory.
        EnvironmentProblem: a tool is missing or fails.
        ResultMismatch: the rows are not those of the NumPy twin.
    """
    spec = parse_spec(benchmark.features, f"benchmark {benchmark.name}")
    tables = build_tables(spec, np.full(spec.columns, 0.5), np.zeros(spec.columns, np.int64))
    samples = _samples(spec)
    found = measure_firmware(
        tables,
        [samples],
        on="qemu",
        target=target.name,
        rows=ROWS,
        directory=directory / f"{benchmark.name}-{target.name}",
        timeout_s=timeout_s,
        blocks=True,
    )
    expected = feature_rows(tables, samples)
    if not np.array_equal(found.rows[0], expected[-ROWS:]):
        raise ResultMismatch(
            f"{benchmark.name} on {target.name} gives other bytes than its NumPy twin.", "Please report it."
        )
    result = found.result
    if result.instructions is None:
        raise EnvironmentProblem(
            "This QEMU was built without plugins, so that it cannot count instructions.",
            "Debian's and Ubuntu's can: sudo apt-get install qemu-system-arm",
        )
    program = Program(result.run_elf, target, core_model(target.cpu))
    cycles = sum(program.cycles(block) for block in result.blocks)
    seconds = Fraction(len(expected)) / _rate(spec)
    return row(
        benchmark,
        target,
        instructions=round(result.instructions / seconds),
        estimated_cycles=round(cycles / seconds),
        elements=round(spec.columns * _rate(spec)),
        arena_bytes=found.state_bytes - ROWS * spec.columns,
        code_bytes=result.sizes.code_bytes,
        table_bytes=result.sizes.table_bytes,
    )


def _samples(spec: Spec) -> npt.NDArray[np.int16]:
    """As many as ROWS rows need."""
    random = np.random.default_rng(0)
    if not isinstance(spec, AudioSpec):
        return random.integers(-_LEVEL, _LEVEL, (ROWS, spec.columns)).astype(np.int16)
    count = (ROWS - 1) * spec.hop + (spec.window if spec.pad == "none" else 0)
    return random.integers(-_LEVEL, _LEVEL, count).astype(np.int16)


def _rate(spec: Spec) -> Fraction:
    """Rows a second."""
    return Fraction(spec.sample_rate, spec.hop) if isinstance(spec, AudioSpec) else Fraction(SENSOR_RATE)

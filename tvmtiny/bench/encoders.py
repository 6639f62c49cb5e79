"""Measures whole encoders: compiles the model of models.py for a target, runs it, and checks its bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tvmtiny.bench.catalog import EncoderBenchmark
from tvmtiny.bench.models import INPUT, OUTPUT, calibration, save
from tvmtiny.bench.results import Row, row
from tvmtiny.compiler import compile as compile_model
from tvmtiny.errors import ResultMismatch
from tvmtiny.report.profile import profile
from tvmtiny.runner import Sample
from tvmtiny.schedule.records import RULES
from tvmtiny.target import Target
from tvmtiny.verify import expected_outputs


def measure(benchmark: EncoderBenchmark, target: Target, directory: Path, *, timeout_s: float) -> Row:
    """Compile an encoder into `directory` and run it on the emulated core of a target, with all of its tokens.

    Raises:
        UserError: no machine has the target's core, or the model does not fit its memory.
        EnvironmentProblem: a tool is missing or fails.
        ResultMismatch: the outputs are not those of the integer reference.
    """
    artifact = compile_model(
        save(benchmark, directory),
        target=target.name,
        calibration=calibration(benchmark),
        weights=benchmark.weights,
        fold_qk=benchmark.fold_qk,
        residual=benchmark.residual,
        tuned=RULES,
        output=directory / f"{benchmark.name}-{target.name}",
    )
    with np.load(artifact.reference_inputs) as inputs:
        sample = Sample({INPUT: inputs[INPUT][0]}, benchmark.tokens)
    found = profile(artifact, sample, timeout_s=timeout_s)
    if not np.array_equal(found.outputs[OUTPUT], expected_outputs(artifact, [sample])[0][OUTPUT]):
        raise ResultMismatch(
            f"{benchmark.name} on {target.name} gives other bytes than its integer reference.",
            "This is a defect of a kernel or of the generated code; please report it.",
        )
    return row(
        benchmark,
        target,
        instructions=found.instructions,
        estimated_cycles=found.estimated_cycles,
        macs=found.macs,
        arena_bytes=artifact.arena_bytes,
        code_bytes=found.sizes.code_bytes,
        table_bytes=found.sizes.table_bytes,
        weight_bytes=found.sizes.weight_bytes,
        stack_bytes=found.stack_bytes,
    )

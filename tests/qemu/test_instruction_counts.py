"""Instructions of micro-kernels and of a whole encoder, exact for one compiler, against the figures to keep.

Each limit is what was measured with GCC 12.2 (benchmarks/bench_kernels.py, benchmarks/bench_encoders.py), and 3 %.
"""

from __future__ import annotations

import functools
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import tvmtiny
from tvmtiny.runner import Sample, run
from tvmtiny.runner.process import find_tool
from tvmtiny.target import load_target

pytestmark = pytest.mark.qemu

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
COMPILER = "12.2"
MARGIN = 1.03
MEASURED = {
    "dense_s8 32x64x64": 0.913,
    "dense_s8 32x64x256": 0.818,
    "dense_s8 64x512x128": 0.826,
    "dense_s8 1x64x64": 1.628,
    "dense_s32 32x64x64": 0.898,
    "4 scores_s32 128x128x16": 1.082,
    "4 values_s8 128x16x128": 0.910,
    "softmax_u8 32x32": 9.88,
    "softmax_u8 128x128": 8.66,
    "layer_norm_s8 32x64": 12.15,
    "add_residual_s32 32x64": 6.68,
    "lookup_s8 32x256": 3.81,
}
"""Instructions a MAC, or an element, on Cortex-M4, and on M7 where DUAL_ISSUE does not say otherwise."""
DUAL_ISSUE = {
    "dense_s8 32x64x64": 1.105,
    "dense_s8 32x64x256": 1.006,
    "dense_s8 64x512x128": 0.999,
    "dense_s32 32x64x64": 1.089,
    "4 scores_s32 128x128x16": 1.265,
    "4 values_s8 128x16x128": 1.084,
}
"""On Cortex-M7: more instructions, of which two go in a cycle."""
ENC32_INSTRUCTIONS, ENC32_ARENA, ENC32_CODE_AND_TABLES = 3_376_990, 8_192, 12_288


def _load(name: str) -> ModuleType:
    """A script of benchmarks/, under a name that does not hide the tests' own modules."""
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@functools.cache
def _compiler() -> str:
    command = [find_tool("arm-none-eabi-gcc"), "-dumpfullversion"]
    return subprocess.run(command, text=True, capture_output=True, check=True).stdout.strip()


@pytest.fixture(autouse=True)
def _same_compiler() -> None:
    if not _compiler().startswith(f"{COMPILER}."):
        pytest.skip(f"the limits hold for arm-none-eabi-gcc {COMPILER}, this is {_compiler()}")


@pytest.mark.parametrize("target", ["qemu-m4", "qemu-m7"])
def test_kernels_keep_their_instruction_counts(target: str, tmp_path: Path) -> None:
    bench = _load("bench_kernels")
    work = [item for item in bench.WORK if item.name in MEASURED]
    assert len(work) == len(MEASURED)
    limits = MEASURED | (DUAL_ISSUE if load_target(target).dual_issue else {})
    counts = bench.count(target, work, tmp_path)
    excess = {
        item.name: count
        for item, count in zip(work, counts, strict=True)
        if count > MARGIN * limits[item.name]
    }
    assert not excess


def test_an_encoder_keeps_its_instructions_and_memory(tmp_path: Path) -> None:
    models = _load("models")
    encoder = models.ENCODERS["enc32"]
    artifact = tvmtiny.compile(
        models.save(encoder, tmp_path),
        target="qemu-m4",
        calibration=models.calibration(encoder),
        output=tmp_path / "enc32",
    )
    inputs = np.load(artifact.directory / "reference" / "inputs.npz")
    result = run(artifact, "qemu", [Sample({"x": inputs["x"][0]}, encoder.tokens)])
    assert result.instructions is not None
    assert result.instructions <= MARGIN * ENC32_INSTRUCTIONS
    assert artifact.arena_bytes <= ENC32_ARENA
    assert result.sizes.code_bytes + result.sizes.table_bytes <= ENC32_CODE_AND_TABLES

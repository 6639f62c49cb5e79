"""What `tvmtiny inspect` estimates, beside a profile and a build of models that the estimate was not fitted to."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import tvmtiny
from tvmtiny.frontend.data import load_samples
from tvmtiny.report.inspection import inspect
from tvmtiny.report.profile import profile
from tvmtiny.target import load_target

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.qemu
CYCLES_TOLERANCE = 0.25
FEW_TOKENS_TOLERANCE = 0.3
"""On a Cortex-M7, of motion's 8 tokens: weights are widened for a block of rows, and few rows share them there."""
CODE_TOLERANCE = 0.35


@pytest.mark.parametrize(
    ("name", "target", "tolerance"),
    [
        ("intent", "qemu-m4", CYCLES_TOLERANCE),
        ("motion", "qemu-m7", FEW_TOKENS_TOLERANCE),
        ("motion", "qemu-m3", CYCLES_TOLERANCE),
    ],
)
def test_estimates_are_near_the_profile(name: str, target: str, tolerance: float, tmp_path: Path) -> None:
    example = EXAMPLES / name
    artifact = tvmtiny.compile(
        example / "model.onnx",
        target=target,
        calibration=example / "calibration.npz",
        range_method="minmax",
        output=tmp_path / name,
    )
    first = load_samples(artifact, example / "calibration.npz")[0]
    found = profile(artifact, dataclasses.replace(first, n_tokens=artifact.max_tokens))
    (fit,) = inspect(example / "model.onnx", [load_target(target)]).fits
    assert fit.estimated_cycles == pytest.approx(found.estimated_cycles, rel=tolerance)
    built = found.sizes.code_bytes + found.sizes.table_bytes
    assert fit.code_bytes == pytest.approx(built, rel=CODE_TOLERANCE)

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
CODE_TOLERANCE = 0.35


@pytest.mark.parametrize(
    ("name", "target"), [("intent", "qemu-m4"), ("motion", "qemu-m7"), ("motion", "qemu-m3")]
)
def test_estimates_are_near_the_profile(name: str, target: str, tmp_path: Path) -> None:
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
    assert fit.estimated_cycles == pytest.approx(found.estimated_cycles, rel=CYCLES_TOLERANCE)
    built = found.sizes.code_bytes + found.sizes.table_bytes
    assert fit.code_bytes == pytest.approx(built, rel=CODE_TOLERANCE)

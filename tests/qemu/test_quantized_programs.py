"""Models that their author has quantized, compiled without calibration data: the same bytes on host and QEMU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import quantized_models

from tvmtiny.artifact import Artifact
from tvmtiny.compiler import compile as compile_model
from tvmtiny.frontend.data import load_samples
from tvmtiny.runner import run
from tvmtiny.verify import expected_outputs

TFLITE = Path(__file__).parent.parent / "data" / "tflite" / "text_int8.tflite"


def tflite_data(count: int, seed: int) -> dict[str, np.ndarray]:
    return {"ids": np.random.default_rng(seed).integers(0, 40, (count, 12))}


DATA = {
    "encoder": quantized_models.encoder_data,
    "sensor": quantized_models.sensor_data,
    "tflite": tflite_data,
}


@pytest.fixture(scope="module", params=DATA)
def compiled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Artifact]:
    place = tmp_path_factory.mktemp(request.param)
    if request.param == "tflite":
        pytest.importorskip("tflite")
        return request.param, compile_model(TFLITE, target="qemu-m4", output=place / "model")
    path = place / f"{request.param}.onnx"
    path.write_bytes(getattr(quantized_models, request.param)("QUInt8", per_channel=True).SerializeToString())
    return request.param, compile_model(path, target="qemu-m4", output=place / "model")


@pytest.mark.qemu
@pytest.mark.parametrize("where", ["host", "qemu-m4", "qemu-m0"])
def test_gives_the_bytes_of_the_reference(compiled: tuple[str, Artifact], where: str, tmp_path: Path) -> None:
    name, made = compiled
    np.savez(tmp_path / "data.npz", **DATA[name](count=4, seed=9))
    samples = load_samples(made, tmp_path / "data.npz")
    result = run(made, "host" if where == "host" else "qemu", samples, target=where)
    assert result.status == [0] * len(samples)
    for actual, expected in zip(result.outputs, expected_outputs(made, samples), strict=True):
        for key, values in expected.items():
            np.testing.assert_array_equal(actual[key], values)

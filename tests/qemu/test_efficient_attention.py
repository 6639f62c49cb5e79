"""Models whose attention no fused operator computes: torch's results, and the same bytes everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tvmtiny.artifact import Artifact
from tvmtiny.compiler import compile as compile_model
from tvmtiny.runner import Sample, run
from tvmtiny.verify import expected_outputs

SAMPLES = 24
CORES = ("qemu-m0", "qemu-m4", "qemu-m55")
NAMES = ("linear", "performer", "linformer", "token_mixing", "hashed")


@pytest.fixture(scope="module", params=NAMES)
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(artifact, torch module, calibration features)."""
    torch = pytest.importorskip("torch")
    import efficient_attention as models

    module = models.build(request.param)
    features = np.random.default_rng(0).normal(size=(SAMPLES, models.S, models.CHANNELS)).astype(np.float32)
    program = torch.export.export(module, (torch.from_numpy(features[:1]),))
    directory = tmp_path_factory.mktemp(request.param) / "model"
    made = compile_model(program, target="qemu-m4", calibration={"x": features}, output=directory)
    return made, module, features


def _samples(made: Artifact, features: np.ndarray) -> list[Sample]:
    from tvmtiny.quant.qparams import quantize_features

    (info,) = made.inputs
    rows = features.reshape(-1, *info.shape)
    values = quantize_features(rows, np.asarray(info.scale), np.asarray(info.zero_point)).astype(np.int8)
    return [Sample({info.name: value}, n_tokens=made.max_tokens) for value in values]


def test_is_close_to_torch(compiled: Any) -> None:
    import torch

    made, module, features = compiled
    info = made.outputs[0]
    found = np.stack([row[info.name].reshape(-1) for row in expected_outputs(made, _samples(made, features))])
    actual = (found.astype(np.float64) - info.zero_point[0]) * info.scale[0]
    with torch.no_grad():
        expected = np.stack([module(torch.from_numpy(x[None])).numpy()[0] for x in features])
    assert made.metadata["quality"]["source"]["largest_error"] < 1e-5
    assert np.sum(actual * expected) / np.linalg.norm(actual) / np.linalg.norm(expected) > 0.999
    assert np.mean(actual.argmax(axis=1) == expected.argmax(axis=1)) >= 0.9


@pytest.mark.qemu
@pytest.mark.parametrize("where", ["host", *CORES])
def test_gives_the_bytes_of_the_reference(compiled: Any, where: str, tmp_path: Path) -> None:
    made, _, features = compiled
    chosen = _samples(made, features[:4])
    result = run(made, "host" if where == "host" else "qemu", chosen, target=where)
    assert result.status == [0] * len(chosen)
    for actual, expected in zip(result.outputs, expected_outputs(made, chosen), strict=True):
        for name, values in expected.items():
            np.testing.assert_array_equal(actual[name], values)


def test_mixing_tokens_beside_a_mask_is_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    import efficient_attention as models

    from tvmtiny.errors import UserError

    class Masked(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.mixing = torch.nn.Linear(models.CHANNELS, models.E), models.TokenMixing()

        def forward(self, x: Any, mask: Any) -> Any:
            weight = mask.unsqueeze(-1).to(x.dtype)
            return (self.mixing(self.inner(x)) * weight).sum(dim=1) / weight.sum(dim=1)

    x, mask = torch.zeros(1, models.S, models.CHANNELS), torch.ones(1, models.S)
    program = torch.export.export(Masked().eval(), (x, mask))
    data = {"x": np.zeros((8, models.S, models.CHANNELS), np.float32), "mask": np.ones((8, models.S))}
    with pytest.raises(UserError, match="mixes tokens without regard to the mask"):
        compile_model(program, target="host", calibration=data, output=tmp_path / "model")

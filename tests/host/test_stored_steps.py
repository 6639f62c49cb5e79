"""Compressed weights of a model that runs in steps: decoded at boot, or in each step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import step_models

from tvmtiny.frontend.data import load_samples
from tvmtiny.runner.steps import run_sequences
from tvmtiny.storage import choice
from tvmtiny.verify import expected_outputs


@pytest.mark.parametrize(
    ("decode", "options"),
    [("boot", {}), ("tile", {"residual": "int16"})],
    ids=["boot", "tile-int16"],
)
def test_steps_give_the_bytes_of_plain_weights(
    decode: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "CALL_BYTES", -10_000)  # a model so small would gain nothing
    artifact = step_models.compiled(
        "llama", tmp_path, target="host", step=2, compress_weights="huffman", decode=decode, **options
    )
    assert artifact.metadata["storage"]["decode"] == decode
    assert artifact.metadata["storage"]["stored_bytes"] > 0
    samples = load_samples(artifact, artifact.directory / "reference" / "inputs.npz")[:2]
    result = run_sequences(artifact, "host", samples)
    for found, wanted in zip(result.outputs, expected_outputs(artifact, samples), strict=True):
        assert all(np.array_equal(found[name], wanted[name]) for name in wanted)

"""Compressed weights on emulated cores: the bytes of plain ones, and what decoding takes."""

from __future__ import annotations

import clustered_model
import numpy as np
import pytest

from tvmtiny.artifact import Artifact
from tvmtiny.frontend.data import load_samples
from tvmtiny.report.profile import profile
from tvmtiny.runner import run
from tvmtiny.verify import expected_outputs

pytestmark = pytest.mark.qemu
CORES = ("qemu-m0-large", "qemu-m4", "qemu-m7", "qemu-m55")


@pytest.fixture(scope="module", params=[("packed", "boot"), ("huffman", "tile")], ids="-".join)
def artifact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    form, decode = request.param
    return clustered_model.compiled(tmp_path_factory.mktemp("few"), "qemu-m4", form, decode)


@pytest.mark.parametrize("core", CORES)
def test_gives_the_bytes_of_plain_weights(artifact: Artifact, core: str) -> None:
    samples = load_samples(artifact, clustered_model.INTENT / "sample.npz")[:3]
    result = run(artifact, "qemu", samples, target=core)
    for found, wanted in zip(result.outputs, expected_outputs(artifact, samples), strict=True):
        assert np.array_equal(found["logits"], wanted["logits"])


def test_the_profile_shows_the_decoders(artifact: Artifact) -> None:
    found = profile(artifact, load_samples(artifact, clustered_model.INTENT / "sample.npz")[0])
    rows = {row.name: row for row in found.operators}
    for row in artifact.metadata["operators"]:
        if row["kernel"] == "huffman" and not row["name"].endswith("_tokens"):
            weights = next(b["bytes"] for b in artifact.metadata["arena"]["plan"] if b["name"] == row["name"])
            assert 8 * weights < rows[row["name"]].instructions < 20 * weights

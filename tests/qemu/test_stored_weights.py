"""Compressed weights on emulated cores: the bytes of plain ones, and what decoding takes."""

from __future__ import annotations

import clustered_model
import numpy as np
import pytest

from tvmtiny.artifact import Artifact
from tvmtiny.frontend.data import load_samples
from tvmtiny.report.page import page
from tvmtiny.report.profile import INIT_FUNCTION, RUN_FUNCTION, profile
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
    plan = {row["name"]: row for row in artifact.metadata["arena"]["plan"]}
    storage = artifact.metadata["storage"]
    decoders = [
        row["name"] for row in artifact.metadata["operators"] if row["kernel"] in ("unpack", "huffman")
    ]
    in_runs = [name for name in decoders if not name.endswith("_tokens")]
    assert bool(in_runs) == (storage["decode"] == "tile")
    for name in in_runs:
        assert 8 * plan[name]["bytes"] < rows[name].instructions < 20 * plan[name]["bytes"]
    assert (INIT_FUNCTION in rows) == (storage["decode"] == "boot")
    if INIT_FUNCTION in rows:  # it has the flash of the matrices, and no part in the run
        assert 0.5 * storage["stored_bytes"] < rows[INIT_FUNCTION].weight_bytes < storage["stored_bytes"]
        assert rows[RUN_FUNCTION].weight_bytes == 0
        assert rows[INIT_FUNCTION].last_step + 1 == len(storage["boot"])


def test_the_profile_has_the_steps_of_the_plan(artifact: Artifact) -> None:
    found = profile(artifact, load_samples(artifact, clustered_model.INTENT / "sample.npz")[0])
    rows = {row.name: row for row in found.operators}
    plan = artifact.metadata["arena"]["plan"]
    scratch = [buffer for buffer in plan if buffer["kind"] == "scratch"]
    assert len(scratch) > 10
    for buffer in scratch:  # lives within the operator that it is named after
        row = rows[buffer["name"].rpartition(".")[0]]
        assert row.first_step <= buffer["first_step"] <= buffer["last_step"] <= row.last_step
        assert row.arena_bytes >= buffer["bytes"]
    assert max(row.arena_bytes for row in found.operators) <= artifact.arena_bytes
    assert max(row.last_step for row in found.operators) == max(buffer["last_step"] for buffer in plan) - 1
    assert page(found).count("<rect") >= len(plan)

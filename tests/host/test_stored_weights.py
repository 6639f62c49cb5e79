"""Compressed weights in C on the host: the bytes of plain ones, and the API of decoding at boot."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import clustered_model
import numpy as np
import pytest

from tvmtiny.artifact import Artifact
from tvmtiny.frontend.data import load_samples
from tvmtiny.runner import run
from tvmtiny.runner.process import host_compiler
from tvmtiny.verify import expected_outputs

CASES = {
    "packed-boot": ("packed", "boot", {}),
    "huffman-tile": ("huffman", "tile", {}),
    "huffman-rows": ("huffman", "rows", {}),
    "int4-int16-huffman-tile": ("huffman", "tile", {"weights": "int4", "residual": "int16"}),
}
OK, ARENA, INIT = 0, -3, -8
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wdouble-promotion", "-pedantic", "-Werror"]


@pytest.fixture(scope="module", params=CASES)
def artifact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    form, decode, options = CASES[request.param]
    return clustered_model.compiled(tmp_path_factory.mktemp("few"), "host", form, decode, **options)


def test_gives_the_bytes_of_plain_weights(artifact: Artifact) -> None:
    samples = load_samples(artifact, clustered_model.INTENT / "sample.npz")
    # The reference runs the integer module before its weights are compressed.
    expected = expected_outputs(artifact, samples)
    for found, wanted in zip(run(artifact, "host", samples).outputs, expected, strict=True):
        assert np.array_equal(found["logits"], wanted["logits"])


def test_says_what_it_saves_and_takes(artifact: Artifact) -> None:
    storage, figures = artifact.metadata["storage"], artifact.metadata["figures"]
    decoders = [row for row in artifact.metadata["operators"] if row["kernel"] in ("unpack", "huffman")]
    assert storage["stored_bytes"] < 0.64 * storage["plain_bytes"]
    assert storage["stored_bytes"] < figures["weight_bytes"]
    at_boot = {row["name"] for row in storage["boot"]}
    assert bool(at_boot) == (storage["decode"] == "boot")
    assert len({row["name"] for row in decoders} | at_boot) == len(decoders) + len(at_boot) >= 1
    plan = {row["name"]: row for row in artifact.metadata["arena"]["plan"]}
    assert all(plan[name]["kind"] == "state" for name in at_boot)
    layers = sum(plan[name]["bytes"] for name in at_boot)
    unpacked = {row["kernel"] for row in (*decoders, *storage["boot"])}
    assert unpacked == {{"packed": "unpack", "huffman": "huffman"}[storage["form"]]}
    assert storage["decoded_bytes"] >= layers


def test_compiles_without_a_warning(artifact: Artifact, tmp_path: Path) -> None:
    for source in artifact.sources:
        command = [
            "gcc",
            "-std=c11",
            "-O2",
            *WARNINGS,
            *_includes(artifact),
            "-c",
            str(artifact.directory / source),
        ]
        finished = subprocess.run(
            [*command, "-o", str(tmp_path / "object.o")], text=True, capture_output=True, check=False
        )
        assert (finished.returncode, finished.stderr) == (0, "")


def test_the_main_program_runs(artifact: Artifact, tmp_path: Path) -> None:
    sources = [str(artifact.directory / name) for name in ("main.c", *artifact.sources)]
    command = [host_compiler(), "-std=c11", *_includes(artifact), *sources, "-o", str(tmp_path / "main")]
    subprocess.run(command, check=True)
    assert subprocess.run([tmp_path / "main"], text=True, capture_output=True, check=True).stdout


def _includes(artifact: Artifact) -> list[str]:
    return [f"-I{artifact.directory / folder}" for folder in artifact.include_dirs]


def test_init_is_there_where_nothing_was_worth_decoding(tmp_path: Path) -> None:
    artifact = clustered_model.compiled(tmp_path / "many", "host", "packed", "boot", entries=255)
    storage = artifact.metadata["storage"]
    assert (storage["form"], storage["decode"], storage["boot"]) == ("packed", "boot", [])
    test_the_main_program_runs(artifact, tmp_path)
    test_gives_the_bytes_of_plain_weights(artifact)
    assert "few_init(arena" in (artifact.directory / "main.c").read_text("utf-8")


@pytest.mark.parametrize("artifact", ["packed-boot"], indirect=True)
def test_a_run_before_the_decoding_is_refused(artifact: Artifact, tmp_path: Path) -> None:
    library = tmp_path / "few.so"
    sources = [str(artifact.directory / name) for name in artifact.sources]
    subprocess.run(
        [host_compiler(), "-shared", "-fPIC", *_includes(artifact), *sources, "-o", str(library)], check=True
    )
    functions = ctypes.CDLL(str(library))
    memory = np.full(artifact.arena_bytes + 16, 0xA5, np.uint8)
    arena = memory[-memory.ctypes.data % 16 :][: artifact.arena_bytes]
    pointer, size = ctypes.c_void_p(arena.ctypes.data), ctypes.c_size_t(artifact.arena_bytes)
    assert functions.few_run(pointer, size, 1) == INIT
    assert functions.few_init(pointer, ctypes.c_size_t(artifact.arena_bytes - 1)) == ARENA
    assert functions.few_run(pointer, size, 1) == INIT
    assert functions.few_init(pointer, size) == OK
    samples = load_samples(artifact, clustered_model.INTENT / "sample.npz")[:2]
    (ids,), (logits,) = artifact.inputs, artifact.outputs
    for sample, wanted in zip(samples, expected_outputs(artifact, samples), strict=True):  # decoded once
        given = np.frombuffer(np.ascontiguousarray(sample.inputs[ids.name], ids.dtype).tobytes(), np.uint8)
        arena[ids.arena_offset :][: ids.bytes] = given
        assert functions.few_run(pointer, size, sample.n_tokens) == OK
        found = arena[logits.arena_offset :][: logits.bytes].view(logits.dtype)
        assert np.array_equal(found, wanted["logits"].reshape(-1))

"""The C of models that run in steps, on the host: warnings, errors, state, sampling, and the bytes it gives."""

from __future__ import annotations

import ctypes
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from quantized_models import decibels
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from typer.testing import CliRunner

import tvmtiny
from tvmtiny.artifact import Artifact
from tvmtiny.cli import app
from tvmtiny.resources import data_dir
from tvmtiny.runner.generate import generate
from tvmtiny.runner.process import host_compiler
from tvmtiny.runner.steps import count_of_runs, run_sequences, steps_of
from tvmtiny.sampling import Sampler
from tvmtiny.verify import expected_generation, expected_outputs

pytest.importorskip("torch")
import step_models

WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wdouble-promotion", "-pedantic", "-Werror"]
OK, NULL, ARENA, LENGTH, TOKEN, FULL = 0, -1, -3, -4, -5, -7


def _call(command: list[str]) -> None:
    finished = subprocess.run(command, text=True, capture_output=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr


class Library:
    """A model in this process, with an arena of its own that is full of noise."""

    def __init__(self, artifact: Artifact, directory: Path) -> None:
        path = directory / f"{artifact.name}.so"
        folders = [f"-I{artifact.directory / folder}" for folder in artifact.include_dirs]
        sources = [str(artifact.directory / source) for source in artifact.sources]
        flags = ["-std=c11", "-O1", "-shared", "-fPIC", *WARNINGS]
        _call([host_compiler(), *flags, *folders, *sources, "-o", str(path)])
        self.artifact, self.library = artifact, ctypes.CDLL(str(path))
        memory = np.random.default_rng(0).integers(0, 256, artifact.arena_bytes + 16).astype(np.uint8)
        self.arena = memory[-memory.ctypes.data % 16 :][: artifact.arena_bytes]

    def call(self, verb: str, n_tokens: int | None = None, size: int | None = None) -> int:
        function = getattr(self.library, f"{self.artifact.name}_{verb}")
        function.argtypes = [
            ctypes.c_void_p,
            ctypes.c_size_t,
            *([ctypes.c_int32] if n_tokens is not None else []),
        ]
        extra = [] if n_tokens is None else [n_tokens]
        return int(
            function(self.arena.ctypes.data, self.artifact.arena_bytes if size is None else size, *extra)
        )

    def write(self, values: np.ndarray) -> None:
        info = self.artifact.inputs[0]
        data = values.astype(info.dtype).tobytes()
        self.arena[info.arena_offset : info.arena_offset + len(data)] = np.frombuffer(data, np.uint8)

    def output(self) -> np.ndarray:
        info = self.artifact.outputs[0]
        data = self.arena[info.arena_offset : info.arena_offset + info.bytes]
        return data.view(info.dtype).reshape(info.shape).copy()


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return step_models.compiled("llama", tmp_path_factory.mktemp("steps"), step=4)


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return step_models.compiled("stream", tmp_path_factory.mktemp("steps"), target="qemu-m0")


def test_steps_give_the_rows_of_whole_sequences(decoder: Artifact, stream: Artifact, tmp_path: Path) -> None:
    for made, name in ((decoder, "llama"), (stream, "stream")):
        chosen = step_models.sequences(made, name, tmp_path)
        result = run_sequences(made, "host", chosen)
        assert result.status == [OK] * len(chosen)
        for actual, expected in zip(result.outputs, expected_outputs(made, chosen), strict=True):
            for key, rows in expected.items():
                np.testing.assert_array_equal(actual[key], rows)


def test_every_step_is_a_run(decoder: Artifact, tmp_path: Path) -> None:
    chosen = step_models.sequences(decoder, "llama", tmp_path)
    runs = [step for sequence in chosen for step in steps_of(decoder, sequence) if step.n_tokens]
    assert count_of_runs(decoder, chosen) == len(runs) > len(chosen)


def test_generation_is_for_the_target_of_the_command(decoder: Artifact) -> None:
    arguments = ["run", decoder.directory, "--on", "host", "--generate", 2, "--ids", "3,1", "--json"]
    result = CliRunner().invoke(app, [str(word) for word in (*arguments, "--target", "qemu-m0")])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["target"] == "qemu-m0"


def test_errors_leave_the_sequence_as_it_was(decoder: Artifact, tmp_path: Path) -> None:
    library = Library(decoder, tmp_path)
    assert library.call("reset") == OK
    library.write(np.array([1, 2, 3, 4]))
    assert library.call("step", 4) == OK
    for expected, tokens, size in ((LENGTH, 0, None), (LENGTH, 5, None), (ARENA, 1, decoder.arena_bytes - 1)):
        assert library.call("step", tokens, size) == expected
    library.write(np.array([1, 999, 3, 4]))
    assert library.call("step", 2) == TOKEN
    assert library.library.llama_position(ctypes.c_void_p(library.arena.ctypes.data)) == 4
    for expected in (OK, OK, FULL):
        library.write(np.array([5, 6, 7, 8]))  # a step may overwrite its inputs
        assert library.call("step", 4) == expected


def test_padding_is_no_token_of_a_sequence(tmp_path: Path) -> None:
    library = Library(step_models.compiled("counted", tmp_path, target="host", step=2), tmp_path)
    assert library.call("reset") == OK
    for ids, expected in (([5, 6], OK), ([5, 1], TOKEN), ([1, 5], TOKEN), ([7, 8], OK)):
        library.write(np.array(ids))
        assert library.call("step", 2) == expected
    assert library.library.counted_position(ctypes.c_void_p(library.arena.ctypes.data)) == 4


def test_an_arena_that_was_not_reset_is_refused_or_harmless(decoder: Artifact, tmp_path: Path) -> None:
    library = Library(decoder, tmp_path)
    library.arena[:] = 0xFF
    library.write(np.array([1]))
    assert library.call("step", 1) == FULL
    assert library.library.llama_reset(None, 0) == NULL


@pytest.mark.parametrize("position", [-1, -(2**31), 2**31 - 1])
def test_an_endless_stream_that_was_not_reset_is_refused(
    stream: Artifact, tmp_path: Path, position: int
) -> None:
    library = Library(stream, tmp_path)
    (place,) = (row["offset"] for row in stream.metadata["arena"]["plan"] if row["name"] == "position")
    library.arena[place : place + 4] = np.array([position], "<i4").view(np.uint8)
    before = library.arena.copy()
    assert library.call("step", 1) == library.call("feed", 1) == FULL
    np.testing.assert_array_equal(library.arena, before)
    assert library.call("reset") == library.call("step", 1) == OK


def test_feeding_leaves_the_state_that_steps_leave(decoder: Artifact, tmp_path: Path) -> None:
    outputs = []
    for verbs in (["step"] * 3, ["feed", "feed", "step"]):
        library = Library(decoder, tmp_path)
        library.call("reset")
        for i, verb in enumerate(verbs):
            library.write(np.arange(3 * i, 3 * i + 3))
            assert library.call(verb, 3) == OK
        outputs.append(library.output())
    np.testing.assert_array_equal(*outputs)


def test_the_position_of_an_endless_stream_goes_back_unnoticed(stream: Artifact, tmp_path: Path) -> None:
    library, rng = Library(stream, tmp_path), np.random.default_rng(1)
    frames = rng.integers(-128, 128, (200, step_models.CHANNELS))
    library.call("reset")
    rows, positions = [], []
    for frame in frames:
        library.write(frame)
        assert library.call("step", 1) == OK
        rows.append(library.output()[0])
        positions.append(library.library.stream_position(ctypes.c_void_p(library.arena.ctypes.data)))
    assert max(positions) < 16 < len(frames)
    library.call("reset")
    for i in range(170, 200):  # a stream that began later: equal as soon as it has seen what a row depends on
        library.write(frames[i])
        library.call("step", 1)
        if i >= 170 + 11:
            np.testing.assert_array_equal(library.output()[0], rows[i])


def test_the_position_goes_back_by_more_than_a_step(stream: Artifact, tmp_path: Path) -> None:
    """A step of more tokens than the windows of the stream have in common."""
    wide = step_models.compiled("stream", tmp_path, target="qemu-m0", step=11)
    frames = np.random.default_rng(2).integers(-128, 128, (99, step_models.CHANNELS))
    found = []
    for made, size in ((stream, 1), (wide, 11)):
        (tmp_path / str(size)).mkdir()
        library = Library(made, tmp_path / str(size))
        library.call("reset")
        rows = []
        for at in range(0, 99, size):
            library.write(frames[at : at + size])
            assert library.call("step", size) == OK
            rows.append(library.output())
        found.append(np.concatenate(rows))
    np.testing.assert_array_equal(*found)


def test_what_is_generated_is_what_the_reference_writes(decoder: Artifact) -> None:
    for sampler in (Sampler(), Sampler(7, 2 << 16, 8)):
        found = generate(decoder, "host", [3, 1, 4, 1, 5], 12, sampler)
        assert found.ids == expected_generation(decoder, [3, 1, 4, 1, 5], 12, sampler)
        assert len(found.ids) == 8  # the sequence is full then: twelve tokens were taken in


def test_a_prompt_may_be_text(tmp_path: Path) -> None:
    letters = "abcdefghijklmnop"
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        *letters,
        *(f"##{c}" for c in letters),
        "once",
        "upon",
        "time",
        "the",
    ]
    library = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    library.normalizer = normalizers.BertNormalizer(lowercase=True)
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.add_special_tokens(pieces[:4])
    library.post_processor = processors.TemplateProcessing("[CLS] $A", special_tokens=[("[CLS]", 2)])
    library.save(str(tmp_path / "tokenizer.json"))
    writer = step_models.compiled("llama", tmp_path, step=2, tokenizer=tmp_path / "tokenizer.json")
    text = "Once upon a time"
    found = generate(writer, "host", text, 4, Sampler())
    assert found.prompt == library.encode(text).ids
    assert found.ids == expected_generation(writer, found.prompt, 4, Sampler())


def test_draws_in_c_are_those_of_python(tmp_path: Path) -> None:
    source, path = tmp_path / "draw.c", tmp_path / "draw.so"
    source.write_text(
        '#include "tvmt_sample.h"\n'
        "int32_t draw(const int16_t *logits, int32_t count, int64_t scale, tvmt_sampler *sampler);\n"
        "int32_t draw(const int16_t *logits, int32_t count, int64_t scale, tvmt_sampler *sampler) {\n"
        "  return tvmt_sample_s16(logits, count, scale, sampler);\n}\n"
    )
    common = data_dir("microtvm_projects") / "common"
    _call(
        [
            host_compiler(),
            "-std=c11",
            "-shared",
            "-fPIC",
            *WARNINGS,
            f"-I{common}",
            str(source),
            "-o",
            str(path),
        ]
    )
    draw = ctypes.CDLL(str(path)).draw
    draw.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p]
    rng = np.random.default_rng(4)
    for _ in range(3000):
        logits = rng.integers(-32768, 32768, rng.integers(1, 200)).astype(np.int16) >> int(
            rng.integers(0, 14)
        )
        sampler = Sampler(
            int(rng.integers(0, 2**63)), int(2 ** rng.uniform(0, 32)), int(rng.integers(-1, 70))
        )
        scale = int(2 ** rng.uniform(0, 33))
        state = np.zeros(1, [("random", "<u8"), ("q16", "<u4"), ("top_k", "<i4")])
        state[0] = (sampler.random, sampler.temperature_q16, sampler.top_k)
        chosen = draw(logits.ctypes.data, len(logits), scale, state.ctypes.data)
        assert chosen == sampler.choose(logits, scale)
        assert int(state["random"][0]) == sampler.random


def _step_metadata(made: Artifact) -> dict[str, Any]:
    found: dict[str, Any] = made.metadata["step"]
    return found


def test_metadata_and_arena_say_what_lives_on(decoder: Artifact) -> None:
    step = _step_metadata(decoder)
    kept = [row for row in decoder.metadata["arena"]["plan"] if row["kind"] == "state"]
    assert step["state_bytes"] == sum(row["bytes"] for row in kept) == 4 + 2 * 2 * 2 * 4 * 12
    assert {row["first_step"] for row in kept} == {-1}
    last = max(row["last_step"] for row in decoder.metadata["arena"]["plan"])
    assert {row["last_step"] for row in kept} == {last}


@pytest.mark.parametrize("name", ["llama", "stream"])
def test_onnx_in_steps_says_what_onnx_runtime_says_of_the_whole(name: str, tmp_path: Path) -> None:
    model = step_models.onnx_file(name, tmp_path / "model.onnx")
    made = tvmtiny.compile(
        model, target="host", calibration=step_models.inputs(name), step=1, output=tmp_path / name
    )
    found = run_sequences(made, "host", step_models.sequences(made, name, tmp_path)).outputs
    session = onnxruntime.InferenceSession(model)
    values = step_models.inputs(name, count=3, seed=5)  # the same sequences
    info = made.outputs[0]
    for row, actual in enumerate(found):
        (expected,) = session.run(None, {key: array[row : row + 1] for key, array in values.items()})
        assert decibels(expected[0], (actual[info.name] - info.zero_point) * info.scale) > 25

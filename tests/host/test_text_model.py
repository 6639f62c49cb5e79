"""A model that was compiled with its tokenizer: its C, its example program, its errors."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import numpy as np
import pytest
from tokenizer_cases import EXAMPLE

from tvmtiny.artifact import Artifact
from tvmtiny.compiler import compile as compile_model

WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wdouble-promotion", "-pedantic", "-Werror"]
OK, NULL, ALIGNMENT, ARENA, TEXT = 0, -1, -2, -3, -6


def compiled(output: Path) -> Artifact:
    return compile_model(
        EXAMPLE / "model.onnx",
        target="host",
        calibration=EXAMPLE / "calibration.npz",
        labels=EXAMPLE / "labels.txt",
        tokenizer=EXAMPLE / "tokenizer.json",
        output=output,
    )


@pytest.fixture(scope="module")
def intent(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return compiled(tmp_path_factory.mktemp("text") / "intent")


def build(artifact: Artifact, output: Path, *options: str) -> None:
    sources = [str(artifact.directory / source) for source in artifact.sources]
    includes = [f"-I{artifact.directory / folder}" for folder in artifact.include_dirs]
    command = [*options, "-O1", *WARNINGS, *includes, *sources, "-o", str(output)]
    finished = subprocess.run(command, text=True, capture_output=True, check=False)
    assert (finished.returncode, finished.stderr) == (0, "")


def test_the_example_program_takes_a_string(intent: Artifact, tmp_path: Path) -> None:
    build(intent, tmp_path / "main", "gcc", "-std=c11", str(intent.directory / "main.c"))
    said = subprocess.run([tmp_path / "main"], text=True, capture_output=True, check=True).stdout
    assert said.startswith("PlayMusic (")


def test_the_model_may_be_called_text(tmp_path: Path) -> None:
    build(compiled(tmp_path / "text"), tmp_path / "text.so", "gcc", "-std=c11", "-shared", "-fPIC")


def test_it_is_also_cpp(intent: Artifact, tmp_path: Path) -> None:
    build(intent, tmp_path / "intent.so", "g++", "-std=c++17", "-shared", "-fPIC", "-x", "c++")


def test_wrong_arenas_are_refused(intent: Artifact, tmp_path: Path) -> None:
    build(intent, tmp_path / "intent.so", "gcc", "-std=c11", "-shared", "-fPIC")
    run = ctypes.CDLL(str(tmp_path / "intent.so")).intent_run_text
    run.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]
    memory = np.zeros(intent.arena_bytes + 64, np.uint8)
    aligned = memory.ctypes.data + -memory.ctypes.data % intent.arena_align
    text = b"play some jazz"
    assert run(aligned, intent.arena_bytes, text, len(text)) == OK
    assert run(aligned, intent.arena_bytes, text, 0) == OK
    assert run(None, intent.arena_bytes, text, len(text)) == NULL
    assert run(aligned + 1, intent.arena_bytes, text, len(text)) == ALIGNMENT
    assert run(aligned, intent.arena_bytes - 1, text, len(text)) == ARENA
    assert run(aligned, intent.arena_bytes, None, 3) == TEXT

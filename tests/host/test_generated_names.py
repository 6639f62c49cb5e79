"""Names that a source model may have and C may not: the emitted C compiles, also main.c, and gives the same bytes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import models
import numpy as np
import onnx
import pytest
from models import OnnxBuilder
from onnx import TensorProto

from tvmtiny.artifact import Artifact
from tvmtiny.compiler import compile as compile_model
from tvmtiny.runner import Sample, run
from tvmtiny.runner.process import find_tool
from tvmtiny.verify import expected_outputs

WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-pedantic", "-Werror"]
STEPS, FEATURES, CLASSES, VOCABULARY, SAMPLES = 4, 6, 5, 40, 8

NAMES = [
    ("0", "int"), ("status", "arena"), ("result", "file"), ("run", "model"), ("label", "main"), ("ok", "t"),
    ("error_null", "max_tokens"), ("Identity:0", "/c/Add_output_0"), ("größe", "漢"), ("*/ x /*", "new\nline"),
    ("trigraph ??/", "backslash \\"),
    # These meet each other, or the layers `one` and `two`.
    ("a.b", "a_b"), ("a_b", "A_B"), ("x", "quantize_x"), ("x", "x_multiplier"), ("one", "two"), ("é", "è"),
]  # fmt: skip


def _save(model: onnx.ModelProto, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return models.save(model, path)


def _layers(names: tuple[str, ...], tokens: bool, output: str) -> onnx.ModelProto:
    """A dense layer of every input, their sum, the mean over tokens and a classifier; nodes called `one`, `two`."""
    build = OnnxBuilder(18)
    parts = []
    for name, layer in zip(names, ("one", "two"), strict=False):
        if tokens:
            ids = build.input(name, [1, STEPS], TensorProto.INT64)
            x = build.node("Gather", [build.weight(VOCABULARY, FEATURES), ids], f"{layer} table")
        else:
            x = build.input(name, [1, STEPS, FEATURES])
        parts.append(build.dense(x, FEATURES, 8, layer))
    x = build.node("Add", parts, "sum") if len(parts) > 1 else build.node("Relu", parts, "relu")
    x = build.node("ReduceMean", [x, build.constant([1], np.int64)], "pool", keepdims=0)
    build.dense(x, 8, CLASSES, "classifier")
    build.nodes[-1].output[0] = output
    return build.model(output, [1, CLASSES])


def _compiled(
    path: Path,
    directory: Path,
    *names: str,
    tokens: bool = False,
    output: str = "y",
    labels: list[str] | None = None,
    prefix: str | None = None,
) -> Artifact:
    rng = np.random.default_rng(0)
    shape = (SAMPLES, STEPS) if tokens else (SAMPLES, STEPS, FEATURES)
    calibration = {
        name: rng.integers(0, VOCABULARY, shape) if tokens else rng.normal(size=shape).astype(np.float32)
        for name in names
    }
    return compile_model(
        _save(_layers(names, tokens, output), path),
        target="host",
        calibration=calibration,
        output=directory,
        labels=labels,
        name=prefix,
    )


def _check(artifact: Artifact, folder: Path) -> None:
    """Everything compiles without a warning, main.c runs, a run of the C gives the reference's bytes."""
    includes = [f"-I{artifact.directory / name}" for name in artifact.include_dirs]
    sources = [str(artifact.directory / source) for source in artifact.sources]
    program = str(folder / "main")
    main = str(artifact.directory / "main.c")
    _call([find_tool("gcc"), "-std=c11", "-O1", *WARNINGS, *includes, main, *sources, "-o", program])
    assert _call([program]) != ""
    command = [find_tool("g++"), "-std=c++17", "-O1", *WARNINGS, *includes, "-x", "c++"]
    for source in sources:
        _call([*command, "-c", source, "-o", str(folder / "object.o")])
    with np.load(artifact.directory / "reference" / "inputs.npz") as stored:
        inputs = {info.name: stored[info.name] for info in artifact.inputs}
    samples = [Sample({name: array[i] for name, array in inputs.items()}, STEPS) for i in range(SAMPLES)]
    result = run(artifact, "host", samples)
    (output,) = artifact.outputs
    expected = [outputs[output.name].tobytes() for outputs in expected_outputs(artifact, samples)]
    assert [outputs[output.name].tobytes() for outputs in result.outputs] == expected
    assert len(set(expected)) > 1


def _call(command: list[str]) -> str:
    finished = subprocess.run(command, text=True, capture_output=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout + finished.stderr


@pytest.mark.parametrize("names", NAMES, ids="+".join)
def test_inputs_of_any_name(names: tuple[str, str], tmp_path: Path) -> None:
    made = _compiled(tmp_path / "source.onnx", tmp_path / "net", *names)
    assert [info.name for info in made.inputs] == list(names)
    rows = made.metadata["arena"]["plan"]
    assert len({row["name"] for row in rows}) == len(rows)
    _check(made, tmp_path)


@pytest.mark.parametrize("names", [("a.b", "a_b"), ("0", "int")], ids="+".join)
def test_several_inputs_of_token_ids(names: tuple[str, str], tmp_path: Path) -> None:
    made = _compiled(tmp_path / "source.onnx", tmp_path / "net", *names, tokens=True, labels=list("abcde"))
    text = (made.directory / "main.c").read_text()
    assert text.count("int32_t n_tokens =") == 1
    assert len(text.splitlines()) <= 33
    assert not re.search(r"[ \t]$|\n\n\n", text, re.MULTILINE)
    _check(made, tmp_path)


@pytest.mark.parametrize("output", ["/c/Add:0", "run", "größe", "x_count"])
def test_outputs_of_any_name(output: str, tmp_path: Path) -> None:
    _check(_compiled(tmp_path / "source.onnx", tmp_path / "net", "x", output=output), tmp_path)


@pytest.mark.parametrize("prefix", ["example", "q16", "n"])
def test_prefixes_that_main_could_use(prefix: str, tmp_path: Path) -> None:
    ids = prefix != "q16"
    _check(
        _compiled(tmp_path / "source.onnx", tmp_path / "net", "tokens", tokens=ids, prefix=prefix), tmp_path
    )


@pytest.mark.parametrize("file", ["größe * what??", "line\nbreak \\", "other encoding \udcff"], ids=ascii)
def test_files_and_labels_of_any_name(file: str, tmp_path: Path) -> None:
    labels = ["*/", "/*", "größe \\", "two\nlines ??/", '"%s']
    made = _compiled(tmp_path / f"{file}.onnx", tmp_path / "net", "x", labels=labels)
    assert made.metadata["model"]["source"] == f"from {file}.onnx"
    assert made.labels == tuple(labels)
    _check(made, tmp_path)

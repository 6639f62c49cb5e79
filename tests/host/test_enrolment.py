"""`tvmtiny run --enrol`: the label of the nearest example by the cosine of the model's outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_cases import CASES, VOCABULARY, shared
from typer.testing import CliRunner

from tvmtiny.artifact import Artifact
from tvmtiny.cli import app
from tvmtiny.cli.enrolment import read_text_examples
from tvmtiny.compiler import compile as compile_model
from tvmtiny.errors import UserError
from tvmtiny.frontend.text_file import read_lines

RANDOM = np.random.default_rng(3)
INTENT = Path(__file__).parents[2] / "examples" / "intent"


@pytest.fixture(scope="module")
def sentence(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return shared(tmp_path_factory, "sentence", "qemu-m4")


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["run", *map(str, arguments), "--on", "host"], env={"COLUMNS": "150"})


def data(path: Path, count: int, **further: Any) -> Path:
    ids = RANDOM.integers(0, VOCABULARY, (count, CASES["sentence"].tokens))
    np.savez(path, ids=ids, n_tokens=RANDOM.integers(1, 10, count), **further)
    return path


def cosines(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    return (rows @ others.T) / np.linalg.norm(rows, axis=1)[:, None] / np.linalg.norm(others, axis=1)


def embeddings(directory: Path, path: Path) -> np.ndarray:
    """The model's own outputs, without enrolment."""
    rows = json.loads(invoke(directory, "--input", path, "--json").stdout)["rows"]
    return np.array([next(iter(row["outputs"].values())) for row in rows], np.float64).reshape(len(rows), -1)


@pytest.mark.parametrize("by_mean", [False, True])
def test_labels_are_those_of_the_nearest(sentence: Artifact, by_mean: bool, tmp_path: Path) -> None:
    labels = np.array(["red", "green", "red", "blue", "green", "blue"])
    enrol = data(tmp_path / "enrol.npz", 6, labels=labels)
    test = data(tmp_path / "test.npz", 20, labels=RANDOM.choice(labels, 20))
    flags = ["--by-mean"] if by_mean else []
    result = invoke(sentence.directory, "--enrol", enrol, "--input", test, "--json", *flags)
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    known, rows = embeddings(sentence.directory, enrol), embeddings(sentence.directory, test)
    names = np.array(["red", "green", "blue"])
    if by_mean:
        units = known / np.linalg.norm(known, axis=1)[:, None]
        known, labels = np.stack([units[labels == name].mean(axis=0) for name in names]), names
    similarity = cosines(rows, known)
    assert report["bit_exact"] is True
    assert [row["label"] for row in report["rows"]] == labels[similarity.argmax(axis=1)].tolist()
    found = np.array([row["similarity"] for row in report["rows"]])
    np.testing.assert_allclose(found, similarity.max(axis=1), atol=1e-3)
    with np.load(test) as arrays:
        right = np.mean(arrays["labels"] == labels[similarity.argmax(axis=1)])
    assert report["accuracy"] == pytest.approx(right)


def test_an_example_is_found_again_and_a_stranger_is_unknown(sentence: Artifact, tmp_path: Path) -> None:
    enrol = data(tmp_path / "enrol.npz", 3, labels=["a", "b", "c"])
    same = json.loads(invoke(sentence.directory, "--enrol", enrol, "--input", enrol, "--json").stdout)
    assert [row["label"] for row in same["rows"]] == ["a", "b", "c"]
    assert same["accuracy"] == 1.0
    other = data(tmp_path / "other.npz", 5)
    shown = invoke(sentence.directory, "--enrol", enrol, "--input", other, "--least-similarity", "1")
    assert shown.stdout.count("(unknown)") == 5
    assert "similarity" in shown.stdout


def test_examples_need_labels(sentence: Artifact, tmp_path: Path) -> None:
    enrol = data(tmp_path / "enrol.npz", 3)
    result = invoke(sentence.directory, "--enrol", enrol, "--input", enrol)
    assert result.exit_code == 2
    assert "has no `labels`" in result.stderr


def test_an_embedding_shows_no_classes(sentence: Artifact, tmp_path: Path) -> None:
    result = invoke(sentence.directory, "--input", data(tmp_path / "test.npz", 3))
    assert result.exit_code == 0
    assert "predicted" not in result.stdout


def test_texts_are_enrolled_by_their_tokens(tmp_path: Path) -> None:
    """Any row will do: here the logits of the shipped classifier."""
    made = compile_model(
        INTENT / "model.onnx",
        target="host",
        calibration=INTENT / "calibration.npz",
        tokenizer=INTENT / "tokenizer.json",
        output=tmp_path / "intent",
    )
    examples = tmp_path / "examples.txt"
    examples.write_text("weather\twill it rain in Paris tomorrow\nmusic\tplay some jazz\n")
    texts = ["--text", "is it sunny in Rome", "--text", "put on a rock song"]
    result = invoke(made.directory, "--enrol", examples, *texts, "--json")
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)["rows"]
    assert [(row["label"], row["text"]) for row in rows] == [("weather", texts[1]), ("music", texts[3])]
    examples.write_text("no tab\n")
    refused = invoke(made.directory, "--enrol", examples, *texts)
    assert refused.exit_code == 2
    assert "LABEL<TAB>TEXT" in refused.stderr


def test_options_without_effect_are_refused_by_name(sentence: Artifact, tmp_path: Path) -> None:
    samples = ("--input", data(tmp_path / "test.npz", 1))
    for options, named in (
        (("--generate", 3, "--ids", "1", "--repeat", 2, "--power", "trace.csv"), "--repeat, --power"),
        ((*samples, "--top-k", 3, "--seed", 1), "--top-k, --seed"),
        ((*samples, "--by-mean", "--least-similarity", 0.5), "--by-mean, --least-similarity"),
    ):
        result = invoke(sentence.directory, *options)
        assert result.exit_code == 2
        assert named in result.stderr


def test_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "examples.txt"
    path.write_bytes(b"b\xe9ton\tcaf\xe9")
    for read in (read_text_examples, read_lines):
        with pytest.raises(UserError, match="is not UTF-8 text"):
            read(path)

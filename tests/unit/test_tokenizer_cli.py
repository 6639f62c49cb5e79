"""`tvmtiny tokenizer`: what the commands write and say."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizer_cases import EXAMPLE
from typer.testing import CliRunner

from tvmtiny.cli import app
from tvmtiny.tokenizer.spec import load_spec

TOKENIZER = str(EXAMPLE / "tokenizer.json")
CORPUS = str(EXAMPLE / "utterances.txt")


def call(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["tokenizer", *arguments])


def report(*arguments: str) -> dict[str, Any]:
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "bytes", "chars"])
def test_train_and_check(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "new" / "tok.json"
    made = report("train", CORPUS, "--kind", kind, "--vocab", "400", "--max-tokens", "20", "-o", str(path))
    spec = load_spec(path)
    assert made == {"file": str(path), "kind": kind, "vocabulary": spec.size}
    assert spec.kind == kind
    assert spec.max_tokens == 20
    assert spec.size <= 400
    checked = report("check", str(path), "--corpus", CORPUS, "--fuzz", "300")
    assert checked["equal"] == checked["texts"] == 580
    assert checked["rows"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", CORPUS, "--kind", "morse"], "Unknown tokenizer kind 'morse'"),
        (["train", CORPUS, "--kind", "bpe", "--vocab", "10"], "A vocabulary of 10 pieces; bpe takes 260 to"),
        (["train", "nothing.txt", "--kind", "bpe"], "There is no corpus nothing.txt"),
        (["import", "nothing.model"], "There is no file nothing.model"),
        (["export", "nothing.json", "-o", "x"], "There is no tokenizer file nothing.json"),
        (["export", TOKENIZER, "-o", "x", "--name", "int"], "'int' cannot be a C prefix"),
        (["check", TOKENIZER], "There is nothing to compare"),
    ],
)
def test_wrong_input(arguments: list[str], message: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_import_repeats_a_tokenizer(tmp_path: Path) -> None:
    path = tmp_path / "tok.json"
    made = report("import", TOKENIZER, "-o", str(path))
    assert made["vocabulary"] == 1000
    assert json.loads(path.read_text("utf-8")) == json.loads(Path(TOKENIZER).read_text("utf-8"))


def test_export_writes_what_it_lists(tmp_path: Path) -> None:
    made = report("export", TOKENIZER, "-o", str(tmp_path / "text"), "--max-tokens", "16")
    assert made["max_tokens"] == 16
    for source in made["sources"]:
        assert (tmp_path / "text" / source).is_file()
    assert made["sources"][0] == "text_tokenizer.c"
    assert (tmp_path / "text" / "include" / "tvmt_tokenizer.h").is_file()


def test_only_training_and_checking_need_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    report("import", TOKENIZER, "-o", str(tmp_path / "tok.json"))
    report("export", TOKENIZER, "-o", str(tmp_path / "text"))
    for arguments in (["check", TOKENIZER, "--fuzz", "1"], ["train", CORPUS, "--kind", "bpe"]):
        result = call(*arguments)
        assert result.exit_code == 1
        assert "pip install 'tvmtiny[tokenizer]'" in result.stderr


def test_a_difference_is_exit_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    from tvmtiny.tokenizer.host import HostTokenizer

    monkeypatch.setattr(HostTokenizer, "encode", lambda self, parts, capacity: [7])
    result = call("check", TOKENIZER, "--corpus", CORPUS)
    assert result.exit_code == 1
    assert "280 texts have other ids" in result.stderr


def test_prune_writes_model_and_tokenizer(tmp_path: Path) -> None:
    files = ["--tokenizer", TOKENIZER, "--corpus", CORPUS]
    made = report("prune", str(EXAMPLE / "model.onnx"), *files, "-o", str(tmp_path), "--minimum", "3")
    assert made["vocabulary_after"] < made["vocabulary_before"]
    assert made["accuracy_before"] is made["accuracy_after"] is None  # without --labels
    assert load_spec(tmp_path / "tokenizer.json").size == made["vocabulary_after"]
    assert (tmp_path / "model.onnx").stat().st_size < (EXAMPLE / "model.onnx").stat().st_size

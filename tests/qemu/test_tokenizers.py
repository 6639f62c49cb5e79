"""Tokenizers on emulated cores: the library's ids, what they cost, and models that take text."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from tokenizer_cases import EXAMPLE, MULTILINGUAL, case
from typer.testing import CliRunner

from tvmtiny.artifact import Artifact
from tvmtiny.cli import app
from tvmtiny.compiler import compile as compile_model
from tvmtiny.errors import UserError
from tvmtiny.tokenizer.firmware import measure
from tvmtiny.tokenizer.fuzz import fuzz_texts
from tvmtiny.tokenizer.library import LibraryTokenizer
from tvmtiny.tokenizer.spec import parse_spec
from tvmtiny.tokenizer.stats import corpus_stats, device_stats
from tvmtiny.tokenizer.tables import build_tables
from tvmtiny.tokenizer.text_run import run_texts

pytestmark = pytest.mark.qemu


@pytest.mark.parametrize("target", ["qemu-m0", "qemu-m4"])
@pytest.mark.parametrize("name", ["shipped", "byte_level", "metaspace_never", "characters"])
def test_a_core_gives_the_ids_of_the_library(name: str, target: str) -> None:
    tables = build_tables(parse_spec(case(name)))
    fuzzed = [text for text in fuzz_texts(tables.spec, 60, seed=2) if len(text) < 500]
    texts = [*(text.encode() for text in MULTILINGUAL), b"", *fuzzed]
    measured = measure(tables, texts, on="qemu", target=target)
    assert measured.ids == LibraryTokenizer(case(name), tables).encode(texts)


def test_the_example_keeps_its_budget() -> None:
    """Of a thousand pieces: 12 KB of flash with code and tables, 600 bytes of RAM, 400 instructions a byte."""
    tables = build_tables(parse_spec(case("shipped")))
    lines = (EXAMPLE / "utterances.txt").read_text("utf-8").splitlines()
    texts = [line.partition("\t")[2].encode() for line in lines]
    measured, count = device_stats(tables, texts, "qemu-m4")
    assert measured.code_bytes + measured.table_bytes < 12 * 1024
    assert measured.state_bytes + 2 * tables.max_tokens < 600
    assert measured.instructions is not None
    assert measured.instructions < 400 * count


def test_stats_count_what_the_library_gives() -> None:
    tables = build_tables(parse_spec(case("shipped")))
    texts = [b"play some jazz", "ж and ☂".encode(), b"word " * 40]
    found = corpus_stats(tables, texts)
    uncut = dataclasses.replace(tables, max_tokens=1000)
    rows = LibraryTokenizer(case("shipped"), uncut).encode(texts)
    assert (found.texts, found.bytes, found.vocabulary) == (3, sum(map(len, texts)), 1000)
    assert (found.tokens, found.longest_text_tokens) == (sum(map(len, rows)), max(map(len, rows)))
    assert found.truncated == 1 / 3
    assert found.unknown == sum(row.count(1) for row in rows) / found.tokens > 0


@pytest.fixture(scope="module")
def intent(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The shipped model with its tokenizer."""
    return compile_model(
        EXAMPLE / "model.onnx",
        target="qemu-m4",
        calibration=EXAMPLE / "calibration.npz",
        labels=EXAMPLE / "labels.txt",
        tokenizer=EXAMPLE / "tokenizer.json",
        output=tmp_path_factory.mktemp("text") / "intent",
    )


def test_a_model_takes_text(intent: Artifact) -> None:
    arguments = [
        "run",
        str(intent.directory),
        "--on",
        "qemu",
        "--text",
        "play some jazz",
        "--text",
        "ZÜRICH ☂?",
    ]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["bit_exact"]
    assert [row["text"] for row in report["rows"]] == ["play some jazz", "ZÜRICH ☂?"]
    assert report["rows"][0]["label"] == "PlayMusic"
    assert report["n_tokens"] == 5


@pytest.mark.parametrize("on", ["host", "qemu"])
def test_texts_run_like_their_tokens(intent: Artifact, on: str) -> None:
    lines = (EXAMPLE / "sample_utterances.txt").read_text("utf-8").splitlines()
    texts = [line.partition("\t")[2] for line in lines]
    done = run_texts(intent, [*texts, "", "word " * 60], on, timeout_s=60)
    assert done.checked
    assert done.samples[-1].n_tokens == intent.max_tokens == 32
    assert done.tokens[-2] == ["[CLS]", "[SEP]"]


def test_metadata_describes_the_tokenizer(intent: Artifact) -> None:
    about = intent.metadata["tokenizer"]
    assert (about["kind"], about["input"], about["vocabulary"]) == ("wordpiece", "input_ids", 1000)
    assert (intent.directory / about["file"]).is_file()
    page = (Path(__file__).parents[2] / "docs" / "tokenizers.md").read_text("utf-8")
    assert not [field for field in about if f"`{field}`" not in page]


def test_texts_that_cannot_run(intent: Artifact, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has 600 bytes; 512 are possible"):
        run_texts(intent, ["x" * 600], "host", timeout_s=60)
    both = ["run", str(intent.directory), "--text", "a", "--input", str(EXAMPLE / "sample.npz")]
    result = CliRunner().invoke(app, both)
    assert result.exit_code == 2
    assert "--text stands in place of --input" in result.stderr

"""The models of the slots example, as they ship: compiled from their directories they keep their memory and sense."""

from __future__ import annotations

from pathlib import Path

import pytest

from tvmtiny.compiler import compile as compile_model
from tvmtiny.compress.directory import read_options
from tvmtiny.evaluate import evaluate, load_dataset, metrics_of

pytestmark = pytest.mark.qemu

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_intent_model_keeps_its_24_kilobytes(tmp_path: Path) -> None:
    """On utterances that were not trained on, with text on the device, all code and tables counted."""
    options = read_options(EXAMPLES / "slots" / "intent_24k")
    artifact = compile_model(**options, output=tmp_path / "model")
    table = tmp_path / "own.tsv"
    table.write_bytes((EXAMPLES / "intent" / "sample_utterances.txt").read_bytes())
    data = load_dataset(artifact, table)
    found = evaluate(artifact, data, metrics_of(artifact, data), on="qemu", jobs=1)
    assert found.flash is not None
    assert found.flash.tokenizer_bytes > 0
    assert found.flash.flash_bytes <= 24 * 1024
    assert found.ram_bytes is not None
    assert found.ram_bytes <= 8 * 1024
    assert found.metrics["accuracy"] >= 0.85


def test_the_model_with_slots_keeps_its_64_kilobytes(tmp_path: Path) -> None:
    """It names intents and finds slots, on the emulated core, in utterances of this project."""
    options = read_options(EXAMPLES / "slots" / "slots_64k")
    artifact = compile_model(**options, output=tmp_path / "model")
    table = tmp_path / "own.tsv"
    table.write_bytes((EXAMPLES / "intent" / "sample_utterances.txt").read_bytes())
    data = load_dataset(artifact, table)
    found = evaluate(artifact, data, metrics_of(artifact, data), on="qemu", jobs=1)
    assert found.flash is not None
    assert found.flash.tokenizer_bytes > 0
    assert found.flash.flash_bytes <= 64 * 1024
    assert found.metrics["intent.accuracy"] >= 0.85

"""The small model of the slots example, as it ships: compiled from its directory it keeps its memory and its sense."""

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

"""The recipe of the intent example, on utterances of its own: what it makes takes the place of what ships."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

pytest.importorskip("torch")
pytest.importorskip("tokenizers")
pytest.importorskip("onnxruntime")

sys.path.append(str(Path(__file__).parents[2] / "examples" / "slots"))

import corpus

from tvmtiny.ablate.variants import load_variants
from tvmtiny.compress.checks import check_task
from tvmtiny.compress.export import to_onnx
from tvmtiny.compress.recipe import load_recipe

INTENT = Path(__file__).parents[2] / "examples" / "intent"
RECIPE = INTENT / "recipe.toml"


@pytest.fixture(autouse=True)
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the data's loader writes goes to a directory of the test."""
    monkeypatch.setattr(corpus, "BUILD", tmp_path)
    corpus.load.cache_clear()
    yield
    corpus.load.cache_clear()


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """280 utterances to train on, 14 to test on."""
    for name, source in (("train", "utterances"), ("validation", "sample_utterances")):
        text = (INTENT / f"{source}.txt").read_text("utf-8")
        (tmp_path / f"{name}.tsv").write_text(f"intent\ttext\n{text}", "utf-8")
    monkeypatch.setenv("SNIPS", str(tmp_path))


def sizes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Of inputs and outputs, by name."""
    return {
        value.name: [size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }


def test_every_variant_can_be_trained(data: None) -> None:
    for variant in load_variants(RECIPE):
        task = variant.recipe.task(0)
        check_task(task, task.model())


def test_its_model_has_the_inputs_outputs_and_labels_of_the_one_that_ships(data: None) -> None:
    task = load_recipe(RECIPE).task(0)
    assert sizes(to_onnx(task.model().eval(), task)) == sizes(onnx.load(INTENT / "model.onnx"))
    assert task.files["labels"] == (INTENT / "labels.txt").read_text("utf-8").split()
    assert list(task.test.targets) == ["labels"]


def test_pieces_become_the_unknown_one_at_random_but_special_ones_do_not(data: None) -> None:
    task = load_recipe(RECIPE).task(0)
    rows = corpus.load(1000, 32)
    whole = {tuple(ids[mask > 0]) for ids, mask in zip(*rows.encode(rows.fitting)[0].values(), strict=True)}
    unknown, words = 0, 0
    for inputs, _ in task.batches():
        for ids, mask in zip(inputs["input_ids"].numpy(), inputs["attention_mask"].numpy(), strict=True):
            found = ids[mask > 0]
            assert any(
                len(row) == len(found) and all(a in (b, 1) for a, b in zip(found, row, strict=True))
                for row in whole
            )
            assert (found[0], found[-1]) == (2, 3)
            unknown += int((found == 1).sum())
            words += len(found) - 2
    assert unknown / words == pytest.approx(0.2, abs=0.05)


@pytest.mark.skipif("SNIPS" not in os.environ, reason="SNIPS names no directory of the data")
def test_tokenizer_and_calibration_that_ship_are_those_of_the_recipe() -> None:
    task = load_recipe(RECIPE).task(0)
    assert Path(task.files["tokenizer"]).read_bytes() == (INTENT / "tokenizer.json").read_bytes()
    with np.load(INTENT / "calibration.npz") as shipped:
        for name, values in task.calibration.items():
            np.testing.assert_array_equal(shipped[name], values)

"""--int16: which layers can be int16, why others cannot, and what the choice that --verify suggests brings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import tvm
from model_cases import CASES, Encoder, _case, compiled, shared
from models import E, OnnxBuilder
from typer.testing import CliRunner

from tvmtiny.cli import app
from tvmtiny.cli.compile import parse_layers
from tvmtiny.errors import UserError
from tvmtiny.frontend import import_model
from tvmtiny.passes.graph import Graph
from tvmtiny.passes.int16_layers import candidates, int16_layers
from tvmtiny.passes.pipeline import fusion_passes
from tvmtiny.passes.residual_stream import residual_stream

SUMS = ["positions", "attention0_sum", "ffn0_sum", "attention1_sum"]
OUTLIERS = Encoder(tokens=20, embedding=16, hidden=24, layers=3, pre_norm=True, outliers=50.0)


def _graph(model: Any, folder: Path) -> Graph:
    path = models.save(model, folder / "model.onnx")
    return Graph(tvm.transform.Sequential(fusion_passes())(import_model(path))["main"])


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """A pre-LayerNorm encoder; the classifier pools the last sum, which the tagger multiplies."""
    encoder = Encoder(tokens=5, embedding=8, hidden=12, layers=2, pre_norm=True, final="", tags=3)
    return _graph(encoder.model(), tmp_path_factory.mktemp("graph"))


def _chosen(graph: Graph, *names: str, residual: str = "int8") -> list[str]:
    return [var.name for var in int16_layers(graph, residual, names)]


class TestChoice:
    def test_takes_names_in_the_order_of_the_model(self, graph: Graph) -> None:
        assert _chosen(graph, "ffn0_sum", "positions") == ["positions", "ffn0_sum"]

    def test_takes_patterns(self, graph: Graph) -> None:
        assert _chosen(graph, "attention*") == ["attention0_sum", "attention1_sum"]
        assert _chosen(graph, "*") == [var.name for var in candidates(graph)]

    def test_reaches_further_than_the_residual_stream(self, graph: Graph) -> None:
        """What a product reads, too, is not of the stream; it may be int16 beside an int8 copy."""
        assert [var.name for var in residual_stream(graph)] == SUMS
        assert [var.name for var in candidates(graph)] == [*SUMS, "ffn1_sum"]

    def test_adds_to_the_residual_stream(self, graph: Graph) -> None:
        assert _chosen(graph, "ffn1_sum", residual="int16") == [*SUMS, "ffn1_sum"]

    def test_of_a_pooled_row_needs_its_source(self, tmp_path: Path) -> None:
        encoder = Encoder(tokens=5, embedding=8, hidden=12, pre_norm=True, final="after")
        pooling = _graph(encoder.model(), tmp_path)
        assert _chosen(pooling, "ffn0_sum", "pool") == ["ffn0_sum", "pool"]
        with pytest.raises(UserError, match="'ffn0_sum' would have to be int16"):
            _chosen(pooling, "pool")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("attention0_norm", "ends in a normalization"),
        ("classifier_out", "a result of the model"),
        ("tagg*", "a result of the model"),
    ],
)
def test_others_are_refused_with_what_can_be(graph: Graph, name: str, why: str) -> None:
    with pytest.raises(UserError, match=why) as caught:
        _chosen(graph, name)
    assert "'ffn1_sum'" in caught.value.remedy


def test_what_only_products_read_is_refused(graph: Graph) -> None:
    with pytest.raises(UserError, match="nothing adds, normalizes or pools its result"):
        _chosen(graph, "pool", "ffn1_sum")


def test_an_unknown_layer_is_answered_with_the_nearest(graph: Graph) -> None:
    with pytest.raises(UserError, match="no layer 'ffn0_sun'") as caught:
        _chosen(graph, "ffn0_sun")
    assert "'ffn0_sum'" in caught.value.remedy


@pytest.mark.parametrize(
    ("activated", "why"), [(True, "table of int8 values"), (False, "plain operator")], ids=["table", "plain"]
)
def test_tables_and_plain_operators_are_refused(activated: bool, why: str, tmp_path: Path) -> None:
    build = OnnxBuilder(18)
    x = build.dense(build.input("x", [1, 6, 3]), 3, E, "patches")
    y = build.node("Tanh", [x], "chosen") if activated else build.node("Mul", [x, x], "chosen")
    x = build.node("Add", [y, build.dense(models._layer_norm(build, y, "norm"), E, E, "branch")], "sum")
    other = _graph(build.model(build.dense(x, E, 2, "classifier"), [1, 6, 2]), tmp_path)
    with pytest.raises(UserError, match=why):
        _chosen(other, "chosen")


def test_a_model_in_which_none_can_be_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be int16") as caught:
        _chosen(_graph(models.sensor_model(), tmp_path), "*")
    assert "no layer that could" in caught.value.remedy


def test_a_copy_for_products_is_rounded_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The tagger and the pooling read ffn1_sum; the copy is one operator, and sums read the int16 tensor itself."""
    made = shared(tmp_path_factory, "int16_layers", "qemu-m4")
    rows = {row["name"]: row for row in made.metadata["operators"]}
    assert made.metadata["residual"]["tensors"] == ["positions", "ffn0_sum", "ffn1_sum"]
    assert [name for name, row in rows.items() if row["variant"] == "rounding"] == ["ffn1_sum_int8"]
    assert "tvmt_add_residual_s16_s32" in rows["attention0_sum"]["microkernels"]
    assert "tvmt_requantize_s32_s16" in rows["ffn0_sum"]["microkernels"]
    assert "tvmt_mean_s16_s32" in rows["pool"]["microkernels"]


def test_what_verify_suggests_brings_the_layers_that_lose_most_back(tmp_path: Path) -> None:
    """A user reads the advice, gives it as the option, and has ten decibels more where the outliers are."""
    case = _case("outliers", OUTLIERS)
    data = case.calibration()
    before = compiled(case, tmp_path / "before", verify=data).metadata["quality"]["verification"]
    advised = [found for row in before["advice"] if (found := re.search(r"--int16 (\S+)", row["message"]))]
    names = parse_layers([advised[0][1]])
    after_made = compiled(case, tmp_path / "after", verify=data, int16=names)
    after = after_made.metadata["quality"]["verification"]
    assert after_made.metadata["residual"]["tensors"] == names
    assert set(names) < {var.name for var in residual_stream(_graph(OUTLIERS.model(), tmp_path))}

    def worst(found: dict[str, Any]) -> float:
        return min(row["snr_db"] for row in found["layers"] if row["name"].endswith("_norm"))

    assert worst(after) > worst(before) + 10
    assert not any("--int16" in row["message"] for row in after["advice"])


def test_the_command_takes_names(tmp_path: Path) -> None:
    case = CASES["int16_layers"]
    path = models.save(case.model(), tmp_path / "model.onnx")
    np.savez(tmp_path / "calibration.npz", **case.calibration())
    options = ["compile", path, "--target", "host", "--calibration", tmp_path / "calibration.npz"]
    options += ["--int16", "positions,ffn0_sum", "--int16", "ffn1*", "-o", tmp_path / "out"]
    run = CliRunner().invoke(app, [*map(str, options)], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert run.exit_code == 0, run.stderr
    assert "In int16: positions, ffn0_sum, ffn1_sum (3 tensors" in run.stdout


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(UserError, match="empty name"):
        parse_layers(["a,,b"])

"""The residual stream: which tensors it is, what it costs in the arena, and models that have none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
import tvm
from model_cases import CASES, Case, Encoder, _case, compiled, shared
from models import E, OnnxBuilder

from tvmtiny.artifact import Artifact
from tvmtiny.compiler import compile as compile_model
from tvmtiny.errors import UserError
from tvmtiny.frontend import import_model
from tvmtiny.passes.graph import Graph
from tvmtiny.passes.pipeline import fusion_passes
from tvmtiny.passes.residual_stream import residual_stream

SUMS = ["positions", "attention0_sum", "ffn0_sum", "attention1_sum"]


def _stream(model: Any, tmp_path: Path) -> list[str]:
    path = models.save(model, tmp_path / "model.onnx")
    fused = tvm.transform.Sequential(fusion_passes())(import_model(path))
    return [var.name for var in residual_stream(Graph(fused["main"]))]


def _encoder(**options: Any) -> Any:
    return Encoder(tokens=5, embedding=8, hidden=12, layers=2, **options).model()


def _branch(build: OnnxBuilder, x: str, name: str) -> str:
    """x + dense(norm(x))."""
    inner = build.dense(models._layer_norm(build, x, f"{name}_norm"), E, E, name)
    return build.node("Add", [x, inner], f"{name}_sum")


class TestMembers:
    """The last sum of `Encoder` goes through a LayerNorm at once, so that it is never rounded at all."""

    def test_are_the_sums_between_layer_norms(self, tmp_path: Path) -> None:
        assert _stream(_encoder(pre_norm=True), tmp_path) == SUMS

    def test_are_the_last_sum_too_where_it_is_pooled_and_nothing_follows(self, tmp_path: Path) -> None:
        encoder = _encoder(pre_norm=True, final="")
        assert _stream(encoder, tmp_path) == [*SUMS, "ffn1_sum"]

    @pytest.mark.parametrize("pooling", ["mean", "first"])
    def test_are_what_is_pooled_where_a_layer_norm_follows(self, pooling: str, tmp_path: Path) -> None:
        encoder = _encoder(pre_norm=True, final="after", pooling=pooling)
        assert _stream(encoder, tmp_path) == [*SUMS, "ffn1_sum", "pool"]

    def test_are_projected_features(self, tmp_path: Path) -> None:
        assert _stream(_encoder(pre_norm=True, features=3), tmp_path) == SUMS

    def test_are_none_behind_post_layer_norms(self, tmp_path: Path) -> None:
        assert _stream(_encoder(), tmp_path) == []

    def test_are_none_without_sums(self, tmp_path: Path) -> None:
        assert _stream(models.sensor_model(), tmp_path) == []

    def test_are_not_what_a_product_reads(self, tmp_path: Path) -> None:
        """The tagger reads the last sum as it is, beside the pooling."""
        encoder = _encoder(pre_norm=True, final="", tags=3)
        assert _stream(encoder, tmp_path) == SUMS

    def test_are_not_results(self, tmp_path: Path) -> None:
        build = OnnxBuilder(18)
        x = build.dense(build.input("x", [1, 6, 3]), 3, E, "patches")
        x = _branch(build, _branch(build, x, "one"), "two")
        assert _stream(build.model(x, [1, 6, E]), tmp_path) == ["patches", "one_sum"]

    def test_are_not_what_is_read_in_another_order(self, tmp_path: Path) -> None:
        build = OnnxBuilder(18)
        x = build.dense(build.input("x", [1, E, 3]), 3, E, "patches")
        turned = build.node("Transpose", [x], perm=[0, 2, 1])
        x = build.node("Add", [x, build.dense(turned, E, E, "mixer")], "sum")
        x = _branch(build, x, "one")
        x = build.node("ReduceMean", [x, build.constant([1], np.int64)], "pool", keepdims=0)
        assert _stream(build.model(build.dense(x, E, 2, "classifier"), [1, 2]), tmp_path) == [
            "sum",
            "one_sum",
        ]


@pytest.fixture(scope="module")
def widths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """One encoder with both types of the stream. The arena is largest in attention, where the stream is live."""
    encoder = _case("encoder", Encoder(tokens=20, embedding=16, hidden=24, pre_norm=True))
    folder = tmp_path_factory.mktemp("widths")
    return {dtype: compiled(encoder, folder / dtype, residual=dtype) for dtype in ("int8", "int16")}


class TestArena:
    def test_grows_by_tokens_times_embedding(self, widths: dict[str, Artifact]) -> None:
        assert widths["int16"].arena_bytes - widths["int8"].arena_bytes == 20 * 16
        assert widths["int16"].metadata["residual"]["extra_bytes"] == 20 * 16

    def test_holds_sums_in_place_of_sums(self, widths: dict[str, Artifact]) -> None:
        """The int8 result of the LayerNorm dies in the same step, and comes first among a branch's arguments."""
        rows = {row["name"]: row for row in widths["int16"].metadata["arena"]["plan"]}
        assert rows["attention0_sum"]["in_place_of"] == "positions"
        assert rows["attention0_sum"]["bytes"] == rows["positions"]["bytes"] == 2 * 20 * 16
        assert rows["attention0_sum"]["first_step"] == rows["positions"]["last_step"]

    def test_may_hold_a_narrower_result_in_place_of_the_stream(
        self, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        """tests/qemu/test_whole_models.py runs this model: rows of int8 do not reach rows of int16 still to be read."""
        made = shared(tmp_path_factory, "wide_first", "qemu-m4")
        rows = {row["name"]: row for row in made.metadata["arena"]["plan"]}
        assert rows["final"]["in_place_of"] == "ffn1_sum"
        assert (rows["final"]["bytes"], rows["ffn1_sum"]["bytes"]) == (200, 400)


class TestSwitch:
    def test_is_reported(self, widths: dict[str, Artifact]) -> None:
        assert widths["int8"].metadata["residual"] == {"dtype": "int8", "tensors": [], "extra_bytes": 0}
        assert widths["int16"].metadata["residual"]["dtype"] == "int16"
        assert widths["int16"].metadata["residual"]["tensors"] == SUMS[:2]

    def test_keeps_products_in_int8(self, widths: dict[str, Artifact]) -> None:
        """Both models multiply the same, and only the one with int16 has its micro-kernels."""
        kernels = {
            dtype: {name for row in made.metadata["operators"] for name in row["microkernels"]}
            for dtype, made in widths.items()
        }
        assert (
            kernels["int16"] - kernels["int8"]
            == {"tvmt_add_residual_s16_s32", "tvmt_requantize_s32_s16"} - kernels["int8"]
        )
        assert {name for name in kernels["int8"] if "dense" in name} <= kernels["int16"]

    @pytest.mark.parametrize("name", ["post_norm", "sensor"])
    def test_is_refused_where_there_is_no_stream(self, name: str, tmp_path: Path) -> None:
        case: Case = CASES[name]
        with pytest.raises(UserError, match="no residual stream that could be int16") as caught:
            compiled(case, tmp_path / "model", residual="int16")
        assert "--residual int8" in caught.value.remedy
        assert not (tmp_path / "model").exists()

    def test_is_refused_when_its_type_is_unknown(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="type of the residual stream 'int32'") as caught:
            compile_model("absent.onnx", target="host", residual="int32", output=tmp_path / "model")
        assert "int8, int16" in caught.value.remedy

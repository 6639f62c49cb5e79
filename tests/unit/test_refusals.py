"""What cannot be compiled is refused by the name of a node, with the family that it resembles and the nearest form.

Each row of tvmtiny/passes/resemblance.py comes out for a real small model, and stands in docs/model-families.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tvm
from models import E, OnnxBuilder, S, save
from onnx import TensorProto, helper

from tvmtiny.errors import UnsupportedOperators, UserError
from tvmtiny.frontend import import_model
from tvmtiny.frontend.supported import check_fused
from tvmtiny.passes.pipeline import fusion_passes
from tvmtiny.passes.resemblance import BY_USE, RESEMBLANCES, Resemblance, resemblance

PAGE = Path(__file__).parents[2] / "docs" / "model-families.md"


def error(model: onnx.ModelProto | Any, tmp_path: Path) -> UserError:
    """The error that import, fusion or the check raises; inspect reports the same."""
    source = save(model, tmp_path / "model.onnx") if isinstance(model, onnx.ModelProto) else model
    with pytest.raises(UserError) as caught:
        check_fused(tvm.transform.Sequential(fusion_passes())(import_model(source)))
    return caught.value


def after_a_layer(
    kind: str, *constants: Any, outputs: int = 1, image: bool = False, **attributes: Any
) -> onnx.ModelProto:
    """An operator behind a dense layer of features (1, S, 6), or behind an image (1, 2, 8, 8)."""
    build = OnnxBuilder(18)
    x = build.input("x", [1, 2, 8, 8] if image else [1, S, 6])
    x = x if image else build.dense(x, 6, E, "first")
    names = [
        build.constant(
            value, np.asarray(value).dtype if np.asarray(value).dtype != np.float64 else np.float32
        )
        if value is not None
        else ""
        for value in constants
    ]
    y = build.node(kind, [x, *names], "the_node", **attributes)
    if outputs > 1:
        build.nodes[-1].output.extend([f"more_{i}" for i in range(outputs - 1)])
    real = build.node("Cast", [y], to=TensorProto.FLOAT)
    build.nodes.append(helper.make_node("Relu", [real], ["result"], "last"))
    result = helper.make_tensor_value_info("result", TensorProto.FLOAT, ["a", "b", "c"])
    graph = helper.make_graph(build.nodes, "test", build.inputs, [result], build.initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def control_flow() -> onnx.ModelProto:
    build = OnnxBuilder(18)
    x = build.input("x", [1, 6])
    result = helper.make_tensor_value_info("r", TensorProto.FLOAT, [1, 6])
    branch = helper.make_graph([helper.make_node("Relu", [x], ["r"])], "branch", [], [result])
    y = build.node("If", [build.constant(True, bool)], "the_node", then_branch=branch, else_branch=branch)
    return build.model(y, [1, 6])


def gru() -> onnx.ModelProto:
    weights = [np.ones((1, 3 * E, E), np.float32)] * 2
    return after_a_layer("GRU", *weights, hidden_size=E, layout=1)


MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    "GRU": gru,
    "NonZero": lambda: after_a_layer("NonZero"),
    "TopK": lambda: after_a_layer("TopK", np.array([2], np.int64), outputs=2),
    "ArgMax": lambda: after_a_layer("ArgMax", axis=-1),
    "ScatterND": lambda: after_a_layer("ScatterND", np.zeros((1, 3), np.int64), np.ones(1, np.float32)),
    "DFT": lambda: after_a_layer("DFT", axis=1),
    "MaxPool": lambda: after_a_layer("MaxPool", kernel_shape=[2, 2], image=True),
    "InstanceNormalization": lambda: after_a_layer(
        "InstanceNormalization", np.ones(2, np.float32), np.ones(2, np.float32), image=True),
    "ConvTranspose": lambda: after_a_layer("ConvTranspose", np.ones((2, 2, 2, 2), np.float32), image=True),
    "If": control_flow,
}  # fmt: skip


@pytest.mark.parametrize("operator", MODELS)
def test_an_operator_tells_the_family(operator: str, tmp_path: Path) -> None:
    row = resemblance(operator)
    assert row is not None
    found = error(MODELS[operator](), tmp_path)
    assert "the_node" in found.message
    assert row.family in found.message
    assert row.nearest in found.remedy
    if isinstance(found, UnsupportedOperators):
        assert [entry.family for entry in found.rows] == [row.family]


def masked(use: Callable[[OnnxBuilder, str, str], str]) -> onnx.ModelProto:
    """Features (1, S, 6) and a mask (1, S) through a dense layer and `use`, then a mean and a classifier."""
    build = OnnxBuilder(18)
    x, mask = build.input("x", [1, S, 6]), build.input("mask", [1, S])
    y = use(build, build.dense(x, 6, E, "first"), mask)
    pooled = build.node("ReduceMean", [y, build.constant([1], np.int64)], keepdims=0)
    return build.model(build.dense(pooled, E, 3, "head"), [1, 3])


def attention(build: OnnxBuilder, x: str, mask: str | None) -> str:
    """One head; `mask` is added to the scores."""
    q, k, v = (build.dense(x, E, E, name) for name in "qkv")
    scores = build.node("MatMul", [q, build.node("Transpose", [k], perm=[0, 2, 1])])
    scores = build.node("Add", [scores, mask]) if mask else scores
    values = build.node("MatMul", [build.node("Softmax", [scores], "the_node", axis=-1), v])
    return build.dense(values, E, E, "out")


def mixing() -> onnx.ModelProto:
    def use(build: OnnxBuilder, x: str, mask: str) -> str:
        real = build.node("Unsqueeze", [mask, build.constant([1], np.int64)])
        removed = build.node("Mul", [build.node("Sub", [build.constant(1.0), real]), build.constant(-1e9)])
        x = attention(build, x, removed)
        turned = build.node("Transpose", [x], perm=[0, 2, 1])
        return build.node(
            "Transpose", [build.node("MatMul", [turned, build.weight(S, S)], "over_tokens")], perm=[0, 2, 1]
        )

    return masked(use)


def sparse() -> onnx.ModelProto:
    build = OnnxBuilder(18)
    x = build.dense(build.input("x", [1, S, 6]), 6, E, "first")
    distance = np.arange(S) - np.arange(S)[:, None]
    y = attention(build, x, build.constant(np.where(distance % 3 == 0, 0.0, -1e9)))
    return build.model(build.dense(y, E, 3, "head"), [1, S, 3])


def unusual_mask() -> onnx.ModelProto:
    return masked(
        lambda build, x, mask: build.node(
            "Mul", [x, build.node("Unsqueeze", [mask, build.constant([2], np.int64)])]
        )
    )


def two_masks() -> onnx.ModelProto:
    def use(build: OnnxBuilder, x: str, mask: str) -> str:
        second = build.input("second_mask", [1, S])
        both = build.node("Unsqueeze", [build.node("Mul", [mask, second]), build.constant([1], np.int64)])
        return attention(build, x, both)

    return masked(use)


USES = {
    "token mixing": mixing,
    "sparse": sparse,
    "of its own kind": unusual_mask,
    "cross-attention": two_masks,
}


@pytest.mark.parametrize("what", USES)
def test_a_use_tells_the_family(what: str, tmp_path: Path) -> None:
    (row,) = (row for row in BY_USE if what in row.family)
    found = error(USES[what](), tmp_path)
    assert row.family in found.message
    assert row.nearest in found.remedy


@pytest.mark.parametrize(
    ("torch_name", "onnx_name"),
    [
        ("scatter.src", "ScatterND"),
        ("aten.scatter.src", "ScatterND"),
        ("sort.stable", "TopK"),
        ("_unique2.default", "TopK"),
        ("max_pool2d_with_indices.default", "MaxPool"),
        ("std.correction", "InstanceNormalization"),
        ("native_group_norm.default", "InstanceNormalization"),
        ("upsample_nearest2d.vec", "ConvTranspose"),
        ("lstm.input", "GRU"),
        ("gru.data", "GRU"),
        ("image.resize2d", "ConvTranspose"),
        ("vision.non_max_suppression", "NonZero"),
    ],
)
def test_overloads_of_torch_tell_the_same_family(torch_name: str, onnx_name: str) -> None:
    assert resemblance(torch_name) == resemblance(onnx_name) is not None


def test_every_row_is_tested() -> None:
    assert {resemblance(operator) for operator in MODELS} == set(RESEMBLANCES)
    assert len(USES) == len(BY_USE)


@pytest.mark.parametrize("row", [*RESEMBLANCES, *BY_USE], ids=lambda row: row.family[:20])
def test_every_row_is_documented(row: Resemblance) -> None:
    page = " ".join(PAGE.read_text(encoding="utf-8").split())
    nearest = re.sub(r"^The nearest supported forms? (is|are) ", "", row.nearest).rstrip(".")
    assert f"| {row.family} | {nearest} |" in page


@pytest.mark.parametrize("equation", ["bij,bjk,bkl->bil", "bii->bi", "bij,kj->ik"])
def test_an_einsum_that_is_no_matrix_product_is_named(equation: str, tmp_path: Path) -> None:
    build = OnnxBuilder(18)
    x = build.dense(build.input("x", [1, S, 6]), 6, S, "first")
    count = equation.count(",") + 1
    y = build.node(
        "Einsum",
        [x] * (count - (equation == "bij,kj->ik")) + [build.weight(S, S)] * (equation == "bij,kj->ik"),
        "the_node",
        equation=equation,
    )
    found = error(build.model(y, ["a"]), tmp_path)
    assert "'the_node'" in found.message
    assert equation in found.message
    assert "bhid,bhjd->bhij" in found.message


@pytest.mark.parametrize(
    ("build", "operator"),
    [
        (lambda torch: torch.nn.LSTM(6, 4, batch_first=True), "lstm"),
        (lambda torch: torch.nn.MaxPool1d(2), "max_pool"),
    ],
)
def test_torch_programs_name_the_module(build: Any, operator: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.the_node = torch.nn.Linear(6, 6), build(torch)

        def forward(self, x: Any) -> Any:
            return self.the_node(self.first(x))

    found = error(torch.export.export(Model().eval(), (torch.zeros(1, 8, 6),)), tmp_path)
    assert "the_node" in found.message
    row = next(
        row for row in RESEMBLANCES if any(operator.replace("_", "") in name for name in row.operators)
    )
    assert row.family in found.message

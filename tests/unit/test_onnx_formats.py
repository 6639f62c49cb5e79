"""ONNX as tools write it: every opset, operators that stand for several, files that other tools have optimized."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import models
import numpy as np
import onnx
import onnxruntime
import pytest
import tvm
from models import E, H, S, save
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from tvm import relax

from tvmtiny.errors import UserError
from tvmtiny.frontend.onnx import OPSETS, import_onnx
from tvmtiny.frontend.supported import check_fused
from tvmtiny.passes.decompose import Decompose
from tvmtiny.passes.graph import Graph
from tvmtiny.passes.operators import kind
from tvmtiny.passes.pipeline import fusion_passes

ENCODER = ["embed", "attention", "ffn", "mean", "dense"]
P = E // H
MICROSOFT = "com.microsoft"


def fused(path: Path) -> tvm.IRModule:
    module = tvm.transform.Sequential(fusion_passes())(import_onnx(path))
    check_fused(module)
    return module


def kinds(module: tvm.IRModule) -> list[str]:
    return [kind(value) for _, value in Graph(module["main"]) if kind(value)]


def run(module: tvm.IRModule, *arrays: np.ndarray) -> np.ndarray:
    machine = relax.VirtualMachine(tvm.compile(module, target="llvm"), tvm.cpu())
    return np.asarray(machine["main"](*map(tvm.runtime.tensor, arrays)).numpy())


def encoder_inputs(n: int) -> dict[str, np.ndarray]:
    ids = np.random.default_rng(n).integers(0, models.VOCABULARY, (1, S))
    return {"ids": ids, "mask": (np.arange(S) < n).astype(np.int64)[None]}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> tvm.IRModule:
    """In opset 18; tests/unit/test_fusion.py compares it with ONNX Runtime."""
    return fused(save(models.encoder_model(18), tmp_path_factory.mktemp("onnx") / "model.onnx"))


@pytest.mark.parametrize("opset", OPSETS)
def test_every_opset_comes_in_as_the_same_model(tmp_path: Path, encoder: tvm.IRModule, opset: int) -> None:
    found = fused(save(models.encoder_model(opset), tmp_path / "model.onnx"))
    assert kinds(found) == ENCODER
    tvm.ir.assert_structural_equal(found, encoder)


def node_model(
    name: str, shapes: list[tuple[int, ...] | None], domain: str = "", opset: int = 23, **attributes: Any
) -> onnx.ModelProto:
    """One operator; an input without a shape is left out."""
    names = [f"x{i}" if shape is not None else "" for i, shape in enumerate(shapes)]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in zip(names, shapes, strict=True)
        if shape is not None
    ]
    node = helper.make_node(name, names, ["y"], name="the_node", domain=domain, **attributes)
    graph = helper.make_graph(
        [node], "test", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["a", "b"])]
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


HEADS = (1, H, S, P)
OPERATORS: dict[str, tuple[Any, ...]] = {
    "attention": ("Attention", [HEADS] * 3, {}),
    "attention_scale_mask": ("Attention", [HEADS] * 3 + [(1, 1, S, S)], {"scale": 0.3}),
    "attention_causal_flat": (
        "Attention", [(1, S, E)] * 3, {"q_num_heads": H, "kv_num_heads": H, "is_causal": 1}),
    "attention_grouped": (
        "Attention", [(1, S, 4 * P), (1, S, 2 * P), (1, S, 2 * P)], {"q_num_heads": 4, "kv_num_heads": 2}),
    "attention_wide_values": ("Attention", [HEADS, HEADS, (1, H, S, 3)], {}),
    "rms_norm": ("RMSNormalization", [(1, S, E), (E,)], {"epsilon": 1e-3}),
    "rms_norm_of_two_axes": ("RMSNormalization", [(1, S, E), (S, E)], {"axis": 1}),
    "rotary": ("RotaryEmbedding", [HEADS, (1, S, P // 2), (1, S, P // 2)], {}),
    "swish": ("Swish", [(1, S, E)], {"opset": 24}),
    "einsum_scores": ("Einsum", [HEADS, HEADS], {"equation": "bhid,bhjd->bhij"}),
    "einsum_values": ("Einsum", [(1, H, S, S), (1, S, H, P)], {"equation": "bhij,bjhd->bihd"}),
    "einsum_dense": ("Einsum", [(1, S, E), (E, H, P)], {"equation": "bse,ehp->bhsp"}),
    "einsum_outer": ("Einsum", [(1, S, E), (S, 3)], {"equation": "bse, sk -> bek"}),
    "fused_matmul": (
        "FusedMatMul", [(1, H, S, P), (1, H, S, P)], {"domain": MICROSOFT, "transB": 1, "alpha": 0.5}),
    "fused_matmul_batches": (
        "FusedMatMul", [(S, 2, H, P), (S, 2, H, P)],
        {"domain": MICROSOFT, "transBatchA": 1, "transBatchB": 1, "transB": 1}),
    "fused_gemm": (
        "FusedGemm", [(S, E), (5, E), (5,)],
        {"domain": MICROSOFT, "transB": 1, "activation": "Tanh", "alpha": 0.5, "beta": 2.0}),
    "quick_gelu": ("QuickGelu", [(1, S, E)], {"domain": MICROSOFT, "alpha": 1.702}),
    "silu": ("QuickGelu", [(1, S, E)], {"domain": MICROSOFT, "alpha": 1.0}),
    "skip_layer_norm": (
        "SkipLayerNormalization", [(1, S, E), (1, S, E), (E,), (E,), (E,)], {"domain": MICROSOFT, "epsilon": 1e-4}),
    "skip_layer_norm_plain": (
        "SkipLayerNormalization", [(1, S, E), (1, S, E), (E,)], {"domain": MICROSOFT}),
}  # fmt: skip


@pytest.mark.parametrize("case", OPERATORS)
def test_an_operator_that_stands_for_several_computes_the_same(tmp_path: Path, case: str) -> None:
    name, shapes, options = OPERATORS[case]
    model = node_model(name, shapes, **options)
    from tvmtiny.frontend.onnx_functions import inline_standard_functions
    from tvmtiny.frontend.onnx_importer import Importer

    inlined = inline_standard_functions(model, model.opset_import[0].version)
    names = [value.name for value in inlined.graph.input]
    module = Importer(dict(zip(names, shapes, strict=True))).from_onnx(
        inlined.graph, model.opset_import[0].version
    )
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    feed = dict(zip(names, arrays, strict=True))
    if options.get("domain"):
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        (expected,) = session.run(None, feed)
    else:
        (expected,) = ReferenceEvaluator(model).run(None, feed)
    np.testing.assert_allclose(run(module, *arrays), expected, atol=2e-5)


@pytest.mark.parametrize("opset", [23, 24])
def test_the_attention_operator_fuses_with_a_mask(tmp_path: Path, opset: int) -> None:
    build = models.OnnxBuilder(opset)
    ids = build.input("ids", [1, S], TensorProto.INT64)
    mask = build.input("mask", [1, S], TensorProto.INT64)
    x = build.node("Gather", [build.weight(models.VOCABULARY, E), ids], "tokens")
    keep = build.node(
        "Cast", [build.node("Unsqueeze", [mask, build.constant([1, 2], np.int64)])], to=TensorProto.BOOL
    )
    q, k, v = (build.dense(x, E, E, name) for name in "qkv")
    mixed = build.node("Attention", [q, k, v, keep], "sdpa", q_num_heads=H, kv_num_heads=H)
    x = build.node("Add", [x, build.dense(mixed, E, E, "out")])
    x = build.node("Gather", [x, build.constant(0, np.int64)], axis=1)
    path = save(build.model(build.dense(x, E, 3, "head"), [1, 3]), tmp_path / "model.onnx")
    module = fused(path)
    assert kinds(module) == ["embed", "attention", "first", "dense"]
    for n in (1, 5, S):
        (expected,) = ReferenceEvaluator(str(path)).run(None, encoder_inputs(n))
        found = run(Decompose()(module), encoder_inputs(n)["ids"], np.asarray(n, np.int64))
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("level", ["BASIC", "EXTENDED", "ALL"])
@pytest.mark.parametrize("options", [{}, {"pre_norm": True, "layers": 2, "mask": "where", "fused_qkv": True}])
def test_files_that_onnxruntime_saved(tmp_path: Path, level: str, options: dict[str, Any]) -> None:
    path = save(models.encoder_model(18, **options), tmp_path / "model.onnx")
    session = onnxruntime.SessionOptions()
    session.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    session.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    session.log_severity_level = 4
    before = onnxruntime.InferenceSession(path, session, providers=["CPUExecutionProvider"])
    module = fused(tmp_path / "optimized.onnx")
    assert kinds(module) == kinds(fused(path))
    for n in (1, 5, S):
        (expected,) = before.run(None, encoder_inputs(n))
        found = run(Decompose()(module), encoder_inputs(n)["ids"], np.asarray(n, np.int64))
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_simplified_files(tmp_path: Path) -> None:
    onnxsim = pytest.importorskip("onnxsim")
    model = models.encoder_model(18, layers=2, mask="where")
    simplified, checked = onnxsim.simplify(model)
    assert checked
    found = fused(save(simplified, tmp_path / "simplified.onnx"))
    assert kinds(found) == kinds(fused(save(model, tmp_path / "model.onnx")))


def test_other_operators_of_onnxruntime_are_refused_with_the_way_back(tmp_path: Path) -> None:
    path = save(
        node_model("MultiHeadAttention", [(1, S, E)] * 3, MICROSOFT, num_heads=H), tmp_path / "model.onnx"
    )
    with pytest.raises(UserError, match=r"com\.microsoft\.MultiHeadAttention \(node 'the_node'\)") as caught:
        import_onnx(path)
    assert "ORT_ENABLE_BASIC" in caught.value.remedy


@pytest.mark.parametrize(
    ("shapes", "options", "said"),
    [
        ([HEADS] * 3 + [None, HEADS, HEADS], {}, "'the_node'.*cache of keys"),
        ([HEADS] * 3, {"softcap": 20.0}, "'the_node'.*softcap"),
        ([HEADS] * 3 + [(1, S, S - 1)], {"opset": 24}, "'the_node'.*a mask for fewer keys"),
    ],
)
def test_forms_of_attention_that_are_not_covered(
    tmp_path: Path, shapes: list[Any], options: dict[str, Any], said: str
) -> None:
    path = save(node_model("Attention", shapes, **options), tmp_path / "model.onnx")
    with pytest.raises(UserError, match=said):
        import_onnx(path)


def test_nodes_of_a_function_have_the_name_of_the_call(tmp_path: Path) -> None:
    build = models.OnnxBuilder(24)
    x = build.node("Swish", [build.dense(build.input("x", [1, S, 6]), 6, E, "first")], "gate")
    path = save(build.model(build.dense(x, E, 3, "last"), [1, S, 3]), tmp_path / "model.onnx")
    names = {var.name.rstrip("0123456789_") for var, _ in Graph(import_onnx(path)["main"])}
    assert {"first", "gate", "last"} <= names
    assert not [name for name in names if name.startswith(("X_", "lv"))]


@pytest.mark.parametrize("threshold", [0, 1000])
def test_weights_in_other_files(tmp_path: Path, threshold: int) -> None:
    """In one file beside the model, or only the large ones; with the same results as inside of it."""
    model = models.encoder_model(18)
    inside = save(model, tmp_path / "inside.onnx")
    path = tmp_path / "outside.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=threshold)
    assert (tmp_path / "weights.bin").stat().st_size > 1000
    tvm.ir.assert_structural_equal(fused(path), fused(inside))
    with (tmp_path / "weights.bin").open("r+b") as stream:
        stream.truncate(100)
    with pytest.raises(UserError, match="lie in another file that cannot be read"):
        import_onnx(path)


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname"])
def test_weights_outside_of_the_directory_are_not_read(tmp_path: Path, location: str) -> None:
    model = models.dense_model()
    weight = model.graph.initializer[0]
    size = len(weight.raw_data)
    onnx.external_data_helper.set_external_data(weight, location, 0, size)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    (tmp_path / "inner").mkdir()
    (tmp_path / "weights.bin").write_bytes(bytes(size))
    with pytest.raises(UserError, match="lie in another file that cannot be read"):
        import_onnx(save(model, tmp_path / "inner" / "model.onnx"))

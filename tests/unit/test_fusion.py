"""Fusion: which operators come out, and that they compute what ONNX Runtime or torch compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import models
import numpy as np
import onnxruntime
import pytest
import tvm
from models import OnnxBuilder, S, save
from onnx import TensorProto
from tvm import relax

from tvmtiny.errors import UserError
from tvmtiny.frontend import import_model
from tvmtiny.frontend.data import input_specs
from tvmtiny.frontend.onnx import OPSETS
from tvmtiny.frontend.supported import check_fused
from tvmtiny.passes import fuse_dense, operators
from tvmtiny.passes.decompose import Decompose
from tvmtiny.passes.graph import Graph, op_name
from tvmtiny.passes.pipeline import fusion_passes
from tvmtiny.passes.simplify import Simplify

TOLERANCE = 1e-4
POST_NORM = ["embed", "attention", "ffn"]
PRE_NORM = ["embed", "layer_norm", "attention", "layer_norm", "ffn"]
LENGTHS = (1, 5, S - 1, S)


def fuse(model: Any, fold_qk: str = "auto") -> tvm.IRModule:
    module = tvm.transform.Sequential(fusion_passes(fold_qk))(import_model(model))
    check_fused(module)
    return module


def kinds(module: tvm.IRModule) -> list[str]:
    """The fused operators, in order."""
    return [operators.kind(value) for _, value in Graph(module["main"]) if operators.kind(value)]


def calls(module: tvm.IRModule) -> list[str]:
    """All operators, in order."""
    return [op_name(value) for _, value in Graph(module["main"]) if isinstance(value, relax.Call)]


class Runnable:
    """A fused module on this computer, with its float operators as plain Relax."""

    def __init__(self, module: tvm.IRModule) -> None:
        self.specs, self.length_input, self.tokens = input_specs(module)
        machine = relax.VirtualMachine(tvm.compile(Decompose()(module), target="llvm"), tvm.cpu())
        self._main = machine["main"]

    def inputs(self, seed: int) -> dict[str, np.ndarray]:
        random = np.random.default_rng(seed)
        return {
            spec.name: random.integers(0, spec.limit, (1, *spec.shape))
            if spec.kind == "tokens"
            else random.normal(size=(1, *spec.shape)).astype(np.float32)
            for spec in self.specs
        }

    def run(self, inputs: dict[str, np.ndarray], n: int) -> np.ndarray:
        args = [inputs[spec.name] for spec in self.specs]
        args += [np.asarray(n, np.int64)] if self.length_input else []
        return self._main(*map(tvm.runtime.tensor, args)).numpy()


def require_equal_to_onnxruntime(module: tvm.IRModule, path: Path) -> None:
    """Compare the outputs at several lengths on random inputs."""
    runnable = Runnable(module)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options)
    for n in LENGTHS if runnable.length_input else (runnable.tokens,):
        inputs = runnable.inputs(seed=n)
        feed = dict(inputs)
        if runnable.length_input:
            feed[runnable.length_input] = (np.arange(runnable.tokens) < n).astype(np.int64)[None]
        expected = session.run(None, feed)[0]
        np.testing.assert_allclose(runnable.run(inputs, n), expected, rtol=0, atol=TOLERANCE)


ENCODERS = [
    ({"opset": 13, "fused_qkv": True, "mask": "where"}, [*POST_NORM, "mean", "dense"]),
    ({"opset": 13, "mask": "none", "pooling": "first"}, [*POST_NORM, "first", "dense"]),
    ({"opset": 15, "pre_norm": True, "layers": 2, "activation": "relu"}, [*PRE_NORM, *PRE_NORM[1:], "mean"]),
    ({"opset": 17, "mask": "where", "pooling": "first"}, [*POST_NORM, "first", "dense"]),
    ({"opset": 18, "fused_qkv": True, "mask": "none"}, [*POST_NORM, "mean", "dense"]),
    ({"opset": 22, "fused_qkv": True, "pre_norm": True, "pooling": "first"}, PRE_NORM),
]


@pytest.mark.parametrize(("options", "expected"), ENCODERS)
def test_encoders_in_onnx_fuse_and_compute_the_same(
    tmp_path: Path, options: dict[str, Any], expected: list[str]
) -> None:
    path = save(models.encoder_model(**options), tmp_path / "model.onnx")
    module = fuse(path)
    found = kinds(module)
    assert found[: len(expected)] == expected
    assert found[-1] == "dense"
    require_equal_to_onnxruntime(module, path)


@pytest.mark.parametrize("options", [{"mask": "where"}, {"opset": 18, "mask": "none", "pre_norm": True}])
def test_folded_attention_computes_the_same(tmp_path: Path, options: dict[str, Any]) -> None:
    path = save(models.encoder_model(**options), tmp_path / "model.onnx")
    module = fuse(path, "always")
    assert "folded_attention" in kinds(module)
    assert "attention" not in kinds(module)
    require_equal_to_onnxruntime(module, path)


@pytest.mark.parametrize("fused_qkv", [False, True])
@pytest.mark.parametrize("mask", ["add", "where", "none"])
@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("opset", [13, 16, 17, 18, 20, 22, OPSETS[-1]])
def test_every_spelling_fuses(tmp_path: Path, opset: int, fused_qkv: bool, mask: str, pre_norm: bool) -> None:
    model = models.encoder_model(opset, fused_qkv=fused_qkv, mask=mask, pre_norm=pre_norm)
    expected = [*PRE_NORM, "mean", "dense"] if pre_norm else [*POST_NORM, "mean", "dense"]
    assert kinds(fuse(save(model, tmp_path / "model.onnx"))) == expected


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize(
    ("build", "expected"),
    [(models.dense_model, ["dense"]), (models.sensor_model, ["dense", "mean", "dense"])],
)
def test_feature_models_fuse_and_compute_the_same(
    tmp_path: Path, opset: int, build: Any, expected: list[str]
) -> None:
    path = save(build(opset), tmp_path / "model.onnx")
    module = fuse(path)
    assert kinds(module) == expected
    require_equal_to_onnxruntime(module, path)


def torch_case(name: str) -> tuple[Any, Any]:
    """A torch model and its example inputs."""
    pytest.importorskip("torch")
    if name == "bert":
        pytest.importorskip("transformers")
    import torch_models

    return torch_models.build(name), torch_models.example()


TORCH = {
    "bert": [*POST_NORM, "first", "dense", "dense"],
    "post_norm": [*POST_NORM, "attention", "ffn", "mean", "dense"],
    "pre_norm": [*PRE_NORM, *PRE_NORM[1:], "mean", "dense"],
    "sdpa_fused": [*POST_NORM, "mean", "dense"],
    "sdpa_separate": [*POST_NORM, "mean", "dense"],
}
"""What each torch model fuses to; the final LayerNorm of pre_norm goes into the last feed-forward."""


@pytest.mark.parametrize("name", TORCH)
def test_torch_programs_fuse_and_compute_the_same(name: str) -> None:
    model, example = torch_case(name)
    import torch

    module = fuse(torch.export.export(model, example))
    assert kinds(module) == TORCH[name]
    runnable = Runnable(module)
    for n in LENGTHS:
        inputs = runnable.inputs(seed=n)
        mask = (torch.arange(S) < n).long()[None]
        with torch.no_grad():
            expected = model(*map(torch.from_numpy, inputs.values()), mask)
        expected = getattr(expected, "logits", expected).numpy()
        np.testing.assert_allclose(runnable.run(inputs, n), expected, rtol=0, atol=TOLERANCE)


# The legacy exporter does not know torch's own encoder layer in evaluation mode.
@pytest.mark.parametrize(
    ("name", "opset"),
    [*((name, 18) for name in TORCH), ("bert", 14), ("sdpa_fused", 14), ("sdpa_separate", 14)],
)
@pytest.mark.filterwarnings("ignore")
def test_exported_onnx_fuses_and_computes_the_same(tmp_path: Path, name: str, opset: int) -> None:
    model, example = torch_case(name)
    import torch

    path = tmp_path / "model.onnx"
    modern = opset >= 18
    options = {"external_data": False, "verbose": False} if modern else {}
    names = {"input_names": ["ids", "mask"], "output_names": ["logits"]}
    with torch.no_grad():
        torch.onnx.export(model, example, path, opset_version=opset, dynamo=modern, **names, **options)
    module = fuse(path)
    assert kinds(module) == TORCH[name]
    require_equal_to_onnxruntime(module, path)


def test_operators_carry_the_names_of_layers(tmp_path: Path) -> None:
    module = fuse(save(models.encoder_model(17), tmp_path / "model.onnx"))
    names = [var.name for var, value in Graph(module["main"]) if operators.kind(value)]
    assert names == ["positions", "attention_norm0", "ffn_norm0", "pool", "classifier_out"]


def test_a_mask_that_is_no_length_is_refused(tmp_path: Path) -> None:
    build = OnnxBuilder(18)
    ids = build.input("ids", [1, S], TensorProto.INT64)
    mask = build.input("mask", [1, S], TensorProto.INT64)
    x = build.node("Gather", [build.weight(models.VOCABULARY, models.E), ids])
    real = build.node("Cast", [mask], to=TensorProto.FLOAT)
    x = build.node("Mul", [x, build.node("Unsqueeze", [real, build.constant([-1], np.int64)])])
    x = build.dense(x, models.E, 3, "head")
    path = save(build.model(x, [1, S, 3]), tmp_path / "model.onnx")
    with pytest.raises(UserError, match="mask input 'mask' is used in a way that is not a length") as caught:
        fuse(path)
    assert "no holes" in caught.value.remedy


def module_of(build: Any, *params: relax.Var) -> tvm.IRModule:
    """A module whose `main` is `build(builder, *params)` in one dataflow block."""
    builder = relax.BlockBuilder()
    with builder.function("main", list(params)):
        with builder.dataflow():
            output = builder.emit_output(build(builder, *params))
        builder.emit_func_output(output)
    return builder.get()


def tensor(name: str, *shape: int) -> relax.Var:
    return relax.Var(name, relax.TensorType(shape, "float32"))


def test_simplify_before_and_expected() -> None:
    x = tensor("x", 1, 4, 6)

    def before(b: relax.BlockBuilder, x: relax.Var) -> Any:
        parts = b.emit(relax.op.split(x, 2, axis=2))
        second = b.emit(relax.TupleGetItem(parts, 1))
        weight = b.emit(relax.op.permute_dims(relax.const(np.ones((2, 3), np.float32))))
        same = b.emit(relax.op.astype(second, "float32"))
        return b.emit(relax.op.matmul(same, weight))

    def expected(b: relax.BlockBuilder, x: relax.Var) -> Any:
        second = b.emit(relax.op.strided_slice(x, [2], [3], [6]))
        return b.emit(relax.op.matmul(second, relax.const(np.ones((3, 2), np.float32))))

    found = Simplify()(module_of(before, x))
    assert calls(found) == calls(module_of(expected, x))
    tvm.ir.assert_structural_equal(
        found["main"].body, module_of(expected, x)["main"].body, map_free_vars=True
    )


def test_scaling_goes_into_weight_and_bias() -> None:
    x = tensor("x", 4, 3)
    scale, offset = np.array([2, 4, 8], np.float32), np.array([1, 0, -1], np.float32)
    weight, bias = np.arange(6, dtype=np.float32).reshape(2, 3), np.zeros(2, np.float32)

    def before(b: relax.BlockBuilder, x: relax.Var) -> Any:
        y = b.emit(relax.op.divide(b.emit(relax.op.subtract(x, relax.const(offset))), relax.const(scale)))
        return b.emit(operators.call("dense", [y, relax.const(weight), relax.const(bias)], activation="none"))

    (only,) = [
        v for _, v in Graph(fuse_dense.FoldScaling()(module_of(before, x))["main"]) if operators.kind(v)
    ]
    assert np.allclose(only.args[1].value.numpy(), weight / scale)
    assert np.allclose(only.args[2].value.numpy(), -weight @ (offset / scale))


@pytest.mark.parametrize("name", sorted(fuse_dense.ACTIVATIONS))
def test_decomposed_activations_are_the_functions_that_were_recognised(name: str) -> None:
    x = tensor("x", 5, 8)
    eye, zero = relax.const(np.eye(8, dtype=np.float32)), relax.const(np.zeros(8, np.float32))

    def build(b: relax.BlockBuilder, x: relax.Var) -> Any:
        return b.emit(operators.call("dense", [x, eye, zero], activation=name))

    values = np.linspace(-6, 6, 40, dtype=np.float32).reshape(5, 8)
    machine = relax.VirtualMachine(tvm.compile(Decompose()(module_of(build, x)), target="llvm"), tvm.cpu())
    found = machine["main"](tvm.runtime.tensor(values)).numpy()
    np.testing.assert_allclose(found, fuse_dense.ACTIVATIONS[name](values), atol=1e-5)

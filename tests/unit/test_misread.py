"""Models that were once misread: each is refused with its cause, or computes what ONNX Runtime computes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import numpy as np
import onnx
import onnxruntime
import pytest
import tvm
from models import CLASSES, VOCABULARY, E, F, H, OnnxBuilder, S, save
from onnx import TensorProto, helper, numpy_helper
from tvm import relax

import tvmtiny
import tvmtiny.options
from tvmtiny.artifact import Artifact
from tvmtiny.errors import ResultMismatch, UserError
from tvmtiny.frontend import import_model, source
from tvmtiny.frontend.data import load_samples
from tvmtiny.frontend.supported import check_fused
from tvmtiny.passes.graph import Graph, as_array, constant, function_pass, rebuild
from tvmtiny.passes.operators import kind
from tvmtiny.passes.pipeline import fusion_passes
from tvmtiny.runner import run
from tvmtiny.verify import expected_outputs

SAMPLES = 16
COSINE = 0.98
"""Least similarity of an integer model's outputs to those of ONNX Runtime."""

INTEGERS = (TensorProto.INT32, TensorProto.INT64)


def calibration(model: onnx.ModelProto, scale: float = 1.0, seed: int = 1) -> dict[str, np.ndarray]:
    """Random samples for every input, in its own type; a mask marks the first tokens."""
    random = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray] = {}
    for value in model.graph.input:
        element = value.type.tensor_type.elem_type
        shape = (SAMPLES, *(axis.dim_value for axis in value.type.tensor_type.shape.dim[1:]))
        if value.name == "mask":
            lengths = random.integers(1, shape[1] + 1, SAMPLES)
            values = np.arange(shape[1]) < lengths[:, None]
        elif element in INTEGERS:
            values = random.integers(0, VOCABULARY, shape)
        else:
            values = random.normal(size=shape) * scale
        arrays[value.name] = values.astype(helper.tensor_dtype_to_np_dtype(element))
    return arrays


@pytest.fixture
def compiled(tmp_path: Path) -> Callable[..., Artifact]:
    """Compile a model for an emulated core."""

    def compile_model(model: onnx.ModelProto, data: dict[str, np.ndarray], **options: Any) -> Artifact:
        path = save(model, tmp_path / "model.onnx")
        return tvmtiny.compile(
            path,
            target="qemu-m4",
            calibration=data,
            **{"output": tmp_path / "out", "name": "net", **options},
        )

    return compile_model


def refused(tmp_path: Path, model: onnx.ModelProto, said: str) -> None:
    """The model is refused before anything runs, with a message that matches `said`, and with a remedy."""
    with pytest.raises(UserError, match=said) as caught:
        check_fused(tvm.transform.Sequential(fusion_passes())(import_model(save(model, tmp_path / "m.onnx"))))
    assert caught.value.exit_status == 2
    assert caught.value.remedy


def by_onnxruntime(model: onnx.ModelProto, data: dict[str, np.ndarray]) -> np.ndarray:
    """Outputs (samples, elements), one sample a run."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    rows = [
        session.run(None, {name: values[i : i + 1] for name, values in data.items()})[0].reshape(-1)
        for i in range(SAMPLES)
    ]
    return np.stack(rows).astype(np.float64)


def require_equal(made: Artifact, model: onnx.ModelProto, data: dict[str, np.ndarray], path: Path) -> None:
    """The float module must equal the source, and the integer reference be similar to ONNX Runtime."""
    np.savez(path, **data)  # type: ignore[arg-type]
    info = made.outputs[0]
    results = [row[info.name].reshape(-1) for row in expected_outputs(made, load_samples(made, path))]
    actual = (np.stack(results).astype(np.float64) - info.zero_point[0]) * info.scale[0]
    expected = by_onnxruntime(model, data)
    assert made.metadata["quality"]["source"]["largest_error"] < 1e-4
    cosine = np.sum(actual * expected) / np.linalg.norm(actual) / np.linalg.norm(expected)
    assert cosine > COSINE
    np.testing.assert_allclose(actual, expected, rtol=0, atol=0.1 * np.abs(expected).max())


# Models


def attention(*, transposed: bool = False, value_width: int = E, axis: int = -1) -> onnx.ModelProto:
    """Self-attention on features."""
    build = OnnxBuilder(18)
    x = build.input("x", [1, S, E])

    def heads(name: str, width: int, perm: list[int]) -> str:
        projected = build.reshape(build.dense(x, E, width, name), 1, S, H, width // H)
        return build.node("Transpose", [projected], perm=perm)

    scores = build.node("MatMul", [heads("q", E, [0, 2, 1, 3]), heads("k", E, [0, 2, 3, 1])])
    weights = build.node("Softmax", [scores], "probabilities", axis=axis)
    if transposed:
        weights = build.node("Transpose", [weights], perm=[0, 1, 3, 2])
    mixed = build.node("MatMul", [weights, heads("v", value_width, [0, 2, 1, 3])])
    merged = build.reshape(build.node("Transpose", [mixed], perm=[0, 2, 1, 3]), 1, S, value_width)
    return build.model(build.dense(merged, value_width, E, "out"), [1, S, E])


def on_features(layer: Callable[[OnnxBuilder, str], str], rows: int = S, cols: int = E) -> onnx.ModelProto:
    """`layer` on features x (1, rows, cols), then a classifier of its E columns, a token a row."""
    build = OnnxBuilder(18)
    y = layer(build, build.input("x", [1, rows, cols]))
    return build.model(build.dense(y, E, CLASSES, "classifier"), [1, S, CLASSES])


def wrapped_angle() -> onnx.ModelProto:
    def layer(build: OnnxBuilder, x: str) -> str:
        turned = build.node("Add", [x, build.constant(2 * np.pi)], "turned")
        return build.node("Where", [build.node("Less", [x, build.constant(0.0)]), turned, x])

    return on_features(layer)


def clipped(high: float) -> onnx.ModelProto:
    def layer(build: OnnxBuilder, x: str) -> str:
        limits = [build.constant(0.0), build.constant(high)]
        return build.node("Clip", [build.dense(x, E, E, "hidden"), *limits], "clip")

    return on_features(layer)


def larger_than_dense() -> onnx.ModelProto:
    def layer(build: OnnxBuilder, x: str) -> str:
        return build.node("Add", [build.dense(x, E, E, "row"), build.weight(1, S, E)], "rows")

    return on_features(layer, rows=1)


def residual_of_relu() -> onnx.ModelProto:
    def layer(build: OnnxBuilder, x: str) -> str:
        return build.node("Add", [x, build.node("Relu", [build.dense(x, E, E, "hidden")])], "total")

    return on_features(layer)


def layer_norm(
    *, gamma: tuple[int, ...] = (S,), beta: tuple[int, ...] | None = (S,), positions: bool = False
) -> onnx.ModelProto:
    """LayerNorm spelled out, on S columns, so that a factor a token has the size of one a column."""
    build = OnnxBuilder(13)
    x = build.input("x", [1, S, S])
    centered = build.node("Sub", [x, build.node("ReduceMean", [x], "centre", axes=[-1])])
    square = build.node("Pow", [centered, build.constant(2.0)])
    variance = build.node("Add", [build.node("ReduceMean", [square], axes=[-1]), build.constant(1e-5)])
    y = build.node("Div", [centered, build.node("Sqrt", [variance])])
    y = build.node("Mul", [y, build.constant(build.random.uniform(0.5, 2, gamma))], "gamma")
    if beta is not None:
        y = build.node("Add", [y, build.constant(build.random.normal(size=beta))], "beta")
    if positions:
        y = build.node("Add", [y, build.weight(1, S, S)], "positions")
    return build.model(build.dense(y, S, CLASSES, "classifier"), [1, S, CLASSES])


def layer_norm_operator(shape: tuple[int, ...]) -> onnx.ModelProto:
    build = OnnxBuilder(18)
    x = build.input("x", [1, S, S])
    factors = [build.constant(build.random.uniform(0.5, 2, shape)) for _ in "gb"]
    y = build.node("LayerNormalization", [x, *factors], "norm", axis=-1)
    return build.model(build.dense(y, S, CLASSES, "classifier"), [1, S, CLASSES])


def bias(*shape: int) -> onnx.ModelProto:
    """x @ W + a constant; S tokens and S columns."""
    build = OnnxBuilder(18)
    product = build.node("MatMul", [build.input("x", [1, S, E]), build.weight(E, S)])
    added = build.constant(3 * build.random.normal(size=shape))
    return build.model(build.node("Add", [product, added], "bias"), [1, S, S])


def counted_positions(exclusive: int) -> onnx.ModelProto:
    """Positions are a running sum of ones, as some exporters count tokens."""
    build = OnnxBuilder(18)
    ids = build.input("ids", [1, S], TensorProto.INT64)
    ones = build.constant(np.ones((1, S)), np.int64)
    positions = build.node("CumSum", [ones, build.constant(1, np.int64)], exclusive=exclusive)
    tables = build.weight(VOCABULARY, E), build.constant(3 * build.random.normal(size=(S + 1, E)))
    x = build.node(
        "Add", [build.node("Gather", [t, i]) for t, i in zip(tables, (ids, positions), strict=True)]
    )
    return build.model(build.dense(x, E, CLASSES, "classifier"), [1, S, CLASSES])


def pooled(build: OnnxBuilder, x: str) -> str:
    return build.node("ReduceMean", [x, build.constant([1], np.int64)], keepdims=0)


def two_inputs(one_rows: int, other_rows: int) -> onnx.ModelProto:
    """Two feature inputs, each projected and pooled, added."""
    build = OnnxBuilder(18)
    one, other = build.input("one", [1, one_rows, 6]), build.input("other", [1, other_rows, 9])
    left = pooled(build, build.node("Relu", [build.dense(one, 6, E, "left")], "left_relu"))
    right = pooled(build, build.node("Relu", [build.dense(other, 9, E, "right")], "right_relu"))
    total = build.node("Add", [build.dense(left, E, E, "mixed"), right])
    return build.model(build.dense(total, E, CLASSES, "classifier"), [1, CLASSES])


def pooled_input_beside(rows: int) -> onnx.ModelProto:
    """One input pooled as it is, one projected first: only the mean's operand shows the rows of the former."""
    build = OnnxBuilder(18)
    one, other = build.input("one", [1, S, E]), build.input("other", [1, rows, 9])
    right = pooled(build, build.node("Relu", [build.dense(other, 9, E, "right")]))
    total = build.node("Add", [build.dense(pooled(build, one), E, E, "mixed"), right])
    return build.model(build.dense(total, E, CLASSES, "classifier"), [1, CLASSES])


def masked_features() -> onnx.ModelProto:
    build = OnnxBuilder(18)
    x, keep = build.input("x", [1, S, E]), build.input("mask", [1, S], TensorProto.INT64)
    hidden = build.node("Relu", [build.dense(x, E, F, "hidden")])
    pool = models._pool(build, hidden, keep, "mean")
    return build.model(build.dense(pool, F, CLASSES, "classifier"), [1, CLASSES])


def mean_of_input(channels: int, *, mask: bool = False) -> onnx.ModelProto:
    build = OnnxBuilder(18)
    x = build.input("x", [1, S, channels])
    keep = build.input("mask", [1, S], TensorProto.INT64) if mask else ""
    pool = models._pool(build, x, keep, "mean")
    return build.model(build.dense(pool, channels, CLASSES, "classifier"), [1, CLASSES])


def one_channel_residual() -> onnx.ModelProto:
    """An autoencoder of one channel around a residual."""
    build = OnnxBuilder(18)
    x = build.input("x", [1, S, 1])
    hidden = build.node("Relu", [build.dense(x, 1, E, "encoder")])
    return build.model(build.node("Add", [build.dense(hidden, E, 1, "decoder"), x]), [1, S, 1])


def embedded(element: int = TensorProto.INT64, name: str = "ids") -> onnx.ModelProto:
    build = OnnxBuilder(18)
    ids = build.input(name, [1, S], element)
    x = build.node("Gather", [build.weight(VOCABULARY, E), ids])
    return build.model(build.dense(x, E, CLASSES, "classifier"), [1, S, CLASSES])


def feed_through(name: str, hidden: str = "") -> onnx.ModelProto:
    """Two dense layers on features with a given name, and a given name of the node between them."""
    build = OnnxBuilder(18)
    x = build.input(name, [1, S, E])
    y = build.node("Relu", [build.dense(x, E, F, "first")], hidden)
    return build.model(build.dense(y, F, CLASSES, "classifier"), [1, S, CLASSES])


def of_type(model: onnx.ModelProto, element: int) -> onnx.ModelProto:
    """A float32 model with all its floats of another type."""
    dtype = helper.tensor_dtype_to_np_dtype(element)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            array = np.clip(numpy_helper.to_array(tensor), -60000, None).astype(dtype)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT:
                attribute.i = element
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = element
    onnx.checker.check_model(model)
    return model


def cast_around(element: int) -> onnx.ModelProto:
    """float32 outside; another type between casts."""
    build = OnnxBuilder(18)
    weight = build.constant(build.random.normal(size=(E, CLASSES)), helper.tensor_dtype_to_np_dtype(element))
    inner = build.node(
        "MatMul", [build.node("Cast", [build.input("x", [1, S, E])], to=element), weight], "inner"
    )
    return build.model(build.node("Cast", [inner], to=TensorProto.FLOAT), [1, S, CLASSES])


def stored_weights(element: int) -> onnx.ModelProto:
    """A float32 model whose weights are stored in another type."""
    build = OnnxBuilder(18)
    stored = build.constant(build.random.normal(size=(CLASSES, E)), helper.tensor_dtype_to_np_dtype(element))
    turned = build.node("Transpose", [stored], perm=[1, 0])
    weight = build.node("Cast", [turned], to=TensorProto.FLOAT)
    return build.model(build.node("MatMul", [build.input("x", [1, S, E]), weight]), [1, S, CLASSES])


def damaged_weight(value: float) -> onnx.ModelProto:
    model = models.dense_model()
    tensor = model.graph.initializer[0]
    array = numpy_helper.to_array(tensor).copy()
    array.flat[0] = value
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return model


def unused_input() -> onnx.ModelProto:
    model = models.dense_model()
    model.graph.input.append(helper.make_tensor_value_info("extra", TensorProto.FLOAT, [1, 7, 3]))
    return model


def inert_nodes() -> onnx.ModelProto:
    """Dropout and Identity at the input, between layers and at the result."""
    build = OnnxBuilder(18)
    x = build.input("x", [1, S, E])
    x = build.node("Identity", [build.node("Dropout", [x])])
    ratio, training = build.constant(0.5), build.constant(False, np.bool_)
    hidden = build.node("Dropout", [build.dense(x, E, F, "hidden"), ratio, training])
    y = build.node("Dropout", [build.node("Identity", [build.node("Relu", [hidden])])])
    return build.model(build.node("Identity", [build.dense(y, F, CLASSES, "classifier")]), [1, S, CLASSES])


# What is refused

HALF, DOUBLE = TensorProto.FLOAT16, TensorProto.DOUBLE
REFUSED: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "softmax over queries": (lambda: attention(axis=2), "softmax at node 'probabilities'"),
    "factors a token of the operator": (lambda: layer_norm_operator((S, 1)), "layer_norm at node 'norm'"),
    "factors a token and column": (lambda: layer_norm_operator((S, S)), "'norm'"),
    "an activation before a residual": (residual_of_relu, "'total' has an activation before a residual"),
    "half features": (lambda: of_type(models.sensor_model(), HALF), "'patches_product' computes in float16"),
    "double features": (lambda: of_type(models.sensor_model(), DOUBLE), "'patches_product' .* float64"),
    "a half encoder": (lambda: of_type(models.encoder_model(18), HALF), "'tokens' computes in float16"),
    "a double encoder": (lambda: of_type(models.encoder_model(13), DOUBLE), "'tokens' computes in float64"),
    "half inside": (lambda: cast_around(HALF), "'inner' computes in float16"),
    "double inside": (lambda: cast_around(DOUBLE), "'inner' computes in float64"),
    "a weight that is NaN": (lambda: damaged_weight(np.nan), "node 'classifier_out' is NaN or infinite"),
    "a weight that is infinite": (lambda: damaged_weight(np.inf), "node 'classifier_out' is NaN or infinite"),
    "ids named n_tokens": (lambda: embedded(name="n_tokens"), "named 'n_tokens'.*number of tokens"),
    "features named n_tokens": (lambda: feed_through("n_tokens"), "named 'n_tokens'.*number of tokens"),
    "features named labels": (lambda: feed_through("labels"), "named 'labels'.*true classes"),
    "an input without effect": (unused_input, "input 'extra' has no effect"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_is_refused_with_its_cause(tmp_path: Path, case: str) -> None:
    model, said = REFUSED[case]
    refused(tmp_path, model(), said)


def test_a_mask_named_like_the_length_is_refused(tmp_path: Path) -> None:
    model = masked_features()
    model.graph.input[1].name = "n_tokens"
    for node in model.graph.node:
        node.input[:] = ["n_tokens" if name == "mask" else name for name in node.input]
    refused(tmp_path, model, "named 'n_tokens'")


@pytest.mark.parametrize("tokens", [0, -3])
def test_max_tokens_without_a_token_is_refused(
    compiled: Callable[..., Artifact], tmp_path: Path, tokens: int
) -> None:
    model = models.encoder_model(tokens="T")
    data = {"ids": np.zeros((SAMPLES, S), np.int64), "mask": np.ones((SAMPLES, S), np.int64)}
    with pytest.raises(UserError, match=rf"--max-tokens is {tokens}\b"):
        compiled(model, data, max_tokens=tokens)
    assert not (tmp_path / "out").exists()


# What runs

CORRECT: dict[str, Callable[[], onnx.ModelProto]] = {
    "attention": attention,
    "transposed probabilities": lambda: attention(transposed=True),
    "values wider than queries": lambda: attention(value_width=2 * E),
    "clip at 10": lambda: clipped(10),
    "clip at 20": lambda: clipped(20),
    "gamma and beta a token": lambda: layer_norm(gamma=(S, 1), beta=(S, 1)),
    "gamma a token": lambda: layer_norm(gamma=(S, 1)),
    "beta a token": lambda: layer_norm(beta=(S, 1)),
    "positions behind a norm": lambda: layer_norm(positions=True),
    "positions behind a norm without beta": lambda: layer_norm(beta=None, positions=True),
    "a constant larger than the sum's other side": larger_than_dense,
    "positions counted from 1": lambda: counted_positions(0),
    "positions counted from 0": lambda: counted_positions(1),
    "bias a token": lambda: bias(S, 1),
    "bias a token with batch": lambda: bias(1, S, 1),
    "bias a column": lambda: bias(1, S),
    "norm without beta": lambda: layer_norm(beta=None),
    "norm with factors a column": layer_norm,
    "two inputs of equal rows": lambda: two_inputs(8, 8),
    "inputs of different rows": lambda: two_inputs(8, 4),
    "a pooled input beside one of other rows": lambda: pooled_input_beside(8),
    "an input of one row beside": lambda: two_inputs(8, 1),
    "int32 ids": lambda: embedded(TensorProto.INT32),
    "mean of one channel": lambda: mean_of_input(1),
    "mean of an input": lambda: mean_of_input(8),
    "masked mean of an input": lambda: mean_of_input(8, mask=True),
    "residual of one channel": one_channel_residual,
    "weights stored as float16": lambda: stored_weights(HALF),
    "weights stored as float64": lambda: stored_weights(DOUBLE),
    "dropout and identity": inert_nodes,
}


@pytest.mark.parametrize("case", CORRECT)
def test_computes_what_onnxruntime_does(compiled: Callable[..., Artifact], tmp_path: Path, case: str) -> None:
    model = CORRECT[case]()
    data = calibration(model)
    require_equal(compiled(model, data), model, data, tmp_path / "data.npz")


def test_relu6_is_told_from_relu_on_large_values(compiled: Callable[..., Artifact], tmp_path: Path) -> None:
    model = clipped(6)
    data = calibration(model, scale=30)
    require_equal(compiled(model, data), model, data, tmp_path / "data.npz")


def test_rows_of_padding_have_no_influence(compiled: Callable[..., Artifact], tmp_path: Path) -> None:
    model = masked_features()
    data = calibration(model)
    padded = {**data, "x": np.where(data["mask"][..., None] > 0, data["x"], np.float32(1000))}
    one, other = (
        compiled(model, arrays, output=tmp_path / name)
        for name, arrays in (("zeros", data), ("thousands", padded))
    )
    require_equal(other, model, data, tmp_path / "data.npz")
    assert one.inputs[0].scale == other.inputs[0].scale
    assert (one.directory / "net_weights.c").read_bytes() == (other.directory / "net_weights.c").read_bytes()


def test_an_input_and_a_node_of_one_name(compiled: Callable[..., Artifact], tmp_path: Path) -> None:
    model = feed_through("f", hidden="f")
    data = calibration(model)
    made = compiled(model, data)
    require_equal(made, model, data, tmp_path / "data.npz")
    samples = load_samples(made, tmp_path / "data.npz")
    result = run(made, "host", samples)  # raises if the memory around the arena changes
    name = made.outputs[0].name
    for actual, expected in zip(result.outputs, expected_outputs(made, samples), strict=True):
        np.testing.assert_array_equal(actual[name], expected[name])


# The comparison with the source


def _perturb(by: float) -> tvm.transform.Pass:
    """A defect: one weight of the last dense layer changes."""

    def rewrite(graph: Graph, var: relax.Var, value: Any, _emit: Any) -> Any | None:
        if kind(value) != "dense" or not re.fullmatch("classifier.*", var.name):
            return None
        weight = np.array(as_array(value.args[1]))
        weight[0, 0] += by
        return relax.Call(value.op, [value.args[0], constant(weight), *list(value.args)[2:]], value.attrs)

    return function_pass("Perturb", lambda function: rebuild(function, rewrite))


@pytest.mark.parametrize("mask", ["add", "none"])
def test_a_misread_weight_is_found(
    compiled: Callable[..., Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mask: str
) -> None:
    model = models.encoder_model(18, mask=mask)
    monkeypatch.setattr(tvmtiny.options, "fusion_passes", lambda mode: [*fusion_passes(mode), _perturb(0.1)])
    with pytest.raises(ResultMismatch, match=r"After import and fusion .* differs .* on sample 0") as caught:
        compiled(model, calibration(model))
    assert caught.value.exit_status == 1
    assert "defect of tvmtiny" in caught.value.remedy
    assert not (tmp_path / "out").exists()


def test_rounding_is_no_mismatch(compiled: Callable[..., Artifact], monkeypatch: pytest.MonkeyPatch) -> None:
    model = models.dense_model()
    monkeypatch.setattr(tvmtiny.options, "fusion_passes", lambda mode: [*fusion_passes(mode), _perturb(1e-5)])
    found = compiled(model, calibration(model)).metadata["quality"]["source"]
    assert found["samples"] == 4
    assert 1e-7 < found["largest_error"] < 1e-4


def test_a_source_that_cannot_be_run_is_told(
    compiled: Callable[..., Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(_path: Any) -> Any:
        raise NotImplementedError("no such operator")

    monkeypatch.setattr(source, "_onnx", lacking)
    model = models.dense_model()
    found = compiled(model, calibration(model)).metadata["quality"]["source"]
    assert found == {"not_run": "NotImplementedError: no such operator"}

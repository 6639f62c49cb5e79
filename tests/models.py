"""Small models for tests: written in ONNX directly (no torch), and as torch modules.

All weights are random with a fixed seed. An encoder built here takes `ids` (1, S) and perhaps `mask` (1, S).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

VOCABULARY, S, E, H, F, CLASSES = 50, 12, 16, 2, 32, 5


class OnnxBuilder:
    """Appends nodes to a graph; methods return the name of the result."""

    def __init__(self, opset: int, seed: int = 0) -> None:
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.random = np.random.default_rng(seed)

    def input(self, name: str, shape: list[Any], element: int = TensorProto.FLOAT) -> str:
        """A graph input; strings in `shape` are dynamic axes."""
        self.inputs.append(helper.make_tensor_value_info(name, element, shape))
        return name

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        """An initializer."""
        name = f"const_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def weight(self, *shape: int) -> str:
        """Random values whose products keep about unit variance."""
        return self.constant(self.random.normal(size=shape) / np.sqrt(shape[0]))

    def node(self, kind: str, inputs: list[str], name: str = "", **attributes: Any) -> str:
        """A node with one output."""
        name = name or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [f"{name}_out"], name=name, **attributes))
        return f"{name}_out"

    def reshape(self, x: str, *shape: int) -> str:
        """Reshape to a constant shape."""
        return self.node("Reshape", [x, self.constant(shape, np.int64)])

    def dense(self, x: str, k: int, n: int, name: str) -> str:
        """x @ W + b on the last axis."""
        product = self.node("MatMul", [x, self.weight(k, n)], f"{name}_product")
        return self.node("Add", [self.weight(n), product], name)

    def model(self, output: str, shape: list[Any], element: int = TensorProto.FLOAT) -> onnx.ModelProto:
        """The finished, checked model with one output."""
        result = helper.make_tensor_value_info(output, element, shape)
        graph = helper.make_graph(self.nodes, "test", self.inputs, [result], self.initializers)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", self.opset)],
            ir_version=8,
            producer_name="tvmtiny tests",
        )
        onnx.checker.check_model(model)
        return model


def dense_model(
    opset: int = 18, features: int = 6, classes: int = CLASSES, batch: Any = 1
) -> onnx.ModelProto:
    """One dense layer on features (1, features)."""
    build = OnnxBuilder(opset)
    x = build.input("features", [batch, features])
    return build.model(build.dense(x, features, classes, "classifier"), [batch, classes])


def sensor_model(opset: int = 18, steps: int = 16, axes: int = 3, patch: int = 4) -> onnx.ModelProto:
    """Windows (1, steps, axes): standardized, cut into patches, dense, mean, classifier; no mask."""
    build = OnnxBuilder(opset)
    x = build.input("window", [1, steps, axes])
    x = build.node("Sub", [x, build.constant(np.arange(axes) + 0.5)])
    x = build.node("Div", [x, build.constant(np.arange(axes) + 2.0)])
    x = build.reshape(x, 1, steps // patch, patch * axes)
    x = build.node("Relu", [build.dense(x, patch * axes, E, "patches")])
    x = build.node("Mul", [x, build.constant(1.0)])
    mean = {"axes": [1]} if opset < 18 else {}
    arguments = [x] if opset < 18 else [x, build.constant([1], np.int64)]
    x = build.node("ReduceMean", arguments, "pool", keepdims=0, **mean)
    return build.model(build.dense(x, E, CLASSES, "classifier"), [1, CLASSES])


def encoder_model(
    opset: int = 17,
    *,
    fused_qkv: bool = False,
    mask: str = "add",
    pre_norm: bool = False,
    layers: int = 1,
    pooling: str = "mean",
    batch: Any = 1,
    tokens: Any = S,
    activation: str = "gelu",
) -> onnx.ModelProto:
    """A transformer encoder with a classifier.

    Args:
        opset: LayerNorm is spelled out below 17.
        fused_qkv: one product for Q, K and V, then Split.
        mask: how the mask reaches the scores: "add", "where" or "none" (then there is no mask input).
        pre_norm: LayerNorm before instead of after the branches.
        layers: how many.
        pooling: "mean" over present tokens, or "first".
        batch: the first axis of the inputs, a name for a dynamic one.
        tokens: the second axis of the inputs.
        activation: "gelu" (by Erf) or "relu".
    """
    build = OnnxBuilder(opset)
    ids = build.input("ids", [batch, tokens], TensorProto.INT64)
    keep = build.input("mask", [batch, tokens], TensorProto.INT64) if mask != "none" else ""
    x = build.node("Gather", [build.weight(VOCABULARY, E), ids], "tokens")
    x = build.node("Add", [x, build.weight(1, S, E)], "positions")
    for i in range(layers):
        x = _layer(build, x, i, keep, fused_qkv, mask, pre_norm, activation)
    if pre_norm:
        x = _layer_norm(build, x, "final_norm")
    x = _pool(build, x, keep, pooling)
    return build.model(build.dense(x, E, CLASSES, "classifier"), [batch, CLASSES])


def _layer(
    build: OnnxBuilder, x: str, i: int, keep: str, fused_qkv: bool, mask: str, pre_norm: bool, activation: str
) -> str:
    def branch(x: str, name: str, function: Any) -> str:
        inner = _layer_norm(build, x, f"{name}_norm{i}") if pre_norm else x
        total = build.node("Add", [x, function(inner)], f"{name}_sum{i}")
        return total if pre_norm else _layer_norm(build, total, f"{name}_norm{i}")

    x = branch(x, "attention", lambda y: _attention(build, y, i, keep, fused_qkv, mask))
    return branch(x, "ffn", lambda y: _feed_forward(build, y, i, activation))


def _layer_norm(build: OnnxBuilder, x: str, name: str) -> str:
    gamma = build.constant(build.random.uniform(0.5, 1.5, E))
    beta = build.constant(build.random.normal(size=E) * 0.1)
    if build.opset >= 17:
        return build.node("LayerNormalization", [x, gamma, beta], name, axis=-1, epsilon=1e-5)
    centered = build.node("Sub", [x, build.node("ReduceMean", [x], axes=[-1])])
    square = build.node("Pow", [centered, build.constant(2.0)])
    variance = build.node("Add", [build.node("ReduceMean", [square], axes=[-1]), build.constant(1e-5)])
    normal = build.node("Div", [centered, build.node("Sqrt", [variance])])
    return build.node("Add", [build.node("Mul", [normal, gamma]), beta], name)


def _attention(build: OnnxBuilder, x: str, i: int, keep: str, fused_qkv: bool, mask: str) -> str:
    def heads(y: str, axes: list[int]) -> str:
        return build.node("Transpose", [build.reshape(y, 1, S, H, E // H)], perm=axes)

    if fused_qkv:
        whole = build.dense(x, E, 3 * E, f"qkv{i}")
        parts = [f"qkv{i}_{name}" for name in "qkv"]
        build.nodes.append(
            helper.make_node(
                "Split", [whole, build.constant([E, E, E], np.int64)], parts, f"split{i}", axis=-1
            )
        )
    else:
        parts = [build.dense(x, E, E, f"{name}{i}") for name in "qkv"]
    q, k, v = (
        heads(part, axes)
        for part, axes in zip(parts, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=True)
    )
    scores = build.node("MatMul", [q, k], f"scores{i}")
    scores = build.node("Div", [scores, build.constant(np.sqrt(E / H))])
    scores = _masked(build, scores, keep, mask)
    mixed = build.node("MatMul", [build.node("Softmax", [scores], f"softmax{i}", axis=-1), v], f"values{i}")
    merged = build.reshape(build.node("Transpose", [mixed], perm=[0, 2, 1, 3]), 1, S, E)
    return build.dense(merged, E, E, f"out{i}")


def _masked(build: OnnxBuilder, scores: str, keep: str, mask: str) -> str:
    if mask == "none":
        return scores
    wide = build.node("Unsqueeze", [keep, build.constant([1, 2], np.int64)])
    if mask == "where":
        dropped = build.node("Equal", [wide, build.constant(0, np.int64)])
        return build.node("Where", [dropped, build.constant(-np.inf), scores])
    real = build.node("Cast", [wide], to=TensorProto.FLOAT)
    inverse = build.node("Sub", [build.constant(1.0), real])
    return build.node("Add", [scores, build.node("Mul", [inverse, build.constant(-1e9)])])


def _feed_forward(build: OnnxBuilder, x: str, i: int, activation: str) -> str:
    hidden = build.dense(x, E, F, f"up{i}")
    if activation == "relu":
        hidden = build.node("Relu", [hidden])
    else:
        erf = build.node("Erf", [build.node("Div", [hidden, build.constant(np.sqrt(2.0))])])
        hidden = build.node("Mul", [hidden, build.node("Add", [erf, build.constant(1.0)])])
        hidden = build.node("Mul", [hidden, build.constant(0.5)])
    return build.dense(hidden, F, E, f"down{i}")


def _pool(build: OnnxBuilder, x: str, keep: str, pooling: str) -> str:
    axis = build.constant([1], np.int64)
    if pooling == "first":
        return build.node("Gather", [x, build.constant(0, np.int64)], "pool", axis=1)
    if not keep:
        arguments, axes = ([x, axis], {}) if build.opset >= 18 else ([x], {"axes": [1]})
        return build.node("ReduceMean", arguments, "pool", keepdims=0, **axes)
    real = build.node("Cast", [keep], to=TensorProto.FLOAT)
    weighted = build.node("Mul", [x, build.node("Unsqueeze", [real, build.constant([-1], np.int64)])])
    total = build.node("ReduceSum", [weighted, axis], keepdims=0)
    return build.node("Div", [total, build.node("ReduceSum", [real, axis], keepdims=1)], "pool")


def save(model: onnx.ModelProto, path: Path) -> Path:
    """Write a model and return the path."""
    path.write_bytes(model.SerializeToString())
    return path

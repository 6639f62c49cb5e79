"""The models of the benchmark: fixed architectures, random weights from a fixed seed, as ONNX."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

SEED = 2026
CALIBRATION_SAMPLES = 32


@dataclasses.dataclass(frozen=True)
class Encoder:
    """A post-LayerNorm encoder over features (S, E): ReLU feed-forward, mean pooling, a linear classifier.

    Attributes:
        tokens: S. width: E. heads: H. hidden: F. layers, classes: counts.
    """

    name: str
    tokens: int
    width: int
    heads: int
    hidden: int
    layers: int = 2
    classes: int = 8


ENCODERS = {
    encoder.name: encoder
    for encoder in (
        Encoder("enc32", tokens=32, width=64, heads=4, hidden=256),
        Encoder("bert-tiny-128", tokens=128, width=128, heads=2, hidden=512),
    )
}


class _Graph:
    def __init__(self) -> None:
        self.random = np.random.default_rng(SEED)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, values: npt.ArrayLike, dtype: Any = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def op(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        name = name or f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def dense(self, x: str, inputs: int, outputs: int, name: str = "") -> str:
        weight = self.constant(self.random.normal(size=(inputs, outputs)) / np.sqrt(inputs))
        bias = self.constant(self.random.normal(size=outputs) * 0.1)
        return self.op("Add", self.op("MatMul", x, weight), bias, name=name)

    def norm(self, x: str, width: int) -> str:
        gamma = self.constant(1 + 0.1 * self.random.normal(size=width))
        beta = self.constant(0.1 * self.random.normal(size=width))
        return self.op("LayerNormalization", x, gamma, beta, axis=-1, epsilon=1e-5)

    def attention(self, x: str, e: Encoder) -> str:
        part = e.width // e.heads
        split = self.constant([1, e.tokens, e.heads, part], np.int64)
        q, k, v = (self.op("Reshape", self.dense(x, e.width, e.width), split) for _ in range(3))
        q, v = (self.op("Transpose", t, perm=[0, 2, 1, 3]) for t in (q, v))
        k = self.op("Transpose", k, perm=[0, 2, 3, 1])
        scores = self.op("Mul", self.op("MatMul", q, k), self.constant(part**-0.5))
        mixed = self.op("MatMul", self.op("Softmax", scores, axis=-1), v)
        merged = self.op("Transpose", mixed, perm=[0, 2, 1, 3])
        joined = self.op("Reshape", merged, self.constant([1, e.tokens, e.width], np.int64))
        return self.dense(joined, e.width, e.width)


def build(encoder: Encoder) -> onnx.ModelProto:
    """The ONNX model; input `x` (1, S, E), output `logits` (1, classes)."""
    g, x = _Graph(), "x"
    for _ in range(encoder.layers):
        x = g.norm(g.op("Add", x, g.attention(x, encoder)), encoder.width)
        hidden = g.op("Relu", g.dense(x, encoder.width, encoder.hidden))
        x = g.norm(g.op("Add", x, g.dense(hidden, encoder.hidden, encoder.width)), encoder.width)
    pooled = g.op("ReduceMean", x, g.constant([1], np.int64), keepdims=0)
    g.dense(pooled, encoder.width, encoder.classes, name="logits")
    graph = helper.make_graph(
        g.nodes,
        encoder.name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, encoder.tokens, encoder.width])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, encoder.classes])],
        g.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def calibration(encoder: Encoder) -> dict[str, npt.NDArray[np.float32]]:
    """Normally distributed features, from the same seed."""
    random = np.random.default_rng(SEED)
    shape = (CALIBRATION_SAMPLES, encoder.tokens, encoder.width)
    return {"x": random.normal(size=shape).astype(np.float32)}


def save(encoder: Encoder, directory: Path) -> Path:
    """Write the ONNX file and return its path."""
    path = directory / f"{encoder.name}.onnx"
    directory.mkdir(parents=True, exist_ok=True)
    onnx.save(build(encoder), path)
    return path

"""The models of the encoder benchmarks: fixed architectures, random weights from a fixed seed, as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from tvmtiny.bench.catalog import EncoderBenchmark

SEED = 2026
CALIBRATION_SAMPLES = 32
INPUT, OUTPUT = "x", "y"
LEAST_WEIGHTS = 512


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

    def attention(self, x: str, e: EncoderBenchmark, name: str = "") -> str:
        part = e.head_dim or e.embedding // e.heads
        inner = e.heads * part
        split = self.constant([1, e.tokens, e.heads, part], np.int64)
        q, k, v = (self.op("Reshape", self.dense(x, e.embedding, inner), split) for _ in range(3))
        q, v = (self.op("Transpose", t, perm=[0, 2, 1, 3]) for t in (q, v))
        k = self.op("Transpose", k, perm=[0, 2, 3, 1])
        scores = self.op("Mul", self.op("MatMul", q, k), self.constant(part**-0.5))
        mixed = self.op("MatMul", self.op("Softmax", scores, axis=-1), v)
        merged = self.op("Transpose", mixed, perm=[0, 2, 1, 3])
        joined = self.op("Reshape", merged, self.constant([1, e.tokens, inner], np.int64))
        return self.dense(joined, inner, e.embedding, name=name)

    def feed_forward(self, x: str, e: EncoderBenchmark, name: str = "") -> str:
        hidden = self.op("Relu", self.dense(x, e.embedding, e.hidden))
        return self.dense(hidden, e.hidden, e.embedding, name=name)

    def embed(self, ids: str, e: EncoderBenchmark) -> str:
        tokens = self.constant(self.random.normal(size=(e.vocabulary, e.embedding)))
        positions = self.constant(self.random.normal(size=(1, e.tokens, e.embedding)))
        total = self.op("Add", self.op("Gather", tokens, ids), positions)
        return total if e.pre_norm else self.norm(total, e.embedding)


def build(encoder: EncoderBenchmark) -> onnx.ModelProto:
    """The ONNX model.

    Input `x`: features (1, S, E), or token ids (1, S). Output `y`: logits (1, classes), or (1, S, E).
    """
    e, g = encoder, _Graph()
    x = g.embed(INPUT, e) if e.vocabulary else INPUT
    sublayers = [g.attention, g.feed_forward] if e.hidden else [g.attention]
    for layer in range(e.layers):
        for sublayer in sublayers:
            last = not e.norm and not e.classes and layer == e.layers - 1 and sublayer is sublayers[-1]
            result = sublayer(g.norm(x, e.embedding) if e.pre_norm else x, e, OUTPUT if last else "")
            total = g.op("Add", x, result) if e.norm else result
            x = g.norm(total, e.embedding) if e.norm and not e.pre_norm else total
    x = g.norm(x, e.embedding) if e.pre_norm else x
    if e.classes:
        pooled = g.op("ReduceMean", x, g.constant([1], np.int64), keepdims=0)
        g.dense(pooled, e.embedding, e.classes, name=OUTPUT)
    return _model(g, e)


def _model(g: _Graph, e: EncoderBenchmark) -> onnx.ModelProto:
    kind, shape = (
        (TensorProto.INT64, [1, e.tokens])
        if e.vocabulary
        else (TensorProto.FLOAT, [1, e.tokens, e.embedding])
    )
    result = [1, e.classes] if e.classes else [1, e.tokens, e.embedding]
    graph = helper.make_graph(
        g.nodes,
        e.name,
        [helper.make_tensor_value_info(INPUT, kind, shape)],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, result)],
        g.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def calibration(encoder: EncoderBenchmark) -> dict[str, npt.NDArray[Any]]:
    """Normally distributed features, or evenly distributed token ids, from the same seed."""
    random = np.random.default_rng(SEED)
    shape = (CALIBRATION_SAMPLES, encoder.tokens)
    if encoder.vocabulary:
        return {INPUT: random.integers(0, encoder.vocabulary, shape)}
    return {INPUT: random.normal(size=(*shape, encoder.embedding)).astype(np.float32)}


def save(encoder: EncoderBenchmark, directory: Path) -> Path:
    """Write the ONNX file and return its path."""
    path = directory / f"{encoder.name}.onnx"
    directory.mkdir(parents=True, exist_ok=True)
    onnx.save(build(encoder), path)
    return path


def with_few_integers(model: onnx.ModelProto, entries: int) -> onnx.ModelProto:
    """A copy with at most `entries` distinct integers in each matrix and embedding table of LEAST_WEIGHTS or more.

    Rows are output channels, so columns of a MatMul's initializer; a table has one scale. NumPy alone makes it.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    book = np.unique(np.round(127 * np.sin(np.linspace(-np.pi / 2, np.pi / 2, entries)) ** 3))
    for tensor in result.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.ndim != 2 or values.size < LEAST_WEIGHTS:
            continue
        table = values.shape[0] > 10 * values.shape[1]
        scale = np.abs(values).max(axis=None if table else 0, keepdims=True) / 127
        nearest = np.abs(values[..., None] / scale[..., None] - book).argmin(axis=-1)
        tensor.CopyFrom(numpy_helper.from_array((book[nearest] * scale).astype(np.float32), tensor.name))
    return result

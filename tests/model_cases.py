"""The models that whole-model tests compile: one small case for each thing that compiled models differ in.

All weights and inputs are random with a fixed seed. A case is compiled once a directory by `compiled`.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import numpy as np
import onnx
import pytest
from models import OnnxBuilder
from onnx import TensorProto

from tvmtiny.artifact import Artifact
from tvmtiny.compiler import compile as compile_model
from tvmtiny.runner import Sample

CLASSES, VOCABULARY, CALIBRATION = 5, 40, 16


@dataclasses.dataclass(frozen=True)
class Encoder:
    """A transformer encoder with a classifier.

    Attributes:
        tokens: S; embedding: E; heads: H; hidden: F.
        features: columns of real inputs; 0 for token ids.
        mask: whether there is a mask input, so that the model has a length.
        weight_scale: factor on all weights of the layers.
        tags: classes of each token, as a second output; 0 for none.
    """

    tokens: int = 12
    embedding: int = 16
    heads: int = 2
    hidden: int = 32
    features: int = 0
    mask: bool = True
    pre_norm: bool = False
    pooling: str = "mean"
    activation: str = "gelu"
    layers: int = 1
    weight_scale: float = 1.0
    tags: int = 0
    seed: int = 0

    def model(self) -> onnx.ModelProto:
        """The model in ONNX: `ids` (1, S) or `x` (1, S, features), `mask` (1, S), result (1, CLASSES)."""
        build = OnnxBuilder(18, self.seed)
        x = self._embedded(build)
        keep = build.input("mask", [1, self.tokens], TensorProto.INT64) if self.mask else ""
        for layer in range(self.layers):
            x = self._branch(build, x, f"attention{layer}", lambda y: self._attention(build, y, keep))
            x = self._branch(build, x, f"ffn{layer}", lambda y: self._feed_forward(build, y))
        x = self._norm(build, x, "final") if self.pre_norm else x
        pooled = models._pool(build, x, keep, self.pooling)
        tags = build.dense(x, self.embedding, self.tags, "tagger") if self.tags else ""
        model = build.model(build.dense(pooled, self.embedding, CLASSES, "classifier"), [1, CLASSES])
        if self.tags:
            shape = [1, self.tokens, self.tags]
            model.graph.output.append(onnx.helper.make_tensor_value_info(tags, TensorProto.FLOAT, shape))
        return model

    def _embedded(self, build: OnnxBuilder) -> str:
        if self.features:
            x = build.input("x", [1, self.tokens, self.features])
            x = build.dense(x, self.features, self.embedding, "patches")
        else:
            ids = build.input("ids", [1, self.tokens], TensorProto.INT64)
            x = build.node("Gather", [build.weight(VOCABULARY, self.embedding), ids], "tokens")
        return build.node("Add", [x, build.weight(1, self.tokens, self.embedding)], "positions")

    def _branch(self, build: OnnxBuilder, x: str, name: str, function: Callable[[str], str]) -> str:
        inner = self._norm(build, x, f"{name}_norm") if self.pre_norm else x
        total = build.node("Add", [x, function(inner)], f"{name}_sum")
        return total if self.pre_norm else self._norm(build, total, f"{name}_norm")

    def _norm(self, build: OnnxBuilder, x: str, name: str) -> str:
        gamma = build.constant(build.random.uniform(0.5, 1.5, self.embedding))
        beta = build.constant(build.random.normal(size=self.embedding) * 0.1)
        return build.node("LayerNormalization", [x, gamma, beta], name, axis=-1, epsilon=1e-5)

    def _dense(self, build: OnnxBuilder, x: str, k: int, n: int) -> str:
        weight = build.random.normal(size=(k, n)) / np.sqrt(k) * self.weight_scale
        bias = build.random.normal(size=n) * 0.1 * self.weight_scale
        return build.node("Add", [build.node("MatMul", [x, build.constant(weight)]), build.constant(bias)])

    def _attention(self, build: OnnxBuilder, x: str, keep: str) -> str:
        width = self.embedding // self.heads
        q, k, v = (
            build.node(
                "Transpose",
                [
                    build.reshape(
                        self._dense(build, x, self.embedding, self.embedding),
                        1,
                        self.tokens,
                        self.heads,
                        width,
                    )
                ],
                perm=axes,
            )
            for axes in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
        )
        scores = build.node("Div", [build.node("MatMul", [q, k]), build.constant(np.sqrt(width))])
        scores = models._masked(build, scores, keep, "add" if keep else "none")
        mixed = build.node("MatMul", [build.node("Softmax", [scores], axis=-1), v])
        merged = build.node("Transpose", [mixed], perm=[0, 2, 1, 3])
        merged = build.reshape(merged, 1, self.tokens, self.embedding)
        return self._dense(build, merged, self.embedding, self.embedding)

    def _feed_forward(self, build: OnnxBuilder, x: str) -> str:
        hidden = self._dense(build, x, self.embedding, self.hidden)
        if self.activation == "gelu":
            erf = build.node("Erf", [build.node("Div", [hidden, build.constant(np.sqrt(2.0))])])
            hidden = build.node("Mul", [hidden, build.node("Add", [erf, build.constant(1.0)])])
            hidden = build.node("Mul", [hidden, build.constant(0.5)])
        else:
            hidden = build.node("Relu", [hidden])
        return self._dense(build, hidden, self.hidden, self.embedding)


@dataclasses.dataclass(frozen=True)
class Case:
    """A model with what it is fed.

    Attributes:
        model: makes it.
        inputs: shape and number of token ids (0: real values) by input name.
        tokens: S; length: whether it has a mask.
        options: of the compiler.
    """

    name: str
    model: Callable[[], onnx.ModelProto]
    inputs: dict[str, tuple[tuple[int, ...], int]]
    tokens: int
    length: bool
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    def calibration(self, count: int = CALIBRATION, seed: int = 1) -> dict[str, np.ndarray]:
        """Samples in the model's own types; the first three have the lengths 1, an odd one and S."""
        rng = np.random.default_rng(seed)
        arrays: dict[str, np.ndarray] = {
            name: rng.integers(0, limit, (count, *shape))
            if limit
            else rng.normal(size=(count, *shape)).astype(np.float32)
            for name, (shape, limit) in self.inputs.items()
        }
        if self.length:
            lengths = rng.integers(1, self.tokens + 1, count)
            lengths[:3] = [1, (self.tokens // 2) | 1, self.tokens]
            arrays["n_tokens"] = lengths
        return arrays


def _case(name: str, encoder: Encoder, **options: Any) -> Case:
    shape = (encoder.tokens, encoder.features) if encoder.features else (encoder.tokens,)
    inputs = {"x": (shape, 0)} if encoder.features else {"ids": (shape, VOCABULARY)}
    return Case(name, encoder.model, inputs, encoder.tokens, encoder.mask, options)


CASES = {
    case.name: case
    for case in (
        _case("post_norm", Encoder()),
        _case("pre_norm", Encoder(pre_norm=True, activation="relu")),
        _case("first_token", Encoder(pooling="first", tokens=10)),
        _case("odd_sizes", Encoder(tokens=9, embedding=20, heads=2, hidden=28)),
        _case("narrow_heads", Encoder(tokens=7, embedding=15, heads=5, hidden=19)),
        _case("intent_and_tags", Encoder(tags=7)),
        # Rows of weights that end within a group, and within a word.
        _case("int4", Encoder(tokens=9, embedding=42, heads=3, hidden=69), weights="int4"),
        _case("sensor_encoder", Encoder(features=6, mask=False, tokens=8)),
        Case("sensor", models.sensor_model, {"window": ((16, 3), 0)}, 4, length=False),
    )
}


def compiled(case: Case, directory: Path, target: str = "qemu-m4", **options: Any) -> Artifact:
    """Compile a case to `directory`."""
    path = models.save(case.model(), directory.with_suffix(".onnx"))
    return compile_model(
        path, target=target, calibration=case.calibration(), output=directory, **case.options | options
    )


def shared(factory: pytest.TempPathFactory, name: str, target: str) -> Artifact:
    """The model of case `name`, compiled once for all test processes of a session."""
    base = factory.getbasetemp()
    # pytest-xdist gives each worker a folder inside that of the session.
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "models" / target
    root.mkdir(parents=True, exist_ok=True)
    directory = root / name
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return Artifact.load(directory) if directory.exists() else compiled(CASES[name], directory, target)


def samples(artifact: Artifact, count: int = 6, seed: int = 2) -> list[Sample]:
    """Inputs in the arena's types; with a length the first are of 1, an odd number and S tokens."""
    rng = np.random.default_rng(seed)
    most = artifact.max_tokens
    lengths = (
        [1, (most // 2) | 1, most, *rng.integers(1, most + 1, count)]
        if artifact.has_length
        else [most] * count
    )
    return [
        Sample(
            {
                info.name: rng.integers(0, info.limit, info.shape).astype(info.dtype)
                if info.kind == "tokens"
                else rng.integers(-128, 128, info.shape).astype(info.dtype)
                for info in artifact.inputs
            },
            n_tokens=int(n),
        )
        for n in lengths[:count]
    ]

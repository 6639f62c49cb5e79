"""The models that whole-model tests compile: one small case for each thing that compiled models differ in.

All weights and inputs are random with a fixed seed. A case is compiled once a directory by `compiled`.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
from collections.abc import Callable, Mapping
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
OUTLIER_CHANNELS = (3, 11)


@dataclasses.dataclass(frozen=True)
class Encoder:
    """A transformer encoder with a classifier.

    Attributes:
        tokens: S; embedding: E; heads: H; hidden: F.
        head_dim: P; 0 for E / H.
        features: columns of real inputs; 0 for token ids.
        mask: whether there is a mask input, so that the model has a length.
        weight_scale: factor on all weights of the layers.
        tags: classes of each token, as a second output; 0 for none.
        final: where a pre-LayerNorm model has its last LayerNorm: "before" pooling, "after" it, or "beside" it, for
            the tags alone.
        outliers: what the first feed-forward layer adds to one channel of the stream, and takes from another, for
            every token. The LayerNorms behind it make up for that in their gamma, as those of trained
            pre-LayerNorm models do, so that all channels count in what they give.
        sentence: whether the result is the pooled row, of length 1, instead of classes.
    """

    tokens: int = 12
    embedding: int = 16
    heads: int = 2
    hidden: int = 32
    head_dim: int = 0
    features: int = 0
    mask: bool = True
    pre_norm: bool = False
    pooling: str = "mean"
    activation: str = "gelu"
    layers: int = 1
    weight_scale: float = 1.0
    tags: int = 0
    final: str = "before"
    outliers: float = 0.0
    sentence: bool = False
    seed: int = 0

    def model(self) -> onnx.ModelProto:
        """The model in ONNX: `ids` (1, S) or `x` (1, S, features), `mask` (1, S), result (1, CLASSES)."""
        build = OnnxBuilder(18, self.seed)
        x = self._embedded(build)
        keep = build.input("mask", [1, self.tokens], TensorProto.INT64) if self.mask else ""
        for layer in range(self.layers):
            behind, added = layer > 0, 0.0 if layer else self.outliers
            x = self._branch(build, x, f"attention{layer}", behind, lambda y: self._attention(build, y, keep))
            x = self._branch(
                build, x, f"ffn{layer}", behind, lambda y, added=added: self._feed_forward(build, y, added)
            )
        final = self.final if self.pre_norm else ""
        x = self._norm(build, x, "final", behind_outliers=True) if final == "before" else x
        pooled = models._pool(build, x, keep, self.pooling)
        pooled = self._norm(build, pooled, "final", behind_outliers=True) if final == "after" else pooled
        if self.sentence:
            return build.model(_unit_length(build, pooled), [1, self.embedding])
        x = self._norm(build, x, "final", behind_outliers=True) if final == "beside" else x
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

    def _branch(
        self, build: OnnxBuilder, x: str, name: str, behind_outliers: bool, function: Callable[[str], str]
    ) -> str:
        inner = self._norm(build, x, f"{name}_norm", behind_outliers) if self.pre_norm else x
        total = build.node("Add", [x, function(inner)], f"{name}_sum")
        return total if self.pre_norm else self._norm(build, total, f"{name}_norm")

    def _norm(self, build: OnnxBuilder, x: str, name: str, behind_outliers: bool = False) -> str:
        gamma = build.random.uniform(0.5, 1.5, self.embedding)
        if behind_outliers and self.outliers:
            spread = np.sqrt(2 / self.embedding)  # outliers have this many standard deviations, inverted
            gamma *= self.outliers * spread
            gamma[list(OUTLIER_CHANNELS)] /= self.outliers
        gamma = build.constant(gamma)
        beta = build.constant(build.random.normal(size=self.embedding) * 0.1)
        return build.node("LayerNormalization", [x, gamma, beta], name, axis=-1, epsilon=1e-5)

    def _dense(self, build: OnnxBuilder, x: str, k: int, n: int, outliers: float = 0.0) -> str:
        weight = build.random.normal(size=(k, n)) / np.sqrt(k) * self.weight_scale
        bias = build.random.normal(size=n) * 0.1 * self.weight_scale
        if outliers:
            bias[list(OUTLIER_CHANNELS)] += [outliers, -outliers]
        return build.node("Add", [build.node("MatMul", [x, build.constant(weight)]), build.constant(bias)])

    def _attention(self, build: OnnxBuilder, x: str, keep: str) -> str:
        width = self.head_dim or self.embedding // self.heads
        q, k, v = (
            build.node(
                "Transpose",
                [
                    build.reshape(
                        self._dense(build, x, self.embedding, self.heads * width),
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
        merged = build.reshape(merged, 1, self.tokens, self.heads * width)
        return self._dense(build, merged, self.heads * width, self.embedding)

    def _feed_forward(self, build: OnnxBuilder, x: str, outliers: float) -> str:
        hidden = self._dense(build, x, self.embedding, self.hidden)
        if self.activation == "gelu":
            erf = build.node("Erf", [build.node("Div", [hidden, build.constant(np.sqrt(2.0))])])
            hidden = build.node("Mul", [hidden, build.node("Add", [erf, build.constant(1.0)])])
            hidden = build.node("Mul", [hidden, build.constant(0.5)])
        else:
            hidden = build.node("Relu", [hidden])
        return self._dense(build, hidden, self.hidden, self.embedding, outliers)


def _unit_length(build: OnnxBuilder, x: str) -> str:
    """Rows divided by their length, as torch.nn.functional.normalize is exported."""
    squares = build.node("ReduceSum", [build.node("Mul", [x, x]), build.constant([-1], np.int64)], keepdims=1)
    length = build.node("Max", [build.node("Sqrt", [squares]), build.constant(1e-12)])
    return build.node("Div", [x, length], "sentence")


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
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

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


def _wide(name: str, **encoder: Any) -> Case:
    """A pre-LayerNorm encoder with outlier channels, its residual stream in int16."""
    return _case(name, Encoder(pre_norm=True, outliers=50.0, layers=2, **encoder), residual="int16")


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
        _case("folded", Encoder(tokens=9, embedding=12, heads=3, head_dim=14, hidden=20)),
        _case("folded_single_head", Encoder(tokens=8, embedding=11, heads=1, hidden=12, pre_norm=True)),
        _wide("wide_stream", tokens=9, embedding=15, heads=5, hidden=19),
        _wide("wide_mean", features=6, mask=False, tokens=8, final="after"),
        _wide(
            "wide_first", tokens=10, embedding=20, pooling="first", activation="relu", final="beside", tags=3
        ),
        _case(
            "int4_folded", Encoder(tokens=9, embedding=12, heads=3, head_dim=14, hidden=20), weights="int4"
        ),
        _wide("wide_folded", tokens=8, embedding=13, heads=1, hidden=12),
        # int16 from int8, int8 from int16, and int16 that is added, pooled and, as an int8 copy, multiplied.
        _case(
            "int16_layers",
            Encoder(
                pre_norm=True,
                outliers=50.0,
                layers=2,
                tokens=9,
                embedding=15,
                heads=5,
                hidden=19,
                final="",
                tags=3,
            ),
            int16=("positions", "ffn*_sum"),
        ),
        _case("int16_weights", Encoder(tokens=9, embedding=18, heads=3, hidden=22), weights="int16"),
        _case("sentence", Encoder(tokens=9, embedding=18, heads=3, hidden=20, sentence=True)),
        Case("sensor", models.sensor_model, {"window": ((16, 3), 0)}, 4, length=False),
    )
}

LONG_CASES = {
    case.name: case
    for case in (
        _case("many_tokens", Encoder(tokens=259, embedding=12, heads=2, hidden=8, layers=1)),
        _case("many_tokens_odd_heads", Encoder(tokens=270, embedding=15, heads=5, hidden=8, layers=1)),
    )
}
"""Models of so many tokens that schedules take fewer rows at a time; too many for the smallest machines."""


def compiled(case: Case, directory: Path, target: str = "qemu-m4", **options: Any) -> Artifact:
    """Compile a case to `directory`."""
    path = models.save(case.model(), directory.with_suffix(".onnx"))
    options = {**case.options, **options}
    return compile_model(path, target=target, calibration=case.calibration(), output=directory, **options)


def shared(factory: pytest.TempPathFactory, name: str, target: str) -> Artifact:
    """The model of case `name`, compiled once for all test processes of a session."""
    base = factory.getbasetemp()
    # pytest-xdist gives each worker a folder inside that of the session.
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "models" / target
    root.mkdir(parents=True, exist_ok=True)
    directory = root / name
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return (
            Artifact.load(directory)
            if directory.exists()
            else compiled((CASES | LONG_CASES)[name], directory, target)
        )


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

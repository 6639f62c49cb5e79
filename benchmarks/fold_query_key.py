"""What folding Q K^T does to accuracy: signal to quantization noise of an attention layer with P = E, both ways.

    python benchmarks/fold_query_key.py

Random weights and tokens from a fixed seed. The tokens come from a LayerNorm, some channels of which are larger than
the others, as trained transformers have them; the weights that read these channels are smaller by as much. `sharp` is
a factor on all scores.
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tvmtiny.bench import models
from tvmtiny.bench.catalog import EncoderBenchmark
from tvmtiny.compiler import compile as compile_model

LAYERS = ((32, 64, 4), (64, 32, 2))
"""Tokens S, embedding E, heads H."""

OUTLIERS = ((0, 1.0), (1, 4.0), (1, 10.0), (4, 10.0), (1, 30.0))
"""How many channels are how many times as large as the others."""

SHARP = (1.0, 4.0, 16.0)


class _Graph(models._Graph):
    """The graph of the benchmarks, its attention on the tokens of a LayerNorm."""

    def __init__(self, channels: np.ndarray, sharp: float) -> None:
        super().__init__()
        self.channels = channels
        self.sharp = sharp
        self.projections = 0

    def tokens(self) -> str:
        gamma = (1 + 0.1 * self.random.normal(size=len(self.channels))) * self.channels
        beta = 0.1 * self.random.normal(size=len(self.channels)) * self.channels
        return self.op(
            "LayerNormalization",
            models.INPUT,
            self.constant(gamma),
            self.constant(beta),
            axis=-1,
            epsilon=1e-5,
        )

    def dense(self, x: str, inputs: int, outputs: int, name: str = "") -> str:
        weight = self.random.normal(size=(inputs, outputs)) / np.sqrt(inputs)
        if self.projections < 2:
            weight *= np.sqrt(self.sharp)  # Q and K
        if self.projections < 3:
            weight /= self.channels[:, np.newaxis]
        self.projections += 1
        bias = self.constant(self.random.normal(size=outputs) * 0.1)
        return self.op("Add", self.op("MatMul", x, self.constant(weight)), bias, name=name)


def layer(tokens: int, embedding: int, heads: int) -> EncoderBenchmark:
    """One attention without residual and LayerNorm behind it, so that its own noise shows."""
    return EncoderBenchmark(
        "layer",
        "",
        tokens=tokens,
        embedding=embedding,
        heads=heads,
        head_dim=embedding,
        layers=1,
        classes=0,
        norm=False,
    )


def snr_db(model: Path, calibration: dict[str, Any], fold_qk: str) -> float:
    """Of the attention layer, which is the last."""
    artifact = compile_model(
        model,
        target="host",
        calibration=calibration,
        fold_qk=fold_qk,
        name="layer",
        output=model.parent / fold_qk,
    )
    return float(artifact.metadata["quality"]["layers"][-1]["snr_db"])


def main() -> None:
    """Print a row a layer."""
    print("  S   E  H  outliers  sharp    apart   folded  difference (dB)")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer.onnx"
        for shape, (count, size), sharp in itertools.product(LAYERS, OUTLIERS, SHARP):
            benchmark = layer(*shape)
            channels = np.ones(benchmark.embedding)
            channels[np.random.default_rng(7).permutation(benchmark.embedding)[:count]] = size
            graph = _Graph(channels, sharp)
            graph.attention(graph.tokens(), benchmark, models.OUTPUT)
            onnx.save(models._model(graph, benchmark), path)
            apart, folded = (
                snr_db(path, models.calibration(benchmark), mode) for mode in ("never", "always")
            )
            what = f"{count} x {size:.0f}" if count else "none"
            S, E, H = shape
            print(
                f"{S:3} {E:3} {H:2}  {what:8} {sharp:6.0f} {apart:8.1f} {folded:8.1f}  {folded - apart:+10.2f}"
            )


if __name__ == "__main__":
    main()

"""A pre-LayerNorm encoder with outlier channels, its residual stream in int8 and in int16: fidelity and memory.

    python benchmarks/residual_stream.py

The encoder is `pre-norm-32` of encoders.toml with three layers. In trained pre-LayerNorm transformers a few channels of
the stream are many times larger than the others, for every token, from an early feed-forward layer on, and the
LayerNorms behind it have learned a gamma to match. Here the first feed-forward layer adds a constant to one channel and
takes it from another. Columns: that constant (the other channels are of the order of 1), the
signal-to-quantization-noise ratio of the worst LayerNorm and of the logits, the share of samples with the float model's
class, and the arena.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from rich import box
from rich.console import Console
from rich.table import Table

from tvmtiny.artifact import Artifact
from tvmtiny.bench.catalog import EncoderBenchmark, load_catalog
from tvmtiny.bench.models import build, calibration
from tvmtiny.compiler import compile as compile_model
from tvmtiny.passes.quantize import RESIDUALS

OUTLIERS = (0, 30, 50, 100)
CHANNELS = [3, 11]
TARGET = "qemu-m4"


def with_outliers(model: onnx.ModelProto, size: float) -> onnx.ModelProto:
    """Outliers of a size in CHANNELS from the end of the first layer on, and LayerNorms that make up for them."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    producer = {node.output[0]: node for node in model.graph.node}
    behind = [node for node in model.graph.node if node.op_type == "LayerNormalization"][2:]
    branch = producer[producer[behind[0].input[0]].input[1]]  # of the sum that the second layer begins with

    def edit(name: str, change: np.ndarray, *, product: bool) -> None:
        array = numpy_helper.to_array(constants[name])
        edited = (array * change if product else array + change).astype(np.float32)
        constants[name].CopyFrom(numpy_helper.from_array(edited, name))

    width = len(numpy_helper.to_array(constants[branch.input[1]]))
    added, gain = np.zeros(width), np.full(width, size * np.sqrt(2 / width))
    added[CHANNELS] = size, -size
    gain[CHANNELS] /= size
    edit(branch.input[1], added, product=False)
    for norm in behind:
        edit(norm.input[1], gain, product=True)
    return model


def compiled(encoder: EncoderBenchmark, size: float, residual: str, directory: Path) -> Artifact:
    """The encoder with outliers of a size (0: as it is) and a residual stream of a type."""
    model = build(encoder)
    path = directory / f"{residual}-{size}.onnx"
    onnx.save(with_outliers(model, size) if size else model, path)
    return compile_model(
        path,
        target=TARGET,
        calibration=calibration(encoder),
        residual=residual,
        output=directory / f"m{residual}_{size}",
    )


def main() -> None:
    """Compile every combination and print a row for it."""
    encoder = next(item for item in load_catalog() if item.name == "pre-norm-32")
    assert isinstance(encoder, EncoderBenchmark)
    encoder = dataclasses.replace(encoder, layers=3)
    table = Table(box=box.SIMPLE)
    for title in (
        "outliers",
        "stream",
        "worst LayerNorm (dB)",
        "logits (dB)",
        "same class (%)",
        "arena (bytes)",
    ):
        table.add_column(title, justify="right")
    with tempfile.TemporaryDirectory() as directory:
        for size in OUTLIERS:
            for residual in RESIDUALS:
                found = compiled(encoder, size, residual, Path(directory))
                quality = found.metadata["quality"]
                snr = {row["name"]: row["snr_db"] for row in quality["layers"]}
                norms = [value for name, value in snr.items() if name.startswith("layernormalization")]
                table.add_row(
                    str(size),
                    residual,
                    f"{min(norms):.1f}",
                    f"{list(snr.values())[-1]:.1f}",
                    f"{100 * quality['agreement']:.0f}",
                    f"{found.arena_bytes:,}",
                )
    Console().print(table)


if __name__ == "__main__":
    main()

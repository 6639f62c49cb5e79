"""A pre-LayerNorm encoder with outlier channels, its residual stream in int8 and in int16: fidelity and cost.

    python benchmarks/residual_stream.py

The encoder is `pre-norm-32` of encoders.toml with three layers. In trained pre-LayerNorm transformers a few channels of
the stream are many times larger than the others, for every token, from an early feed-forward layer on, and the
LayerNorms behind it have learned a gamma to match. Here the first feed-forward layer adds a constant to one channel and
takes it from another. The stream is int8, int16, or int16 in the layers that `--verify` suggests for `--int16`.
Columns: that constant (the other channels are of the order of 1), the layers in int16, the signal-to-quantization-noise
ratio of the worst LayerNorm and of the logits, the share of samples with the float model's class, instructions of an
inference on an emulated Cortex-M4, and the arena.
"""

from __future__ import annotations

import dataclasses
import re
import tempfile
from pathlib import Path
from typing import Any

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
from tvmtiny.frontend.data import load_samples
from tvmtiny.runner import run

OUTLIERS = (0, 30, 50, 100)
CHANNELS = [3, 11]
TARGET = "qemu-m4"
TITLES = (
    "outliers", "stream", "layers", "worst LayerNorm (dB)", "logits (dB)", "same class (%)", "instructions", "arena"
)  # fmt: skip


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


def compiled(encoder: EncoderBenchmark, size: float, directory: Path, **options: Any) -> Artifact:
    """The encoder with outliers of a size (0: as it is)."""
    model = build(encoder)
    path = directory / "model.onnx"
    onnx.save(with_outliers(model, size) if size else model, path)
    data = calibration(encoder)
    return compile_model(
        path, target=TARGET, calibration=data, verify=data, output=directory / "model", **options
    )


def suggested(found: Artifact) -> list[str]:
    """The layers that the advice of `--verify` gives to --int16."""
    messages = [row["message"] for row in found.metadata["quality"]["verification"]["advice"]]
    match = re.search(r"--int16 (\S+)", " ".join(messages))
    return match[1].split(",") if match else []


def row(size: float, stream: str, found: Artifact) -> list[str]:
    """The figures of a compiled encoder."""
    quality = found.metadata["quality"]
    snr = {layer["name"]: layer["snr_db"] for layer in quality["layers"]}
    norms = [value for name, value in snr.items() if name.startswith("layernormalization")]
    samples = load_samples(found, found.directory / "reference" / "inputs.npz")
    instructions = run(found, "qemu", samples[:1]).instructions
    return [
        str(size),
        stream,
        str(len(found.metadata["residual"]["tensors"])),
        f"{min(norms):.1f}",
        f"{list(snr.values())[-1]:.1f}",
        f"{100 * quality['agreement']:.0f}",
        f"{instructions:,}",
        f"{found.arena_bytes:,}",
    ]


def main() -> None:
    """Compile every combination and print a row for it."""
    encoder = next(item for item in load_catalog() if item.name == "pre-norm-32")
    assert isinstance(encoder, EncoderBenchmark)
    encoder = dataclasses.replace(encoder, layers=3)
    table = Table(box=box.SIMPLE)
    for title in TITLES:
        table.add_column(title, justify="right")
    with tempfile.TemporaryDirectory() as directory:
        for size in OUTLIERS:
            made = compiled(encoder, size, Path(directory))
            table.add_row(*row(size, "int8", made))
            if layers := suggested(made):
                made = compiled(encoder, size, Path(directory), int16=layers)
                table.add_row(*row(size, "suggested", made))
            table.add_row(*row(size, "int16", compiled(encoder, size, Path(directory), residual="int16")))
    Console(width=110).print(table)


if __name__ == "__main__":
    main()

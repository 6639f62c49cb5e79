"""Outlier columns in what matrices read, with and without `compile --smooth`: signal to noise at the logits.

    python benchmarks/smooth.py

The encoder is `pre-norm-32` of encoders.toml with three layers. Two columns of the result of each LayerNorm are larger
by a factor than they were, and the weights that read them smaller, as large language models have them: the float model
stays the same.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from rich import box
from rich.console import Console
from rich.table import Table

from tvmtiny.bench.catalog import EncoderBenchmark, load_catalog
from tvmtiny.bench.models import build, calibration
from tvmtiny.frontend import import_model
from tvmtiny.frontend.data import Batch, check_arrays, input_specs
from tvmtiny.options import ModelOptions
from tvmtiny.quant.calibrate import FloatModel, Statistics, run_all
from tvmtiny.quant.reference import IntegerModel, integer_inputs
from tvmtiny.quant.report import Quality

FACTORS = (1, 30)
COLUMNS = [3, 11]


def with_outliers(model: onnx.ModelProto, factor: float) -> onnx.ModelProto:
    """COLUMNS of each LayerNorm larger by a factor, and the matrices that read them smaller by it."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}

    def scale(name: str, rows: Any) -> None:
        array = numpy_helper.to_array(constants[name]).copy()
        array[COLUMNS] *= rows
        constants[name].CopyFrom(numpy_helper.from_array(array.astype(np.float32), name))

    norms = [node for node in model.graph.node if node.op_type == "LayerNormalization"]
    for norm in norms:
        readers = [node for node in model.graph.node if norm.output[0] in node.input]
        if all(node.op_type == "MatMul" for node in readers):
            for name in norm.input[1:]:
                scale(name, factor)
            for node in readers:
                scale(node.input[1], 1 / factor)
    return model


class Compared:
    """A model and its calibration data, to be made integers in several ways."""

    def __init__(self, path: Path, arrays: dict[str, Any]) -> None:
        self.fused = ModelOptions().fuse(import_model(path))
        self.specs, mask, tokens = input_specs(self.fused)
        self.batch: Batch = check_arrays(arrays, self.specs, mask, tokens)
        self.traces = self._traces(self.fused)

    def _traces(self, fused: Any) -> Any:
        return list(run_all(FloatModel(fused), self.batch.arrays, self.batch.n_tokens))

    def snr(self, **options: Any) -> float:
        """Signal to noise (dB) of the last layer with these options of `compile`."""
        chosen = ModelOptions(**options)
        fused, traces = self.fused, self.traces
        if chosen.smooth:
            fused = chosen.smoothed(fused, Statistics(traces))
            traces = self._traces(fused)
        quantized = chosen.quantize(fused, Statistics(traces))
        model, quality = IntegerModel(quantized.module), Quality(quantized.outputs)
        for index, trace in enumerate(traces):
            row = {name: array[index] for name, array in self.batch.arrays.items()}
            results = model.run(integer_inputs(quantized, self.specs, row), int(self.batch.n_tokens[index]))
            quality.add(trace, results, quantized.tensors)
        return float(quality.report()["layers"][-1]["snr_db"])


def models(directory: Path) -> Iterator[tuple[str, Compared]]:
    """The models by name."""
    encoder = next(item for item in load_catalog() if item.name == "pre-norm-32")
    assert isinstance(encoder, EncoderBenchmark)
    encoder = dataclasses.replace(encoder, layers=3)
    path = directory / "model.onnx"
    for factor in FACTORS:
        onnx.save(with_outliers(build(encoder), factor), path)
        yield f"outliers x {factor}", Compared(path, calibration(encoder))


def main() -> None:
    """Print a row for each model."""
    table = Table("model", "int8", "int8, smooth", "int4", "int4, smooth", box=box.SIMPLE)
    with tempfile.TemporaryDirectory() as directory:
        for name, model in models(Path(directory)):
            cells = [
                f"{model.snr(weights=weights, smooth=smooth):.1f}"
                for weights in ("int8", "int4")
                for smooth in (False, True)
            ]
            table.add_row(name, *cells)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()

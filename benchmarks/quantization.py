"""What each way of quantizing costs on the examples: accuracy, and signal to noise at the logits.

    SNIPS=DIR python benchmarks/quantization.py intent
    python benchmarks/quantization.py motion

Rows are computed by the integer arithmetic of the generated C, on the data that the example was measured on, as its
README.md names it.
Quantization-aware training starts from the model.onnx of the example, once a seed.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from tvmtiny.compress.calibrated import Judge, Measured, statistics_of
from tvmtiny.compress.fused_module import FusedModule, fuse
from tvmtiny.compress.progress import Progress
from tvmtiny.compress.qat import FineTuning, qat
from tvmtiny.compress.quantize import Budget, layer_bytes, mixed
from tvmtiny.compress.quantized_module import QuantizedModule
from tvmtiny.compress.recipe import load_recipe
from tvmtiny.compress.task import Task
from tvmtiny.passes.quantize import QuantizedModel, quantize
from tvmtiny.passes.weight_types import WeightTypes, weight_types

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def example(name: str, seed: int) -> Task:
    """The task of an example's recipe, with the model that ships and its calibration data."""
    calibration = dict(np.load(EXAMPLES / name / "calibration.npz"))
    model = EXAMPLES / name / "model.onnx"
    return dataclasses.replace(
        load_recipe(EXAMPLES / name / "recipe.toml").task(seed),
        model=lambda: FusedModule(fuse(model), list(calibration)),
        calibration=calibration,
    )


def _shortened(task: Task, batches: int | None) -> Task:
    """The task with epochs of at most so many batches."""
    if batches is None or batches >= task.steps:
        return task
    return dataclasses.replace(task, steps=batches, batches=lambda: itertools.islice(task.batches(), batches))


Row = tuple[str, Measured, int]
"""A way, its figures, and bytes of the weights of dense layers."""


class Bench:
    """The float model of a task, and its integer models on the test data."""

    def __init__(self, task: Task) -> None:
        self.task, self.module = task, task.model().eval()
        self.fused = self.module.fused
        self.judge = Judge(self.module, self.fused, task, task.test)
        self.statistics = statistics_of(self.fused, task)

    def row(self, title: str, quantized: QuantizedModel) -> Row:
        """One row."""
        return title, self.judge.measure(quantized), sum(layer_bytes(quantized).values())

    def without_training(self) -> Iterator[Row]:
        """int8 and int4, each in every way."""
        for weights in ("int8", "int4"):
            for rounding in ("nearest", "gptq"):
                for corrected in (False, True):
                    title = f"{weights}, {rounding}{', bias correction' if corrected else ''}"
                    yield self.row(
                        title, self._quantized(weight_types(self.fused, weights), rounding, corrected)
                    )

    def mixed(self, budget: Budget) -> Row:
        """int4 for the layers that lose least, the ends of the model included."""
        judge = Judge(self.module, self.fused, self.task, self.task.selection)
        types = weight_types(self.fused)
        found = mixed(lambda t: self._quantized(t, "gptq", True), types, judge, budget, Progress())
        count = sum(kind == "int4" for kind in found.values())
        title = f"mixed: {count} of {len(found)} layers int4, gptq, bias correction"
        return self.row(title, self._quantized(found, "gptq", True))

    def trained(self, seed: int, train: FineTuning) -> Row:
        """int4 with quantization-aware training."""
        progress = Progress(seed=seed, listener=lambda event: print(event, file=sys.stderr, flush=True))
        module = qat(self.module, self.task, train=train, progress=progress)
        assert isinstance(module, QuantizedModule)
        return self.row(f"int4, trained (seed {seed})", module.quantized())

    def _quantized(self, types: WeightTypes, rounding: str, corrected: bool) -> QuantizedModel:
        return quantize(
            self.fused, self.statistics, weights=types, rounding=rounding, bias_correction=corrected
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("example", choices=("intent", "motion"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--most-lost", type=float, default=0.005, help="of mixed precision, on selection data"
    )
    parser.add_argument("--least-db", type=float, default=30.0, help="of mixed precision, on selection data")
    parser.add_argument("--epochs", type=int, default=3, help="of quantization-aware training")
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument(
        "--batches", type=int, help="of each of these epochs; all of the example's when left out"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(_shortened(example(options.example, 0), options.batches))
    table = Table("weights", "accuracy", "SNR of the logits (dB)", "weights of dense layers (B)")
    accuracy = bench.task.measure(bench.module, bench.task.test)["accuracy"]
    table.add_row("float", f"{accuracy:.2%}", "", "")
    rows = [*bench.without_training(), bench.mixed(Budget(options.most_lost, options.least_db))]
    train = FineTuning(epochs=options.epochs, learning_rate=options.learning_rate)
    trained = [bench.trained(seed, train) for seed in range(options.seeds)]
    for title, measured, size in (*rows, *trained):
        table.add_row(title, f"{measured.metrics['accuracy']:.2%}", f"{measured.snr_db:.1f}", f"{size:,}")
    Console(width=120).print(f"{options.example}, {len(bench.task.test)} samples")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()

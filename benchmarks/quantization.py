"""What each way of quantizing costs on the examples: their metrics, and signal to noise at the worst output.

    SNIPS=DIR python benchmarks/quantization.py examples/intent/recipe.toml
    python benchmarks/quantization.py examples/motion/recipe.toml
    SNIPS=DIR python benchmarks/quantization.py examples/slots/slots_64k.toml --model build/slots/slots_64k

Rows are computed by the integer arithmetic of the generated C, on the test split of the recipe's task; the README.md
beside the recipe says where its data is from. Quantization-aware training starts from model.onnx, once for each seed.
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


def task_of(recipe: Path, directory: Path) -> Task:
    """The task of a recipe, with a model that was trained by it and its calibration data."""
    calibration = dict(np.load(directory / "calibration.npz"))
    return dataclasses.replace(
        load_recipe(recipe).task(0),
        model=lambda: FusedModule(fuse(directory / "model.onnx"), list(calibration)),
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

    def trained(self, seed: int, train: FineTuning, learn_steps: bool) -> Row:
        """int4 with quantization-aware training."""
        progress = Progress(seed=seed, listener=lambda event: print(event, file=sys.stderr, flush=True))
        module = qat(self.module, self.task, train=train, learn_steps=learn_steps, progress=progress)
        assert isinstance(module, QuantizedModule)
        return self.row(f"int4, trained (seed {seed})", module.quantized())

    def _quantized(self, types: WeightTypes, rounding: str, corrected: bool) -> QuantizedModel:
        return quantize(
            self.fused, self.statistics, weights=types, rounding=rounding, bias_correction=corrected
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument(
        "--model", type=Path, help="directory of model.onnx and calibration.npz: the recipe's, else"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--most-lost", type=float, default=0.005, help="of mixed precision, on selection data"
    )
    parser.add_argument("--least-db", type=float, default=30.0, help="of mixed precision, on selection data")
    parser.add_argument("--epochs", type=int, default=3, help="of quantization-aware training")
    parser.add_argument("--learning-rate", type=float, default=FineTuning.learning_rate)
    parser.add_argument("--fixed-steps", action="store_true", help="learn no step sizes of weights")
    parser.add_argument(
        "--batches", type=int, help="of each of these epochs; all of the recipe's when left out"
    )
    return parser.parse_args()


def main() -> None:
    """Print the table."""
    options = _options()
    torch.set_num_threads(1)
    task = task_of(options.recipe, options.model or options.recipe.parent)
    bench = Bench(_shortened(task, options.batches))
    exact = bench.task.measure(bench.module, bench.task.test)
    table = Table("weights", *exact, "SNR (dB)", "weights of dense layers (B)")
    table.add_row("float", *(f"{value:.2%}" for value in exact.values()), "", "")
    rows = [*bench.without_training(), bench.mixed(Budget(options.most_lost, options.least_db))]
    train = FineTuning(epochs=options.epochs, learning_rate=options.learning_rate)
    trained = [bench.trained(seed, train, not options.fixed_steps) for seed in range(options.seeds)]
    for title, measured, size in (*rows, *trained):
        metrics = (f"{value:.2%}" for value in measured.metrics.values())
        table.add_row(title, *metrics, f"{measured.snr_db:.1f}", f"{size:,}")
    console = Console(width=120)
    console.print(f"{options.recipe}, {len(bench.task.test)} samples")
    console.print(table)


if __name__ == "__main__":
    main()

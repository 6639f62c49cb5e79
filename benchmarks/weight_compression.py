"""What clusters of weights and their compression save and cost: the table of docs/weight-compression.md.

    SNIPS=DIR python benchmarks/weight_compression.py --work build/clusters [--target qemu-m4]

Trains by examples/intent/recipe.toml once, clusters the result, and compiles each module in each form. What has been
trained in --work already is not trained again. Accuracy is that of the integers, which are the same in every form;
instructions are counted in QEMU, for one utterance of 15 tokens, and must give the reference's bytes.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import tvmtiny
from tvmtiny.artifact import Artifact
from tvmtiny.compress.directory import CHECKPOINTS
from tvmtiny.compress.recipe import Step, load_recipe
from tvmtiny.compress.runner import run_recipe
from tvmtiny.frontend.data import load_samples
from tvmtiny.report.profile import profile
from tvmtiny.runner import run
from tvmtiny.verify import expected_outputs

INTENT = Path(__file__).resolve().parents[1] / "examples" / "intent"
CLUSTERS = (16, 32, 64)
PLAIN = ("none", "tile")
FORMS = (
    ("packed", "tile"),
    ("packed", "boot"),
    ("huffman", "tile"),
    ("huffman", "boot"),
    ("huffman", "rows"),
)


def make_models(work: Path, epochs: int) -> dict[str, Path]:
    """Results of the example's recipe, and of what clustering makes of them; their trainings are shared, and kept."""
    recipe = load_recipe(INTENT / "recipe.toml")
    found = {"float": work / "float"} | {f"{k} clusters": work / f"clusters{k}" for k in CLUSTERS}
    for name, directory in found.items():
        steps = []
        if name != "float":
            steps = [Step("cluster", {"clusters": int(name.split()[0]), "epochs": epochs})]
        run_recipe(dataclasses.replace(recipe, steps=tuple(steps)), directory, checkpoints=work / CHECKPOINTS)
    return found


def compile_one(model: Path, work: Path, target: str, weights: str, form: str, decode: str) -> Artifact:
    """The model of a directory in one form."""
    return tvmtiny.compile(
        model / "model.onnx",
        target=target,
        calibration=INTENT / "calibration.npz",
        weights=weights,
        compress_weights=form,
        decode=decode,
        output=work / "c" / f"{model.name}_{weights}_{form}_{decode}",
    )


def accuracy(artifact: Artifact, test: Path) -> float:
    """Share of right classes of the integer model."""
    outputs = expected_outputs(artifact, load_samples(artifact, test))
    classes = np.array([int(row["logits"].argmax()) for row in outputs])
    return float(np.mean(classes == np.load(test)["labels"]))


def measured(artifact: Artifact) -> list[str]:
    """Flash of weights and of code, arena, instructions and estimated cycles of the first sample."""
    samples = load_samples(artifact, INTENT / "sample.npz")[:1]
    result = run(artifact, "qemu", samples)
    expected = expected_outputs(artifact, samples)[0]
    assert all(np.array_equal(result.outputs[0][name], expected[name]) for name in expected)
    cycles = profile(artifact, samples[0]).estimated_cycles
    figures = (
        result.sizes.weight_bytes,
        result.sizes.code_bytes,
        artifact.arena_bytes,
        result.instructions,
        cycles,
    )
    return [f"{figure:,}" for figure in figures]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--target", default="qemu-m4")
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    models = make_models(options.work, options.epochs)
    console = Console(width=160)
    table = Table(
        "model",
        "weights",
        "form",
        "decode",
        "accuracy",
        "weights (B)",
        "code (B)",
        "arena (B)",
        "instr.",
        "cycles",
    )
    for name, path in models.items():
        for weights in ("int8", "int4") if name == "float" else ("int8",):
            right = ""
            for form, decode in (PLAIN, *FORMS):
                artifact = compile_one(path, options.work, options.target, weights, form, decode)
                right = right or f"{accuracy(artifact, path / 'test.npz'):.2%}"
                row = [name, weights, form, "" if form == "none" else decode, right, *measured(artifact)]
                console.print(*row, sep=" | ")
                table.add_row(*row)
    console.print(table)


if __name__ == "__main__":
    main()

"""What clusters of weights and their compression save and cost: the table of docs/weight-compression.md.

    python benchmarks/weight_compression.py --data DIR --work build/clusters [--target qemu-m4]

DIR holds the SNIPS data as for examples/intent/train.py. Trains the intent model once, clusters it, and compiles each
module in each form. Modules that lie in --work already are not made again. Accuracy is that of the integers, which XX
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
INTENT = ROOT / "examples" / "intent"
sys.path[:0] = [str(ROOT / "examples"), str(INTENT)]

import train as intent  # noqa: E402  the line above makes these importable
from common import export_onnx  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

import tvmtiny  # noqa: E402
from tvmtiny.artifact import Artifact  # noqa: E402
from tvmtiny.compress.cluster import cluster  # noqa: E402
from tvmtiny.compress.task import Split, Task  # noqa: E402
from tvmtiny.frontend.data import load_samples  # noqa: E402
from tvmtiny.report.profile import profile  # noqa: E402
from tvmtiny.runner import run  # noqa: E402
from tvmtiny.verify import expected_outputs  # noqa: E402

SEED = 0
CLUSTERS = (16, 32, 64)
PLAIN = ("none", "tile")
FORMS = (
    ("packed", "tile"),
    ("packed", "boot"),
    ("huffman", "tile"),
    ("huffman", "boot"),
    ("huffman", "rows"),
)

Parts = dict[str, dict[str, Tensor]]


def read_parts(data: Path) -> Parts:
    """The rows to fit, to select and to validate on, encoded; as examples/intent/train.py splits them."""
    validation, everything = (intent.read_rows(data / f"{name}.tsv") for name in ("validation", "train"))
    fitting, selection = intent.split(intent.distinct(everything, validation))
    labels = sorted({label for label, _ in fitting})
    tokenizer = Tokenizer.from_file(str(INTENT / "tokenizer.json"))
    rows = {"fit": fitting, "selection": selection, "validation": validation}
    return {name: intent.encode_rows(part, tokenizer, labels) for name, part in rows.items()}


def task_of(parts: Parts) -> Task:
    """The intent task for compression steps."""

    def batches() -> Any:
        for (ids, mask), labels in intent.batches(parts["fit"]):
            yield {"input_ids": ids, "attention_mask": mask}, {"labels": labels}

    def split(name: str) -> Split:
        arrays = {key: tensor.numpy() for key, tensor in parts[name].items()}
        labels = arrays.pop("labels")
        return Split(arrays, {"labels": labels})

    smoothing = intent.RECIPE.label_smoothing
    return Task(
        model=lambda: intent.IntentModel(intent.VOCABULARY, 7, intent.SHAPE, intent.RECIPE.dropout),
        outputs=("logits",),
        batches=batches,
        steps=-(-len(parts["fit"]["labels"]) // intent.RECIPE.batch),
        loss=lambda outputs, targets: nn.functional.cross_entropy(
            outputs["logits"], targets["labels"], label_smoothing=smoothing
        ),
        metrics=lambda outputs, targets: {
            "accuracy": float((outputs["logits"].argmax(-1) == targets["labels"]).mean())
        },
        selection=split("selection"),
        test=split("validation"),
        calibration=dict(np.load(INTENT / "calibration.npz")),
    )


def make_models(parts: Parts, work: Path, epochs: int) -> dict[str, Path]:
    """ONNX files of the float model and of its clusters."""
    task, weights = task_of(parts), work / "float.pt"
    calibration = {name: torch.from_numpy(array) for name, array in task.calibration.items()}
    if not weights.exists():
        trained, _, _ = intent.train_one(SEED, parts)
        torch.save(trained.state_dict(), weights)
    model = task.model()
    model.load_state_dict(torch.load(weights, weights_only=True))
    found = {"float": work / "float.onnx"} | {f"{k} clusters": work / f"clusters{k}.onnx" for k in CLUSTERS}
    for name, path in found.items():
        if not path.exists():
            made = (
                model
                if name == "float"
                else cluster(model, task, clusters=int(name.split()[0]), epochs=epochs)
            )
            export_onnx(made.eval(), calibration, path)
    return found


def compile_one(model: Path, work: Path, target: str, weights: str, form: str, decode: str) -> Artifact:
    """The model in one form."""
    return tvmtiny.compile(
        model,
        target=target,
        calibration=INTENT / "calibration.npz",
        weights=weights,
        compress_weights=form,
        decode=decode,
        output=work / f"{model.stem}_{weights}_{form}_{decode}",
    )


def accuracy(artifact: Artifact, validation: Path) -> float:
    """Share of right classes of the integer model."""
    outputs = expected_outputs(artifact, load_samples(artifact, validation))
    classes = np.array([int(row["logits"].argmax()) for row in outputs])
    return float(np.mean(classes == np.load(validation)["labels"]))


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
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--target", default="qemu-m4")
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    parts = read_parts(options.data)
    validation = options.work / "validation.npz"
    np.savez(validation, **{name: tensor.numpy() for name, tensor in parts["validation"].items()})
    models = make_models(parts, options.work, options.epochs)
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
                right = right or f"{accuracy(artifact, validation):.2%}"
                row = [name, weights, form, "" if form == "none" else decode, right, *measured(artifact)]
                console.print(*row, sep=" | ")
                table.add_row(*row)
    console.print(table)


if __name__ == "__main__":
    main()

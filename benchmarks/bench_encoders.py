"""Whole encoders on emulated cores, beside TensorFlow Lite for Microcontrollers with CMSIS-NN.

    python benchmarks/bench_encoders.py [--targets qemu-m4 qemu-m7] [--models enc32 bert-tiny-128]

Instructions are counted by QEMU and repeat exactly for one compiler. The peer's figures were measured in the same way
on the same emulated machines (arm-none-eabi-gcc 12.2, -O3, QEMU 7.2): int8, the same architecture, random weights.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from models import ENCODERS, calibration, save
from rich.console import Console
from rich.table import Table

import tvmtiny
from tvmtiny.artifact import Artifact
from tvmtiny.runner import RunResult, Sample, run
from tvmtiny.verify import expected_outputs

WIDTH = 130
"""Characters that the table needs, also when it goes to a file."""

TFLM_INSTRUCTIONS = {
    ("enc32", "qemu-m4"): 17_490_267,
    ("enc32", "qemu-m7"): 18_419_519,
    ("bert-tiny-128", "qemu-m4"): 185_043_442,
    ("bert-tiny-128", "qemu-m7"): 187_690_263,
}
TFLM_ARENA = {"enc32": 34_400, "bert-tiny-128": 174_468}


def measure(name: str, target: str, directory: Path) -> tuple[Artifact, RunResult]:
    """Compile one encoder for a target, run it and check its bytes."""
    encoder = ENCODERS[name]
    artifact = tvmtiny.compile(
        save(encoder, directory),
        target=target,
        calibration=calibration(encoder),
        output=directory / f"{name}-{target}",
    )
    inputs = np.load(artifact.directory / "reference" / "inputs.npz")
    samples = [Sample({"x": inputs["x"][0]}, encoder.tokens)]
    result = run(artifact, "qemu", samples)
    expected = expected_outputs(artifact, samples)
    if not np.array_equal(result.outputs[0]["logits"], expected[0]["logits"]):
        raise SystemExit(f"{name} on {target} differs from its reference")
    return artifact, result


def main() -> None:
    """Print a row a model and target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--targets", nargs="+", default=["qemu-m4", "qemu-m7"])
    parser.add_argument("--models", nargs="+", default=list(ENCODERS), choices=list(ENCODERS))
    options = parser.parse_args()
    table = Table(title="Encoders, int8, beside TFLM with CMSIS-NN")
    for column in (
        "model",
        "target",
        "MACs",
        "instructions",
        "a MAC",
        "TFLM",
        "ratio",
        "arena",
        "TFLM",
        "code+tables",
    ):
        table.add_column(column, justify="left" if column in ("model", "target") else "right")
    with tempfile.TemporaryDirectory() as directory:
        for name in options.models:
            for target in options.targets:
                artifact, result = measure(name, target, Path(directory))
                table.add_row(*_row(name, target, artifact, result))
    Console(width=max(WIDTH, Console().width)).print(table)


def _row(name: str, target: str, artifact: Artifact, result: RunResult) -> list[str]:
    macs, count = artifact.metadata["figures"]["macs"], result.instructions
    assert count is not None
    peer = TFLM_INSTRUCTIONS.get((name, target))
    return [
        name,
        target,
        f"{macs:,}",
        f"{count:,}",
        f"{count / macs:.2f}",
        f"{peer:,}" if peer else "",
        f"{peer / count:.2f}" if peer else "",
        f"{artifact.arena_bytes:,}",
        f"{TFLM_ARENA[name]:,}",
        f"{result.sizes.code_bytes + result.sizes.table_bytes:,}",
    ]


if __name__ == "__main__":
    main()

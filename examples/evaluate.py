"""Accuracy of an example as float, as integer C on the host and executed on the emulated core of its board.

    python examples/evaluate.py examples/intent validation.npz [--target stm32f746] [--weights int4]

The .npz has the model's inputs and `labels`, as `examples/intent/encode.py` and `examples/motion/train.py
--export-test` write it. Float is ONNX Runtime; every integer output is also compared with the NumPy reference.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from rich.console import Console
from rich.table import Table

import tvmtiny
from tvmtiny.frontend.data import load_samples
from tvmtiny.runner import run
from tvmtiny.verify import expected_outputs

Array = npt.NDArray[Any]


def float_logits(model: Path, data: dict[str, Array]) -> Array:
    """Logits of every sample by ONNX Runtime, one sample at a time as on the device."""
    session = onnxruntime.InferenceSession(model)
    names = [value.name for value in session.get_inputs()]
    rows = range(len(data["labels"]))
    types = {value.name: np.float32 if "float" in value.type else np.int64 for value in session.get_inputs()}
    return np.concatenate(
        [
            session.run(None, {name: data[name][row : row + 1].astype(types[name]) for name in names})[0]
            for row in rows
        ]
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("example", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--target", default="stm32f746")
    parser.add_argument("--weights", default="int8", choices=("int8", "int4"))
    options = parser.parse_args()
    model, data = options.example / "model.onnx", dict(np.load(options.data))
    labels, reference = data["labels"], float_logits(model, data).argmax(axis=1)
    table = Table("execution", "accuracy", "same class as float", "bytes as the reference")
    table.add_row("float, ONNX Runtime", f"{np.mean(reference == labels):.2%}", "", "")
    with tempfile.TemporaryDirectory() as directory:
        artifact = tvmtiny.compile(
            model,
            target=options.target,
            calibration=options.example / "calibration.npz",
            weights=options.weights,
            output=Path(directory) / options.example.name,
        )
        samples, name = load_samples(artifact, options.data), artifact.outputs[0].name
        expected = np.stack([row[name] for row in expected_outputs(artifact, samples)])
        for title, on, target in (
            (f"{options.weights}, host", "host", "host"),
            (f"{options.weights}, emulated {artifact.metadata['cpu']}", "qemu", None),
        ):
            result = run(artifact, on, samples, target=target, jobs=0, timeout_s=600)
            outputs = np.stack([row[name] for row in result.outputs])
            classes = outputs.reshape(len(samples), -1).argmax(axis=1)
            equal = np.mean(np.all(outputs == expected, axis=tuple(range(1, outputs.ndim))))
            table.add_row(
                title,
                f"{np.mean(classes == labels):.2%}",
                f"{np.mean(classes == reference):.2%}",
                f"{equal:.2%}",
            )
    Console().print(f"{len(labels)} samples of {options.data.name}")
    Console().print(table)


if __name__ == "__main__":
    main()

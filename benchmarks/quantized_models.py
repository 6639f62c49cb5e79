"""Models quantized by ONNX Runtime: its int8 model and tvmtiny's beside the float model, on the same data.

    python benchmarks/quantized_models.py [MODEL ...]

MODEL is an example (intent, motion) or a family of tests/family_models.py. Each is quantized by `quantize_static` in
QDQ format, by least and largest value, with activations in int8 or uint8 and weights per tensor or per channel, and
compiled without calibration data. Columns: signal-to-noise ratio of the first output and share of rows with the float
model's largest element, of ONNX Runtime and of tvmtiny; the same between the two. Arguments of softmax stay float: with
a mask of -inf ONNX Runtime's scale is infinite, and its model gives NaN.
"""

from __future__ import annotations

import itertools
import logging
import sys
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from rich import box
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import quantized_models

from tvmtiny.compiler import compile as compile_model
from tvmtiny.frontend.data import load_samples
from tvmtiny.verify import expected_outputs

ROOT = Path(__file__).parents[1]
EXAMPLES = ("intent", "motion")
FAMILIES = ("bert", "distilbert", "electra", "rms_norm", "vit_cls")
TITLES = ("model", "activations", "weights", "ONNX Runtime", "tvmtiny", "the two agree")


def source(name: str, directory: Path) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A float model and its data."""
    if name in EXAMPLES:
        place = ROOT / "examples" / name
        return onnx.load(place / "model.onnx"), dict(np.load(place / "calibration.npz"))
    import family_models

    chosen = family_models.FAMILIES[name]
    path = family_models.onnx_file(chosen, chosen.module(), directory / "model.onnx")
    return onnx.load(path), chosen.samples()


def compiled(
    model: onnx.ModelProto, data: Mapping[str, np.ndarray], shape: tuple[int, ...], directory: Path
) -> np.ndarray:
    """The first output of tvmtiny's integer model in real numbers, in the shape of ONNX Runtime's."""
    path = directory / "int8.onnx"
    path.write_bytes(model.SerializeToString())
    made = compile_model(path, target="host", output=directory / "model")
    np.savez(directory / "data.npz", **data)
    info = made.metadata["outputs"][0]
    rows = expected_outputs(made, load_samples(made, directory / "data.npz"))
    integers = np.stack([row[info["name"]] for row in rows]).astype(np.float64)
    real = (integers - np.asarray(info["zero_point"])) * np.asarray(info["scale"])
    return real.reshape(shape)


def compared(expected: np.ndarray, actual: np.ndarray) -> str:
    """Signal-to-noise ratio and share of rows with the same largest element."""
    same = np.mean(expected.argmax(axis=-1) == actual.argmax(axis=-1))
    return f"{quantized_models.decibels(expected, actual):.1f} dB, {100 * same:.1f} %"


def main() -> None:
    """Print a row for each model and way of quantizing it."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    table = Table(box=box.SIMPLE)
    for number, title in enumerate(TITLES):
        table.add_column(title, justify="left" if number < 3 else "right")
    for name in sys.argv[1:] or (*EXAMPLES, *FAMILIES):
        with tempfile.TemporaryDirectory() as place:
            plain, data = source(name, Path(place))
            types = {value.name: value.type.tensor_type.elem_type for value in plain.graph.input}
            data = {
                key: data[key].astype(onnx.helper.tensor_dtype_to_np_dtype(kind))
                for key, kind in types.items()
            }
            expected = quantized_models.results(plain, data)
            for activations, per_channel in itertools.product(("QInt8", "QUInt8"), (False, True)):
                model = quantized_models.quantized(
                    plain, data, activations=activations, per_channel=per_channel
                )
                runtime = quantized_models.results(model, data)
                ours = compiled(model, data, expected.shape, Path(place))
                weights = "per channel" if per_channel else "per tensor"
                figures = (compared(expected, runtime), compared(expected, ours), compared(runtime, ours))
                table.add_row(name, activations.removeprefix("Q").lower(), weights, *figures)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()

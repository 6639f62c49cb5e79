"""Model families of Hugging Face and torch, as their own tools export them: what compiles, how close, at what price.

    python benchmarks/families.py [FAMILY ...]

Each is one or two layers with random weights (tests/family_models.py), imported through torch.export, through ONNX and,
where it is a class of transformers, as a Hugging Face directory.
Columns: signal-to-quantization-noise ratio of each output of the int8 model beside torch's results, on samples that
calibration has not seen; instructions of the first of them on an emulated Cortex-M4, whose bytes must be those of the
integer reference; arena; flash (code, tables and weights). What is refused says why.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import family_models

from tvmtiny.errors import UserError
from tvmtiny.runner import run
from tvmtiny.verify import expected_outputs

RUNS = 3
TITLES = ("family", "through", "outputs (dB)", "instructions", "arena", "flash")


def measured(name: str, form: str, directory: Path) -> list[str]:
    """A row of the table after the family and the format. Raises UserError where the model is refused."""
    made = family_models.compiled(name, form, directory)
    ratios = family_models.agreement(name, made, directory)
    samples = family_models.FAMILIES[name].samples(seed=7)
    chosen = family_models.in_arena(made, samples, directory)[2 : 2 + RUNS]  # the first has all tokens
    result = run(made, "qemu", chosen)
    for actual, expected in zip(result.outputs, expected_outputs(made, chosen), strict=True):
        for key, values in expected.items():
            np.testing.assert_array_equal(actual[key], values)
    sizes = result.sizes
    flash = sizes.code_bytes + sizes.table_bytes + sizes.weight_bytes
    figures = (f"{result.instructions:,}", f"{made.arena_bytes:,}", f"{flash:,}")
    return [", ".join(f"{ratio:.1f}" for ratio in ratios), *figures]


def main() -> None:
    """Print a row for each family and format."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    names = sys.argv[1:] or list(family_models.FAMILIES)
    table = Table(box=box.SIMPLE)
    for number, title in enumerate(TITLES):
        table.add_column(title, justify="left" if number < 2 else "right")
    refused = []
    with tempfile.TemporaryDirectory() as directory:
        for name in names:
            for form in (
                *family_models.FORMS,
                *([family_models.HF] if family_models.has_directory(name) else []),
            ):
                try:
                    table.add_row(name, form, *measured(name, form, Path(directory) / form))
                except UserError as error:
                    table.add_row(name, form, "refused")
                    refused.append(f"{name} ({form}): {error}")
    console = Console(width=110)
    console.print(table)
    for line in refused:
        console.print(line, markup=False)


if __name__ == "__main__":
    main()

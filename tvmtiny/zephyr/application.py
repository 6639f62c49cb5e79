"""Write Zephyr applications of a compiled model from the templates in microtvm_projects/zephyr/.

`reference` is a test for Twister: the model gives the bytes of its reference on any board.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from tvmtiny import __version__
from tvmtiny.artifact import Artifact, TensorInfo
from tvmtiny.codegen.c_sources import c_values
from tvmtiny.resources import data_dir

TEMPLATE_SUFFIX = ".j2"
RAM_MARGIN_KB, FLASH_MARGIN_KB = 16, 64
"""What a small Zephyr image takes beside arena and constants; Twister leaves out boards with less than the sum."""


def write_reference_test(artifact: Artifact, model: Path | str, directory: Path) -> None:
    """Write the test application of a model to `directory`.

    Args:
        model: the model's directory as the application's CMakeLists.txt names it.
    """
    _write("reference", _context(artifact, model) | {"samples": _samples(artifact)}, directory)


def _context(artifact: Artifact, model: Path | str) -> dict[str, Any]:
    weights = artifact.metadata["figures"]["weight_bytes"]
    return {
        "name": artifact.name,
        "version": __version__,
        "model": Path(model).as_posix(),
        "ram_kb": artifact.arena_bytes // 1024 + RAM_MARGIN_KB,
        "flash_kb": weights // 1024 + FLASH_MARGIN_KB,
    }


def _write(kind: str, context: Mapping[str, Any], directory: Path) -> None:
    """Copy the files of microtvm_projects/zephyr/<kind>, rendering those that are templates."""
    source = data_dir(f"microtvm_projects/zephyr/{kind}")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(source),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # C and CMake, not HTML
    )
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        relative = path.relative_to(source).as_posix()
        target = directory / relative.removesuffix(TEMPLATE_SUFFIX)
        target.parent.mkdir(parents=True, exist_ok=True)
        rendered = path.suffix == TEMPLATE_SUFFIX
        text = environment.get_template(relative).render(context) if rendered else path.read_text("utf-8")
        target.write_text(text, encoding="utf-8")


def _samples(artifact: Artifact) -> list[dict[str, Any]]:
    """The reference vectors in the model's directory: a length and, as C, the bytes of every tensor."""
    with (
        np.load(artifact.directory / "reference" / "inputs.npz") as inputs,
        np.load(artifact.directory / "reference" / "outputs.npz") as outputs,
    ):
        return [
            {
                "index": index,
                "n_tokens": int(n_tokens),
                "inputs": _bytes(artifact.inputs, inputs, index),
                "outputs": _bytes(artifact.outputs, outputs, index),
            }
            for index, n_tokens in enumerate(inputs["n_tokens"])
        ]


def _bytes(tensors: Sequence[TensorInfo], arrays: Mapping[str, Any], index: int) -> list[str]:
    rows = (np.ascontiguousarray(arrays[info.name][index], info.dtype) for info in tensors)
    return [c_values(np.frombuffer(row.tobytes(), np.uint8)) for row in rows]

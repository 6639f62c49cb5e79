"""Write Zephyr applications of a compiled model from the templates in microtvm_projects/zephyr/.

`application` is firmware that answers a host on a serial port, as the bare-metal one does. `reference` is a test for
Twister: the model gives the bytes of its reference on any board.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tvmtiny import __version__
from tvmtiny.artifact import METADATA_FILE, Artifact, TensorInfo
from tvmtiny.codegen.c_sources import c_values
from tvmtiny.errors import UserError
from tvmtiny.resources import data_dir
from tvmtiny.runner.project import HARNESS, Project, harness_defines, input_bytes, model_id
from tvmtiny.target import Target
from tvmtiny.templates import jinja_environment

TEMPLATE_SUFFIX = ".j2"
RAM_MARGIN_KB, FLASH_MARGIN_KB = 16, 64
"""What a small Zephyr image takes beside arena and constants; Twister leaves out boards with less than the sum."""


BUILD = "build"
"""Where in an application its handler builds it."""

_MODEL = "model"
_COMMON = "common"


def write_application(artifact: Artifact, target: Target, directory: Path, *, debug: bool = False) -> Project:
    """Write the firmware of a model, with a copy of the model, to `directory`.

    Args:
        debug: the host may look into the arena, which holds raw inputs.

    Raises:
        UserError: the model's directory is no Zephyr module.
    """
    _copy_model(artifact, directory / _MODEL)
    common = data_dir("microtvm_projects/common")
    for path in (*common.glob("*.h"), *(common / name for name in HARNESS)):
        _write_text(directory / _COMMON / path.name, path.read_text("utf-8"))
    context = {
        "NAME": artifact.name.upper(),
        "board": target.zephyr_board,
        "emulated": bool(target.qemu_machine),
        "stack_bytes": target.stack_bytes,
        "sources": [f"{_COMMON}/{name}" for name in HARNESS],
        "defines": harness_defines(artifact, target, input_bytes(artifact), debug=debug),
    }
    _write("application", _context(artifact, _MODEL) | context, directory)
    elf = directory / BUILD / "zephyr" / "zephyr.elf"
    return Project(directory, target, elf, elf, elf, model_id(artifact))


def _copy_model(artifact: Artifact, to: Path) -> None:
    """Copy what a build needs: all but the reference."""
    files = [name for name in artifact.metadata["files"] if not name.startswith("reference/")]
    if "zephyr/module.yml" not in files:
        raise UserError(f"{artifact.directory} is no Zephyr module.", "Compile the model again.")
    for name in (METADATA_FILE, *files):
        _write_text(to / name, (artifact.directory / name).read_text("utf-8"))


def _write_text(path: Path, text: str) -> None:
    """Write a file unless it has this text already, so that a build does not begin anew."""
    if path.is_file() and path.read_text("utf-8") == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


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
    environment = jinja_environment(source)
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        relative = path.relative_to(source).as_posix()
        target = directory / relative.removesuffix(TEMPLATE_SUFFIX)
        rendered = path.suffix == TEMPLATE_SUFFIX
        text = environment.get_template(relative).render(context) if rendered else path.read_text("utf-8")
        _write_text(target, text)


def _samples(artifact: Artifact) -> list[dict[str, Any]]:
    """The reference vectors in the model's directory: a length and, as C, the bytes of every tensor."""
    with (
        np.load(artifact.reference_inputs) as inputs,
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

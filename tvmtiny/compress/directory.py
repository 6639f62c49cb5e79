"""The directory of a result: the model and what `tvmtiny compile` is to be given with it. Reading needs no torch."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tvmtiny.errors import UserError

if TYPE_CHECKING:
    import onnx
    from torch import nn

    from tvmtiny.compress.task import Task

CHECKPOINTS = "checkpoints"
OPTIONS = "compile.json"
"""Arguments of tvmtiny.compile, files relative to the directory. Written last: with it the result is whole."""
FILES = ("model", "calibration", "tokenizer", "features", "labels", "scales")
"""Arguments that are files."""
SAMPLES = 16
"""Test samples in sample.npz."""


def read_options(directory: Path) -> dict[str, Any]:
    """The arguments of tvmtiny.compile for a result, with paths as they are from here.

    Raises:
        UserError: the directory holds no result that is whole.
    """
    try:
        data = json.loads((directory / OPTIONS).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{directory} holds no finished result of `tvmtiny compress`: no {OPTIONS} that can be read.",
            "Run the recipe to its end: tvmtiny compress RECIPE -o DIR.",
        ) from error
    return {
        name: _paths(value, lambda file: directory / file) if name in FILES else value
        for name, value in data.items()
    }


def _paths(value: Any, change: Any) -> Any:
    """A path, or the paths of a table, changed; lists of names stay."""
    if isinstance(value, Mapping):
        return {name: _paths(file, change) for name, file in value.items()}
    return change(value) if isinstance(value, str | Path) else value


def write_result(
    directory: Path,
    module: nn.Module,
    proto: onnx.ModelProto,
    task: Task,
    options: dict[str, Any],
    figures: dict[str, Any],
) -> None:
    """Write the files of a result, each whole or not at all.

    Args:
        module: what `proto` was exported from.

    Raises:
        UserError: a target has the name of an input.
        EnvironmentProblem: the disk is full, or the place cannot be written.
    """
    from tvmtiny.compress.progress import state_bytes, write

    (directory / OPTIONS).unlink(missing_ok=True)
    test = _with_targets(task)
    arrays = {
        "calibration.npz": dict(task.calibration),
        "test.npz": test,
        "sample.npz": {name: values[:SAMPLES] for name, values in test.items()},
    }
    write(directory / "module.pt", state_bytes(module.state_dict()))
    write(directory / "model.onnx", proto.SerializeToString())
    for name, content in arrays.items():
        write(directory / name, _npz(content))
    write(directory / "figures.json", _json(figures))
    told = {"model": "model.onnx", "calibration": "calibration.npz"}
    for name, value in options.items():
        files = _files(name, value, directory)
        told[name] = _paths(files, lambda file: _copy(Path(file), directory)) if name in FILES else value
    write(directory / OPTIONS, _json(told))


def _with_targets(task: Task) -> dict[str, Any]:
    twice = set(task.test.inputs) & set(task.test.targets)
    if twice:
        raise UserError(
            f"Inputs and targets share the names {sorted(twice)}.", "Rename the targets of the task."
        )
    return {**task.test.inputs, **task.test.targets}


def _files(name: str, value: Any, directory: Path) -> Any:
    """An argument as files, where it may be files and a task or a step gives what they hold."""
    from tvmtiny.compress.progress import write

    if name == "scales" and isinstance(value, Mapping):
        write(directory / "scales.json", _json(dict(value)))
        return directory / "scales.json"
    return _label_files(value, directory) if name == "labels" else value


def _label_files(labels: Any, directory: Path, name: str = "labels.txt") -> Any:
    """Files of class names, where a task gives the names; a mapping has them by output."""
    from tvmtiny.compress.progress import write

    if isinstance(labels, Mapping):
        return {key: _label_files(value, directory, f"{key}_labels.txt") for key, value in labels.items()}
    if isinstance(labels, str | Path):
        return labels
    write(directory / name, "".join(f"{label}\n" for label in labels).encode())
    return directory / name


def _copy(file: Path, directory: Path) -> str:
    """Put a file into the directory; returns its name there."""
    place = directory / file.name
    if os.path.realpath(file) != os.path.realpath(place):
        shutil.copyfile(file, place)
    return file.name


def _npz(arrays: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _json(data: dict[str, Any]) -> bytes:
    return (json.dumps(data, indent=1, ensure_ascii=False, default=_number) + "\n").encode()


def _number(value: Any) -> Any:
    """NumPy scalars and arrays as JSON has them."""
    return value.tolist() if hasattr(value, "tolist") else str(value)

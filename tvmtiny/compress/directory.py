"""The directory of a result: the model and what `tvmtiny compile` is to be given with it. Reading needs no torch."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

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
        UserError: a file that the result is to hold cannot be read; an earlier result stays then.
        EnvironmentProblem: the disk is full, or the place cannot be written.
    """
    from tvmtiny.compress.progress import state_bytes, write

    test = {**task.test.inputs, **task.test.targets}
    arrays = {
        "calibration.npz": dict(task.calibration),
        "test.npz": test,
        "sample.npz": {name: values[:SAMPLES] for name, values in test.items()},
    }
    contents = {
        "module.pt": state_bytes(module.state_dict()),
        "model.onnx": proto.SerializeToString(),
        **{name: _npz(content) for name, content in arrays.items()},
        "figures.json": _json(figures),
    }
    told = {"model": "model.onnx", "calibration": "calibration.npz"}
    for name, value in options.items():
        told[name] = _files(name, value, contents) if name in FILES else value
    # Until here an earlier result is whole.
    (directory / OPTIONS).unlink(missing_ok=True)
    for name, content in contents.items():
        write(directory / name, content)
    write(directory / OPTIONS, _json(told))


def _files(name: str, value: Any, contents: dict[str, bytes]) -> Any:
    """An argument as names of files, called after it, whose contents are added; a mapping has them by output."""
    if name == "scales" and isinstance(value, Mapping):
        file, content = "scales.json", _json(dict(value))
    elif isinstance(value, Mapping):
        return {key: _files(f"{quote(key, safe='')}_{name}", part, contents) for key, part in value.items()}
    elif isinstance(value, str | Path):
        file, content = f"{name}{Path(value).suffix}", _read(Path(value))
    else:  # names of classes
        file, content = f"{name}.txt", "".join(f"{label}\n" for label in value).encode()
    contents[file] = content
    return file


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(
            f"Cannot read {file}: {error.strerror or error}.", "Correct the task or [compile] of the recipe."
        ) from error


def _npz(arrays: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _json(data: dict[str, Any]) -> bytes:
    return (json.dumps(data, indent=1, ensure_ascii=False, default=_number) + "\n").encode()


def _number(value: Any) -> Any:
    """NumPy scalars and arrays as JSON has them."""
    return value.tolist() if hasattr(value, "tolist") else str(value)

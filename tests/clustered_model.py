"""The intent model with few distinct integers in its matrices and embeddings, made with NumPy alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from tvmtiny.artifact import Artifact
from tvmtiny.compiler import compile as compile_model

INTENT = Path(__file__).parents[1] / "examples" / "intent"
LEAST = 512


def write(path: Path, entries: int) -> Path:
    """Write the model; rows are output channels, so columns of a MatMul's initializer."""
    model = onnx.load(INTENT / "model.onnx")
    book = np.unique(np.round(127 * np.sin(np.linspace(-np.pi / 2, np.pi / 2, entries)) ** 3))
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.ndim != 2 or values.size < LEAST:
            continue
        table = values.shape[0] > 10 * values.shape[1]
        scale = np.abs(values).max(axis=None if table else 0, keepdims=True) / 127
        nearest = np.abs(values[..., None] / scale[..., None] - book).argmin(axis=-1)
        tensor.CopyFrom(numpy_helper.from_array((book[nearest] * scale).astype(np.float32), tensor.name))
    onnx.save(model, path)
    return path


def compiled(
    directory: Path, target: str, form: str, decode: str = "tile", entries: int = 32, **options: Any
) -> Artifact:
    """The model with `entries` compiled for a target, with further options of the compiler."""
    directory.mkdir(parents=True, exist_ok=True)
    return compile_model(
        write(directory / "model.onnx", entries),
        target=target,
        calibration=INTENT / "calibration.npz",
        compress_weights=form,
        decode=decode,
        output=directory / "few",
        **options,
    )

"""The intent model with few distinct integers in its matrices and embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from tvmtiny.artifact import Artifact
from tvmtiny.bench.models import with_few_integers
from tvmtiny.compiler import compile as compile_model

INTENT = Path(__file__).parents[1] / "examples" / "intent"


def write(path: Path, entries: int) -> Path:
    """Write the model."""
    onnx.save(with_few_integers(onnx.load(INTENT / "model.onnx"), entries), path)
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

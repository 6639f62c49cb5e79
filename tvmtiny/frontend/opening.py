"""What a user names as a model, opened: what the front ends take, and what lies beside it."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HF_PREFIX = "hf:"
"""In front of a Hugging Face model directory."""


@dataclasses.dataclass(frozen=True)
class OpenedModel:
    """A model as the front ends take it.

    Attributes:
        model: a path (.onnx, .pt2) or an ExportedProgram.
        title: what comments and reports call it.
        files: what it was read from; empty for an object in memory.
        labels, tokenizer: what its directory says, for a user who gives none.
    """

    model: Any
    title: str
    files: tuple[Path, ...] = ()
    labels: Sequence[str] | None = None
    tokenizer: Path | None = None

    def digest(self) -> str:
        """SHA-256 of the files, one after another; empty without files."""
        digest = hashlib.sha256()
        for path in self.files:
            with path.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest() if self.files else ""


def hf_directory(model: Any) -> Path | None:
    """The directory of `hf:DIR`; None for any other model."""
    text = str(model) if isinstance(model, str | Path) else ""
    return Path(text.removeprefix(HF_PREFIX)) if text.startswith(HF_PREFIX) else None


def model_stem(model: Any) -> str:
    """A name for the output of a model: of its file without the suffix, or of its directory."""
    directory = hf_directory(model)
    if directory is not None:
        return directory.resolve().name
    return Path(model).stem if isinstance(model, str | Path) else "model"


def open_model(
    model: Any, shapes: dict[str, tuple[int, ...]] | None = None, max_tokens: int | None = None
) -> OpenedModel:
    """Find out what a model is; a Hugging Face directory is exported at once, anything else not yet read.

    Args:
        model, shapes, max_tokens: as for `tvmtiny.frontend.import_model`.

    Raises:
        UserError: a Hugging Face directory that cannot be used.
        EnvironmentProblem: it needs torch and transformers.
    """
    directory = hf_directory(model)
    if directory is not None:
        from tvmtiny.frontend.huggingface import open_directory

        return open_directory(directory, shapes or {}, max_tokens)
    if not isinstance(model, str | Path):
        return OpenedModel(model, type(model).__name__)
    return OpenedModel(Path(model), Path(model).name, (Path(model),))

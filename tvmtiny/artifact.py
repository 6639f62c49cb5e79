"""The emitted model directory, as Python sees it: `metadata.json` and the paths beside it.

The schema is documented in docs/metadata.md. Sizes are bytes, offsets are bytes from the start of the arena.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from tvmtiny.errors import UserError

SCHEMA = 2
METADATA_FILE = "metadata.json"


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """One input or output of the model as it lies in the arena.

    Attributes:
        name: the tensor's name in the source model.
        kind: "tokens" (ids), "features" (scaled sensor values) or "output".
        dtype: NumPy name of the element type in the arena ("uint16", "int8", "int16").
        shape: without the batch axis, e.g. (32,) for 32 token ids or (32, 24) for features.
        arena_offset: bytes from the start of the arena.
        scale: real = (value - zero_point) * scale; one entry, or one a column (last axis). Empty for tokens.
        zero_point: as many entries as `scale`.
        limit: number of admissible ids for tokens (the vocabulary), else 0.
        padding: ids that must not stand among the present tokens.
        labels: class names of an output, one a column; may be empty.
    """

    name: str
    kind: str
    dtype: str
    shape: tuple[int, ...]
    arena_offset: int
    bytes: int
    scale: tuple[float, ...] = ()
    zero_point: tuple[int, ...] = ()
    limit: int = 0
    padding: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()

    def real(self, integers: Any) -> Any:
        """What integers of the tensor stand for, float64; ids are themselves."""
        import numpy as np

        scale, zero_point = np.asarray(self.scale or (1.0,)), np.asarray(self.zero_point or (0,))
        return (integers.astype(np.float64) - zero_point) * scale


@dataclasses.dataclass(frozen=True)
class Artifact:
    """What `tvmtiny compile` wrote to `directory`."""

    directory: Path
    name: str
    target: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    max_tokens: int
    has_length: bool
    arena_bytes: int
    arena_align: int
    sources: tuple[str, ...]
    include_dirs: tuple[str, ...]
    metadata: dict[str, Any] = dataclasses.field(repr=False)

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names of the first output; may be empty."""
        return self.outputs[0].labels

    @property
    def reference_inputs(self) -> Path:
        """The file of inputs whose outputs are known, as integers."""
        return self.directory / "reference" / "inputs.npz"

    @classmethod
    def load(cls, directory: Path | str) -> Artifact:
        """Read a model directory; raises UserError when it is not one."""
        directory = Path(directory)
        path = directory / METADATA_FILE
        remedy = "Give the directory that `tvmtiny compile MODEL -o DIR` wrote."
        if not path.is_file():
            raise UserError(f"{directory} is not a compiled model: it has no {METADATA_FILE}.", remedy)
        try:
            data = json.loads(path.read_text("utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{path} is not JSON: {error}", remedy) from error
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            found = data.get("schema") if isinstance(data, dict) else None
            raise UserError(
                f"{path} has schema {found}; this version reads schema {SCHEMA}.", "Compile the model again."
            )
        try:
            return cls(
                directory=directory,
                name=data["name"],
                target=data["target"],
                inputs=tuple(_tensor(row) for row in data["inputs"]),
                outputs=tuple(_tensor(row) for row in data["outputs"]),
                max_tokens=data["max_tokens"],
                has_length=data["has_length"],
                arena_bytes=data["arena"]["bytes"],
                arena_align=data["arena"]["align"],
                sources=tuple(data["sources"]),
                include_dirs=tuple(data["include_dirs"]),
                metadata=data,
            )
        except (KeyError, TypeError) as error:
            raise UserError(f"{path} lacks a field: {error}", "Compile the model again.") from error


def _tensor(row: dict[str, Any]) -> TensorInfo:
    known = {field.name: row[field.name] for field in dataclasses.fields(TensorInfo) if field.name in row}
    lists = ("shape", "scale", "zero_point", "padding", "labels")
    return TensorInfo(**{**known, **{key: tuple(row.get(key, ())) for key in lists}})

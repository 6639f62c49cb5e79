"""A front end for a compiled model: whether the two belong together, and what it adds to the model directory."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tvmtiny.codegen.c_sources import FeatureUse
from tvmtiny.errors import UserError
from tvmtiny.features.emit import Window, feature_sources, state_bytes
from tvmtiny.features.rows import most_samples
from tvmtiny.features.spec import AudioSpec, Spec, load_spec
from tvmtiny.features.tables import Tables, build_tables
from tvmtiny.frontend.data import InputSpec
from tvmtiny.frontend.names import listed

FEATURES_FILE = "features.toml"


@dataclasses.dataclass(frozen=True)
class FeatureChoice:
    """A description that fits an input of a model.

    Attributes:
        input: the input that takes the rows.
        rows: of features that the input has.
        text: the description's file.
    """

    input: str
    spec: Spec
    rows: int
    has_length: bool
    text: str


@dataclasses.dataclass(frozen=True)
class AttachedFeatures:
    """A front end with the integers of the input that it fills.

    Attributes:
        samples: most samples of one run of `<name>_features_model`.
    """

    choice: FeatureChoice
    tables: Tables
    window: Window
    samples: int
    family: str

    def use(self) -> FeatureUse:
        """What the model's C says of the front end."""
        spec = self.choice.spec
        audio = isinstance(spec, AudioSpec)
        return FeatureUse(
            input=self.choice.input,
            samples=self.samples,
            channels=1 if audio else spec.columns,
            audio=audio,
            finish=isinstance(spec, AudioSpec) and spec.pad != "none",
            state_bytes=state_bytes(self.tables, self.window),
        )

    def files(self, name: str) -> dict[str, str]:
        """What is added to the directory of the model `name`."""
        sources = feature_sources(self.tables, self.window, name, self.family)
        return sources.files | {FEATURES_FILE: self.choice.text}

    def metadata(self, name: str, sources: Sequence[str]) -> dict[str, Any]:
        """Fields of metadata.json that change; `sources`: of the model alone."""
        spec = self.choice.spec
        audio = isinstance(spec, AudioSpec)
        library = feature_sources(self.tables, self.window, name, self.family).sources
        return {
            "features": {
                "file": FEATURES_FILE,
                "kind": spec.kind if isinstance(spec, AudioSpec) else "sensor",
                "input": self.choice.input,
                "sample_rate": spec.sample_rate if isinstance(spec, AudioSpec) else None,
                "hop": spec.hop if isinstance(spec, AudioSpec) else 1,
                "channels": 1 if audio else spec.columns,
                "columns": spec.columns,
                "rows": self.window.rows,
                "rows_by_token": self.window.group,
                "stride_rows": self.window.stride,
                "most_samples": self.samples,
                "state_bytes": state_bytes(self.tables, self.window),
                "table_bytes": self.tables.bytes,
            },
            "sources": [*sources, f"{name}_run_features.c", *library],
        }


def choose_features(
    path: Path | str | None, specs: Sequence[InputSpec], *, has_length: bool
) -> FeatureChoice | None:
    """Read a description for a model with these inputs; None for no front end.

    Args:
        has_length: whether a run takes fewer tokens than the most.

    Raises:
        UserError: the description cannot be used, or does not belong to the model.
    """
    if path is None:
        return None
    spec = load_spec(path)
    filled = _filled(path, spec, specs)
    rows, columns = _rows_and_columns(filled.shape)
    return FeatureChoice(
        filled.name, spec, rows * columns // spec.columns, has_length, Path(path).read_text("utf-8")
    )


def _filled(path: Path | str, spec: Spec, specs: Sequence[InputSpec]) -> InputSpec:
    """The input that a front end fills; raises UserError when it does not belong to the model."""
    inputs = [item for item in specs if item.kind == "features"]
    if len(inputs) != 1 or len(specs) != 1:
        raise UserError(
            f"A front end fills one input of features; the model's inputs are {listed(s.name for s in specs)}.",
            "Compile it without --features and write the inputs yourself.",
        )
    _, columns = _rows_and_columns(inputs[0].shape)
    if columns % spec.columns:
        raise UserError(
            f"{path} describes rows of {spec.columns} values; '{inputs[0].name}' has rows of {columns}.",
            "Give the front end that the model was trained with, its frames along the axis before the last.",
        )
    return inputs[0]


def periods(choice: FeatureChoice | None) -> dict[str, int]:
    """Columns after which an input's scales repeat: frames that make a token share the tables of the front end."""
    return {} if choice is None else {choice.input: choice.spec.columns}


def periods_of(path: Path | str | None, specs: Sequence[InputSpec]) -> dict[str, int]:
    """The `periods` of a description for a model with these inputs; raises UserError as `choose_features` does."""
    if path is None:
        return {}
    spec = load_spec(path)
    return {_filled(path, spec, specs).name: spec.columns}


def _rows_and_columns(shape: Sequence[int]) -> tuple[int, int]:
    """Of an input (..., rows, columns) whose further axes have one entry, or of a single row."""
    *others, columns = shape
    long = [extent for extent in others if extent != 1] or [1]
    if len(long) > 1:
        raise UserError(
            f"The input has the shape {'x'.join(map(str, shape))}; a front end gives rows of values.",
            "Export the model with the input (1, frames, values).",
        )
    return long[0], columns


def attach_features(
    choice: FeatureChoice, shape: Sequence[int], scale: Any, zero_point: Any, family: str
) -> AttachedFeatures:
    """The integers of a front end.

    Args:
        shape: of the input in the arena, (tokens, values of a token). scale, zero_point: of the input, a column.
        family: of micro-kernels.

    Raises:
        UserError: rows do not make tokens, the stride is not possible, or scales do not fit.
    """
    spec = choice.spec
    group = shape[1] // spec.columns
    if shape[1] % spec.columns:
        raise UserError(
            f"The model makes a token of {shape[1]} values, which is no multiple of the {spec.columns} of a row.",
            "Compile it without --features and write the input yourself.",
        )
    stride = spec.stride or group
    if stride % group or stride > choice.rows:
        raise UserError(
            f"The stride is {stride} rows; the model has {group} to a token and takes {choice.rows}.",
            f"Give a multiple of {group} up to {choice.rows}.",
        )
    tables = build_tables(spec, scale, zero_point)
    samples = most_samples(spec, choice.rows, has_length=choice.has_length)
    return AttachedFeatures(choice, tables, Window(choice.rows, group, stride), samples, family)

"""Run a compiled model on recordings: the device makes the features, and all is compared with references afterwards."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmtiny.artifact import Artifact, TensorInfo
from tvmtiny.errors import ResultMismatch, UserError
from tvmtiny.features.rows import feature_rows, last_rows
from tvmtiny.features.spec import load_spec
from tvmtiny.features.tables import Tables, build_tables
from tvmtiny.runner import RunResult, Sample, run

_COUNT, _ROWS = "features.n_tokens", "features.rows"

Recording = npt.NDArray[np.int16]
"""Samples (N,), or (N, channels)."""


@dataclasses.dataclass(frozen=True)
class FeatureRun:
    """What the device gave for recordings.

    Attributes:
        result: of the run; its outputs are the model's.
        samples: the inputs that the device made of the recordings.
    """

    result: RunResult
    samples: list[Sample]


def front_end(artifact: Artifact) -> dict[str, Any]:
    """What the metadata says of the front end. Raises UserError for a model without one."""
    about: dict[str, Any] | None = artifact.metadata.get("features")
    if about is None:
        raise UserError(
            f"{artifact.name} was compiled without a front end.",
            "Compile it again with --features features.toml.",
        )
    return about


def run_recordings(
    artifact: Artifact, recordings: Sequence[Recording], on: str, timeout_s: float, **options: Any
) -> FeatureRun:
    """Run a model that was compiled with a front end.

    Args:
        recordings: at most `most_samples` samples each.
        on, timeout_s, options: as for `tvmtiny.runner.run`.

    Raises:
        UserError: the model has no front end, or a recording is too long or too short.
        ResultMismatch: the features are not those of the NumPy twin.
    """
    about = front_end(artifact)
    wrapped = feature_model(artifact, about)
    place = artifact.directory / "build" / f"features-{on.partition(':')[0]}"
    raw = [_sample(wrapped, recording) for recording in recordings]
    result = run(wrapped, on=on, samples=raw, timeout_s=timeout_s, build_dir=place, **options)
    _check_status(artifact, about, result)
    samples = [Sample({about["input"]: output[_ROWS]}, int(output[_COUNT][0])) for output in result.outputs]
    _check_rows(artifact, about, recordings, samples)
    names = [info.name for info in artifact.outputs]
    outputs = [{name: output[name] for name in names} for output in result.outputs]
    return FeatureRun(dataclasses.replace(result, outputs=outputs), samples)


def expected_sample(
    artifact: Artifact, about: dict[str, Any], tables: Tables, recording: Recording
) -> Sample:
    """The input that the NumPy twin makes of a recording."""
    info = next(info for info in artifact.inputs if info.name == about["input"])
    rows = last_rows(feature_rows(tables, recording), about["rows"], about["rows_by_token"])
    values = np.zeros((about["rows"], about["columns"]), np.int8)
    values[: len(rows)] = rows
    return Sample({info.name: values.reshape(info.shape)}, len(rows) // about["rows_by_token"])


def tables_of(artifact: Artifact, about: dict[str, Any]) -> Tables:
    """The front end's tables, from the description in the model directory."""
    info = next(info for info in artifact.inputs if info.name == about["input"])
    return build_tables(load_spec(artifact.directory / about["file"]), info.scale, info.zero_point)


def _sample(wrapped: Artifact, recording: Recording) -> Sample:
    info = wrapped.inputs[0]
    if len(recording) > wrapped.max_tokens:
        raise UserError(
            f"A recording has {len(recording)} samples; {wrapped.max_tokens} are possible here.",
            "The functions of the C API take streams of any length.",
        )
    values = np.zeros(info.shape, np.int16)
    values[: len(recording)] = recording.reshape(len(recording), -1)
    return Sample({"samples": values}, len(recording))


def feature_model(artifact: Artifact, about: dict[str, Any]) -> Artifact:
    """The model as `<name>_features_model` describes it."""
    count, channels = about["most_samples"], about["channels"]
    start = -(-artifact.arena_bytes // 8) * 8 + about["state_bytes"]
    after = -(-(start + 2 * count * channels) // 4) * 4
    rows = next(info for info in artifact.inputs if info.name == about["input"])
    copy = TensorInfo(_ROWS, "output", rows.dtype, rows.shape, after + 4, rows.bytes)
    return dataclasses.replace(
        artifact,
        name=f"{artifact.name}_features",
        inputs=(TensorInfo("samples", "features", "int16", (count, channels), start, 2 * count * channels),),
        outputs=(*artifact.outputs, TensorInfo(_COUNT, "output", "int32", (1,), after, 4), copy),
        max_tokens=count,
        has_length=True,
        arena_bytes=copy.arena_offset + copy.bytes,
        arena_align=max(8, artifact.arena_align),
    )


def _check_status(artifact: Artifact, about: dict[str, Any], result: RunResult) -> None:
    for index, value in enumerate(result.status):
        if value != 0:
            raise UserError(
                f"{artifact.name} refused recording {index} with status {value}; a full window is "
                f"{about['most_samples']} samples.",
                f"See {artifact.directory / f'{artifact.name}_run_features.h'} for its meaning.",
            )


def _check_rows(
    artifact: Artifact, about: dict[str, Any], recordings: Sequence[Recording], samples: Sequence[Sample]
) -> None:
    tables = tables_of(artifact, about)
    for index, (recording, found) in enumerate(zip(recordings, samples, strict=True)):
        expected = expected_sample(artifact, about, tables, recording)
        have, want = found.inputs[about["input"]], expected.inputs[about["input"]]
        if found.n_tokens != expected.n_tokens or not np.array_equal(have, want):
            raise ResultMismatch(
                f"Recording {index}: {int(np.sum(have != want))} features differ from the NumPy twin; "
                f"{found.n_tokens} tokens, {expected.n_tokens} expected."
            )

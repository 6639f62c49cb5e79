"""A front end as a program of its own, to run and to measure it where models run: samples in, rows out."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmtiny import __version__
from tvmtiny.artifact import Artifact, TensorInfo
from tvmtiny.codegen.directory import write_files
from tvmtiny.features.emit import Window, feature_sources
from tvmtiny.features.tables import AudioTables, Tables
from tvmtiny.resources import data_dir
from tvmtiny.runner import RunResult, Sample, run
from tvmtiny.schedule.rules import family
from tvmtiny.target import load_target
from tvmtiny.templates import jinja_environment

NAME = "measured"


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What a run of recordings gave.

    Attributes:
        status: of each recording; its rows are empty where that is not 0.
        rows: int8 (rows, columns) of each recording.
        state_bytes: RAM of the state, its rows included.
        result: of the run.
    """

    status: list[int]
    rows: list[npt.NDArray[np.int8]]
    state_bytes: int
    result: RunResult


def measure(
    tables: Tables,
    recordings: Sequence[npt.NDArray[np.int16]],
    *,
    on: str,
    target: str,
    rows: int,
    chunk: int = 1 << 30,
    directory: Path | None = None,
    timeout_s: float = 120,
    blocks: bool = False,
) -> Measurement:
    """Compute the rows of recordings on an emulated core or on this computer.

    Args:
        recordings: samples (N,), or (N, channels).
        on: "qemu" or "host". target: whose core, for "qemu".
        rows: how many are kept, the last ones; more than any recording has, to see all.
        chunk: samples that are pushed at a time.
        directory: where to build; a temporary one if not given.
        blocks: count executions of each block of code, of the first recording.

    Raises:
        UserError, EnvironmentProblem: as `tvmtiny.runner.run`.
    """
    with tempfile.TemporaryDirectory(prefix="tvmtiny-") as folder:
        artifact = _write(tables, directory or Path(folder), target, max(map(len, recordings)), rows)
        samples = [_sample(artifact, recording, chunk) for recording in recordings]
        result = run(artifact, on, samples, timeout_s=timeout_s, blocks=blocks)
    columns = tables.spec.columns
    found = [
        output["rows"].reshape(-1, columns)[: int(output["count"][0]) * tables.scale.phases]
        if output
        else _none(columns)
        for output in result.outputs
    ]
    sizes = [int(output["state_bytes"][0]) for output in result.outputs if output]
    return Measurement(result.status, found, max(sizes, default=0), result)


def _none(columns: int) -> npt.NDArray[np.int8]:
    return np.zeros((0, columns), np.int8)


def _write(tables: Tables, directory: Path, target: str, samples: int, rows: int) -> Artifact:
    channels = 1 if isinstance(tables, AudioTables) else tables.spec.columns
    window = Window(rows, tables.scale.phases, rows)
    emitted = feature_sources(tables, window, NAME, family(load_target(target), "int8"))
    start = -(-2 * channels * samples // 4) * 4
    offsets = {
        name: start + 4 * index for index, name in enumerate(("chunk", "count", "state_bytes", "rows"))
    }
    row_bytes = rows * tables.spec.columns
    arena_bytes = offsets["rows"] + row_bytes
    context: dict[str, Any] = {
        "name": NAME,
        "version": __version__,
        "audio": isinstance(tables, AudioTables),
        "channels": channels,
        "samples": samples,
        "offsets": offsets,
        "row_bytes": row_bytes,
        "arena_bytes": arena_bytes,
    }
    program = jinja_environment("tvmtiny.features").get_template("firmware.c.j2").render(context)
    model = (data_dir("microtvm_projects") / "common" / "tvmt_model.h").read_text("utf-8")
    write_files(directory, {**emitted.files, f"{NAME}.c": program, "include/tvmt_model.h": model})
    return Artifact(
        directory=directory,
        name=NAME,
        target=target,
        inputs=(
            TensorInfo("samples", "features", "int16", (samples, channels), 0, 2 * channels * samples),
            TensorInfo("chunk", "features", "int32", (1,), offsets["chunk"], 4),
        ),
        outputs=(
            TensorInfo("count", "output", "int32", (1,), offsets["count"], 4),
            TensorInfo("state_bytes", "output", "int32", (1,), offsets["state_bytes"], 4),
            TensorInfo("rows", "output", "int8", (row_bytes,), offsets["rows"], row_bytes),
        ),
        max_tokens=samples,
        has_length=True,
        arena_bytes=arena_bytes,
        arena_align=4,
        sources=(f"{NAME}.c", *emitted.sources),
        include_dirs=(".", "include"),
        metadata={},
    )


def _sample(artifact: Artifact, recording: npt.NDArray[np.int16], chunk: int) -> Sample:
    values = np.zeros(artifact.inputs[0].shape, np.int16)
    values[: len(recording)] = recording.reshape(len(recording), -1)
    return Sample({"samples": values, "chunk": np.asarray([chunk], np.int32)}, len(recording))

"""A tokenizer as a program of its own, to run and to measure it where models run: text in, ids out."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tvmtiny import __version__
from tvmtiny.artifact import Artifact, TensorInfo
from tvmtiny.codegen.directory import write_files
from tvmtiny.resources import data_dir
from tvmtiny.runner import RunResult, Sample, run
from tvmtiny.templates import jinja_environment
from tvmtiny.tokenizer.emit import tokenizer_sources
from tvmtiny.tokenizer.tables import Tables

NAME = "measured"
TEXT_BYTES = 1024
CAPACITY = TEXT_BYTES + 2
"""Room for every token of a text: none has less than a byte, and two or fewer are around it."""


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What a run of texts gave.

    Attributes:
        ids: of each text.
        state_bytes: RAM of the state with its work memory.
        stack_bytes: deepest stack, state included; None where it cannot be told.
        code_bytes, table_bytes: of tokenizer and tables in flash; a few bytes of the program around it included.
        instructions: of all texts; None where they cannot be counted.
    """

    ids: list[list[int]]
    state_bytes: int
    stack_bytes: int | None
    code_bytes: int
    table_bytes: int
    instructions: int | None


def measure(
    tables: Tables, texts: Sequence[bytes], *, on: str, target: str, timeout_s: float = 120
) -> Measurement:
    """Tokenize texts of at most TEXT_BYTES on an emulated core or on this computer.

    Args:
        on: "qemu" or "host".
        target: whose core, for "qemu".

    Raises:
        UserError, EnvironmentProblem: as `tvmtiny.runner.run`.
    """
    with tempfile.TemporaryDirectory(prefix="tvmtiny-") as folder:
        artifact = _write(tables, Path(folder), target)
        samples = [_sample(text) for text in texts]
        result = run(artifact, on, samples, timeout_s=timeout_s)
    return _measurement(result)


def _write(tables: Tables, directory: Path, target: str) -> Artifact:
    emitted = tokenizer_sources(tables, NAME)
    context = {"name": NAME, "version": __version__, "text_bytes": TEXT_BYTES, "capacity": CAPACITY}
    program = jinja_environment("tvmtiny.tokenizer").get_template("firmware.c.j2").render(context)
    model = (data_dir("microtvm_projects") / "common" / "tvmt_model.h").read_text("utf-8")
    write_files(directory, {**emitted.files, f"{NAME}.c": program, "include/tvmt_model.h": model})
    count, state, ids = TEXT_BYTES, TEXT_BYTES + 4, TEXT_BYTES + 8
    return Artifact(
        directory=directory,
        name=NAME,
        target=target,
        inputs=(TensorInfo("text", "features", "uint8", (TEXT_BYTES,), 0, TEXT_BYTES),),
        outputs=(
            TensorInfo("count", "output", "int32", (1,), count, 4),
            TensorInfo("state_bytes", "output", "int32", (1,), state, 4),
            TensorInfo("ids", "output", "uint16", (CAPACITY,), ids, 2 * CAPACITY),
        ),
        max_tokens=TEXT_BYTES,
        has_length=True,
        arena_bytes=ids + 2 * CAPACITY,
        arena_align=4,
        sources=(f"{NAME}.c", *emitted.sources),
        include_dirs=(".", "include"),
        metadata={},
    )


def _sample(text: bytes) -> Sample:
    values = np.zeros(TEXT_BYTES, np.uint8)
    values[: len(text)] = np.frombuffer(text, np.uint8)
    return Sample({"text": values}, len(text))


def _measurement(result: RunResult) -> Measurement:
    assert not any(result.status), result.status
    return Measurement(
        ids=[output["ids"][: int(output["count"][0])].tolist() for output in result.outputs],
        state_bytes=int(result.outputs[0]["state_bytes"][0]),
        stack_bytes=result.stack_bytes,
        code_bytes=result.sizes.code_bytes,
        table_bytes=result.sizes.table_bytes,
        instructions=result.total_instructions,
    )

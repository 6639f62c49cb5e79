"""Run a compiled model on texts: the device makes the ids, and everything is compared with references afterwards."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from tvmtiny.artifact import Artifact, TensorInfo
from tvmtiny.errors import EnvironmentProblem, ResultMismatch, UserError
from tvmtiny.runner import RunResult, Sample, run
from tvmtiny.tokenizer.attach import TOKENIZER_FILE
from tvmtiny.tokenizer.library import LibraryTokenizer
from tvmtiny.tokenizer.spec import parse_spec
from tvmtiny.tokenizer.tables import build_tables

_COUNT, _IDS = "text.n_tokens", "text.ids"


@dataclasses.dataclass(frozen=True)
class TextRun:
    """What the device gave for texts.

    Attributes:
        result: of the run; its outputs are the model's.
        samples: the inputs that the device made of the texts.
        tokens: the pieces of each text.
        checked: whether the ids were compared with the tokenizers library; not where that is not installed.
    """

    result: RunResult
    samples: list[Sample]
    tokens: list[list[str]]
    checked: bool


def run_texts(artifact: Artifact, texts: Sequence[str], on: str, timeout_s: float, **options: Any) -> TextRun:
    """Run a model that was compiled with a tokenizer.

    Args:
        on, timeout_s, options: as for `tvmtiny.runner.run`.

    Raises:
        UserError: the model has no tokenizer, or a text is too long for the harness.
        ResultMismatch: the ids are not those of the tokenizers library.
    """
    wrapped = text_model(artifact)
    about = artifact.metadata["tokenizer"]
    raw = [_padded(text, about["text_bytes"]) for text in texts]
    place = artifact.directory / "build" / f"text-{on.partition(':')[0]}"
    result = run(wrapped, on=on, samples=raw, timeout_s=timeout_s, build_dir=place, **options)
    _check_status(artifact, result)
    samples = [_sample(artifact, about, output) for output in result.outputs]
    names = [info.name for info in artifact.outputs]
    outputs = [{name: output[name] for name in names} for output in result.outputs]
    found = [sample.inputs[about["input"]][: sample.n_tokens].tolist() for sample in samples]
    data = json.loads((artifact.directory / TOKENIZER_FILE).read_text("utf-8"))
    checked = _check_ids(data, artifact.max_tokens, texts, found)
    return TextRun(dataclasses.replace(result, outputs=outputs), samples, _pieces(data, found), checked)


def _padded(text: str, size: int) -> Sample:
    data = text.encode("utf-8", "surrogateescape")
    if len(data) > size:
        raise UserError(
            f"A text has {len(data)} bytes; {size} are possible here.",
            "The functions of the C API take texts of any length.",
        )
    values = np.zeros(size, np.uint8)
    values[: len(data)] = np.frombuffer(data, np.uint8)
    return Sample({"text": values}, len(data))


def text_model(artifact: Artifact) -> Artifact:
    """The model as `<name>_text_model` describes it: it takes text. Raises UserError without a tokenizer."""
    about = artifact.metadata.get("tokenizer")
    if about is None:
        raise UserError(
            f"{artifact.name} was compiled without a tokenizer.",
            "Compile it again with --tokenizer tokenizer.json.",
        )
    size, start = about["text_bytes"], (artifact.arena_bytes + 3) // 4 * 4
    ids = next(info for info in artifact.inputs if info.name == about["input"])
    text = TensorInfo("text", "features", "uint8", (size,), start, size)
    count = TensorInfo(_COUNT, "output", "int32", (1,), start + size, 4)
    copy = TensorInfo(_IDS, "output", "uint16", ids.shape, start + size + 4, ids.bytes)
    return dataclasses.replace(
        artifact,
        name=f"{artifact.name}_text",
        inputs=(text,),
        outputs=(*artifact.outputs, count, copy),
        max_tokens=size,
        arena_bytes=copy.arena_offset + copy.bytes,
    )


def _check_status(artifact: Artifact, result: RunResult) -> None:
    for index, value in enumerate(result.status):
        if value != 0:
            raise UserError(
                f"{artifact.name} refused text {index} with status {value}.",
                f"See {artifact.directory / f'{artifact.name}_text.h'} for its meaning.",
            )


def _sample(artifact: Artifact, about: dict[str, Any], output: dict[str, np.ndarray]) -> Sample:
    inputs = {info.name: np.zeros(info.shape, info.dtype) for info in artifact.inputs}
    inputs[about["input"]] = output[_IDS]
    return Sample(inputs, int(output[_COUNT][0]))


def _check_ids(data: dict[str, Any], max_tokens: int, texts: Sequence[str], found: list[list[int]]) -> bool:
    try:
        library = LibraryTokenizer(data, build_tables(parse_spec(data), max_tokens))
    except EnvironmentProblem:
        return False
    expected = library.encode([text.encode("utf-8", "surrogateescape") for text in texts])
    for text, have, want in zip(texts, found, expected, strict=True):
        if have != want:
            raise ResultMismatch(
                f"The device gave the ids {have} for {text!r}, the tokenizers library {want}."
            )
    return True


def _pieces(data: dict[str, Any], rows: list[list[int]]) -> list[list[str]]:
    spec = parse_spec(data)
    names = {index: piece for piece, index in {**spec.vocabulary, **spec.specials}.items()}
    return [[names[index] for index in row] for row in rows]

"""Samples as requests of the link, and its answers as results.

A batch is what the file transports exchange: all requests at once, since files lose nothing, and all answers.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from tvmtiny.artifact import Artifact, TensorInfo
from tvmtiny.errors import EnvironmentProblem, UserError
from tvmtiny.link import messages
from tvmtiny.link.frames import Frame, FrameReader
from tvmtiny.link.messages import DATA_BYTES, Info, Kind, Run

REQUEST_FILE = "tvmt_request.bin"
RESPONSE_FILE = "tvmt_response.bin"
FILL = 0xA5
"""What the arena holds before the first run, so that one which relies on zeros is found out."""

EXIT_FAULT = 100
# What the harness says by its exit status (enum tvmt_exit).
EXIT_MEANINGS = {
    90: "could not open the line to this computer",
    92: "found the requests to end early",
    93: "could not write an answer",
    95: "needs a larger or more aligned arena than it was built with",
}

_SESSION = 1


@dataclasses.dataclass(frozen=True)
class Sample:
    """One input of the model.

    Attributes:
        inputs: by the input's name, in the arena's element type and shape (`Artifact.inputs`).
        n_tokens: how many tokens are present, 1 to max_tokens; max_tokens for a model without a length.
    """

    inputs: dict[str, np.ndarray]
    n_tokens: int


@dataclasses.dataclass(frozen=True)
class Guard:
    """What a program wrote outside its arena.

    Attributes:
        bytes: how many bytes of the guard zones changed, over all samples; 0 when none did.
        sample: index of the first sample that changed one.
        offset: the first changed byte, counted from the start of the arena: negative before it.
    """

    bytes: int
    sample: int
    offset: int


@dataclasses.dataclass(frozen=True)
class Response:
    """The results of samples; one whose status is not 0 has no outputs.

    Attributes:
        stack_bytes: of the deepest run; 0 if unknown.
        cycles: of each run, as the device counts them.
        info: what the device said of itself.
    """

    outputs: list[dict[str, np.ndarray]]
    status: list[int]
    stack_bytes: int
    guard: Guard
    cycles: list[int]
    info: Info


def sample_bytes(artifact: Artifact, sample: Sample, index: int) -> bytes:
    """All inputs of a sample as they lie on the line; raises UserError when it does not fit the model."""
    return b"".join(_tensor_bytes(tensor, sample, index) for tensor in artifact.inputs)


def output_bytes(artifact: Artifact) -> int:
    """Bytes of all outputs."""
    return sum(tensor.bytes for tensor in artifact.outputs)


def output_tensors(artifact: Artifact, data: bytes) -> dict[str, np.ndarray]:
    """All outputs of a run, by name."""
    outputs, at = {}, 0
    for tensor in artifact.outputs:
        dtype = np.dtype(tensor.dtype).newbyteorder("<")
        array = np.frombuffer(data[at : at + tensor.bytes], dtype=dtype).reshape(tensor.shape)
        outputs[tensor.name] = array.astype(np.dtype(tensor.dtype))
        at += tensor.bytes
    return outputs


def collect(artifact: Artifact, info: Info, runs: Sequence[tuple[Run, bytes]]) -> Response:
    """Put runs and their outputs together; raises EnvironmentProblem when they are not this model's."""
    check_model(artifact, info)
    outside = [(index, run) for index, (run, _) in enumerate(runs) if run.guard_bytes]
    first = outside[0] if outside else (0, None)
    guard = Guard(
        bytes=sum(run.guard_bytes for _, run in outside),
        sample=first[0],
        offset=first[1].guard_offset if first[1] else 0,
    )
    return Response(
        outputs=[output_tensors(artifact, data) if run.status == 0 else {} for run, data in runs],
        status=[run.status for run, _ in runs],
        stack_bytes=max((run.stack_bytes for run, _ in runs), default=0),
        guard=guard,
        cycles=[run.cycles for run, _ in runs],
        info=info,
    )


def check_model(artifact: Artifact, info: Info) -> None:
    """Raise EnvironmentProblem when a device has a model of other sizes than `artifact`."""
    found = (info.model, info.input_bytes, info.output_bytes)
    expected = (artifact.name[:63], sum(t.bytes for t in artifact.inputs), output_bytes(artifact))
    if found != expected:
        raise EnvironmentProblem(
            f"The program's answers are not for {artifact.name}: its model is {found[0]} with {found[1]} "
            f"bytes of inputs and {found[2]} of outputs, not {expected[1]} and {expected[2]}.",
            "Compile the model again: its C and its metadata do not belong together.",
        )


def encode_batch(artifact: Artifact, samples: Sequence[Sample]) -> bytes:
    """Requests for `samples`, one behind the other. Raises UserError for a sample that does not fit the model."""
    requests = [(Kind.INFO, messages.info_request(FILL))]
    for index, sample in enumerate(samples):
        data = sample_bytes(artifact, sample, index)
        requests += [
            (Kind.WRITE, messages.write_request(start, data[start : start + DATA_BYTES]))
            for start in range(0, len(data), DATA_BYTES)
        ]
        requests.append((Kind.RUN, messages.run_request(sample.n_tokens, zlib.crc32(data))))
        requests += [(Kind.READ, messages.read_request(*part)) for part in _output_parts(artifact)]
    frames = (
        Frame(kind, (index + 1) & 0xFFFF, _SESSION, payload).encode()
        for index, (kind, payload) in enumerate(requests)
    )
    return b"".join(frames)


def decode_batch(artifact: Artifact, data: bytes, n_samples: int) -> Response:
    """Read the answers to a batch of `n_samples`; raises EnvironmentProblem when they are not complete."""
    answers = _answers(data)
    info = messages.parse_info(_take(answers, Kind.INFO))
    check_model(artifact, info)
    runs = []
    for _ in range(n_samples):
        run = messages.parse_run(_take(answers, Kind.RUN))
        outputs = b"".join(_take(answers, Kind.READ) for _ in _output_parts(artifact))
        runs.append((run, outputs))
    return collect(artifact, info, runs)


def answered_samples(data: bytes) -> int:
    """How many samples an incomplete response answers, for error messages."""
    return sum(frame.kind == Kind.RUN | messages.ANSWER for frame in FrameReader().feed(data))


def _output_parts(artifact: Artifact) -> list[tuple[int, int]]:
    """Offset and size of each READ."""
    total = output_bytes(artifact)
    return [(start, min(DATA_BYTES, total - start)) for start in range(0, total, DATA_BYTES)]


def _answers(data: bytes) -> Iterator[Frame]:
    """The answers but those to WRITE, which say nothing."""
    for frame in FrameReader().feed(data):
        if frame.kind != Kind.WRITE | messages.ANSWER:
            yield frame


def _take(answers: Iterator[Frame], kind: Kind) -> bytes:
    """The payload of the next answer, which must be one to `kind`."""
    frame = next(answers, None)
    if frame is None:
        raise EnvironmentProblem("The program's answers end early.")
    if frame.kind == Kind.ERROR:
        raise EnvironmentProblem(
            f"The program {messages.refusal_text(messages.parse_refusal(frame.payload))}."
        )
    if frame.kind != kind | messages.ANSWER:
        raise EnvironmentProblem(f"The program answered {frame.kind:#x} where {kind.name} was asked.")
    return frame.payload


def _tensor_bytes(tensor: TensorInfo, sample: Sample, index: int) -> bytes:
    array = sample.inputs.get(tensor.name)
    if array is None:
        names = ", ".join(sample.inputs) or "none"
        raise UserError(f"Sample {index} lacks the input {tensor.name!r}; it has {names}.")
    dtype = np.dtype(tensor.dtype).newbyteorder("<")
    if array.dtype != np.dtype(tensor.dtype) or array.shape != tensor.shape:
        raise UserError(
            f"Sample {index}, input {tensor.name!r}: required {tensor.dtype}{list(tensor.shape)}, "
            f"found {array.dtype}{list(array.shape)}."
        )
    return array.astype(dtype, copy=False).tobytes()

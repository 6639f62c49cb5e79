"""Request and response of the harness as bytes: the twin of microtvm_projects/common/tvmt_protocol.h."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Sequence

import numpy as np

from tvmtiny.artifact import Artifact, TensorInfo
from tvmtiny.errors import EnvironmentProblem, UserError

REQUEST_FILE = "tvmt_request.bin"
RESPONSE_FILE = "tvmt_response.bin"
REQUEST_MAGIC = 0x51544D54
RESPONSE_MAGIC = 0x52544D54
END_MAGIC = 0x45544D54
VERSION = 1

EXIT_FAULT = 100
# What the harness says by its exit status (enum tvmt_exit).
EXIT_MEANINGS = {
    90: "could not open the request or the response",
    91: "got a request that is not for this model",
    92: "found the request to end early",
    93: "could not write the response",
    94: "used up the whole stack",
    95: "needs a larger or more aligned arena than it was built with",
}

_REQUEST_HEADER = struct.Struct("<5I")
_RESPONSE_HEADER = struct.Struct("<3I")
_END = struct.Struct("<4Ii")
_WORD = struct.Struct("<i")


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
    """A decoded response; a sample whose status is not 0 has no outputs. Stack in bytes, 0 if unknown."""

    outputs: list[dict[str, np.ndarray]]
    status: list[int]
    stack_bytes: int
    guard: Guard


def encode_request(artifact: Artifact, samples: Sequence[Sample], fill: int = 0xA5) -> bytes:
    """The request for `samples`; `fill` is the byte that fills the arena before the first run.

    Raises UserError for a sample that does not fit the model.
    """
    header = _REQUEST_HEADER.pack(REQUEST_MAGIC, VERSION, len(samples), len(artifact.inputs), fill & 0xFF)
    parts = [header, *(struct.pack("<I", tensor.bytes) for tensor in artifact.inputs)]
    for index, sample in enumerate(samples):
        parts.append(_WORD.pack(sample.n_tokens))
        parts.extend(_tensor_bytes(tensor, sample, index) for tensor in artifact.inputs)
    return b"".join(parts)


def decode_response(artifact: Artifact, data: bytes, n_samples: int) -> Response:
    """Read the response to `n_samples` samples; raises EnvironmentProblem when it is not complete."""
    reader = _Reader(data)
    magic, version, n_outputs = reader.unpack(_RESPONSE_HEADER)
    sizes = [reader.unpack(_WORD)[0] for _ in range(n_outputs)] if n_outputs < 1 << 16 else []
    expected = [tensor.bytes for tensor in artifact.outputs]
    if (magic, version, sizes) != (RESPONSE_MAGIC, VERSION, expected):
        raise EnvironmentProblem(
            f"The program's response is not for {artifact.name}: outputs of {sizes} bytes, not {expected}.",
            "Compile the model again: its C and its metadata do not belong together.",
        )
    status: list[int] = []
    outputs: list[dict[str, np.ndarray]] = []
    for _ in range(n_samples):
        status.append(reader.unpack(_WORD)[0])
        tensors = artifact.outputs if status[-1] == 0 else ()
        outputs.append({tensor.name: reader.tensor(tensor) for tensor in tensors})
    end, stack_bytes, guard_bytes, guard_sample, guard_offset = reader.unpack(_END)
    if end != END_MAGIC:
        raise EnvironmentProblem("The program's response does not end as it should.")
    return Response(outputs, status, stack_bytes, Guard(guard_bytes, guard_sample, guard_offset))


def answered_samples(artifact: Artifact, data: bytes) -> int:
    """How many samples an incomplete response answers, for error messages; assumes that each succeeded."""
    head = _RESPONSE_HEADER.size + _WORD.size * len(artifact.outputs)
    each = _WORD.size + sum(tensor.bytes for tensor in artifact.outputs)
    return max(0, len(data) - head) // each


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


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        if self._at + count > len(self._data):
            raise EnvironmentProblem(f"The program's response ends early, after {len(self._data)} bytes.")
        self._at += count
        return self._data[self._at - count : self._at]

    def unpack(self, layout: struct.Struct) -> tuple[int, ...]:
        return layout.unpack(self.take(layout.size))

    def tensor(self, tensor: TensorInfo) -> np.ndarray:
        dtype = np.dtype(tensor.dtype).newbyteorder("<")
        array = np.frombuffer(self.take(tensor.bytes), dtype=dtype).reshape(tensor.shape)
        return array.astype(np.dtype(tensor.dtype))

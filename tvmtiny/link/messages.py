"""Requests and answers: the twin of microtvm_projects/common/tvmt_link.h, which describes them."""

from __future__ import annotations

import dataclasses
import enum
import struct

from tvmtiny.errors import EnvironmentProblem

ANSWER = 0x80
WHOLE_RUN = 0xFFFF_FFFF
FRAME_BYTES = 256
"""Of the harness; other firmware says in its answer to INFO what it takes."""
DATA_BYTES = FRAME_BYTES - 16
FLAG_DEBUG = 1
BENCHMARK_GUARD = -(1 << 31)
"""Status of a BENCHMARK that found a write outside the arena."""

_INFO = struct.Struct("<8s8Ii")
_RUN = struct.Struct("<iIQIiI")
_WORD = struct.Struct("<I")


class Kind(enum.IntEnum):
    """Kinds of frames; an answer has its request's plus ANSWER."""

    INFO = 1
    WRITE = 2
    RUN = 3
    READ = 4
    BENCHMARK = 5
    PEEK = 6
    LOG = 0xFE
    ERROR = 0xFF


class Refusal(enum.IntEnum):
    """Why a device did not do what it was asked to (enum tvmt_link_error)."""

    VERSION = 1
    SESSION = 2
    KIND = 3
    PAYLOAD = 4
    RANGE = 5
    INPUTS = 6
    UNSUPPORTED = 7
    STACK = 8


class Counter(enum.IntEnum):
    """What counts cycles on the device (enum tvmt_counter)."""

    NONE = 0
    DWT = 1
    SYSTICK = 2
    HOST = 3
    EMULATED = 4


@dataclasses.dataclass(frozen=True)
class Info:
    """What a device says of itself.

    Attributes:
        model_id: 16 hexadecimal digits (tvmtiny.runner.project.model_id).
        clock_hz: of what counts cycles; 0 where time says nothing.
        debug: whether the arena can be read and a run be stopped.
        data_bytes: most bytes of a WRITE, READ or PEEK.
        saved_bytes: bytes of inputs that it can keep; BENCHMARK needs those of the model.
        model, target, version: the model's C prefix, the target it was built for, the version of tvmtiny.
    """

    model_id: str
    clock_hz: int
    counter: Counter
    debug: bool
    data_bytes: int
    saved_bytes: int
    arena_bytes: int
    input_bytes: int
    output_bytes: int
    max_tokens: int
    model: str
    target: str
    version: str


@dataclasses.dataclass(frozen=True)
class Run:
    """One run, as the device measured it.

    Attributes:
        status: what the model's run function returned.
        stack_bytes: deepest use of the stack; 0 where it cannot be told.
        guard_bytes: bytes around the arena that were overwritten.
        guard_offset: the first of them, from the start of the arena: negative before it.
        outputs_crc: CRC-32 of all outputs.
    """

    status: int
    stack_bytes: int
    cycles: int
    guard_bytes: int
    guard_offset: int
    outputs_crc: int


def info_request(fill: int) -> bytes:
    """Open a session; `fill` is the byte that the arena is to hold."""
    return _WORD.pack(fill & 0xFF)


def write_request(offset: int, data: bytes) -> bytes:
    """Put `data` at `offset` of the inputs."""
    return _WORD.pack(offset) + data


def read_request(offset: int, count: int) -> bytes:
    """Read `count` bytes at `offset`: of the outputs, or for PEEK of the arena."""
    return struct.pack("<II", offset, count)


def run_request(n_tokens: int, inputs_crc: int, stop_after: int = WHOLE_RUN) -> bytes:
    """Run on the inputs of that CRC; `stop_after` is the index of an operator."""
    return struct.pack("<iII", n_tokens, inputs_crc, stop_after)


def benchmark_request(n_tokens: int, inputs_crc: int, runs: int) -> bytes:
    """Run several times on the inputs of that CRC."""
    return struct.pack("<iII", n_tokens, inputs_crc, runs)


def benchmark_runs(data_bytes: int) -> int:
    """How many runs one BENCHMARK may ask for; at least one, which a device without room for it refuses."""
    return max(1, (data_bytes - _WORD.size) // 8)


def parse_info(payload: bytes) -> Info:
    """The answer to INFO; raises EnvironmentProblem when it is none."""
    texts = payload[_INFO.size :].split(b"\0")
    if len(payload) < _INFO.size or len(texts) != 4:
        raise EnvironmentProblem("The device's answer to INFO is not one.")
    identity, clock, counter, flags, *sizes = _INFO.unpack(payload[: _INFO.size])
    names = [text.decode(errors="replace") for text in texts[:3]]
    debug = bool(flags & FLAG_DEBUG)
    info = Info(identity.hex(), clock, _counter(counter), debug, *sizes, *names)
    if info.data_bytes == 0:
        raise EnvironmentProblem("The device says that it takes no data.")
    return info


def _counter(number: int) -> Counter:
    """One that this version does not know counts nothing that could be named."""
    return Counter(number) if number in {*Counter} else Counter.NONE


def parse_run(payload: bytes) -> Run:
    """The answer to RUN; raises EnvironmentProblem when it is none."""
    if len(payload) != _RUN.size:
        raise EnvironmentProblem("The device's answer to RUN is not one.")
    return Run(*_RUN.unpack(payload))


def parse_benchmark(payload: bytes) -> tuple[int, list[int]]:
    """Status of the last run, and cycles of each; raises EnvironmentProblem when it is no answer to BENCHMARK."""
    if len(payload) % 8 != _WORD.size:
        raise EnvironmentProblem("The device's answer to BENCHMARK is not one.")
    (status,) = struct.unpack("<i", payload[: _WORD.size])
    return status, [value for (value,) in struct.iter_unpack("<Q", payload[_WORD.size :])]


def parse_refusal(payload: bytes) -> int:
    """The number of an error."""
    return int(_WORD.unpack(payload)[0]) if len(payload) == _WORD.size else 0


REFUSALS = {
    Refusal.VERSION: "speaks another version of the link",
    Refusal.SESSION: "knows of no session: it was reset, or another program talks to it",
    Refusal.KIND: "does not know such a request",
    Refusal.PAYLOAD: "found a request of the wrong size",
    Refusal.RANGE: "was asked for bytes that do not exist",
    Refusal.INPUTS: "has other inputs than were sent",
    Refusal.UNSUPPORTED: "was built without this",
    Refusal.STACK: "used up the whole stack",
}


def refusal_text(number: int) -> str:
    """What the device says by an error."""
    return REFUSALS.get(number, f"answered with error {number}")  # type: ignore[call-overload]

"""Answers that no firmware of tvmtiny gives, and programs that end: errors that say so."""

from __future__ import annotations

import struct
import sys
from typing import NoReturn

import pytest

from tvmtiny.errors import EnvironmentProblem
from tvmtiny.link import messages
from tvmtiny.link.client import Client
from tvmtiny.link.frames import Frame, FrameReader
from tvmtiny.link.messages import ANSWER, Counter, Kind
from tvmtiny.link.process_line import ProcessLine


def info(counter: int = Counter.DWT, data_bytes: int = 240) -> bytes:
    """The answer to INFO of a model of 2 bytes of inputs and none of outputs."""
    return (
        struct.pack("<8s8Ii", b"12345678", 0, counter, 0, data_bytes, 2, 16, 2, 0, 1) + b"fake\0t\0" + b"1\0"
    )


class Device:
    """A line to a device that gives the same answer to every BENCHMARK."""

    name = "a device"

    def __init__(self, benchmark: bytes) -> None:
        self._answers = {Kind.INFO: info(), Kind.WRITE: b"", Kind.BENCHMARK: benchmark}
        self._reader, self._sent = FrameReader(), b""

    def write(self, data: bytes) -> None:
        for frame in self._reader.feed(data):
            payload = self._answers[Kind(frame.kind)]
            self._sent += Frame(frame.kind | ANSWER, frame.sequence, frame.session, payload).encode()

    def read(self, timeout_s: float) -> bytes:
        data, self._sent = self._sent, b""
        return data

    def close(self) -> None:
        """Nothing to release."""


def test_a_counter_of_a_later_version_counts_nothing() -> None:
    assert messages.parse_info(info(Counter.SYSTICK)).counter == Counter.SYSTICK
    assert messages.parse_info(info(77)).counter == Counter.NONE


def test_a_device_that_takes_no_data_is_refused() -> None:
    with pytest.raises(EnvironmentProblem, match="takes no data"):
        messages.parse_info(info(data_bytes=0))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "BENCHMARK is not one"),
        (b"\0\0\0\0\1\0", "BENCHMARK is not one"),
        (struct.pack("<i", 0), "0 runs instead of 3"),
        (struct.pack("<iQQ", 0, 5, 5), "2 runs instead of 3"),
        (struct.pack("<iQ", -4, 5), "ended with status -4"),
    ],
)
def test_a_benchmark_ends_at_an_answer_that_is_none(answer: bytes, said: str) -> None:
    client = Client(Device(answer))
    client.open()
    with pytest.raises(EnvironmentProblem, match=said):
        client.benchmark(b"\0\0", 1, 3, 1.0)


def test_the_cycles_of_a_benchmark_are_put_together() -> None:
    client = Client(Device(struct.pack("<i29Q", 0, *range(29))))
    client.open()
    assert client.benchmark(b"\0\0", 1, 58, 1.0) == [*range(29), *range(29)]


def read_on(line: ProcessLine) -> NoReturn:
    while True:
        line.read(10)


def test_a_program_that_ends_says_why() -> None:
    line = ProcessLine([sys.executable, "-c", "import sys; sys.exit('no such machine')"])
    with pytest.raises(EnvironmentProblem, match=r"(?s)ended with status 1\.\nno such machine"):
        read_on(line)
    line.close()


def test_a_program_that_closes_its_output_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvmtiny.link.process_line._END_S", 0.1)
    line = ProcessLine([sys.executable, "-c", "import os, time; os.close(1); time.sleep(60)"])
    with pytest.raises(EnvironmentProblem, match="runs on"):
        read_on(line)
    line.close()

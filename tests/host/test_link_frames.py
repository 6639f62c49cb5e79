"""Frames in C and in Python: each reads what the other writes, and neither takes what was changed on the way."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tvmtiny.link.frames import EXTRA_BYTES, Frame, FrameReader, decode, stuff, unstuff
from tvmtiny.resources import data_dir
from tvmtiny.runner.process import host_compiler

COMMON = data_dir("microtvm_projects/common")
CAPACITY = 700

Write = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint8), ctypes.c_uint32)

# Zeros and long runs without one are what stuffing is about.
contents = st.one_of(
    st.binary(max_size=300),
    st.lists(st.sampled_from([b"\0", b"\x01", b"x" * 253, b"y" * 254, b"\xff" * 255]), max_size=4).map(
        b"".join
    ),
)
frames = st.builds(Frame, st.integers(0, 255), st.integers(0, 65535), st.integers(0, 2**32 - 1), contents)


class Reader(ctypes.Structure):
    """tvmt_frame_reader."""

    _fields_ = [
        ("frame", ctypes.POINTER(ctypes.c_uint8)),
        ("capacity", ctypes.c_uint32),
        ("count", ctypes.c_uint32),
        ("run", ctypes.c_uint8),
        ("zero", ctypes.c_uint8),
    ]


class CFrames:
    """tvmt_frame.c in this process."""

    def __init__(self, directory: Path) -> None:
        path = directory / "frame.so"
        command = [
            host_compiler(),
            "-std=c11",
            "-O1",
            "-Wall",
            "-Wextra",
            "-Wconversion",
            "-Werror",
            "-shared",
        ]
        subprocess.run([*command, "-fPIC", str(COMMON / "tvmt_frame.c"), "-o", str(path)], check=True)
        self._library = ctypes.CDLL(str(path))
        self._library.tvmt_frame_receive.restype = ctypes.c_uint32
        self._library.tvmt_frame_receive.argtypes = [ctypes.c_void_p, ctypes.c_uint8]

    def send(self, frame: Frame) -> bytes:
        """The bytes that the C puts on the line."""
        memory = (ctypes.c_uint8 * (len(frame.payload) + EXTRA_BYTES))()
        head = (
            bytes([0, frame.kind])
            + frame.sequence.to_bytes(2, "little")
            + frame.session.to_bytes(4, "little")
        )
        ctypes.memmove(memory, head + frame.payload, 8 + len(frame.payload))
        line = bytearray()

        @Write
        def write(_context: object, data: object, count: int) -> int:
            line.extend(ctypes.string_at(data, count))  # type: ignore[arg-type]
            return 0

        assert self._library.tvmt_frame_send(memory, len(frame.payload), write, None) == 0
        return bytes(line)

    def receive(self, line: bytes, capacity: int = CAPACITY) -> list[bytes]:
        """The frames that the C finds, header and CRC included."""
        memory = (ctypes.c_uint8 * capacity)()
        reader = Reader()
        self._library.tvmt_frame_reader_init(ctypes.byref(reader), memory, capacity)
        found = []
        for byte in line:
            size = self._library.tvmt_frame_receive(ctypes.byref(reader), byte)
            if size:
                found.append(bytes(memory[:size]))
        return found


@pytest.fixture(scope="module")
def c_frames(tmp_path_factory: pytest.TempPathFactory) -> CFrames:
    return CFrames(tmp_path_factory.mktemp("frames"))


@given(frame=frames)
def test_both_write_the_same_bytes(c_frames: CFrames, frame: Frame) -> None:
    line = c_frames.send(frame)
    assert line == frame.encode()
    assert line.count(0) == 1


@given(several=st.lists(frames, max_size=3), noise=st.binary(max_size=20))
def test_both_find_every_frame_behind_noise(c_frames: CFrames, several: list[Frame], noise: bytes) -> None:
    line = noise + b"\0" + b"".join(frame.encode() for frame in several)
    fitting = [frame for frame in several if len(frame.payload) + EXTRA_BYTES <= CAPACITY]
    assert [found[8:-4] for found in c_frames.receive(line)] == [frame.payload for frame in fitting]
    assert list(FrameReader().feed(line)) == several


@given(line=st.binary(max_size=200))
@example(b"\x05\x01\x00")
@example(b"\xff" * 300 + b"\x00")
def test_both_agree_on_what_is_no_frame(c_frames: CFrames, line: bytes) -> None:
    assert len(c_frames.receive(line)) == len(list(FrameReader().feed(line)))


@given(frame=frames, place=st.integers(0, 10_000), value=st.integers(1, 255))
def test_a_changed_byte_is_noticed(c_frames: CFrames, frame: Frame, place: int, value: int) -> None:
    line = bytearray(frame.encode())
    line[place % (len(line) - 1)] ^= value
    assert decode(bytes(line[:-1])) is None
    assert all(found[8:-4] != frame.payload for found in c_frames.receive(bytes(line)))


@given(data=contents)
def test_stuffing_comes_back(data: bytes) -> None:
    assert b"\0" not in stuff(data)
    assert unstuff(stuff(data)) == data


def test_a_frame_larger_than_the_memory_is_dropped_and_the_next_found(c_frames: CFrames) -> None:
    large, small = Frame(1, 1, 1, b"x" * 100), Frame(1, 2, 1, b"y")
    found = c_frames.receive(large.encode() + small.encode(), capacity=40)
    assert [one[8:-4] for one in found] == [b"y"]

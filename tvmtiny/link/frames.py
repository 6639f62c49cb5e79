"""Frames on a line of bytes: the twin of microtvm_projects/common/tvmt_frame.h, which describes them."""

from __future__ import annotations

import dataclasses
import struct
import zlib
from collections.abc import Iterator

VERSION = 2
EXTRA_BYTES = 12
# More than any frame has: what is longer is noise.
LONGEST_STUFFED = 1 << 16

_HEADER = struct.Struct("<BBHI")
_CRC = struct.Struct("<I")
_RUN = 254


@dataclasses.dataclass(frozen=True)
class Frame:
    """A frame whose CRC is right.

    Attributes:
        kind: request, answer, error or log (messages.Kind).
        sequence: 16 bits, that of the request.
        session: 32 bits, that of the request.
        version: of the frame; what another version means by the rest is not known.
    """

    kind: int
    sequence: int
    session: int
    payload: bytes
    version: int = VERSION

    def encode(self) -> bytes:
        """The bytes on the line, final zero included."""
        body = _HEADER.pack(self.version, self.kind, self.sequence, self.session) + self.payload
        return stuff(body + _CRC.pack(zlib.crc32(body))) + b"\0"


def decode(stuffed: bytes) -> Frame | None:
    """The frame in what stood between two zeros; None where it is none or its CRC is wrong."""
    data = unstuff(stuffed)
    if data is None or len(data) < EXTRA_BYTES:
        return None
    body, crc = data[: -_CRC.size], _CRC.unpack(data[-_CRC.size :])[0]
    if zlib.crc32(body) != crc:
        return None
    version, kind, sequence, session = _HEADER.unpack(body[: _HEADER.size])
    return Frame(kind, sequence, session, body[_HEADER.size :], version)


def stuff(data: bytes) -> bytes:
    """`data` without its zeros, by consistent overhead byte stuffing."""
    out = bytearray()
    for part in data.split(b"\0"):
        for start in range(0, len(part) - _RUN + 1, _RUN):
            out += b"\xff" + part[start : start + _RUN]
        rest = part[len(part) // _RUN * _RUN :]
        out += bytes([len(rest) + 1]) + rest
    return bytes(out)


def unstuff(stuffed: bytes) -> bytes | None:
    """What `stuff` was given; None where it gives no such thing."""
    out = bytearray()
    at = 0
    while at < len(stuffed):
        code = stuffed[at]
        run = stuffed[at + 1 : at + code]
        at += code
        if code == 0 or len(run) != code - 1:
            return None
        out += run
        if code <= _RUN and at < len(stuffed):
            out.append(0)
    return bytes(out)


class FrameReader:
    """Finds frames in what arrives."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self.discarded = 0
        """Pieces between two zeros that were no frame: noise, or frames that it hit."""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that `data` completes."""
        self._rest += data
        *pieces, rest = bytes(self._rest).split(b"\0")
        self._rest = bytearray(rest[-LONGEST_STUFFED:])
        for piece in pieces:
            if not piece:
                continue
            frame = decode(piece)
            if frame is None:
                self.discarded += 1
            else:
                yield frame

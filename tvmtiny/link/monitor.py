"""What a firmware says by itself: text in frames, and text of other programs on the same port."""

from __future__ import annotations

from collections.abc import Iterator

from tvmtiny.link.frames import decode
from tvmtiny.link.line import Line
from tvmtiny.link.messages import Kind

WAIT_S = 0.2


def listen(line: Line) -> Iterator[str]:
    """Text as it comes, without end; answers to another program's requests are left out."""
    rest = b""
    while True:
        rest += line.read(WAIT_S)
        *pieces, rest = rest.split(b"\0")
        for piece in pieces:
            frame = decode(piece)
            if frame is None:
                yield _plain(piece)
            elif frame.kind == Kind.LOG:
                yield frame.payload.decode(errors="replace")
        # Text of a boot loader or another firmware has no zeros: it is shown by the line.
        text, newline, after = rest.rpartition(b"\n")
        if newline and _is_text(text):
            yield _plain(text + newline)
            rest = after


def _is_text(data: bytes) -> bool:
    return all(byte >= 0x20 or byte in b"\t\r\n" for byte in data)


def _plain(data: bytes) -> str:
    return data.decode(errors="replace") if _is_text(data) else ""

"""UF2: firmware as a file that is copied to a drive. Format: https://github.com/microsoft/uf2 (specification)."""

from __future__ import annotations

import os
import re
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

from elftools.elf.elffile import ELFFile

from tvmtiny.errors import EnvironmentProblem

_BLOCK = struct.Struct("<8I476sI")
_MAGIC = (0x0A324655, 0x9E5D5157, 0x0AB16F30)
_FAMILY_PRESENT = 0x2000
PAYLOAD_BYTES = 256

_MARK = "INFO_UF2.TXT"
_MOUNTS = Path("/proc/mounts")


def loaded_segments(elf: Path) -> list[tuple[int, bytes]]:
    """Address (where it is stored, not where it runs) and contents of what is to be programmed, in order."""
    with elf.open("rb") as stream:
        segments = [
            (int(segment["p_paddr"]), segment.data())
            for segment in ELFFile(stream).iter_segments()
            if segment["p_type"] == "PT_LOAD" and segment["p_filesz"]
        ]
    return sorted(segments)


def encode(segments: list[tuple[int, bytes]], family: int) -> bytes:
    """The UF2 file of `segments`; `family` is the chip's number in the format's list."""
    pages = dict(_pages(segments))
    blocks = []
    for index, (address, data) in enumerate(sorted(pages.items())):
        head = (*_MAGIC[:2], _FAMILY_PRESENT, address, PAYLOAD_BYTES, index, len(pages), family)
        blocks.append(_BLOCK.pack(*head, bytes(data), _MAGIC[2]))
    return b"".join(blocks)


def copy_to_drive(elf: Path, family: int) -> Path:
    """Write `elf` as UF2 beside it and copy it to the drive of a board in its boot loader; returns where it lies.

    Raises EnvironmentProblem when there is no such drive.
    """
    file = elf.with_suffix(".uf2")
    file.write_bytes(encode(loaded_segments(elf), family))
    drive = find_drive()
    if drive is None:
        raise EnvironmentProblem(
            f"No board in its UF2 boot loader is mounted; the file is {file}.",
            "Hold BOOTSEL while plugging the board in, mount its drive, and try again or copy the file there.",
        )
    try:
        shutil.copyfile(file, drive / file.name)
    except OSError as error:
        raise EnvironmentProblem(f"{file} could not be copied to {drive}: {error}.") from error
    return drive / file.name


def find_drive(mounts: Path = _MOUNTS) -> Path | None:
    """Where a drive of a UF2 boot loader is mounted."""
    lines = mounts.read_bytes().split(b"\n") if mounts.is_file() else []
    places = (_unescaped(line.split(b" ")[1]) for line in lines if line)
    # For a mount that this user may not enter, this says no, where Path.is_file raises.
    return next((place for place in places if os.path.isfile(place / _MARK)), None)  # noqa: PTH113


def _unescaped(field: bytes) -> Path:
    """A path as the kernel writes it (proc(5), fstab(5)): blank, tab, newline and backslash as octal numbers."""
    return Path(os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), field)))


def _pages(segments: list[tuple[int, bytes]]) -> Iterator[tuple[int, bytearray]]:
    """Pages of 256 bytes, aligned, as the boot loader programs them."""
    pages: dict[int, bytearray] = {}
    for start, data in segments:
        for offset, value in enumerate(data, start):
            page = offset - offset % PAYLOAD_BYTES
            pages.setdefault(page, bytearray(PAYLOAD_BYTES))[offset - page] = value
    yield from pages.items()

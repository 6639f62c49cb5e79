"""The folder of a tuning run: one writer at a time, and nothing lost but the batch in flight.

measurements.jsonl           what every candidate took, a line each, appended and synchronised batch by batch
database_workload.json       MetaSchedule's own database, begun anew from the measurements by each search
database_tuning_record.json
lock                         held by the tuner that is running
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tvmtiny.codegen.directory import write_whole
from tvmtiny.errors import EnvironmentProblem, UserError
from tvmtiny.kernels import Blocking
from tvmtiny.resources import data_dir
from tvmtiny.schedule.signature import Signature
from tvmtiny.target import Target

MEASUREMENTS = "measurements.jsonl"
DATABASE = ("database_workload.json", "database_tuning_record.json")
LEAST_FREE_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True)
class Measurement:
    """A point of a kernel and what came of it. Figures say nothing where there is an error or a wrong byte.

    Attributes:
        wrong: bytes of the result that differ from the reference.
        error: why it was not built or did not run.
    """

    point: Blocking
    cycles: int = 0
    instructions: int = 0
    spread: float = 0.0
    code_bytes: int = 0
    weight_bytes: int = 0
    scratch_bytes: int = 0
    wrong: int = 0
    error: str = ""

    @property
    def valid(self) -> bool:
        """Whether it ran and gave the bytes of the reference."""
        return not self.error and not self.wrong

    @property
    def flash_bytes(self) -> int:
        """Code, tables and weights."""
        return self.code_bytes + self.weight_bytes

    def to_json(self) -> dict[str, Any]:
        """As a line of the store holds it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Measurement:
        """The inverse of `to_json`. Raises KeyError, TypeError or AttributeError when `data` is no measurement."""
        point = Blocking(**data["point"])
        found = cls(**{**data, "point": point})
        _check_types(point, Blocking())
        _check_types(found, cls(point))
        return found


def _check_types(found: Any, example: Any) -> None:
    """Raise TypeError unless the fields of a dataclass have the types of those of an example."""
    for field in dataclasses.fields(found):
        value, wanted = getattr(found, field.name), type(getattr(example, field.name))
        if type(value) is not wanted:
            raise TypeError(f"{field.name} is {value!r}, no {wanted.__name__}")


@functools.cache
def microkernels_digest() -> str:
    """Of the text of all micro-kernels: what was measured with other ones counts no more."""
    digest = hashlib.sha256()
    for path in sorted(data_dir("schedules").joinpath("microkernels").rglob("*.h")):
        digest.update(f"{path.parent.name}/{path.name}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def condition(target: Target, place: str, compiler: str) -> str:
    """What figures hold for beside the micro-kernels: core and flags, the place that measures, the C compiler."""
    return "\n".join([target.cpu, *target.flags, target.optimize, place, compiler])


class Store:
    """The measurements of one core, place and compiler in a folder.

    Args:
        valid_for: of `condition`.
    """

    def __init__(self, directory: Path, valid_for: str) -> None:
        self.directory = directory
        self._condition = hashlib.sha256(f"{valid_for}\n{microkernels_digest()}".encode()).hexdigest()[:16]
        self._known: dict[tuple[str, Blocking], Measurement] = {}
        self.dropped_lines = 0

    @contextlib.contextmanager
    def opened(self) -> Iterator[Store]:
        """Lock the folder, mend files that a kill or a full disk cut short, and read what is known.

        Raises UserError when another tuner has the folder, EnvironmentProblem when it, or another file that the run
        needs, cannot be read or written.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with (self.directory / "lock").open("a+") as lock:
                _take(lock, self.directory)
                self._read()
                yield self
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise EnvironmentProblem(
                f"Tuning has stopped: {where}{error.strerror or error}. Everything measured before is kept in "
                f"{self.directory}.",
                "Make room where it says, or give another --work-dir (TMPDIR for temporary files), and run the same "
                "command again: it goes on from there.",
            ) from error

    def known(self, signature: Signature) -> list[Measurement]:
        """Everything measured of a kernel."""
        own = key_of(signature)
        return [found for (key, _), found in self._known.items() if key == own]

    def find(self, signature: Signature, point: Blocking) -> Measurement | None:
        """What is known of a point."""
        return self._known.get((key_of(signature), point))

    def add(self, rows: Sequence[tuple[Signature, Measurement]]) -> None:
        """Append measurements, all or none of them in the file's last complete lines. Raises OSError."""
        path = self.directory / MEASUREMENTS
        if shutil.disk_usage(self.directory).free < LEAST_FREE_BYTES:
            raise OSError(errno.ENOSPC, f"less than {LEAST_FREE_BYTES >> 20} MB of disk are free", str(path))
        lines = [
            json.dumps(
                {
                    "condition": self._condition,
                    "kernel": key_of(signature),
                    "measurement": found.to_json(),
                }
            )
            for signature, found in rows
        ]
        try:
            with path.open("a", encoding="utf-8") as stream:
                stream.write("".join(f"{line}\n" for line in lines))
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:  # a failed write does not say of which file
            raise OSError(error.errno, error.strerror, str(path)) from error
        self._known.update({(key_of(signature), found.point): found for signature, found in rows})

    def forget(self) -> None:
        """Begin anew: remove what is in the folder."""
        for name in (MEASUREMENTS, *DATABASE):
            (self.directory / name).unlink(missing_ok=True)
        self._known.clear()

    def _read(self) -> None:
        rows, self.dropped_lines = _mended(self.directory / MEASUREMENTS)
        for condition, kernel, found in rows:
            if condition == self._condition:
                self._known[kernel, found.point] = found


def key_of(signature: Signature) -> str:
    """A short name of a signature."""
    return hashlib.sha256(json.dumps(signature.to_json()).encode()).hexdigest()[:16]


def _take(lock: Any, directory: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.seek(0)
        raise UserError(
            f"Another tuner (process {lock.read().strip() or 'unknown'}) works in {directory}.",
            "Wait for it, or give another --work-dir: records of both can be joined with tvmtiny tune --merge.",
        ) from error
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()


Row = tuple[str, str, Measurement]
"""A line of the store: condition, kernel, measurement."""


def _mended(path: Path) -> tuple[list[Row], int]:
    """The rows of a file, and how many lines were none, e.g. what a kill or a full disk left; these are removed."""
    if not path.is_file():
        return [], 0
    lines = path.read_bytes().splitlines(keepends=True)
    rows = [(line, _row(line)) for line in lines]
    whole = [(line, row) for line, row in rows if row is not None]
    if len(whole) < len(lines):
        write_whole(path, b"".join(line for line, _ in whole))
    return [row for _, row in whole], len(lines) - len(whole)


def _row(line: bytes) -> Row | None:
    if not line.endswith(b"\n"):
        return None
    try:
        data = json.loads(line)
        return str(data["condition"]), str(data["kernel"]), Measurement.from_json(data["measurement"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None

"""The folder of a tuning run: one writer at a time, and nothing lost but the batch in flight.

measurements.jsonl           what every candidate took, a line each, appended and synchronised batch by batch
database_workload.json       MetaSchedule's own database
database_tuning_record.json
lock                         held by the tuner that is running
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tvmtiny.errors import EnvironmentProblem, UserError
from tvmtiny.kernels import Blocking
from tvmtiny.resources import data_dir
from tvmtiny.schedule.signature import Signature

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
        """The inverse of `to_json`."""
        return cls(**{**data, "point": Blocking(**data["point"])})


@functools.cache
def microkernels_digest() -> str:
    """Of the text of all micro-kernels: what was measured with other ones counts no more."""
    digest = hashlib.sha256()
    for path in sorted(data_dir("schedules").joinpath("microkernels").rglob("*.h")):
        digest.update(f"{path.parent.name}/{path.name}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


class Store:
    """The measurements of one core, place and compiler in a folder.

    Args:
        condition: what figures hold for beside the micro-kernels: core, flags, place, compiler.
    """

    def __init__(self, directory: Path, condition: str) -> None:
        self.directory = directory
        self._condition = hashlib.sha256(f"{condition}\n{microkernels_digest()}".encode()).hexdigest()[:16]
        self._known: dict[tuple[str, Blocking], Measurement] = {}
        self.dropped_lines = 0

    @contextlib.contextmanager
    def opened(self) -> Iterator[Store]:
        """Lock the folder, mend files that a kill or a full disk cut short, and read what is known.

        Raises UserError when another tuner has the folder, EnvironmentProblem when it cannot be written.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with (self.directory / "lock").open("a+") as lock:
                _take(lock, self.directory)
                self._read()
                yield self
        except OSError as error:
            raise EnvironmentProblem(
                f"Cannot write {self.directory}: {error.strerror or error}. Everything measured before is kept.",
                "Make room or give another --work-dir, and run the same command again: it goes on from there.",
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
        if shutil.disk_usage(self.directory).free < LEAST_FREE_BYTES:
            raise OSError(28, f"less than {LEAST_FREE_BYTES >> 20} MB of disk are free")
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
        with (self.directory / MEASUREMENTS).open("a", encoding="utf-8") as stream:
            stream.write("".join(f"{line}\n" for line in lines))
            stream.flush()
            os.fsync(stream.fileno())
        self._known.update({(key_of(signature), found.point): found for signature, found in rows})

    def forget(self) -> None:
        """Begin anew: remove what is in the folder."""
        for name in (MEASUREMENTS, *DATABASE):
            (self.directory / name).unlink(missing_ok=True)
        self._known.clear()

    def _read(self) -> None:
        for name in (MEASUREMENTS, *DATABASE):
            self.dropped_lines += _mend(self.directory / name)
        path = self.directory / MEASUREMENTS
        for line in path.read_text("utf-8").splitlines() if path.is_file() else ():
            row = json.loads(line)
            if row["condition"] == self._condition:
                found = Measurement.from_json(row["measurement"])
                self._known[row["kernel"], found.point] = found


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


def _mend(path: Path) -> int:
    """Remove lines that are not JSON: what a kill or a full disk left. Returns how many there were."""
    if not path.is_file():
        return 0
    lines = path.read_bytes().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith(b"\n") and _is_json(line)]
    if len(whole) < len(lines):
        temporary = path.with_suffix(".mended")
        temporary.write_bytes(b"".join(whole))
        temporary.replace(path)
    return len(lines) - len(whole)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True

"""Records of tuned schedules, and what a compile makes of them.

A file `<core>/<objective>.json` below schedules/tuned/ (shipped) or below the user's folder (TVMTINY_SCHEDULES, or the
platform's folder for user data) holds a record a kernel: the trace of its best schedule and what was measured. The
user's records come first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import platformdirs

from tvmtiny.codegen.directory import write_whole
from tvmtiny.errors import UserError
from tvmtiny.kernels import Blocking, Kernel, Operands
from tvmtiny.kernels.base import PLAIN, WIDE_PAIRS
from tvmtiny.resources import data_dir
from tvmtiny.schedule import space
from tvmtiny.schedule.rules import blocking
from tvmtiny.schedule.signature import Signature
from tvmtiny.target import HOST, Target

SCHEMA = 1
ENVIRONMENT_VARIABLE = "TVMTINY_SCHEDULES"
OBJECTIVES = ("latency", "flash", "balanced")
RULES = "none"
"""In the place of an objective: schedules by rules alone."""

TUNED, BORROWED, DEFAULT = "tuned", "borrowed", "default"
"""Where a kernel's schedule comes from: its own record, that of the nearest shapes, the rules."""


@dataclasses.dataclass(frozen=True)
class Figures:
    """What a schedule takes: estimated or measured cycles, bytes of flash (code and weights) and of scratch memory.

    Raises TypeError for what is no whole number.
    """

    cycles: int
    code_bytes: int
    weight_bytes: int
    scratch_bytes: int

    def __post_init__(self) -> None:
        if any(not isinstance(value, int) for value in dataclasses.astuple(self)):
            raise TypeError(f"{self} are no whole numbers")

    @property
    def flash_bytes(self) -> int:
        """Code and weights."""
        return self.code_bytes + self.weight_bytes


@dataclasses.dataclass(frozen=True)
class Record:
    """The best schedule that is known of a kernel.

    Attributes:
        trace: TVM's schedule trace, as JSON.
        schedule: the same in a line, for people.
        figures, default: of this schedule and of the rules'.
        points: how many schedules there are; measured: how many of them were measured.
        place: where: "qemu" (cycles are then an estimate), "serial:..." or "rpc:...".
        compiler: of the code that was measured.
        front: for the objective `balanced`, schedules that nothing beats in cycles, flash and scratch at once.
    """

    signature: Signature
    trace: Any
    schedule: str
    figures: Figures
    default: Figures
    points: int
    measured: int
    place: str
    compiler: str
    front: tuple[tuple[str, Figures], ...] = ()

    @functools.cached_property
    def blocking(self) -> Blocking:
        """The point of the trace. Raises ValueError when it is none."""
        return space.replayed(self.trace)

    @property
    def rows_by_rule(self) -> bool:
        """Whether the schedule has as many rows as the rules give the recorded shapes."""
        return space.chooses_first(self.trace, "rows")

    def to_json(self) -> dict[str, Any]:
        """As a file holds it."""
        return {
            **self.signature.to_json(),
            "trace": self.trace,
            "schedule": self.schedule,
            "figures": dataclasses.asdict(self.figures),
            "default": dataclasses.asdict(self.default),
            "points": self.points,
            "measured": self.measured,
            "place": self.place,
            "compiler": self.compiler,
            "front": [{"schedule": text, **dataclasses.asdict(figures)} for text, figures in self.front],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Record:
        """The inverse of `to_json`."""
        front = [dict(row) for row in data["front"]]
        return cls(
            Signature.from_json(data),
            data["trace"],
            str(data["schedule"]),
            Figures(**data["figures"]),
            Figures(**data["default"]),
            data["points"],
            data["measured"],
            data["place"],
            data["compiler"],
            tuple((row.pop("schedule"), Figures(**row)) for row in front),
        )


def user_folder() -> Path:
    """Where the tuner leaves records."""
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    return Path(named) if named else Path(platformdirs.user_data_dir("tvmtiny")) / "tuned"


def folders() -> list[Path]:
    """Where records are looked for, the user's first."""
    return [user_folder(), data_dir("schedules") / "tuned"]


def read(path: Path, cpu: str, objective: str) -> list[Record]:
    """The records of a file; raises UserError when it is none of this core and objective."""
    try:
        data = json.loads(path.read_text("utf-8"))
        for name, wanted in (("schema", SCHEMA), ("cpu", cpu), ("objective", objective)):
            if data[name] != wanted:
                raise ValueError(f"{name} {data[name]} instead of {wanted}")
        found = [Record.from_json(row) for row in data["records"]]
        for record in found:
            _ = record.blocking, record.rows_by_rule  # now, not amid a compile
        return found
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} holds no records of schedules for {cpu}, {objective}: {error}",
            "tvmtiny tune writes them. Give another file; if it is among your own records, remove it and tune "
            "again, or compile with --tuned none.",
        ) from error


def write(path: Path, cpu: str, objective: str, records: Iterable[Record]) -> None:
    """Write a file in one step. Raises OSError."""
    rows = sorted(records, key=lambda record: json.dumps(record.signature.to_json()))
    head = {"schema": SCHEMA, "cpu": cpu, "objective": objective}
    lines = [f" {json.dumps(name)}: {json.dumps(value)}," for name, value in head.items()]
    text = "\n".join(["{", *lines, ' "records": [', ",\n".join(map(_text, rows)), " ]", "}", ""])
    write_whole(path, text.encode())


def _text(record: Record) -> str:
    """A record as JSON, a line a field and a line a schedule of its front: for people, and for diffs."""
    fields = {name: json.dumps(value) for name, value in record.to_json().items()}
    if record.front:
        fields["front"] = (
            "[" + ",".join(f"\n   {json.dumps(row)}" for row in record.to_json()["front"]) + "\n  ]"
        )
    return " {\n" + ",\n".join(f"  {json.dumps(name)}: {value}" for name, value in fields.items()) + "\n }"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One at a time among those who read a file and write it again. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def merged(first: Iterable[Record], second: Iterable[Record]) -> list[Record]:
    """Records of both; of a kernel in both that with fewer cycles."""
    found: dict[Signature, Record] = {}
    for record in (*first, *second):
        known = found.get(record.signature)
        if known is None or record.figures.cycles < known.figures.cycles:
            found[record.signature] = record
    return list(found.values())


@dataclasses.dataclass(frozen=True)
class Chosen:
    """A kernel's schedule and where it comes from: TUNED, BORROWED (then from `record`) or DEFAULT."""

    blocking: Blocking
    origin: str
    record: Record | None = None


def product_variants(
    calls: Sequence[tuple[str, Kernel, Operands]], rule: Callable[[Kernel, Operands], Blocking], own: str
) -> set[str]:
    """The variants that a rule gives the matrix products of a model; `own` is that of the rules."""
    return {rule(kernel, operands).variant or own for _, kernel, operands in calls if kernel.multiplies}


class TunedRule:
    """Chooses schedules by records, and by the rules where there are none; usable as the rule of `passes.lower.Lower`.

    Args:
        objective: one of OBJECTIVES, or RULES.
        microkernels: the family that the rules take.
    """

    def __init__(self, target: Target, objective: str, microkernels: str) -> None:
        self._rules = blocking(microkernels)
        self._target = target
        self._family = microkernels
        self._wide = microkernels == "wide_weights"
        self.objective = objective
        self._records: dict[Signature, Record] = {}
        self._chosen: dict[Signature, Chosen] = {}
        if objective != RULES and target.cpu != HOST:
            for folder in reversed(folders()):
                path = folder / target.cpu / f"{objective}.json"
                if path.is_file():
                    known = read(path, target.cpu, objective)
                    self._records.update({record.signature: record for record in known})

    @property
    def empty(self) -> bool:
        """Whether there are no records: all schedules are the rules'."""
        return not self._records

    def __call__(self, kernel: Kernel, operands: Operands) -> Blocking:
        """The blocking of a call."""
        return self.choose(kernel, operands).blocking

    def choose(self, kernel: Kernel, operands: Operands) -> Chosen:
        """The schedule of a call."""
        default = Chosen(self._rules(kernel, operands), DEFAULT)
        if not self._records:
            return default
        signature = Signature.of(kernel, operands)
        if signature not in self._chosen:
            # Compiles take `balanced` by default, and what it gains is known of models whose kernels were measured.
            near = (
                found
                for found in self.near(kernel, operands)
                if found.origin == TUNED or self.objective != "balanced"
            )
            self._chosen[signature] = next(near, default)
        return self._chosen[signature]

    def settle(self, calls: Sequence[tuple[str, Kernel, Operands]]) -> None:
        """Keep a model at the rules' variant of micro-kernels where flash counts, unless all its products leave it.

        Args:
            calls: of `tvmtiny.kernels.kernel_calls`.

        A record knows its own kernel alone. In a model each further variant is code beside that of the rules, which the
        kernels without a record go on using: what makes one kernel smaller makes the whole larger.
        """
        if self.objective == "latency":
            return
        if len(product_variants(calls, self, self._family)) > 1:
            self._records = {
                signature: record
                for signature, record in self._records.items()
                if self._variant(record.blocking) == self._family
            }
            self._chosen.clear()

    def changes(self, calls: Sequence[tuple[str, Kernel, Operands]]) -> bool:
        """Whether any of the calls has another schedule than by the rules."""
        chosen = (
            (self.choose(kernel, operands).blocking, self._rules(kernel, operands))
            for _, kernel, operands in calls
        )
        return any(
            dataclasses.replace(one, variant=self._variant(one))
            != dataclasses.replace(rule, variant=self._family)
            for one, rule in chosen
        )

    def _variant(self, point: Blocking) -> str:
        return point.variant or self._family

    def near(self, kernel: Kernel, operands: Operands) -> list[Chosen]:
        """What the records of a kernel say for a call, the nearest shapes first: its own, if there is one."""
        signature = Signature.of(kernel, operands)
        distances = (
            (signature.distance(other), record)
            for other, record in self._records.items()
            if signature.resembles(other)
        )
        known = [(distance, record) for distance, record in distances if distance is not None]
        known.sort(key=lambda found: (found[0], found[1].schedule))
        chosen = (self._by_record(record, signature, kernel, operands) for _, record in known)
        return [found for found in chosen if found is not None]

    def _by_record(
        self, record: Record, signature: Signature, kernel: Kernel, operands: Operands
    ) -> Chosen | None:
        origin = TUNED if record.signature == signature else BORROWED
        point = record.blocking
        if origin == BORROWED:
            point = dataclasses.replace(
                point,
                rows=self._rows(record, kernel, operands),
                tokens_outer=point.tokens_outer and space.has_orders(kernel, operands, point.weights),
            )
        return Chosen(point, origin, record) if self._applies(point, kernel, operands) else None

    def _rows(self, record: Record, kernel: Kernel, operands: Operands) -> int:
        """Rows of a borrowed schedule: what the rules give these shapes where the record has what they give its own.

        Rows decide scratch memory: those of short sequences may be too many for long ones. Never more than there are.
        """
        rows = self._rules(kernel, operands).rows if record.rows_by_rule else record.blocking.rows
        return min(rows, max(1, space.tokens_of(kernel, operands)))

    def _applies(self, point: Blocking, kernel: Kernel, operands: Operands) -> bool:
        """Whether a kernel can have a schedule: not pairs of an odd head, nor other storage of weights than asked."""
        if point.weights != PLAIN and not kernel.pairable(operands):
            return False
        if kernel.columns and self._wide != (point.weights == WIDE_PAIRS) and self.objective != "latency":
            return False
        return not (self._wide and kernel.columns and point.weights != WIDE_PAIRS)

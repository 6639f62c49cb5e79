"""Figures of an evaluation in a file, and what got worse since: for a user's continuous integration."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tvmtiny import __version__
from tvmtiny.codegen.directory import write_whole
from tvmtiny.errors import TvmtinyError, UserError
from tvmtiny.evaluate.data import Dataset
from tvmtiny.evaluate.report import Row

FORMAT = 1
METRICS = "metrics"

TOLERANCES = {METRICS: 0.005, "snr_db": 0.5, "instructions": 1.0, "ram_bytes": 0.0, "flash_bytes": 1.0}
"""By kind of figure: by how much it may get worse. Metrics (0 to 1) and dB absolutely, all else in per cent."""

_REMEDY = "Give a file that `tvmtiny evaluate --save FILE` wrote."


class RegressionError(TvmtinyError):
    """A figure got worse by more than the baseline tolerates."""


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure that is compared.

    Attributes:
        kind: a key of TOLERANCES.
    """

    kind: str
    name: str
    value: float

    @property
    def larger_is_better(self) -> bool:
        """Whether it is a metric or a ratio, and no cost."""
        return self.kind in {METRICS, "snr_db"}


@dataclasses.dataclass(frozen=True)
class Change:
    """A figure of a model on a target beside its baseline.

    Attributes:
        place: model, target, where it ran.
        worse: by how much it got worse, in the unit of `tolerance`; below 0 when it got better.
    """

    place: tuple[str, str, str]
    figure: Figure
    before: float
    worse: float
    tolerance: float

    @property
    def regressed(self) -> bool:
        """Whether it is worse than tolerated, or not a number; rounding of decimal fractions aside."""
        return not self.worse <= self.tolerance + 1e-9

    def to_json(self) -> dict[str, Any]:
        """The fields, for --json."""
        name, target, on = self.place
        return {
            "name": name,
            "target": target,
            "on": on,
            "figure": self.figure.name,
            "before": self.before,
            "after": self.figure.value,
            "worse_by": self.worse,
            "tolerance": self.tolerance,
            "regressed": self.regressed,
        }


@dataclasses.dataclass(frozen=True)
class Baseline:
    """What `save` wrote.

    Attributes:
        rows: figures by name, by (model, target, where it ran).
        tolerances: by kind or by name of a figure; the defaults for what is absent.
        compiler: whose code the figures hold for.
        data_sha256: of the file of the data.
        samples: how many of it.
    """

    rows: dict[tuple[str, str, str], dict[str, float]]
    tolerances: dict[str, float]
    compiler: str | None
    data_sha256: str
    samples: int

    def tolerance(self, figure: Figure) -> float:
        """How much worse a figure may be: by its name, else by its kind."""
        default = self.tolerances.get(figure.kind, TOLERANCES[figure.kind])
        return self.tolerances.get(figure.name, default)


def figures(row: Row) -> list[Figure]:
    """The figures of a row that a baseline keeps: metrics, signal to noise, instructions, RAM, flash."""
    e = row.found
    found = [Figure(METRICS, name, value) for name, value in e.metrics.items()]
    found += [Figure("snr_db", f"snr_db.{name}", value) for name, value in row.snr_db.items()]
    if e.instructions:
        found += [
            Figure("instructions", "instructions_p50", e.instructions.p50),
            Figure("instructions", "instructions_p95", e.instructions.p95),
        ]
    found += [] if e.ram_bytes is None else [Figure("ram_bytes", "ram_bytes", e.ram_bytes)]
    found += [] if e.flash is None else [Figure("flash_bytes", "flash_bytes", e.flash.flash_bytes)]
    return found


def place(row: Row) -> tuple[str, str, str]:
    """What a row is found by."""
    return row.found.artifact.name, row.found.target.name, row.found.on


def save(path: Path, rows: Sequence[Row], data: Dataset, compiler: str | None) -> None:
    """Write the figures of `rows`; the tolerances of an earlier baseline there are kept.

    Raises:
        UserError: the file cannot be written, or holds something else; a figure is no finite number.
    """
    for figure in (figure for row in rows for figure in figures(row)):
        if not math.isfinite(figure.value):
            raise UserError(
                f"{figure.name} is {figure.value}: nothing could be compared with that.",
                "Save figures of a model that gives numbers.",
            )
    tolerances = load(path).tolerances if path.exists() else {}
    contents = {
        "format": FORMAT,
        "version": __version__,
        "compiler": compiler,
        "data_sha256": data.digest,
        "samples": len(data),
        "tolerances": {**TOLERANCES, **tolerances},
        "rows": [
            {
                **dict(zip(("name", "target", "on"), place(row), strict=True)),
                "figures": {figure.name: figure.value for figure in figures(row)},
            }
            for row in rows
        ],
    }
    try:
        write_whole(path, (json.dumps(contents, indent=1) + "\n").encode())
    except OSError as error:
        raise UserError(
            f"Cannot write {path}: {error.strerror or error}.", "Give another file with --save."
        ) from error


def load(path: Path) -> Baseline:
    """Read what `save` wrote. Raises UserError when the file is something else."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.", _REMEDY) from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}", _REMEDY) from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise UserError(f"{path} is no baseline of format {FORMAT}.", _REMEDY)
    try:
        rows = {
            (str(row["name"]), str(row["target"]), str(row["on"])): {
                name: float(value) for name, value in row["figures"].items()
            }
            for row in data["rows"]
        }
        tolerances = {name: float(value) for name, value in data["tolerances"].items()}
        found = Baseline(rows, tolerances, data["compiler"], str(data["data_sha256"]), int(data["samples"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} lacks a field, or one is wrong: {error!r}", _REMEDY) from error
    if not any(rows.values()):
        raise UserError(f"{path} has no figures: everything would pass.", _REMEDY)
    _check_tolerances(path, found)
    return found


def _check_tolerances(path: Path, found: Baseline) -> None:
    known = {*TOLERANCES, *(name for figures in found.rows.values() for name in figures)}
    for name, value in found.tolerances.items():
        if name not in known or not value >= 0:
            raise UserError(
                f"{path}: tolerance {name!r} = {value:g}.",
                f"Numbers from 0 on are possible for: {', '.join(sorted(known))}.",
            )


def check_data(baseline: Baseline, data: Dataset) -> None:
    """Raise UserError for other data than the baseline's, or more or fewer samples of it."""
    if data.digest != baseline.data_sha256:
        raise UserError(
            "The baseline was made with other data: figures cannot be compared.",
            "Evaluate on the same file, or write a new baseline with --save.",
        )
    if len(data) != baseline.samples:
        raise UserError(
            f"The baseline was made with {baseline.samples} samples, these figures with {len(data)}.",
            "Evaluate with the same --limit, or write a new baseline with --save.",
        )


def compare(baseline: Baseline, rows: Sequence[Row], data: Dataset) -> list[Change]:
    """Every figure of `rows` beside its baseline, regressions first.

    Raises:
        UserError: as `check_data`; a row or figure of the baseline that is not among `rows`.
    """
    check_data(baseline, data)
    found = {place(row): {figure.name: figure for figure in figures(row)} for row in rows}
    changes = []
    for where, before in baseline.rows.items():
        for name, value in before.items():
            if name not in found.get(where, {}):
                raise UserError(
                    f"The baseline has {name} of {where[0]} on {where[1]} ({where[2]}), which was not measured now.",
                    "Evaluate with the same options (--on, --target, --metric, --float), or write a new baseline with "
                    "--save.",
                )
            changes.append(_change(baseline, where, found[where][name], value))
    return sorted(changes, key=lambda change: (not change.regressed, change.place, change.figure.name))


def _change(baseline: Baseline, where: tuple[str, str, str], figure: Figure, before: float) -> Change:
    if figure.larger_is_better:
        worse = before - figure.value
    else:
        worse = 100 * (figure.value - before) / before if before else 100.0 * (figure.value > 0)
    return Change(where, figure, before, worse, baseline.tolerance(figure))

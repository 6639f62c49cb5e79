"""Traces of power profilers: CSV files as Nordic's PPK2, Joulescope and Otii export them.

Columns go by their names, as these programs differ between releases: one of time, one of current, perhaps one of
voltage, perhaps digital inputs. A unit may stand behind a name: `Timestamp(ms)`, `Current (uA)`, `voltage [V]`.
"""

from __future__ import annotations

import csv
import dataclasses
import re
from pathlib import Path

import numpy as np

from tvmtiny.errors import UserError

_UNIT = re.compile(r"[(\[](\w+|µ\w+)[)\]]")
_FACTORS = {"n": 1e-9, "u": 1e-6, "µ": 1e-6, "m": 1e-3}
# Nordic's "D0-D7" holds eight digits; Joulescope's digital inputs are "gpi", Otii's "GPI".
_DIGITAL = re.compile(r"^(d\d|d0-d7|.*gpi.*|in\d|.*digital.*)$")
_BITS = "d0-d7"


@dataclasses.dataclass(frozen=True)
class Trace:
    """A recording.

    Attributes:
        time_s: of each sample, ascending.
        current_a: in ampere.
        voltage_v: in volt, or None where it was not recorded.
        digital: by name, what digital inputs saw.
    """

    time_s: np.ndarray
    current_a: np.ndarray
    voltage_v: np.ndarray | None
    digital: dict[str, np.ndarray]


def read_trace(path: Path) -> Trace:
    """Read a CSV file. Raises UserError that says which columns were found."""
    names, rows = _rows(path)
    lower = [name.strip().strip('"#').strip().lower() for name in names]
    time = _column(path, lower, "time")
    current = _column(path, lower, "current")
    voltage = next((i for i, name in enumerate(lower) if "voltage" in name), None)
    digital = [i for i, name in enumerate(lower) if _DIGITAL.match(_bare(name)) and i != current]
    try:
        seconds = np.array([float(row[time]) for row in rows]) * _factor(lower[time])
        amperes = np.array([float(row[current]) for row in rows]) * _factor(lower[current])
        volts = None
        if voltage is not None:
            volts = np.array([float(row[voltage]) for row in rows]) * _factor(lower[voltage])
        inputs = {name: values for i in digital for name, values in _inputs(_bare(lower[i]), rows, i).items()}
    except (ValueError, IndexError) as error:
        raise UserError(f"{path} is not a table of numbers: {error}.", "Export it again as CSV.") from error
    if len(seconds) < 2 or np.any(np.diff(seconds) <= 0):
        raise UserError(f"{path} has no ascending times in column {names[time]!r}.")
    return Trace(seconds, amperes, volts, inputs)


def _rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """Names and rows; lines before the names, which some programs write, are left out."""
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    first = text.splitlines()[:20]
    start = next((i for i, line in enumerate(first) if "time" in line.lower() and _separator(line)), None)
    if start is None:
        raise UserError(
            f"{path} has no line of column names with a time among them.",
            "Export the recording as CSV with column names (PPK2, Joulescope or Otii).",
        )
    lines = text.splitlines()[start:]
    rows = [row for row in csv.reader(lines, delimiter=_separator(lines[0])) if row]
    return rows[0], rows[1:]


def _separator(line: str) -> str:
    return next((mark for mark in (";", "\t", ",") if mark in line), "")


def _column(path: Path, names: list[str], what: str) -> int:
    found = [i for i, name in enumerate(names) if what in name and not _DIGITAL.match(_bare(name))]
    if not found:
        raise UserError(f"{path} has no column of {what}; it has {', '.join(names)}.")
    return found[0]


def _bare(name: str) -> str:
    return _UNIT.sub("", name).strip()


def _factor(name: str) -> float:
    """From the unit behind a name to seconds, ampere, volt; these themselves without one."""
    match = _UNIT.search(name)
    unit = match[1] if match else ""
    return _FACTORS.get(unit[0], 1.0) if len(unit) == 2 else 1.0


def _inputs(name: str, rows: list[list[str]], column: int) -> dict[str, np.ndarray]:
    if name != _BITS:
        return {name: np.array([float(row[column]) > 0.5 for row in rows])}
    digits = np.array([list(row[column].strip()) for row in rows])
    return {f"d{i}": digits[:, i] == "1" for i in range(digits.shape[1])}

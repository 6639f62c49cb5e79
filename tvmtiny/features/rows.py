"""From samples to the rows of one run: the twin of a recording that goes through tvmt_rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tvmtiny.features.audio import audio_rows
from tvmtiny.features.sensor import sensor_rows
from tvmtiny.features.spec import AudioSpec, Spec
from tvmtiny.features.tables import AudioTables, Tables


def feature_rows(tables: Tables, samples: npt.ArrayLike) -> npt.NDArray[np.int8]:
    """All rows of a recording: int8 (rows, columns) of int16 samples (N,), or (N, channels)."""
    if isinstance(tables, AudioTables):
        return audio_rows(tables, samples)
    return sensor_rows(tables, samples)


def last_rows(rows: npt.NDArray[np.int8], most: int, group: int) -> npt.NDArray[np.int8]:
    """What tvmt_rows_copy gives after these rows: the last ones, in whole tokens of `group` rows, at most `most`."""
    whole = len(rows) // group * group
    first = -(-max(0, len(rows) - most) // group) * group
    return rows[first:whole]


def most_samples(spec: Spec, rows: int, *, has_length: bool) -> int:
    """Samples of one run: those that `rows` rows need, or with a length the most that give no more."""
    if not isinstance(spec, AudioSpec):
        return rows
    needed = (rows - 1) * spec.hop + (spec.window if spec.pad == "none" else 0)
    if not has_length:
        return max(needed, spec.window // 2 + 1)
    return needed + spec.hop - 1

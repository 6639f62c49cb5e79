"""Rows of raw samples as tvmt_sensor.c computes them, bit for bit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tvmtiny.features.scale import scale_s8
from tvmtiny.features.tables import SensorTables


def sensor_rows(tables: SensorTables, raw: npt.ArrayLike) -> npt.NDArray[np.int8]:
    """int8 (N, channels) of int16 samples (N, channels), the first of which begins a token."""
    return scale_s8(tables.scale, np.asarray(raw, np.int64))

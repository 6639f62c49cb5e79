"""Features to int8 as tvmt_scale_each.c and tvmt_scale_sums.c compute them, bit for bit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tvmtiny.features.tables import ScaleRows


def scale_s8(rows: ScaleRows, values: npt.NDArray[np.int64]) -> npt.NDArray[np.int8]:
    """int8 (N, columns) of the int16 values of N rows, the first of which has phase 0."""
    found = np.empty((len(values), rows.columns), np.int8)
    for phase in range(rows.phases):
        part = slice(phase * rows.apart, phase * rows.apart + rows.columns)
        own = values[phase :: rows.phases]
        sums = own @ rows.factor[part].T if rows.factor.ndim == 2 else own * rows.factor[part]
        found[phase :: rows.phases] = np.clip((sums + rows.bias[part]) >> rows.shift[part], -128, 127)
    return found

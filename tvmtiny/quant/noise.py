"""Signal to quantization noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_NOTHING = 1e-30
"""Power in place of 0, so that the ratio is finite."""


def snr_db(signal: float, error: float) -> float:
    """10 log10 of the power of a signal over that of its error, in dB."""
    return 10 * math.log10(max(float(signal), _NOTHING) / max(float(error), _NOTHING))


def present(shape: Sequence[int], n_tokens: Array, max_tokens: int) -> npt.NDArray[np.bool_]:
    """Which rows (N, rows) of an output count: those of present tokens, where it has a row a token.

    Args:
        shape: of the output for one sample. n_tokens: of each sample (N,). max_tokens: of the model.
    """
    rows = int(np.prod(shape[:-1]))
    if rows != max_tokens:
        return np.ones((len(n_tokens), rows), np.bool_)
    found: npt.NDArray[np.bool_] = np.arange(rows) < n_tokens[:, None]
    return found


def signal_to_noise_db(real: Array, integer: Array, rows: npt.NDArray[np.bool_]) -> float:
    """Power of the float output over that of the difference, over `rows`, in dB."""
    width = real.shape[-1]
    wanted = real.astype(np.float64).reshape(*rows.shape, width)[rows]
    error = wanted - integer.astype(np.float64).reshape(*rows.shape, width)[rows]
    return snr_db(np.sum(wanted**2), np.sum(error**2))

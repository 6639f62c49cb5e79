"""Signal to quantization noise."""

from __future__ import annotations

import math

_NOTHING = 1e-30
"""Power in place of 0, so that the ratio is finite."""


def snr_db(signal: float, error: float) -> float:
    """10 log10 of the power of a signal over that of its error, in dB."""
    return 10 * math.log10(max(float(signal), _NOTHING) / max(float(error), _NOTHING))

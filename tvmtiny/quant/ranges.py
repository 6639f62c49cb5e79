"""From the values that a tensor took in calibration to the range that int8 should cover."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Range = tuple[float, float]

METHODS = ("auto", "minmax", "percentile", "entropy")

_HISTOGRAM_BINS = 2048
_LEVELS = 128


def minmax(values: Array) -> Range:
    """The smallest range that clips nothing."""
    return float(values.min()), float(values.max())


def percentile(values: Array, keep: float = 99.99) -> Range:
    """The range that holds `keep` percent of the values, half of the rest on either side."""
    tail = (100 - keep) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def entropy(values: Array) -> Range:
    """The threshold whose clipped, 128-level histogram of |x| has the least Kullback-Leibler divergence.

    After Migacz, "8-bit inference with TensorRT" (GTC 2017).
    """
    magnitude = np.abs(values)
    counts, edges = np.histogram(magnitude, bins=_HISTOGRAM_BINS)
    best, threshold = np.inf, float(magnitude.max())
    for stop in range(_LEVELS, _HISTOGRAM_BINS + 1, 32):
        divergence = _divergence(counts, stop)
        if divergence < best:
            best, threshold = divergence, float(edges[stop])
    low, high = minmax(values)
    return max(low, -threshold), min(high, threshold)


def _divergence(counts: Array, stop: int) -> float:
    reference = counts[:stop].astype(np.float64)
    reference[-1] += counts[stop:].sum()
    occupied = counts[:stop] > 0
    level = np.arange(stop) * _LEVELS // stop
    mass = np.bincount(level, weights=counts[:stop], minlength=_LEVELS)
    bins = np.bincount(level, weights=occupied, minlength=_LEVELS)
    candidate = np.where(occupied, (mass / np.maximum(bins, 1))[level], 0.0)
    kept = reference > 0
    p = reference[kept] / reference.sum()
    q = np.maximum(candidate[kept] / max(candidate.sum(), 1e-30), 1e-12)
    return float(np.sum(p * np.log(p / q)))


_CHOICES: dict[str, Callable[[Array], Range]] = {
    "minmax": minmax,
    "percentile": percentile,
    "percentile 99.9": lambda values: percentile(values, 99.9),
    "entropy": entropy,
}


def noise(values: Array, chosen: Range, *, symmetric: bool) -> float:
    """Mean squared error of rounding `values` to 8 bits over a range, clipping included."""
    low, high = chosen
    if symmetric:
        scale = max(abs(low), abs(high)) / 127 or 1.0
        rounded = np.clip(np.round(values / scale), -127, 127) * scale
    else:
        low, high = min(low, 0.0), max(high, 0.0)
        scale = (high - low) / 255 or 1.0
        zero = np.round(-low / scale)
        rounded = (np.clip(np.round(values / scale) + zero, 0, 255) - zero) * scale
    return float(np.mean((values - rounded) ** 2))


def choose(values: Array, method: str, *, symmetric: bool) -> Range:
    """The range by one of METHODS; "auto" takes the method with the best signal to noise for this tensor."""
    flat = values.reshape(-1).astype(np.float64)  # tiny ranges have no bins and no scale in float32
    if method != "auto":
        return _CHOICES[method](flat)
    ranges = [function(flat) for function in _CHOICES.values()]
    return min(ranges, key=lambda chosen: noise(flat, chosen, symmetric=symmetric))

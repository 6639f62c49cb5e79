"""The format of int4 weights: how they lie in flash, and the integers that they stand for.

A weight is q in [-8, 7]. GROUP consecutive weights of a row (an output channel) share an integer scale g in [1, 255],
and the row has one real unit: real weight = unit[n] * g[n, k // GROUP] * q[n, k]. What a kernel multiplies is g * q,
so that accumulators stay integer.

Flash: q + 8 in four bits, two weights a byte, the even one in the low bits; a row ends at a whole word of eight
weights, filled up with zeros. The scales are a byte a group.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

GROUP = 32
"""Weights of a row that share a scale; the last group of a row may be shorter."""

LOWEST, HIGHEST = -8, 7
"""Range of q."""

MAX_SCALE = 255
"""Largest scale of a group."""

WORD = 8
"""Weights of a 32-bit word."""


def groups_of(depth: int) -> int:
    """Groups of a row of `depth` weights."""
    return -(-depth // GROUP)


def row_bytes(depth: int) -> int:
    """Bytes of a packed row of `depth` weights."""
    return -(-depth // WORD) * (WORD // 2)


def pack(q: Array) -> Array:
    """q (N, K) in [-8, 7] to uint8 (N, row_bytes(K))."""
    n, depth = q.shape
    stored = np.full((n, 2 * row_bytes(depth)), -LOWEST, np.uint8)
    stored[:, :depth] = q.astype(np.int16) - LOWEST
    return stored[:, 0::2] | stored[:, 1::2] << 4


def unpack(packed: Array, depth: int) -> Array:
    """What `pack` packed: int8 (N, K)."""
    stored = np.stack([packed & 15, packed >> 4], axis=-1).reshape(len(packed), -1)
    return stored[:, :depth].astype(np.int8) + np.int8(LOWEST)


def expand(packed: Array, scales: Array, depth: int) -> Array:
    """The integers g * q that a kernel multiplies: int16 (N, K), from uint8 (N, row_bytes(K)) and (N, groups)."""
    g = np.repeat(scales.astype(np.int16), GROUP, axis=1)[:, :depth]
    return unpack(packed, depth).astype(np.int16) * g

"""int4 weights: how they lie in flash, the integers that they stand for, and how real numbers are rounded to them.

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

from tvmtiny.quant import gptq

Array = npt.NDArray[Any]

GROUP = 32
"""Weights of a row that share a scale; the last group of a row may be shorter."""

LOWEST, HIGHEST = -8, 7
"""Range of q."""

MAX_SCALE = 255
"""Largest scale of a group."""

WORD = 8
"""Weights of a 32-bit word."""

CLIPS = tuple(np.linspace(0.55, 1.1, 23))
"""Scales of a group that are tried, in units of that which represents its largest weight as HIGHEST."""


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


def rounded(ratio: Array, moments: Array | None = None, given: Array | None = None) -> tuple[Array, Array]:
    """q int8 (N, K) and scales uint8 (N, groups) for which scale * q is close to ratio (N, K).

    Each group takes, of the scales max |ratio| / HIGHEST * r with r in CLIPS, the one with the least squared error: a
    smaller scale clips the largest weights and rounds all others finer. Scales that are given, real (N, groups), are
    only rounded.

    With second moments of the layer's inputs, E[x x^T] (K, K), the weights are rounded one after another, and those
    that are left take over what the error of each costs at the output, as far as their inputs move alike (`gptq`).
    """
    n, depth = ratio.shape
    left = ratio.astype(np.float64)
    spread = None if moments is None else gptq.spread(moments)
    q, scales = np.zeros((n, depth), np.int8), np.zeros((n, groups_of(depth)), np.uint8)
    for group in range(groups_of(depth)):
        first, last = group * GROUP, min(depth, (group + 1) * GROUP)
        part = left[:, first:last]
        scale = _best_scales(part) if given is None else np.clip(np.round(given[:, group]), 1, MAX_SCALE)
        scales[:, group] = scale
        if spread is None:
            q[:, first:last] = _nearest(left[:, first:last] / scale[:, None])
            continue
        for k in range(first, last):
            q[:, k] = _nearest(left[:, k] / scale)
            gptq.hand_on(left, left[:, k] - scale * q[:, k], spread, k)
    return q, scales


def _best_scales(part: Array) -> Array:
    """The scale of each row of a group (N, at most GROUP), integers as float64 (N,)."""
    widest = np.abs(part).max(axis=1) / HIGHEST
    best, least = np.ones(len(part)), np.full(len(part), np.inf)
    for clip in CLIPS:
        scale = np.clip(np.round(widest * clip), 1, MAX_SCALE)
        error = ((part - scale[:, None] * _nearest(part / scale[:, None])) ** 2).sum(axis=1)
        best = np.where(error < least, scale, best)
        least = np.minimum(error, least)
    return best


def _nearest(values: Array) -> Array:
    return np.clip(np.round(values), LOWEST, HIGHEST)

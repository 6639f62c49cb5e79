"""Frames of a recording as tvmt_audio.c computes them, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from tvmtiny.errors import UserError
from tvmtiny.features.reference import frames
from tvmtiny.features.scale import scale_s8
from tvmtiny.features.tables import LOG2, AudioTables, MelTables
from tvmtiny.features.transform import multiply_high, powers

Array = npt.NDArray[np.int64]

_PIECE = 512
"""Frames computed at a time."""


def audio_rows(tables: AudioTables, pcm: npt.ArrayLike) -> npt.NDArray[np.int8]:
    """The rows of all frames of a recording: int8 (frames, columns).

    Raises:
        UserError: the recording is too short to be mirrored at its ends.
    """
    samples = np.asarray(pcm, np.int64)
    spec = tables.spec
    if spec.pad == "reflect" and len(samples) <= spec.window // 2:
        raise UserError(
            f"The recording has {len(samples)} samples; padding by reflection needs {spec.window // 2 + 1}.",
            "Give a longer one.",
        )
    logs = [log_mel_s16(tables, piece) for piece in _pieces(tables, samples)]
    values = np.concatenate(logs) if logs else np.zeros((0, spec.mels), np.int64)
    return scale_s8(tables.scale, values)


def _pieces(tables: AudioTables, samples: Array) -> Iterator[Array]:
    """Windowed frames, in units of 2**-14 of a sample."""
    before = np.append(0, samples)[: len(samples)]
    found = frames(tables.spec, samples * 2**15 - before * tables.pre_emphasis)
    window = np.append(tables.window, tables.window[1:-1][::-1])
    for start in range(0, len(found), _PIECE):
        yield multiply_high(found[start : start + _PIECE], window)


def log_mel_s16(tables: AudioTables, windowed: Array) -> Array:
    """Logarithms of the filters' energies as int16 has them, (frames, mels)."""
    transform = tables.transform
    z = np.zeros((len(windowed), transform.length), np.int64)
    z[:, : windowed.shape[1]] = windowed
    bits = np.bitwise_or.reduce(z ^ (z >> 63), axis=1)
    left = transform.peak_bits - np.frexp(bits.astype(np.float64))[1]
    up, down = np.maximum(left, 0)[:, None], np.maximum(-left, 0)[:, None]
    shifted = np.where(down > 0, (z + (1 << down >> 1)) >> down, z << up)
    found = powers(transform, shifted[:, 0::2], shifted[:, 1::2])
    middle = transform.length // 4
    total = found.sum(axis=1) + found[:, middle]
    right = np.maximum(0, 16 - leading_zeros(np.maximum(total, 1 << 47)))
    return _logarithms(
        tables.mel, _energies(tables.mel, found >> right.astype(np.uint64)[:, None]), 2 * left - right
    )


def _energies(mel: MelTables, found: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Sums of weighted powers, (frames, mels)."""
    inside = found[:, mel.first : mel.first + len(mel.weight)]
    rising = inside * mel.weight.astype(np.uint64)
    falling = (inside << np.uint64(16)) - rising
    ends = np.cumsum(mel.bins)
    sums = np.zeros((len(found), len(mel.bins) - 1), np.uint64)
    for filter_index in range(len(mel.bins) - 1):
        up = slice(ends[filter_index] - mel.bins[filter_index], ends[filter_index])
        down = slice(ends[filter_index], ends[filter_index + 1])
        sums[:, filter_index] = rising[:, up].sum(axis=1) + falling[:, down].sum(axis=1)
    return sums


def _logarithms(mel: MelTables, energies: npt.NDArray[np.uint64], exponent: Array) -> Array:
    """log2 with offset and floor, as int16 has it."""
    level = np.maximum(log2_q16(energies) - exponent[:, None] * 2**16 + mel.offset, mel.floor)
    return (np.where(energies == 0, mel.floor, level) - mel.centre) >> mel.shift


def leading_zeros(values: npt.NDArray[np.uint64]) -> Array:
    """Leading zero bits of positive numbers."""
    rest, zeros = values.copy(), np.zeros(values.shape, np.int64)
    for bits in (32, 16, 8, 4, 2, 1):
        small = rest < np.uint64(1 << (64 - bits))
        zeros += small * bits
        rest = np.where(small, rest << np.uint64(bits), rest)
    return zeros


def log2_q16(values: npt.NDArray[np.uint64]) -> Array:
    """65536 log2, between the entries of a table; anything for 0."""
    zeros = leading_zeros(values)
    mantissa = values << np.minimum(zeros, 63).astype(np.uint64)
    entry = ((mantissa >> np.uint64(58)) & np.uint64(31)).astype(np.int64)
    rest = ((mantissa >> np.uint64(42)) & np.uint64(0xFFFF)).astype(np.int64)
    between = ((LOG2[entry + 1] - LOG2[entry]) * rest) >> 16
    return ((63 - zeros) << 16) + LOG2[entry] + between

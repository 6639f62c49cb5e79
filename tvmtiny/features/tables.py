"""The integers of a front end: what tvmt_audio_tables and tvmt_scale_rows hold, for one input of one model."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tvmtiny.errors import UserError
from tvmtiny.features.reference import (
    LOG_OF_TWO,
    SAMPLE_SCALE,
    cepstral_transform,
    column_values,
    filter_gains,
    mel_edges,
    window_weights,
)
from tvmtiny.features.spec import AudioSpec, SensorSpec
from tvmtiny.features.transform import UNIT, Transform, build_transform

Array = npt.NDArray[np.int64]
Real = npt.NDArray[np.float64]

LOG2_ENTRIES = 32
LOG2 = np.rint(2**16 * np.log2(1 + np.arange(LOG2_ENTRIES + 1) / LOG2_ENTRIES)).astype(np.int64)
LOG_BITS = 16
"""Fraction bits of the logarithms before they become int16."""
_SAMPLE_BITS = 14
"""Fraction bits of a windowed sample."""
_WEIGHT_BITS = 16
_FACTOR_BITS = 15
_LARGEST_SHIFT = 62


@dataclasses.dataclass(frozen=True)
class ScaleRows:
    """Features to int8: clamp8((bias + factor . values) >> shift).

    Attributes:
        factor: (rows, values), or (rows,) for a factor a value; a set of rows for each phase, or one for all.
        bias, shift: (rows,).
        columns: rows of a set. phases: rows of features to a token.
    """

    factor: Array
    bias: Array
    shift: Array
    columns: int
    phases: int

    @property
    def function(self) -> str:
        """The C that computes it."""
        return "tvmt_scale_sums" if self.factor.ndim == 2 else "tvmt_scale_each"

    @property
    def apart(self) -> int:
        """Rows from a phase's set to the next one's; 0 where all have the same."""
        return self.columns if len(self.bias) > self.columns else 0

    @property
    def bytes(self) -> int:
        """Flash that the arrays take."""
        return 2 * self.factor.size + 9 * len(self.bias)


@dataclasses.dataclass(frozen=True)
class MelTables:
    """The arrays of tvmt_mel; `offset` has an entry a filter, or a single one for all."""

    weight: Array
    bins: Array
    first: int
    offset: Array
    floor: int
    centre: int
    shift: int


@dataclasses.dataclass(frozen=True)
class AudioTables:
    """The arrays of tvmt_audio_tables."""

    spec: AudioSpec
    transform: Transform
    window: Array
    pre_emphasis: int
    mel: MelTables
    scale: ScaleRows

    @property
    def bytes(self) -> int:
        """Flash that the arrays take, stages and structures apart."""
        small = [self.transform.order, self.mel.weight, self.mel.bins]
        turns = [self.transform.sine[1:], *(stage.sine[1:, 1:] for stage in self.transform.stages)]
        wide = [*turns, *turns, self.window, LOG2, *([self.mel.offset] if len(self.mel.offset) > 1 else [])]
        return 2 * sum(a.size for a in small) + 4 * sum(a.size for a in wide) + self.scale.bytes


@dataclasses.dataclass(frozen=True)
class SensorTables:
    """The scale of raw samples."""

    spec: SensorSpec
    scale: ScaleRows

    @property
    def bytes(self) -> int:
        """Flash that the arrays take."""
        return self.scale.bytes


Tables = AudioTables | SensorTables


def build_tables(spec: AudioSpec | SensorSpec, scale: npt.ArrayLike, zero_point: npt.ArrayLike) -> Tables:
    """The tables of a front end for an input of a model.

    Args:
        scale, zero_point: of the input, a column: real = (int8 - zero_point) * scale. Where the input has several rows
            of features a token, those of each follow one another.

    Raises:
        UserError: the input's scale is out of all proportion to the features.
    """
    scales, zeros = np.atleast_1d(np.asarray(scale, np.float64)), np.atleast_1d(np.asarray(zero_point))
    phases = len(scales) // spec.columns
    if isinstance(spec, SensorSpec):
        gain = np.tile(column_values(spec.gain, spec.columns), phases)
        offset = np.tile(column_values(spec.offset, spec.columns), phases)
        return SensorTables(spec, _scale_rows(gain / scales, -offset * gain / scales + zeros, phases))
    transform = build_transform(spec.fft)
    mel = _mel_tables(spec, transform)
    mean = np.tile(column_values(spec.mean, spec.columns), phases)
    std = np.tile(column_values(spec.std, spec.columns), phases)
    if spec.kind == "mfcc":
        matrix = np.tile(cepstral_transform(spec), (phases, 1))
        at_middle = matrix.sum(axis=1) * mel.middle
        factor = matrix * mel.unit / (std * scales)[:, None]
    else:
        at_middle, factor = np.full(len(scales), mel.middle), mel.unit / (std * scales)
    rows = _scale_rows(factor, (at_middle - mean) / (std * scales) + zeros, phases)
    window = np.minimum(np.rint(window_weights(spec)[: spec.window // 2 + 1] * UNIT), UNIT - 1).astype(
        np.int64
    )
    return AudioTables(spec, transform, window, round(spec.pre_emphasis * 2**15), mel.tables, rows)


@dataclasses.dataclass(frozen=True)
class _Mel:
    """The tables; `middle`: the real logarithm that their int16 zero stands for; `unit`: that of one unit more."""

    tables: MelTables
    middle: float
    unit: float


def _mel_tables(spec: AudioSpec, transform: Transform) -> _Mel:
    weight, bins, first = _triangles(spec)
    gains = filter_gains(spec)
    # Samples are in units of 2**-_SAMPLE_BITS and halved by all stages but one, weights in units of 2**-_WEIGHT_BITS.
    fixed = 2 * (_SAMPLE_BITS - transform.halvings) + _WEIGHT_BITS
    offset = np.log2(gains) + 2 * math.log2(spec.full_scale / SAMPLE_SCALE) - fixed
    if spec.mel_norm == "none":
        offset = offset[:1]
    low = math.log2(spec.floor)
    high = max(low + 1, _highest(spec) + math.log2(gains.max()))
    fraction = min(14, math.floor(math.log2((2**16 - 2) / (high - low))))
    shift = LOG_BITS - fraction
    centre = round((low + high) / 2 * 2**LOG_BITS)
    tables = MelTables(
        weight=weight,
        bins=bins,
        first=first,
        offset=np.rint(offset * 2**LOG_BITS).astype(np.int64),
        floor=round(low * 2**LOG_BITS),
        centre=centre - (1 << shift >> 1),  # so that the shift rounds
        shift=shift,
    )
    unit = LOG_OF_TWO[spec.log]
    return _Mel(tables, float(centre / 2**LOG_BITS * unit), float(unit / 2**fraction))


def _highest(spec: AudioSpec) -> float:
    """log2 of the largest energy that a filter of height 1 can have (Parseval's theorem)."""
    amplitude = spec.full_scale * (1 + spec.pre_emphasis)
    return math.log2(spec.fft * float(np.sum(window_weights(spec) ** 2)) * amplitude**2)


def _triangles(spec: AudioSpec) -> tuple[Array, Array, int]:
    """Weight of each frequency on the rising side it is on, frequencies a segment, the first frequency."""
    hertz = np.arange(spec.fft // 2 + 1) * spec.sample_rate / spec.fft
    edges = mel_edges(spec)
    inside = np.flatnonzero((hertz >= edges[0]) & (hertz < edges[-1]))
    segment = np.searchsorted(edges, hertz[inside], side="right") - 1
    rise = (hertz[inside] - edges[segment]) / (edges[segment + 1] - edges[segment])
    weight = np.rint(rise * 2**_WEIGHT_BITS).astype(np.int64)
    # A weight of 1 does not fit: at a peak, the frequency counts as the first of the falling side.
    at_peak = weight == 2**_WEIGHT_BITS
    weight, segment = np.where(at_peak, 0, weight), segment + at_peak
    kept = segment <= spec.mels
    bins = np.bincount(segment[kept], minlength=spec.mels + 1).astype(np.int64)
    return weight[kept], bins, int(inside[0])


def _scale_rows(factor: Real, offset: Real, phases: int) -> ScaleRows:
    """Integers for factor . values + offset: each row has the shift that gives its largest factor 15 bits.

    Phases whose rows are the same get one set.
    """
    columns = len(offset) // phases
    if _repeats(factor, columns) and _repeats(offset, columns):
        factor, offset = factor[:columns], offset[:columns]
    largest = np.abs(factor).max(axis=1) if factor.ndim == 2 else np.abs(factor)
    exponent = np.frexp(largest)[1]  # largest is below 2**exponent
    shift = _FACTOR_BITS - exponent
    # A factor of 15 bits that rounds up to 2**15 needs one less.
    shift = shift - (np.rint(np.ldexp(largest, shift)) > 2**_FACTOR_BITS - 1)
    _check_shift(shift, offset)
    scaled = np.ldexp(factor, shift[:, None] if factor.ndim == 2 else shift)
    bias = [
        round(math.ldexp(float(o), int(s))) + (1 << int(s) >> 1) for o, s in zip(offset, shift, strict=True)
    ]
    return ScaleRows(
        np.rint(scaled).astype(np.int64), np.asarray(bias, np.int64), shift.astype(np.int64), columns, phases
    )


def _repeats(values: Real, columns: int) -> bool:
    return bool(np.all(values.reshape(-1, columns, *values.shape[1:]) == values[:columns]))


def _check_shift(shift: npt.NDArray[np.int64], offset: Sequence[float] | Real) -> None:
    wrong = (shift < 0) | (shift > _LARGEST_SHIFT) | (np.abs(offset) * np.ldexp(1.0, shift) > 2.0**61)
    if np.any(wrong):
        raise UserError(
            f"Column {int(np.flatnonzero(wrong)[0])} of the features does not fit the model's input at all: their "
            "scales differ by orders of magnitude.",
            "Check units (full_scale, log, gain) and normalisation (mean, std) against those of the training data.",
        )

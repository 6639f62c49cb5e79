"""Real numbers become integers here, and nowhere else.

Everything returns parameters for which no int32 accumulator of the generated code can overflow, whatever the input:
the bounds are computed from the quantized weights and checked.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tvmtiny.errors import UserError
from tvmtiny.quant import gptq, int4
from tvmtiny.quant.integer import (
    NORM_FRACTION_BITS,
    NORM_MAX_BITS,
    NORM_OUTPUT_BITS,
    ROTARY_TABLE_BITS,
    quantize_q16,
)

Array = npt.NDArray[Any]

INT16 = (1 << 15) - 1
INT32 = (1 << 31) - 1
MAX_REAL_MULTIPLIER = 2.0
"""A scale ratio above this means that the output is finer than the accumulator: nothing is gained."""

EXP_RANGE = math.log(510.0)
"""Distance from the maximum, in nats, beyond which an exponential in units of 1/255 rounds to zero."""

NORM_MAX_EXTENT = 1024
"""Widest LayerNorm: a normalized value of up to sqrt(E) must fit into 32 bits beside its fraction."""

SUM_BITS = 24
"""Width of a sum that is requantized."""

RMS_NORM_MAX_EXTENT = NORM_MAX_EXTENT - 1
"""Widest RMSNorm, whose normalized value may be sqrt(E) itself."""

WIDE_HEADROOM = 2.0
"""int16 tensors hold this factor times their calibrated magnitude before they saturate: one bit of sixteen."""

WIDE_RESIDUAL_BITS = 20
"""A sum of this width is fine enough for an int16 residual: a twentieth of a unit of the sum's own int16 result."""

FEATURE_SCALES = (2.0**-15, 2.0**7)
"""Scales of int8 features that Q16.16 carries: at least two of its units, at most its range."""

INT4_BOUND = 2**28 - 1
"""Largest accumulator of a layer with int4 weights: `fixed_point` shifts by 3 at most."""

BIAS_LIMIT = 2.0**26
"""Largest magnitude of a bias, in units of the accumulator."""

GRID_TOLERANCE = 1e-3
"""Weights are whole multiples of a scale to within this part of it: float32 carries 127 steps to 1e-5."""

LEAST_STEPS = 16
"""Weights on a coarser grid would leave their bias too little resolution."""

FEW_COLUMNS = 8
"""A row of no more numbers lies on some grid by accident."""

ROWS_AT_ONCE = 1024
"""Rows whose scales are looked for together: memory is bounded."""

SUM_MARGIN = 1.5
"""Sums may exceed their calibrated range by this factor before they saturate."""


@dataclasses.dataclass(frozen=True)
class QuantParams:
    """real = (value - zero_point) * scale; `scale` and `zero_point` may be arrays, one entry a column."""

    scale: Any
    zero_point: Any = 0


@dataclasses.dataclass(frozen=True)
class IntegerWeights:
    """The weights of a dense layer as a kernel multiplies them.

    Attributes:
        values: integers (N, K); values * unit[:, None] is the real weight times the scale of its input.
        unit: real value of one unit of each channel's accumulator (N,).
        bound: what no accumulator of a channel exceeds, for any input (N,).
        stored: as in flash, int8 (N, K) or packed int4.
        columns: scale of the input, or of each of its columns (K,).
        groups: scales of the groups of int4 weights, else None.
        mean_error: what rounding adds to the mean of each channel (real), for its bias to take off; none when None.
    """

    values: Array
    unit: Array
    bound: Array
    stored: Array
    columns: Any
    groups: Array | None = None
    mean_error: Array | None = None

    @property
    def real(self) -> Array:
        """The weights (N, K) that the integers stand for."""
        return np.asarray(self.values.astype(np.float64) * self.unit[:, None] / self.columns)

    @property
    def steps(self) -> Array:
        """Step sizes of the weights, times the parts of their input's scales (`_relative`): (N, groups), or (N, 1).

        Given to the function that made these, they make the same weights, but for how scales of groups are rounded.
        """
        part = self.unit[:, None] / np.max(self.columns)
        return np.asarray(part if self.groups is None else part * self.groups)

    def corrected(self, weight: Array, observed: Array) -> IntegerWeights:
        """These weights with the mean error that their rounding makes on inputs (R, K) that were observed (real).

        After Nagel, van Baalen, Blankevoort and Welling, "Data-Free Quantization Through Weight Equalization and Bias
        Correction" (ICCV 2019, arXiv:1906.04721), section 4.2, with means from calibration data.
        """
        error = (self.real - weight) @ observed.astype(np.float64).mean(axis=0)
        return dataclasses.replace(self, mean_error=error, bound=self.bound + np.abs(error) / self.unit)


@dataclasses.dataclass(frozen=True)
class DenseParams:
    """Integer constants of a dense layer: weight (N, K), bias (N,), multiplier (N,), one shift.

    int4 weights are packed, and `groups` has the scales of their groups; see `quant.int4`.
    """

    weight: Array
    bias: Array
    multiplier: Array
    shift: int
    groups: Array | None = None


def asymmetric(low: float, high: float) -> QuantParams:
    """int8 over [low, high], widened to contain zero exactly."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255 or 1.0
    return QuantParams(scale, int(np.clip(round(-128 - low / scale), -128, 127)))


def symmetric(low: float, high: float) -> QuantParams:
    """int8 with zero point 0; -128 is not used."""
    return QuantParams(max(abs(low), abs(high)) / 127 or 1.0, 0)


def made_symmetric(params: QuantParams) -> QuantParams:
    """Parameters with zero point 0 that hold the values of others; a scale with zero point 0 stays as it is.

    As everywhere, -128 of a symmetric tensor is not used: the step next to it may saturate.
    """
    if int(params.zero_point) == 0:
        return params
    return QuantParams(float(params.scale) * (127 + abs(int(params.zero_point))) / 127, 0)


def holding(largest: float) -> QuantParams:
    """Parameters whose largest magnitude is `largest` (`Statistics.magnitude`)."""
    return QuantParams(largest / 128, 0)


def given_columns(params: QuantParams, count: int) -> QuantParams | None:
    """Parameters of the elements of a feature input as those of its columns; None where rows differ.

    Zero points are rounded: the grid moves by up to half a step, which the bias of the reading layer makes up for.
    Those that int8 does not hold are brought into it, with a scale that keeps the range.
    """
    scale, zero = params.scale.reshape(-1, count), params.zero_point.reshape(-1, count)
    if not (np.allclose(scale, scale[0]) and np.allclose(zero, zero[0], atol=1e-3)):
        return None
    whole = np.round(zero[0])
    if np.all(np.abs(whole + 0.5) <= 127.5):
        return QuantParams(scale[0], whole.astype(np.int32))
    return columns((-128 - zero[0]) * scale[0], (127 - zero[0]) * scale[0])


def is_uniform(params: QuantParams) -> bool:
    """Whether all columns have the same parameters."""
    return bool(np.ptp(params.scale) == 0 and np.ptp(params.zero_point) == 0)


def wide(largest: float, floor: float = 0.0) -> QuantParams:
    """int16 for magnitudes up to `largest` (real), at a scale of at least `floor`.

    Symmetric: a zero point gains less than one bit of sixteen, and without one the value itself is a 16-bit lane that a
    core multiplies (a difference of two int16 is not). No clipping: outliers are what the width is for.
    """
    return QuantParams(max(largest * WIDE_HEADROOM / INT16, floor) or 1.0, 0)


def wide_residual_floor(largest: float, bits: int) -> float:
    """The finest scale with which an int16 residual enters a sum of up to `largest` (real) in `bits` bits unshifted."""
    return SUM_MARGIN * largest / 2.0 ** (min(bits, WIDE_RESIDUAL_BITS) - 1)


def columns(low: Array, high: Array) -> QuantParams:
    """Asymmetric parameters for each column.

    A column that was always zero gets the least scale of the others: weights take over the scales of their inputs, and
    one that is large for no reason would cost all the others of its row their precision.
    """
    params = [asymmetric(float(a), float(b)) for a, b in zip(low, high, strict=True)]
    scales = np.array([p.scale for p in params])
    zero = (np.asarray(low) == 0) & (np.asarray(high) == 0)
    scales[zero] = scales[~zero].min(initial=scales.max())
    return QuantParams(scales, np.array([p.zero_point for p in params], np.int32))


def quantize(values: Array, params: QuantParams) -> Array:
    """Round to int8 with saturation."""
    return np.clip(np.round(values / params.scale) + params.zero_point, -128, 127).astype(np.int8)


def fixed_point(real: Array | float, limit: float = MAX_REAL_MULTIPLIER) -> tuple[Array, int]:
    """int32 multipliers and one shift with multiplier * 2**(shift - 32) = real, for real in [0, limit].

    The shift is applied to the accumulator; it is 0 when all factors are below 1/2.
    """
    values = np.atleast_1d(np.asarray(real, np.float64))
    largest = float(values.max(initial=0.0))
    assert largest <= limit * (1 + 1e-9), f"scale ratio {largest} above {limit}"
    shift = max(0, math.floor(math.log2(largest)) + 2) if largest >= 0.5 - 1e-9 else 0
    return np.round(values * 2.0 ** (32 - shift)).astype(np.int64).clip(0, INT32).astype(np.int32), shift


def check_shift(bound: float, shift: int, what: str) -> None:
    """Refuse parameters with which an accumulator of at most `bound` would overflow when shifted."""
    if bound * 2.0**shift > INT32:
        raise UserError(
            f"{what}: an accumulator of up to {bound:.3g} shifted by {shift} does not fit into 32 bits.",
            "The layer is too wide or its weights are degenerate; use a smaller layer or other calibration data.",
        )


def weight_scales(weight: Array, bias: Array, levels: int = 127) -> Array:
    """One scale an output channel: max |w| / levels, never so small that the bias would not fit.

    Rows of zeros get a scale that still represents their bias.
    """
    largest = np.abs(weight).max(axis=1) / levels
    floor = max(float(largest.max()) * 2.0**-16, 1e-30)
    return np.maximum(np.maximum(largest, floor), np.abs(bias) / BIAS_LIMIT)


def int8_scales(weight: Array, bias: Array) -> Array:
    """One scale an output channel of int8 weights: that of the grid on which they lie, where there is one."""
    grid = grid_scales(weight)
    kept = grid * BIAS_LIMIT > np.abs(bias)  # False where there is no grid
    return np.where(kept, grid, weight_scales(weight, bias))


def grid_scales(rows: Array, most: int = 128) -> Array:
    """The scale of each row (N,) of real weights (N, K) that are at most `most` multiples of it; NaN for other rows.

    Such are the weights of a model that its author has quantized: rounding them to another scale would only lose. The
    scale is the coarsest there is, which is the author's but where all integers of a row share a factor. Where it is
    coarse, so that a bias would have little resolution, or where a row has so few numbers that it lies on many grids,
    the finest part of the scale that int8 allows is taken.
    """
    if len(rows) > ROWS_AT_ONCE:
        blocks = np.split(rows, range(ROWS_AT_ONCE, len(rows), ROWS_AT_ONCE))
        return np.concatenate([grid_scales(block, most) for block in blocks])
    peak = rows[np.arange(len(rows)), np.abs(rows).argmax(axis=1)]
    found = np.full(len(rows), np.nan)
    negative = 128 if most == 128 else 0  # int8 has -128 and no 128
    most, least = (most, LEAST_STEPS) if rows.shape[1] > FEW_COLUMNS else (min(most, 127), 128)
    steps = np.arange(1, most + 1)[:, None]
    scales = np.abs(peak) / steps
    possible = (peak != 0) & ((steps != negative) | (peak < 0))
    few = rows[:, :FEW_COLUMNS]  # a few columns rule most scales out
    possible &= _are_multiples(few, np.where(possible, scales, 1.0))
    for place in np.flatnonzero(possible.any(axis=1)):
        left = np.flatnonzero(np.isnan(found) & possible[place])
        left = left[_are_multiples(rows[left], scales[place, left])]
        found[left] = scales[place, left] / (max(1, 127 // (place + 1)) if place + 1 < least else 1)
    return found


def _are_multiples(rows: Array, scales: Array) -> Array:
    """Whether all of each row (N, K) are whole multiples of its scale (..., N)."""
    multiples = rows / scales[..., None]
    return np.asarray(np.abs(multiples - np.round(multiples)).max(axis=-1, initial=0) < GRID_TOLERANCE)


def quantized_constant(array: Array, *, offset: bool) -> tuple[Array, QuantParams]:
    """A real constant in int8 with one scale: exactly, where all of it lies on a grid, else rounded symmetrically.

    Args:
        offset: whether it may have a zero point; only a constant on a grid gets one.
    """
    grid = float(grid_scales(array.reshape(1, -1).astype(np.float64), 255)[0])
    if not np.isnan(grid):
        steps = np.round(array.astype(np.float64) / grid).astype(np.int64)
        low, high = int(steps.min()), int(steps.max())
        zero_point = 0 if low >= -128 and high <= 127 else -128 - low
        if high + zero_point <= 127 and (offset or zero_point == 0):
            return (steps + zero_point).astype(np.int8), QuantParams(grid, zero_point)
    params = symmetric(float(array.min()), float(array.max()))
    return quantize(array.astype(np.float64), params), params


def embedding_tables(
    arrays: Sequence[Array], bits: int, *, offset: bool
) -> tuple[list[Array], list[int], float]:
    """Real tables in int8, the factor of each in a sum of one row of each, and the unit of the sum.

    Factors are whole. Tables on a grid (`quantized_constant`) keep it: factors are then as fine as `bits`, the width of
    the sum, allows.

    Args:
        offset: whether a table may have a zero point, which is left to what follows the sum.
    """
    found = [quantized_constant(array, offset=offset) for array in arrays]
    scales = [
        float(params.scale) if np.any(array) else 0.0
        for array, (_, params) in zip(arrays, found, strict=True)
    ]
    exact = [not np.isnan(grid_scales(array.reshape(1, -1), 255)[0]) for array in arrays]
    fine = bits - 1 - 7 - math.ceil(math.log2(len(arrays))) if any(exact) else 7
    unit = (max(scales) or 1.0) / 2**fine
    factors = [
        max(1, round(scale / unit) if kept else math.ceil(scale / unit - 1e-9))
        for scale, kept in zip(scales, exact, strict=True)
    ]
    tables = [
        values if kept else quantize(array, QuantParams(unit * factor))
        for array, (values, _), factor, kept in zip(arrays, found, factors, exact, strict=True)
    ]
    return tables, factors, unit


def floor_scale(scale: float, accumulator_scale: Array) -> float:
    """An output scale that is not finer than half of the accumulator's own unit."""
    return max(scale, float(np.max(accumulator_scale)) / MAX_REAL_MULTIPLIER)


def accumulator_scales(weight: Array, bias: Array, x: QuantParams) -> Array:
    """The real value of one unit of each channel's accumulator."""
    relative, largest = _relative(x)
    return int8_scales(weight * relative, bias / largest) * largest


def _relative(x: QuantParams) -> tuple[Any, float]:
    """Scales of an input's columns as parts of the largest, and that.

    Integer weights follow from the parts alone. Layers that share their weights then have the same bytes, which lie in
    flash once, whatever the ranges of their inputs are.
    """
    largest = float(np.max(x.scale))
    return np.asarray(x.scale) / largest, largest


def shared_scales(own: Array, others: Sequence[Array], floor: Array) -> Array:
    """Scales of columns in proportions that all layers with the same weights have, none below `own` or `floor`.

    Args:
        own, others: the scales that this layer and those with the same weights would take. floor: least ones.
    """
    parts = np.max([scales / scales.max() for scales in (own, *others)], axis=0)
    parts = np.ceil(parts * 2.0**10) / 2.0**10  # few bits, and few of the factor: their product is exact
    mantissa, exponent = np.frexp(np.max(np.maximum(own, floor) / parts))
    return parts * np.ldexp(np.ceil(mantissa * 2.0**32), exponent - 32)


def accumulator_bound(weight: Array, bias: Array) -> Array:
    """The largest |accumulator| of each channel for any int8 (or 128-magnitude) input."""
    return np.abs(weight.astype(np.int64)).sum(axis=1) * 128 + np.abs(bias.astype(np.int64))


def int8_weights(
    weight: Array, bias: Array, x: QuantParams, observed: Array | None = None, given: Array | None = None
) -> IntegerWeights:
    """Round real weights (N, K) to int8, one scale a channel; the scale of the input x goes into them.

    With inputs that calibration observed, real (R, K), a weight makes up for the errors of those before it. The scales
    may be given (N, 1), as `IntegerWeights.steps`: larger weights are clipped.
    """
    relative, largest = _relative(x)
    scaled = weight * relative
    if given is None:
        part = int8_scales(scaled, bias / largest)
    else:
        part = np.maximum(given[:, 0], np.abs(bias) / largest / BIAS_LIMIT)
        scaled = np.clip(scaled, -128 * part[:, None], 127 * part[:, None])
    steps = scaled / part[:, None]
    if observed is None:
        values = np.clip(np.round(steps), -128, 127).astype(np.int8)
    else:
        values = gptq.rounded(steps, gptq.moments(observed / x.scale), -128, 127).astype(np.int8)
    unit = part * largest
    widest = np.maximum(np.abs(steps) + 0.5, np.abs(values.astype(np.float64)))
    bound = widest.sum(axis=1) * _largest_input(x) + np.abs(bias) / unit
    return IntegerWeights(values, unit, bound, values, x.scale)


def int4_weights(
    weight: Array, bias: Array, x: QuantParams, observed: Array | None = None, given: Array | None = None
) -> IntegerWeights:
    """Round real weights (N, K) to int4 with group scales; the scale of the input x goes into them.

    With inputs that calibration observed, real (R, K), a weight makes up for the errors of those before it
    (`int4.rounded`). The scales of groups may be given (N, groups), as `IntegerWeights.steps`.

    The unit of a channel is the finest with which its widest group has a scale of at most MAX_SCALE. It is made
    coarser where the channel's accumulator could exceed INT4_BOUND: then it fits 32 bits after any shift that a
    factor of up to MAX_REAL_MULTIPLIER takes, whatever weights and input are.
    """
    scaled = weight * x.scale
    if given is None:
        unit = weight_scales(scaled, bias, int4.MAX_SCALE * int4.HIGHEST)
    else:
        given = given * np.max(x.scale)
        unit = np.maximum(given.max(axis=1) / int4.MAX_SCALE, np.abs(bias) / BIAS_LIMIT)
    moments = None if observed is None else gptq.moments(observed / x.scale)
    while True:
        wanted = None if given is None else given / unit[:, None]
        q, groups = int4.rounded(scaled / unit[:, None], moments, wanted)
        packed = int4.pack(q)
        values = int4.expand(packed, groups, weight.shape[1])
        bound = np.abs(values.astype(np.int64)).sum(axis=1) * _largest_input(x) + np.abs(bias) / unit + 1
        if np.all(bound <= INT4_BOUND):
            return IntegerWeights(values, unit, bound, packed, x.scale, groups)
        # Values shrink with the unit, to zero in the end. More than needed, as rounding may give some of it back.
        unit = unit * np.where(bound > INT4_BOUND, 1.1 * bound / INT4_BOUND, 1.0)


def _largest_input(x: QuantParams) -> float:
    """The largest magnitude of an int8 value less its zero point, with which the bias carries the zero point, too."""
    return 128.0 + float(np.max(np.abs(x.zero_point)))


ROUNDINGS = ("auto", "nearest", "gptq")
"""How weights are rounded: each by itself, or one after another by calibration data; "auto" does so for int4."""


class Weights(Protocol):
    """How real weights become integers."""

    def __call__(
        self,
        weight: Array,
        bias: Array,
        x: QuantParams,
        observed: Array | None = None,
        given: Array | None = None,
    ) -> IntegerWeights:
        """Round weights (N, K) with a bias (N,) that read x; arguments as of `int8_weights`."""


WEIGHTS: dict[str, Weights] = {"int8": int8_weights, "int4": int4_weights}
"""Types of weights -> how real weights become such."""


def dense(
    weight: Array,
    bias: Array,
    x: QuantParams,
    out_scale: Array | float,
    what: str,
    limit: float = MAX_REAL_MULTIPLIER,
    integers: IntegerWeights | None = None,
) -> DenseParams:
    """Quantize a dense layer; the scale of its input goes into the weights, its zero point into the bias.

    Args:
        weight: real (N, K). bias: real (N,). x: parameters of the input, per tensor or per column.
        out_scale: scale of the result, per tensor or per channel.
        what: the layer's name for errors.
        integers: what one of WEIGHTS made of weight, bias and x; int8 when None.
    """
    integers = integers if integers is not None else int8_weights(weight, bias, x)
    w, unit = integers.values.astype(np.int64), integers.unit
    zero = np.broadcast_to(np.asarray(x.zero_point, np.int64), (weight.shape[1],))
    real_bias = bias if integers.mean_error is None else bias - integers.mean_error
    b = np.round(real_bias / unit).astype(np.int64) - w @ zero
    multiplier, shift = fixed_point(unit / out_scale, limit)
    check_shift(float(accumulator_bound(w, b).max()), shift, what)
    multiplier = np.broadcast_to(multiplier, (len(w),)).copy()
    return DenseParams(integers.stored, b.astype(np.int32), multiplier, shift, integers.groups)


def table(function: Any, x: QuantParams, y: QuantParams) -> Array:
    """The 256 entries of a function of one int8 value."""
    real = (np.arange(-128, 128) - x.zero_point) * x.scale
    return quantize(function(real), y)


def wide_table(function: Any, x: QuantParams) -> tuple[Array, float]:
    """The 256 entries of a function of one int8 value as int16, and the real value of one unit of them."""
    real = function((np.arange(-128, 128) - x.zero_point) * x.scale)
    unit = float(np.abs(real).max()) / INT16 or 1.0
    return np.round(real / unit).astype(np.int16), unit


def rotary_table(angles: Array) -> Array:
    """The table (S, P) of `integer.rotary_s8` for angles (S, P / 2)."""
    real = np.concatenate([np.cos(angles.astype(np.float64)), np.sin(angles.astype(np.float64))], axis=1)
    return np.round(real * 2.0**ROTARY_TABLE_BITS).astype(np.int16)


def exponential_table() -> Array:
    """uint8 table of exp(-distance): entry i is round(255 * exp(-i * EXP_RANGE / 255)).

    The last entry serves every larger distance too. It is a tie and must be 0: as 1, all tokens far below the maximum
    would together outweigh it in a long row.
    """
    exponentials = np.round(255 * np.exp(-np.arange(256) * EXP_RANGE / 255)).astype(np.uint8)
    exponentials[-1] = 0
    return exponentials


def ratio(real: Array | float, divisor: int) -> tuple[Array, int]:
    """uint32 numerators for a multiplier that is divided by a count of at least `divisor` at run time."""
    values = np.atleast_1d(np.asarray(real, np.float64))
    shift = 0
    while (
        float(values.max()) * 2.0 ** (32 - shift) / divisor > INT32
        or values.max() * 2.0 ** (32 - shift) > 2**32 - 1
    ):
        shift += 1
    return np.round(values * 2.0 ** (32 - shift)).astype(np.uint32), shift


@dataclasses.dataclass(frozen=True)
class SumParams:
    """The int32 sum in front of an epilogue: its scale, the residual's left shift and the width it saturates to."""

    scale: float
    residual_shift: int
    bits: int


def norm_bits(extent: int) -> int:
    """Width of the values that a LayerNorm over `extent` elements takes."""
    return NORM_MAX_BITS + 1 - math.ceil(math.log2(extent))


def residual_sum(
    residual: QuantParams,
    largest: float,
    bits: int,
    accumulator: Array,
    bound: float,
    what: str,
    residual_bits: int = 8,
) -> SumParams:
    """The finest scale s_residual / 2**k for a sum of up to `largest` (real) in `bits` bits.

    Args:
        accumulator: real value of one unit of each channel's accumulator; bound: its largest magnitude.
        residual_bits: width of the residual's values, whose term stays within 2**30.
    """
    for shift in range(min(16, 31 - residual_bits), -1, -1):
        scale = float(residual.scale) / 2**shift
        fits = SUM_MARGIN * largest / scale <= 2.0 ** (bits - 1)
        factor = float(accumulator.max()) / scale
        left = max(0, math.floor(math.log2(factor)) + 2) if factor >= 0.5 - 1e-9 else 0
        if fits and bound * 2.0**left <= INT32:
            return SumParams(scale, shift, bits)
    raise UserError(
        f"{what}: the residual (scale {float(residual.scale):.3g}) is too small beside the sum (up to {largest:.3g}).",
        "Calibrate with more representative data, or check the layer for very large weights.",
    )


def branch_sum(accumulator: Array, bound: Array, bits: int) -> SumParams:
    """The scale of a sum without a residual: fine enough for the layer, coarse enough for any input."""
    scale = max(
        float((accumulator * bound).max()) / 2.0 ** (bits - 1), float(accumulator.max()) / MAX_REAL_MULTIPLIER
    )
    return SumParams(scale, 0, bits)


def norm_shift(bits: int, value_bits: int) -> int:
    """Left shift of a tensor that enters a LayerNorm of `bits` bits by itself, as (value - zero point) << shift.

    An int8 less its zero point has 9 bits with the sign; one more is left to it. An int16 has no zero point and takes
    all: norm_bits of the widest LayerNorm is 16.
    """
    return bits - (10 if value_bits == 8 else 16)


def norm_constants(
    gamma: Array, beta: Array, epsilon: float, scale: float, out: QuantParams, uncentred: bool = False
) -> tuple[Array, Array, int]:
    """gamma, beta and epsilon of `integer.layer_norm_s8`, or `rms_norm_s8`, for a sum in units of `scale`."""
    extent, most = len(gamma), RMS_NORM_MAX_EXTENT if uncentred else NORM_MAX_EXTENT
    if extent > most:
        raise UserError(
            f"A LayerNorm over {extent} values: at most {most} are supported.",
            "Use a narrower model.",
        )
    g = np.round(gamma / out.scale * 2.0 ** (32 - NORM_FRACTION_BITS + NORM_OUTPUT_BITS))
    b = np.round((beta / out.scale + out.zero_point) * 2.0**NORM_OUTPUT_BITS) + 2 ** (NORM_OUTPUT_BITS - 1)
    if max(np.abs(g).max(), np.abs(b).max()) > INT32 // 2:
        raise UserError(
            "A LayerNorm's gamma or beta is too large for its output range.", "Check calibration data."
        )
    limit = 1 << 61
    unit = extent if uncentred else extent**3
    return g.astype(np.int32), b.astype(np.int32), max(1, min(limit, round(epsilon * unit / scale**2)))


def scale_constants(
    gamma: Array, beta: Array, scale: float, out: QuantParams, what: str
) -> tuple[Array, Array, int, QuantParams]:
    """gamma, beta and shift of `integer.scale_s8` for a sum of SUM_BITS in units of `scale`, and the result's scale.

    The result is not finer than eight units of the sum, so that the shifted sum fits 32 bits.
    """
    floor = 8 * float(np.abs(gamma).max()) * scale
    out = dataclasses.replace(out, scale=max(float(out.scale), floor))
    real = gamma * scale / out.scale * 2.0**NORM_OUTPUT_BITS
    multiplier, shift = fixed_point(np.abs(real), limit=np.inf)
    check_shift(2.0 ** (SUM_BITS - 1), shift, what)
    b = np.round((beta / out.scale + out.zero_point) * 2.0**NORM_OUTPUT_BITS) + 2 ** (NORM_OUTPUT_BITS - 1)
    if np.abs(b).max() > INT32 // 2:
        raise UserError(f"{what}: an offset is too large for its output range.", "Check calibration data.")
    return np.where(real < 0, -multiplier, multiplier).astype(np.int32), b.astype(np.int32), shift, out


def feature_multipliers(scale: Array) -> tuple[Array, int]:
    """Multipliers and shift of `integer.quantize_q16`: Q16.16 values to int8, a column.

    Raises:
        UserError: a column's values are too small or too large for Q16.16.
    """
    scales = np.asarray(scale, np.float64)
    for column, value in enumerate(scales):
        if not FEATURE_SCALES[0] <= value <= FEATURE_SCALES[1]:
            raise UserError(
                f"Column {column} of a feature input spans about {255 * value:.3g}, which Q16.16 cannot carry.",
                "Use a unit in which values lie between 0.01 and 30,000 (milli-, kilo-), and train with it.",
            )
    return fixed_point(1.0 / (scales * 65536))


def to_q16(values: Array) -> Array:
    """Real values as Q16.16 with saturation: what a firmware passes for a sensor reading."""
    return np.clip(np.round(np.asarray(values, np.float64) * 65536), -(2**31), INT32).astype(np.int32)


def quantize_features(values: Array, scale: Any, zero_point: Any) -> Array:
    """Features (..., F) as the generated C scales them, from real values through Q16.16."""
    multiplier, shift = feature_multipliers(np.asarray(scale))
    return quantize_q16(to_q16(values), multiplier, shift, np.asarray(zero_point, np.int32))

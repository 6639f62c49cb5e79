"""The integer arithmetic of the generated code, exactly, in NumPy.

Every function here has twins that give the same bytes: the TIR definition in `tvmtiny.kernels.tile` or `.products`, and
the C of every family in schedules/microkernels. Python's and NumPy's 64-bit integers are wide enough for every
intermediate value. Docs: docs/integer-arithmetic.md.

Shapes use M rows, N columns, K depth. int32 accumulators never overflow: `tvmtiny.quant.qparams` proves a bound for
each operator when it chooses the parameters.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Int8: TypeAlias = npt.NDArray[np.int8]
UInt8: TypeAlias = npt.NDArray[np.uint8]
Int16: TypeAlias = npt.NDArray[np.int16]
Int32: TypeAlias = npt.NDArray[np.int32]
Integers: TypeAlias = npt.NDArray[np.integer]

NORM_FRACTION_BITS = 24
"""LayerNorm: the normalized value (x - mean) / std has this many fractional bits."""

NORM_OUTPUT_BITS = 8
"""LayerNorm: fractional bits of the output before its one rounding to int8."""

ROTARY_FRACTION_BITS, ROTARY_TABLE_BITS = 6, 14
"""rotary_s8: fractional bits of the values before they are turned, and of cosines and sines."""

ROTARY_BITS = ROTARY_FRACTION_BITS + ROTARY_TABLE_BITS

NORM_MAX_BITS = 25
"""LayerNorm: rows of E values t must satisfy E * |t| <= 2**NORM_MAX_BITS."""


def multiply_high(value: npt.ArrayLike, multiplier: npt.ArrayLike) -> Int32:
    """(value * multiplier + 2**31) >> 32 for int32 operands: SMMULR on ARMv7E-M."""
    wide = np.asarray(value, np.int64)
    assert np.all(np.abs(wide) <= 1 << 31), (
        "a value does not fit into the 32 bits that the generated code has"
    )
    product = wide * np.asarray(multiplier, np.int64)
    return ((product + (1 << 31)) >> 32).astype(np.int32)


def saturate(value: npt.ArrayLike, bits: int) -> Int32:
    """Clamp to the range of a signed integer of `bits` bits."""
    limit = 1 << (bits - 1)
    return np.clip(np.asarray(value, np.int64), -limit, limit - 1).astype(np.int32)


def requantize_s8(acc: npt.ArrayLike, multiplier: npt.ArrayLike, shift: int, zero_point: int) -> Int8:
    """clamp8(multiply_high(acc << shift, multiplier) + zero_point)."""
    scaled = multiply_high(np.asarray(acc, np.int64) << shift, multiplier).astype(np.int64)
    return saturate(scaled + zero_point, 8).astype(np.int8)


def dense_acc(x: Integers, weight: Int8, bias: Int32) -> Int32:
    """int32 accumulators bias[n] + sum_k x[m, k] * weight[n, k]; x (M, K), weight (N, K), result (M, N)."""
    acc = np.asarray(x, np.int64) @ np.asarray(weight, np.int64).T + np.asarray(bias, np.int64)
    assert np.all(np.abs(acc) <= np.iinfo(np.int32).max), "an int32 accumulator overflows"
    return acc.astype(np.int32)


def dense_s8(x: Int8, weight: Int8, bias: Int32, multiplier: Int32, shift: int, zero_point: int) -> Int8:
    """int8 dense layer; a ReLU is the clamp at -128 when the output's zero point is -128."""
    return requantize_s8(dense_acc(x, weight, bias), multiplier, shift, zero_point)


def depthwise_s8(
    x: Int8,
    weight: Int8,
    bias: Int32,
    multiplier: Int32,
    places: tuple[int, int],
    axes: tuple[tuple[int, int, int], ...],
    zero_point_in: int,
    shift: int,
    zero_point: int,
) -> Int8:
    """Depthwise convolution of x (H, W, C) with weight (taps, taps, N): channel j of N reads channel j C // N of x.

    Args:
        places: rows and columns of the result (places, places, N).
        axes: stride, padding before, and dilation of each axis. Padding adds nothing, as its real value is 0.
    """
    per_channel = weight.shape[2] // x.shape[2]
    real = np.repeat(x.astype(np.int64) - zero_point_in, per_channel, axis=2)
    acc = np.broadcast_to(bias.astype(np.int64), (*places, weight.shape[2])).copy()
    reach = [
        (np.arange(count) * stride - before) for count, (stride, before, _) in zip(places, axes, strict=True)
    ]
    for r, c in np.ndindex(*weight.shape[:2]):
        rows, cols = reach[0] + r * axes[0][2], reach[1] + c * axes[1][2]
        inside = [(rows >= 0) & (rows < len(x)), (cols >= 0) & (cols < x.shape[1])]
        met = real[np.ix_(rows[inside[0]], cols[inside[1]])]
        acc[np.ix_(*inside)] += met * weight[r, c].astype(np.int64)
    assert np.all(np.abs(acc) <= np.iinfo(np.int32).max), "an int32 accumulator overflows"
    return requantize_s8(acc, multiplier, shift, zero_point)


def dense_s32(x: Int8, weight: Int8, bias: Int32, multiplier: Int32, shift: int) -> Int32:
    """Dense layer whose result stays int32 in the finer scale of a sum: multiply_high(acc << shift, multiplier)."""
    return multiply_high(dense_acc(x, weight, bias).astype(np.int64) << shift, multiplier)


def lookup_s8(x: Int8, table: Int8) -> Int8:
    """table[x + 128]: any function of one int8 value; table (256,)."""
    return table[x.astype(np.int32) + 128]


def add_residual_s32(t: Int32, x: Integers, zero_point: int, left_shift: int, bits: int) -> Int32:
    """saturate(t + ((x - zero_point) << left_shift), bits): exact for x, so that the sum is rounded once."""
    assert np.all(np.abs((x.astype(np.int64) - zero_point) << left_shift) <= 1 << 30), "a residual overflows"
    return saturate(t.astype(np.int64) + ((x.astype(np.int64) - zero_point) << left_shift), bits)


def add_residual_s16_s32(t: Int32, x: Int16, left_shift: int, bits: int) -> Int32:
    """As add_residual_s32 for an int16 residual stream, whose zero point is 0."""
    return add_residual_s32(t, x, 0, left_shift, bits)


def requantize_s32_s8(t: Int32, multiplier: int, shift: int, zero_point: int) -> Int8:
    """A sum in int32 to int8 with one multiplier for the tensor."""
    return requantize_s8(t, multiplier, shift, zero_point)


def requantize_s32_s16(t: Int32, multiplier: int, shift: int, zero_point: int) -> Int16:
    """A sum in int32 to int16: logits, and the residual stream where it is int16."""
    scaled = multiply_high(np.asarray(t, np.int64) << shift, multiplier).astype(np.int64)
    return saturate(scaled + zero_point, 16).astype(np.int16)


def reciprocal_sqrt(value: int) -> tuple[int, int]:
    """1 / sqrt(value) of a positive 63-bit integer as (mantissa, exponent): mantissa * 2**-exponent.

    value is normalized by an even shift to m in [2**30, 2**32), read as m / 2**32 in [1/4, 1). Four Newton steps
    y <- y * (3 - m * y * y) / 2 start from the line 2.1875 - 1.1875 * m; y has 30 fractional bits and every product
    is truncated, as UMULL followed by taking the high word does.

    Returns:
        mantissa within 2 of [2**30, 2**31], exponent such that 1/sqrt(value) is mantissa * 2**-exponent (relative
        error below 2**-27).
    """
    assert 0 < value < 1 << 63
    lead = (64 - value.bit_length()) & ~1  # even number of leading zeros to remove
    m = (value << lead) >> 32  # 32-bit unsigned, value = m * 2**(32 - lead)
    y = 2348810240 - ((m * 1275068416) >> 32)  # 2.1875 and 1.1875 with 30 fractional bits
    for _ in range(4):
        square = (y * y) >> 32  # y^2, 28 fractional bits
        product = (m * square) >> 32  # m * y^2, 28 fractional bits
        y = (y * (805306368 - product)) >> 29  # y * (3 - m y^2) / 2, back to 30 fractional bits
    # sqrt(value) = sqrt(m / 2**32) * 2**((64 - lead) / 2)
    return y, 30 + (64 - lead) // 2


def layer_norm_s8(t: Int32, gamma: Int32, beta: Int32, epsilon: int) -> Int8:
    """LayerNorm over the last axis of int32 rows t (M, E), with no float and no rounded mean.

    u = E * t - sum(t); v = sum(u * u) + epsilon (64 bit); n = u * sqrt(E) / sqrt(v) with NORM_FRACTION_BITS; then
    y = clamp8((multiply_high(n, gamma) + beta) >> NORM_OUTPUT_BITS).

    Args:
        gamma: int32 (E,), gamma_real / scale_y * 2**(32 - NORM_FRACTION_BITS + NORM_OUTPUT_BITS).
        beta: int32 (E,), (beta_real / scale_y + zero_point) * 2**NORM_OUTPUT_BITS + 2**(NORM_OUTPUT_BITS - 1).
        epsilon: round(eps_real * E**3 / scale_t**2), at least 1.
    """
    rows = [_layer_norm_row(row, gamma, beta, epsilon) for row in np.asarray(t, np.int64)]
    return np.stack(rows).astype(np.int8) if rows else np.zeros(t.shape, np.int8)


def scale_s8(t: Int32, gamma: Int32, beta: Int32, shift: int) -> Int8:
    """A factor and an offset a column: clamp8((multiply_high(t << shift, gamma) + beta) >> NORM_OUTPUT_BITS).

    Args:
        t: (M, E), |t << shift| < 2**31. gamma, beta: int32 (E,), |beta| < 2**30.
    """
    shifted = multiply_high(np.asarray(t, np.int64) << shift, gamma).astype(np.int64) + beta
    return saturate(shifted >> NORM_OUTPUT_BITS, 8).astype(np.int8)


def rms_norm_s8(t: Int32, gamma: Int32, beta: Int32, epsilon: int) -> Int8:
    """As layer_norm_s8 without the mean (RMSNorm, Zhang and Sennrich 2019): u = t, v = sum(t * t) + epsilon.

    Args:
        epsilon: round(eps_real * E / scale_t**2), at least 1.
    """
    rows = [_normalized(row, gamma, beta, epsilon) for row in np.asarray(t, np.int64)]
    return np.stack(rows).astype(np.int8) if rows else np.zeros(t.shape, np.int8)


def root_extent(extent: int) -> int:
    """sqrt(E) with 24 fractional bits, rounded down: the constant of layer_norm_s8 for rows of E values."""
    import math

    return math.isqrt(extent << 48)


def _layer_norm_row(
    t: npt.NDArray[np.int64], gamma: Int32, beta: Int32, epsilon: int
) -> npt.NDArray[np.int64]:
    return _normalized(len(t) * t - t.sum(), gamma, beta, epsilon)


def _normalized(u: npt.NDArray[np.int64], gamma: Int32, beta: Int32, epsilon: int) -> npt.NDArray[np.int64]:
    extent = len(u)
    v = int((u * u).sum()) + epsilon
    mantissa, exponent = reciprocal_sqrt(v)
    # rate = sqrt(E) / sqrt(v) * 2**NORM_FRACTION_BITS = product * 2**(NORM_FRACTION_BITS - 24 - exponent)
    product = root_extent(extent) * mantissa  # below 2**(29 + 31): 64-bit unsigned
    lead = 63 - product.bit_length()
    multiplier = (product << lead) >> 32  # in [2**30, 2**31)
    # n = u * rate = (u << left) * multiplier >> 32, with rate = multiplier * 2**(left - 32)
    left = 64 - lead - exponent
    normalized = multiply_high(u << left if left >= 0 else u >> -left, multiplier)
    y = multiply_high(normalized, gamma).astype(np.int64) + beta
    return saturate(y >> NORM_OUTPUT_BITS, 8).astype(np.int64)


def rotary_s8(t: Int32, table: Int16) -> Int8:
    """Rotary positions (Su et al., arXiv:2104.09864): the halves of each row, turned by the angles of its token.

    a, b = the halves of saturate(t, 16); out = clamp8((a cos - b sin + half) >> bits), clamp8((a sin + b cos + half)
    >> bits) with bits = ROTARY_FRACTION_BITS + ROTARY_TABLE_BITS. |a cos - b sin| < 2**30.

    Args:
        t: (M, P) in units of the result's scale / 2**ROTARY_FRACTION_BITS.
        table: (M, P), cosines and then sines of the P / 2 angles of each row, in units of 2**-ROTARY_TABLE_BITS.
    """
    (a, b), (cos, sin) = (np.split(part.astype(np.int64), 2, axis=1) for part in (saturate(t, 16), table))
    half = 1 << (ROTARY_BITS - 1)
    turned = np.concatenate([a * cos - b * sin, a * sin + b * cos], axis=1)
    return saturate((turned + half) >> ROTARY_BITS, 8).astype(np.int8)


def gate_s8(gate: Int8, up: Int8, table: Int16, multiplier: int, shift: int, zero_point: int) -> Int8:
    """clamp8(multiply_high(table[gate + 128] * up << shift, multiplier) + zero_point): a gated hidden layer.

    The activation of the gate stays int16, so that only the product is rounded. |table * up| < 2**22.
    """
    product = table[gate.astype(np.int32) + 128].astype(np.int64) * up.astype(np.int64)
    return requantize_s8(product, multiplier, shift, zero_point)


def scores_s32(q: Int8, k: Int8) -> Int32:
    """q (M, P) times k (N, P) transposed: int32 attention logits before scaling."""
    return dense_acc(q, k, np.zeros(k.shape[0], np.int32))


def softmax_u8(scores: Int32, multiplier: int, shift: int, table: UInt8) -> tuple[UInt8, Int32]:
    """Unnormalised exponentials of each row: table[min(255, multiply_high((max - s) << shift, multiplier))].

    Returns:
        uint8 (M, N) and the int32 row sums (M,). The largest element of a row always gives table[0] = 255.
    """
    scores = np.asarray(scores, np.int64)
    distance = scores.max(axis=-1, keepdims=True) - scores
    index = np.minimum(multiply_high(distance << shift, multiplier), 255)
    p = table[index]
    return p, p.sum(axis=-1, dtype=np.int64).astype(np.int32)


def values_s8(p: UInt8, v_transposed: Int8, row_sum: Int32, ratio: int, shift: int, zero_point: int) -> Int8:
    """sum_j p[m, j] * v[j, c] / row_sum[m], requantized with one unsigned division a row.

    Args:
        p: (M, n) from softmax_u8; v_transposed: (P, n); row_sum: (M,).
        ratio: uint32, round(scale_v / scale_out * 2**(32 - shift)).
    """
    acc = dense_acc(p, v_transposed, np.zeros(v_transposed.shape[0], np.int32)).astype(np.int64)
    multiplier = (np.int64(ratio) // row_sum.astype(np.int64))[:, None]
    return saturate(multiply_high(acc << shift, multiplier).astype(np.int64) + zero_point, 8).astype(np.int8)


def embed_s32(
    ids: Integers, token_table: Int8, position_table: Int8, token_factor: int, position_factor: int
) -> Int32:
    """token_table[ids] * token_factor + position_table[:n] * position_factor; result (n, E) int32."""
    token = token_table[ids].astype(np.int32) * token_factor
    return token + position_table[: len(ids)].astype(np.int32) * position_factor


def embed_scaled_s32(ids: Integers, table: Int8, factors: Integers) -> Int32:
    """table[ids] * factors[ids]: a table (V, E) with a scale a row; result (n, E) int32."""
    return table[ids].astype(np.int32) * factors[ids].astype(np.int32)[:, None]


def add_embedding_s32(t: Int32, ids: Integers, table: Int8, factor: int) -> Int32:
    """t + table[ids] * factor: a second table of an embedding, such as that of token types."""
    return (t.astype(np.int64) + table[ids].astype(np.int64) * factor).astype(np.int32)


def mean_s8(x: Int8, zero_point_in: int, ratio: int, shift: int, zero_point: int) -> Int8:
    """Mean over the rows of x (n, E): sum(x - zero_point_in) requantized by ratio / n; result (E,).

    Args:
        ratio: uint32, round(scale_x / scale_out * 2**(32 - shift)); ratio / n must stay below 2**31.
    """
    acc = (x.astype(np.int64) - zero_point_in).sum(axis=0)
    multiplier = int(ratio) // len(x)
    return saturate(multiply_high(acc << shift, multiplier).astype(np.int64) + zero_point, 8).astype(np.int8)


def mean_s16_s32(x: Int16, ratio: int, shift: int) -> Int32:
    """As mean_s8 for an int16 residual stream x (n, E), whose zero point is 0; the result (E,) stays int32."""
    acc = x.astype(np.int64).sum(axis=0)
    return multiply_high(acc << shift, int(ratio) // len(x))


def quantize_q16(value: Int32, multiplier: Int32, shift: int, zero_point: Integers) -> Int8:
    """Sensor values in Q16.16 to int8: clamp8(multiply_high(value << shift, multiplier) + zero_point) a column.

    The value is first clamped so that the shift cannot overflow.
    """
    limit = (1 << (31 - shift)) - 1
    clipped = np.clip(np.asarray(value, np.int64), -limit, limit)
    return saturate(multiply_high(clipped << shift, multiplier).astype(np.int64) + zero_point, 8).astype(
        np.int8
    )

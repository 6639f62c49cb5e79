"""The integer meaning of operators on whole tensors, in NumPy: sums, products, softmax, reductions.

As `quant.integer`, whose functions they are made of: TIR and C give the same bytes. All tensors are int8 with one
scale and zero point.
"""

from __future__ import annotations

import numpy as np

from tvmtiny.quant.integer import Int8, Int32, Integers, multiply_high, requantize_s8, saturate

UInt16 = np.ndarray

BINARY = ("add", "multiply", "divide", "maximum", "minimum")
"""Kinds of `binary_s8`."""

EXPONENTIAL_ONE = 32767
"""Entry 0 of the table of `softmax_rows_s8`: exp(0)."""


def binary_s8(
    kind: str,
    a: Int8,
    b: Int8,
    zero_points: tuple[int, int],
    factors: tuple[int, int],
    multiplier: int,
    shift: int,
    zero_point: int,
) -> Int8:
    """An operator of two tensors that broadcast as in NumPy.

    With p = (a - za) * fa and q = (b - zb) * fb, the result is requantize(p + q), (p * q), max(p, q) or min(p, q). A
    quotient is p multiplied by the uint32 `multiplier` / |q| (q = 0 counts as 1), with the sign of q.
    """
    p = (a.astype(np.int64) - zero_points[0]) * factors[0]
    q = (b.astype(np.int64) - zero_points[1]) * factors[1]
    if kind == "divide":
        divisor = np.maximum(np.abs(q), 1)
        quotient = multiply_high(p << shift, multiplier // divisor).astype(np.int64)
        return saturate(np.where(q < 0, -quotient, quotient) + zero_point, 8).astype(np.int8)
    combined = {"add": np.add, "multiply": np.multiply, "maximum": np.maximum, "minimum": np.minimum}[kind]
    return requantize_s8(combined(p, q), multiplier, shift, zero_point)


def softmax_rows_s8(x: Int8, keep: Integers, table: UInt16, ratio: int, shift: int, zero_point: int) -> Int8:
    """Softmax of each row of x (R, C) over the columns that `keep` (R, C) marks; the others get `zero_point`.

    table: 256 values EXPONENTIAL_ONE * exp(-i * scale of x). ratio: 2**(32 - shift) / scale of the result.
    """
    wide = x.astype(np.int64)
    kept = keep.astype(bool)
    peak = np.where(kept, wide, -129).max(axis=1, keepdims=True)
    exponentials = np.where(kept, table[np.clip(peak - wide, 0, 255)].astype(np.int64), 0)
    total = np.maximum(exponentials.sum(axis=1, keepdims=True), 1)
    scaled = multiply_high(exponentials << shift, ratio // total).astype(np.int64)
    return saturate(scaled + zero_point, 8).astype(np.int8)


def reduce_s8(kind: str, x: Int8, zero_point_in: int, multiplier: int, shift: int, zero_point: int) -> Int8:
    """Reduce the middle axis of x (A, R, B): requantize(sum(x - zero_point_in)), or the largest or least value."""
    if kind == "sum":
        total = (x.astype(np.int64) - zero_point_in).sum(axis=1)
        return requantize_s8(total, multiplier, shift, zero_point)
    return x.max(axis=1) if kind == "max" else x.min(axis=1)


def product_acc(a: Int8, b: Int8) -> Int32:
    """int32 products of the rows of a (B, M, K) and b (B, N, K), both symmetric: (B, M, N)."""
    acc = np.einsum("bmk,bnk->bmn", a.astype(np.int64), b.astype(np.int64))
    assert np.all(np.abs(acc) <= np.iinfo(np.int32).max), "an int32 accumulator overflows"
    return acc.astype(np.int32)

"""Softmax of the rows of x (R, C), int8 -> int8; where it is not part of an attention operator.

Columns from n on are left out when `by_length`, and those that `mask` (rows, C), repeated over the rows of x, marks 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax, tirx
from tvm.script import tirx as T

from tvmtiny.kernels import tile
from tvmtiny.kernels.base import Array, Blocking, Kernel, Operands
from tvmtiny.quant.tensor_arithmetic import softmax_rows_s8


def _reference(o: Operands, n: int) -> Array:
    x, a = o["x"], o.attrs
    keep = np.ones(x.shape, np.uint8)
    if "mask" in o:
        keep &= np.tile(o["mask"], (len(x) // len(o["mask"]), 1))
    if a["by_length"]:
        keep[:, n:] = 0
    return softmax_rows_s8(x, keep, o["table"], a["ratio"], a["shift"], a["zero_point"])


def _exponential(table: Any, peak: Any, x: Any, i: Any, j: Any) -> Any:
    return T.Cast("int32", table[peak[0] - T.Cast("int32", x[i, j])])


@T.inline
def _kept(result, value, mask, masked, mask_rows, i, j, otherwise):
    """result[0] = value where the mask keeps column j of row i, which else is not looked at."""
    if masked:
        result[0] = T.if_then_else(mask[T.truncmod(i, mask_rows), j] != T.uint8(0), value, otherwise)
    else:
        result[0] = value


@T.inline
def _rows(x, mask, masked, mask_rows, table, out, rows, cols, ratio, shift, zero_point):
    with T.sblock("softmax"):
        if masked:
            T.reads(x[0:rows, 0:cols], table[0:256], mask[0:mask_rows, 0:cols])
        else:
            T.reads(x[0:rows, 0:cols], table[0:256])
        T.writes(out[0:rows, 0:cols])
        peak = T.sblock_alloc_buffer((1,), "int32")
        total = T.sblock_alloc_buffer((1,), "int32")
        value = T.sblock_alloc_buffer((1,), "int32")
        for i in T.serial(rows):
            peak[0] = -129
            total[0] = 0
            for j in T.serial(cols):
                _kept(value, T.Cast("int32", x[i, j]), mask, masked, mask_rows, i, j, -129)
                peak[0] = T.max(peak[0], value[0])
            for j in T.serial(cols):
                _kept(value, _exponential(table, peak, x, i, j), mask, masked, mask_rows, i, j, 0)
                total[0] = total[0] + value[0]
            total[0] = T.Cast("int32", T.truncdiv(T.uint32(ratio), T.Cast("uint32", T.max(total[0], 1))))
            for j in T.serial(cols):
                _kept(value, _exponential(table, peak, x, i, j), mask, masked, mask_rows, i, j, 0)
                tile.multiply_high(value, T.shift_left(value[0], shift), total[0])
                out[i, j] = tile.saturated(value[0] + zero_point, "int8")


@T.inline
def _fill(out, rows, first, cols, zero_point):
    with T.sblock("absent"):
        T.reads()
        T.writes(out[0:rows, 0:cols])
        for i, j in T.grid(rows, cols - first):
            out[i, first + j] = T.int8(zero_point)


def _prim_func(o: Operands, blocking: Blocking) -> tirx.PrimFunc:
    (R, C), a = o.shape("x"), o.attrs
    masked, MR = "mask" in o, o.shape("mask")[0] if "mask" in o else 1
    MC = C if masked else 1
    ratio, shift, zero_point, by_length = a["ratio"], a["shift"], a["zero_point"], bool(a["by_length"])

    @T.prim_func(private=True, s_tir=True)
    def softmax(
        x: T.Buffer((R, C), "int8"),
        mask: T.Buffer((MR, MC), "uint8"),
        table: T.Buffer((256,), "uint16"),
        n: T.int32,
        out: T.Buffer((R, C), "int8"),
    ):
        if by_length:
            _rows(x, mask, masked, MR, table, out, R, T.min(n, C), ratio, shift, zero_point)
            _fill(out, R, T.min(n, C), C, zero_point)
        else:
            _rows(x, mask, masked, MR, table, out, R, C, ratio, shift, zero_point)

    return softmax


KERNEL = Kernel(
    name="softmax",
    arguments=("x", "mask", "table"),
    infer=lambda o: relax.TensorType(list(o.shape("x")), "int8"),
    reference=_reference,
    prim_func=_prim_func,
    macs=lambda o, n: 0,
)

"""Weights of a dense layer inside an operator: int8, or int4 with the scales of their groups as one more operand.

An operator has int4 weights where the operand of their group scales is present. The tile operators of int4 weights
(`dense_w4_*`) mean what those of int8 weights in `tvmtiny.kernels.tile` do; the macros at the end choose.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from tvm.script import tirx as T

from tvmtiny.kernels import products, tile
from tvmtiny.kernels.base import Array, Blocking, Operands
from tvmtiny.kernels.columns import columns_shape, columns_type
from tvmtiny.quant import int4

GROUPS = {
    "weight": "groups", "w1": "g1", "w2": "g2", "wg": "gg", "wu": "gu", "wd": "gd",
    "wq": "gq", "wk": "gk", "wv": "gv", "wo": "go",
}  # fmt: skip
"""Operand of weights -> operand of their group scales."""

assert (int4.GROUP, int4.LOWEST) == (32, -8), "add_products_w4 below is written for these"


def is_int4(o: Operands, weight: str) -> bool:
    """Whether the weights are packed int4."""
    return GROUPS[weight] in o


def any_int4(o: Operands) -> bool:
    """Whether some weights of an operator are."""
    return any(groups in o for groups in GROUPS.values())


def weights_type(o: Operands) -> str | None:
    """Type of an operator's weights, "int4" or "int8"; None where it has no weight matrices."""
    if any_int4(o):
        return "int4"
    return "int8" if any(weight in o for weight in GROUPS) else None


@dataclasses.dataclass(frozen=True)
class Buffers:
    """How TIR declares weights: their shape and element type, the shape of their group scales."""

    int4: bool
    shape: tuple[int, ...]
    dtype: str
    groups: tuple[int, ...]


def buffers(o: Operands, weight: str, blocking: Blocking) -> Buffers:
    """Declarations of an operand of weights (N, K).

    int8 in the layout `blocking.weights`, or packed int4: uint8 (N, int4.row_bytes(K)) and scales (N, groups).
    """
    groups, layout = o.shape(GROUPS[weight]), blocking.weights
    if is_int4(o, weight):
        return Buffers(True, o.shape(weight), "uint8", groups)
    count, depth = o.shape(weight)
    return Buffers(False, columns_shape(count, depth, layout), columns_type(layout), groups)


def weight_values(o: Operands, weight: str, depth: int) -> Array:
    """The integers (N, K) that the reference multiplies."""
    stored: Array = o[weight]
    return int4.expand(stored, o[GROUPS[weight]], depth) if is_int4(o, weight) else stored


def workspace(blocking: Blocking, o: Operands, uses: Iterable[tuple[str, int, int]]) -> int:
    """Elements (int16) of a workspace that serves layers (weight, rows, depth) of an operator."""
    return max(
        (blocking.workspace_w4 if is_int4(o, weight) else blocking.workspace)(rows, depth)
        for weight, rows, depth in uses
    )


@T.inline
def add_products_w4(acc, x, x_row, weight, groups, w_row, depth):
    """acc[0] += x[x_row, :] . weight[w_row, :], weight[n, k] = groups[n, k // 32] * (nibble k of row n - 8)."""
    for k in T.serial(depth):
        acc[0] = acc[0] + T.Cast("int32", x[x_row, k]) * (
            T.Cast("int32", groups[w_row, T.truncdiv(k, 32)])
            * (
                T.bitwise_and(
                    T.shift_right(
                        T.Cast("int32", weight[w_row, T.truncdiv(k, 2)]), T.shift_left(T.truncmod(k, 2), 2)
                    ),
                    15,
                )
                - 8
            )
        )


@T.inline
def dense_w4_s8(
    x, x_row, weight, groups, bias, multiplier, w_row, out, out_row, out_col, workspace, rows, cols, depth, shift,
    zero_point,
):  # fmt: skip
    """out[r, c] = requantize_s8(bias[c] + x[r, :] . weight[c, :]), weights int4."""
    with T.sblock("dense_w4_s8"):
        T.reads(
            x[x_row : x_row + rows, 0:depth],
            weight[w_row : w_row + cols, 0 : int4.row_bytes(depth)],
            groups[w_row : w_row + cols, 0 : int4.groups_of(depth)],
            bias[w_row : w_row + cols],
            multiplier[w_row : w_row + cols],
        )
        T.writes(out[out_row : out_row + rows, out_col : out_col + cols], workspace[0:1])
        T.sblock_attr({"tvmtiny.tile": "dense_w4_s8", "tvmtiny.scalars": [shift, zero_point]})
        acc = T.sblock_alloc_buffer((1,), "int32")
        for i, j in T.grid(rows, cols):
            acc[0] = bias[w_row + j]
            add_products_w4(acc, x, x_row + i, weight, groups, w_row + j, depth)
            tile.multiply_high(acc, T.shift_left(acc[0], shift), multiplier[w_row + j])
            out[out_row + i, out_col + j] = tile.saturated(acc[0] + zero_point, "int8")


@T.inline
def dense_w4_s8_transposed(
    x, x_row, weight, groups, bias, multiplier, w_row, out, workspace, rows, cols, depth, shift, zero_point
):
    """dense_w4_s8 that writes out[c, r]."""
    with T.sblock("dense_w4_s8_transposed"):
        T.reads(
            x[x_row : x_row + rows, 0:depth],
            weight[w_row : w_row + cols, 0 : int4.row_bytes(depth)],
            groups[w_row : w_row + cols, 0 : int4.groups_of(depth)],
            bias[w_row : w_row + cols],
            multiplier[w_row : w_row + cols],
        )
        T.writes(out[0:cols, 0:rows], workspace[0:1])
        T.sblock_attr({"tvmtiny.tile": "dense_w4_s8_transposed", "tvmtiny.scalars": [shift, zero_point]})
        acc = T.sblock_alloc_buffer((1,), "int32")
        for i, j in T.grid(rows, cols):
            acc[0] = bias[w_row + j]
            add_products_w4(acc, x, x_row + i, weight, groups, w_row + j, depth)
            tile.multiply_high(acc, T.shift_left(acc[0], shift), multiplier[w_row + j])
            out[j, i] = tile.saturated(acc[0] + zero_point, "int8")


@T.inline
def dense_w4_s32(x, x_row, weight, groups, bias, multiplier, w_row, out, workspace, rows, cols, depth, shift):
    """out[r, c] = multiply_high((bias[c] + x[r, :] . weight[c, :]) << shift, multiplier[c]), weights int4."""
    with T.sblock("dense_w4_s32"):
        T.reads(
            x[x_row : x_row + rows, 0:depth],
            weight[w_row : w_row + cols, 0 : int4.row_bytes(depth)],
            groups[w_row : w_row + cols, 0 : int4.groups_of(depth)],
            bias[w_row : w_row + cols],
            multiplier[w_row : w_row + cols],
        )
        T.writes(out[0:rows, 0:cols], workspace[0:1])
        T.sblock_attr({"tvmtiny.tile": "dense_w4_s32", "tvmtiny.scalars": [shift]})
        acc = T.sblock_alloc_buffer((1,), "int32")
        for i, j in T.grid(rows, cols):
            acc[0] = bias[w_row + j]
            add_products_w4(acc, x, x_row + i, weight, groups, w_row + j, depth)
            tile.multiply_high(acc, T.shift_left(acc[0], shift), multiplier[w_row + j])
            out[i, j] = acc[0]


@T.inline
def dense_s8(
    w4, x, x_row, weight, groups, bias, multiplier, w_row, out, out_row, out_col, workspace, rows, cols, depth,
    shift, zero_point,
):  # fmt: skip
    """The tile operator dense_s8 or dense_w4_s8."""
    if w4:
        dense_w4_s8(
            x, x_row, weight, groups, bias, multiplier, w_row, out, out_row, out_col, workspace, rows, cols,
            depth, shift, zero_point,
        )  # fmt: skip
    else:
        products.dense_s8(
            x, x_row, weight, bias, multiplier, w_row, out, out_row, out_col, workspace, rows, cols, depth,
            shift, zero_point,
        )  # fmt: skip


@T.inline
def dense_table_s8(
    w4,
    x,
    x_row,
    weight,
    groups,
    bias,
    multiplier,
    table,
    out,
    workspace,
    rows,
    cols,
    depth,
    shift,
    zero_point,
):
    """The tile operator dense_table_s8, or dense_w4_s8 and then a look-up."""
    if w4:
        dense_w4_s8(
            x, x_row, weight, groups, bias, multiplier, 0, out, 0, 0, workspace, rows, cols, depth, shift,
            zero_point,
        )  # fmt: skip
        tile.lookup_s8(out, table, rows, cols)
    else:
        products.dense_table_s8(
            x, x_row, weight, bias, multiplier, table, out, workspace, rows, cols, depth, shift, zero_point
        )


@T.inline
def dense_s8_keys(w4, x, weight, groups, bias, multiplier, w_row, keys, workspace, rows, cols, depth, shift):
    """The tile operator dense_s8_keys, or dense_w4_s8 to plain columns."""
    if w4:
        dense_w4_s8(
            x, 0, weight, groups, bias, multiplier, w_row, keys, 0, 0, workspace, rows, cols, depth, shift, 0
        )
    else:
        products.dense_s8_keys(x, weight, bias, multiplier, w_row, keys, workspace, rows, cols, depth, shift)


@T.inline
def dense_s8_channels(
    w4, x, weight, groups, bias, multiplier, w_row, values, workspace, rows, cols, depth, shift
):
    """The tile operator dense_s8_channels, or dense_w4_s8_transposed to plain columns."""
    if w4:
        dense_w4_s8_transposed(
            x, 0, weight, groups, bias, multiplier, w_row, values, workspace, rows, cols, depth, shift, 0
        )
    else:
        products.dense_s8_channels(
            x, weight, bias, multiplier, w_row, values, workspace, rows, cols, depth, shift
        )


@T.inline
def dense_s32(
    w4, x, x_row, weight, groups, bias, multiplier, w_row, out, workspace, rows, cols, depth, shift
):
    """The tile operator dense_s32 or dense_w4_s32."""
    if w4:
        dense_w4_s32(
            x, x_row, weight, groups, bias, multiplier, w_row, out, workspace, rows, cols, depth, shift
        )
    else:
        products.dense_s32(
            x, x_row, weight, bias, multiplier, w_row, out, workspace, rows, cols, depth, shift
        )

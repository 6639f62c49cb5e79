"""The tile operators of matrix products, and attention's: see `tvmtiny.kernels.tile` for what a tile operator is.

The columns of a product (weights, keys, values) may lie in pairs (`tvmtiny.kernels.columns`), which names another
operator. `workspace` is memory that a micro-kernel may overwrite (`Blocking.workspace`); the meaning of an operator
needs none.
"""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from tvmtiny.kernels.columns import element, element_at, paired, region
from tvmtiny.kernels.tile import multiply_high, saturated


@T.inline
def add_products(acc, x, x_row, columns, j, depth):
    """acc[0] += x[x_row, :] . column j."""
    for k in T.serial(depth):
        acc[0] = acc[0] + T.Cast("int32", x[x_row, k]) * T.Cast("int32", element(columns, j, k))


def form(name: str, columns: Any) -> str:
    """The operator `name` on columns as they lie."""
    return f"{name}_pairs" if paired(columns) else name


@T.inline
def requantized_product(acc, x, x_row, weight, bias, multiplier, j, depth, shift, zero_point):
    """acc[0] = multiply_high((bias[j] + x[x_row, :] . weight[j, :]) << shift, multiplier[j]) + zero_point."""
    acc[0] = bias[j]
    add_products(acc, x, x_row, weight, j, depth)
    multiply_high(acc, T.shift_left(acc[0], shift), multiplier[j])
    acc[0] = acc[0] + zero_point


@T.inline
def dense_s8(
    x, x_row, weight, bias, multiplier, w_row, out, out_row, out_col, workspace, rows, cols, depth, shift,
    zero_point,
):  # fmt: skip
    """out[r, c] = requantize_s8(bias[c] + x[r, :] . weight[c, :])."""
    with T.sblock("dense_s8"):
        T.reads(
            x[x_row : x_row + rows, 0:depth],
            region(weight, w_row, cols, depth),
            bias[w_row : w_row + cols],
            multiplier[w_row : w_row + cols],
        )
        T.writes(out[out_row : out_row + rows, out_col : out_col + cols], workspace[0:1])
        T.sblock_attr({"tvmtiny.tile": form("dense_s8", weight), "tvmtiny.scalars": [shift, zero_point]})
        acc = T.sblock_alloc_buffer((1,), "int32")
        for i, j in T.grid(rows, cols):
            requantized_product(
                acc, x, x_row + i, weight, bias, multiplier, w_row + j, depth, shift, zero_point
            )
            out[out_row + i, out_col + j] = saturated(acc[0], "int8")


@T.inline
def dense_table_s8(
    x, x_row, weight, bias, multiplier, table, out, workspace, rows, cols, depth, shift, zero_point
):
    """out[r, c] = table[128 + requantize_s8(bias[c] + x[r, :] . weight[c, :])]."""
    with T.sblock("dense_table_s8"):
        T.reads(
            x[x_row : x_row + rows, 0:depth],
            region(weight, 0, cols, depth),
            bias[0:cols],
            multiplier[0:cols],
            table[0:256],
        )
        T.writes(out[0:rows, 0:cols], workspace[0:1])
        T.sblock_attr(
            {"tvmtiny.tile": form("dense_table_s8", weight), "tvmtiny.scalars": [shift, zero_point]}
        )
        acc = T.sblock_alloc_buffer((1,), "int32")
        for i, j in T.grid(rows, cols):
            requantized_product(acc, x, x_row + i, weight, bias, multiplier, j, depth, shift, zero_point)
            out[i, j] = table[T.Cast("int32", saturated(acc[0], "int8")) + 128]


@T.inline
def dense_s8_keys(x, weight, bias, multiplier, w_row, keys, workspace, rows, cols, depth, shift):
    """dense_s8 whose rows become columns of the next product: K of one head, a column a token."""
    with T.sblock("dense_s8_keys"):
        T.reads(
            x[0:rows, 0:depth],
            region(weight, w_row, cols, depth),
            bias[w_row : w_row + cols],
            multiplier[w_row : w_row + cols],
        )
        T.writes(region(keys, 0, rows, cols), workspace[0:1])
        T.sblock_attr(
            {"tvmtiny.tile": "dense_s8_keys" if paired(keys) else "dense_s8", "tvmtiny.scalars": [shift, 0]}
        )
        acc = T.sblock_alloc_buffer((1,), "int32")
        for i, j in T.grid(rows, cols):
            requantized_product(acc, x, i, weight, bias, multiplier, w_row + j, depth, shift, 0)
            keys[element_at(keys, i, j)] = saturated(acc[0], "int8")


@T.inline
def dense_s8_channels(x, weight, bias, multiplier, w_row, values, workspace, rows, cols, depth, shift):
    """dense_s8 whose outputs become columns of the next product: V of one head, a column a channel."""
    with T.sblock("dense_s8_channels"):
        T.reads(
            x[0:rows, 0:depth],
            region(weight, w_row, cols, depth),
            bias[w_row : w_row + cols],
            multiplier[w_row : w_row + cols],
        )
        T.writes(region(values, 0, cols, rows), workspace[0:1])
        T.sblock_attr(
            {
                "tvmtiny.tile": "dense_s8_channels" if paired(values) else "dense_s8_transposed",
                "tvmtiny.scalars": [shift, 0],
            }
        )
        acc = T.sblock_alloc_buffer((1,), "int32")
        for i, j in T.grid(rows, cols):
            requantized_product(acc, x, i, weight, bias, multiplier, w_row + j, depth, shift, 0)
            values[element_at(values, j, i)] = saturated(acc[0], "int8")


@T.inline
def dense_s32(x, x_row, weight, bias, multiplier, w_row, out, workspace, rows, cols, depth, shift):
    """out[r, c] = multiply_high((bias[c] + x[r, :] . weight[c, :]) << shift, multiplier[c]), left in int32."""
    with T.sblock("dense_s32"):
        T.reads(
            x[x_row : x_row + rows, 0:depth],
            region(weight, w_row, cols, depth),
            bias[w_row : w_row + cols],
            multiplier[w_row : w_row + cols],
        )
        T.writes(out[0:rows, 0:cols], workspace[0:1])
        T.sblock_attr({"tvmtiny.tile": form("dense_s32", weight), "tvmtiny.scalars": [shift]})
        acc = T.sblock_alloc_buffer((1,), "int32")
        for i, j in T.grid(rows, cols):
            requantized_product(acc, x, x_row + i, weight, bias, multiplier, w_row + j, depth, shift, 0)
            out[i, j] = acc[0]


@T.inline
def columns_s8(x, out, count, depth):
    """The rows of x as columns, in the layout of `out`: element k of column j is x[j, k]."""
    with T.sblock("columns_s8"):
        T.reads(x[0:count, 0:depth])
        T.writes(region(out, 0, count, depth))
        for j, k in T.grid(count, depth):
            out[element_at(out, j, k)] = x[j, k]


@T.inline
def product_s8(a, b, out, batch, workspace, rows, cols, depth, multiplier, shift, zero_point):
    """out[batch, r, c] = requantize_s8(a[batch, r, :] . b[batch, c, :])."""
    with T.sblock("product_s8"):
        T.reads(a[batch, 0:rows, 0:depth], b[batch, 0:cols, 0:depth])
        T.writes(out[batch, 0:rows, 0:cols], workspace[0:1])
        T.sblock_attr({"tvmtiny.tile": "product_s8", "tvmtiny.scalars": [multiplier, shift, zero_point]})
        acc = T.sblock_alloc_buffer((1,), "int32")
        for i, j in T.grid(rows, cols):
            acc[0] = 0
            for k in T.serial(depth):
                acc[0] = acc[0] + T.Cast("int32", a[batch, i, k]) * T.Cast("int32", b[batch, j, k])
            multiply_high(acc, T.shift_left(acc[0], shift), multiplier)
            out[batch, i, j] = saturated(acc[0] + zero_point, "int8")


@T.inline
def scores_s32(q, q_col, keys, k_col, out, workspace, rows, cols, depth):
    """out[r, c] = q[r, q_col:] . key c from its element k_col on: that of one head, where a key holds several."""
    with T.sblock("scores_s32"):
        T.reads(q[0:rows, q_col : q_col + depth], region(keys, 0, cols, depth, k_col))
        T.writes(out[0:rows, 0:cols], workspace[0:1])
        T.sblock_attr({"tvmtiny.tile": form("scores_s32", keys), "tvmtiny.scalars": []})
        acc = T.sblock_alloc_buffer((1,), "int32")
        for i, j in T.grid(rows, cols):
            acc[0] = 0
            for k in T.serial(depth):
                acc[0] = acc[0] + T.Cast("int32", q[i, q_col + k]) * T.Cast(
                    "int32", element(keys, j, k_col + k)
                )
            out[i, j] = acc[0]


@T.inline
def scores_window_s32(q, row, q_col, keys, first, out, workspace, cols, depth):
    """out[0, c] = q[row, q_col:] . key first + c: scores of a token that attends to some keys only; plain columns."""
    with T.sblock("scores_window_s32"):
        T.reads(q[row : row + 1, q_col : q_col + depth], keys[first : first + cols, 0:depth])
        T.writes(out[0:1, 0:cols], workspace[0:1])
        T.sblock_attr({"tvmtiny.tile": "scores_s32", "tvmtiny.scalars": []})
        acc = T.sblock_alloc_buffer((1,), "int32")
        for j in T.serial(cols):
            acc[0] = 0
            for k in T.serial(depth):
                acc[0] = acc[0] + T.Cast("int32", q[row, q_col + k]) * T.Cast("int32", keys[first + j, k])
            out[0, j] = acc[0]


@T.inline
def attend_window_s8(
    scores, table, multiplier, values, v_row, first, ratio, head, out, out_row, out_col, cols, depth, score_shift,
    shift, zero_point,
):  # fmt: skip
    """attend_s8 of one row of scores, with plain columns: tokens from `first` on, channels from `v_row` on."""
    with T.sblock("attend_window_s8"):
        T.reads(
            scores[0:1, 0:depth],
            table[0:256],
            multiplier[head : head + 1],
            values[v_row : v_row + cols, first : first + depth],
            ratio[head : head + 1],
        )
        T.writes(out[out_row : out_row + 1, out_col : out_col + cols], scores[0:1, 0:depth])
        T.sblock_attr({"tvmtiny.tile": "attend_s8", "tvmtiny.scalars": [score_shift, shift, zero_point]})
        acc = T.sblock_alloc_buffer((1,), "int32")
        peak = T.sblock_alloc_buffer((1,), "int32")
        total = T.sblock_alloc_buffer((1,), "int32")
        peak[0] = scores[0, 0]
        for j in T.serial(depth):
            peak[0] = T.max(peak[0], scores[0, j])
        total[0] = 0
        for j in T.serial(depth):
            multiply_high(acc, T.shift_left(peak[0] - scores[0, j], score_shift), multiplier[head])
            scores[0, j] = T.Cast("int32", table[T.min(acc[0], 255)])
            total[0] = total[0] + scores[0, j]
        for j in T.serial(cols):
            acc[0] = 0
            for k in T.serial(depth):
                acc[0] = acc[0] + scores[0, k] * T.Cast("int32", values[v_row + j, first + k])
            multiply_high(
                acc,
                T.shift_left(acc[0], shift),
                T.Cast("int32", T.truncdiv(ratio[head], T.Cast("uint32", total[0]))),
            )
            out[out_row, out_col + j] = saturated(acc[0] + zero_point, "int8")


@T.inline
def attend_s8(
    scores, table, multiplier, values, v_row, ratio, head, out, out_row, out_col, rows, cols, depth, score_shift,
    shift, zero_point,
):  # fmt: skip
    """The softmax of scores (rows, depth), times values: out[r, c] = requantize_s8(p[r, :] . channel v_row + c).

    p[r, j] = table[min(255, multiply_high((max(scores[r, :]) - scores[r, j]) << score_shift, multiplier[head]))], and
    the multiplier of row r is ratio[head] / sum(p[r, :]). A micro-kernel keeps p and its workspace in the memory of the
    scores, which are lost.
    """
    with T.sblock("attend_s8"):
        T.reads(
            scores[0:rows, 0:depth],
            table[0:256],
            multiplier[head : head + 1],
            region(values, v_row, cols, depth),
            ratio[head : head + 1],
        )
        T.writes(out[out_row : out_row + rows, out_col : out_col + cols], scores[0:rows, 0:depth])
        T.sblock_attr(
            {
                "tvmtiny.tile": form("attend_s8", values),
                "tvmtiny.scalars": [score_shift, shift, zero_point],
            }
        )
        acc = T.sblock_alloc_buffer((1,), "int32")
        peak = T.sblock_alloc_buffer((1,), "int32")
        total = T.sblock_alloc_buffer((1,), "int32")
        for i in T.serial(rows):
            peak[0] = scores[i, 0]
            for j in T.serial(depth):
                peak[0] = T.max(peak[0], scores[i, j])
            total[0] = 0
            for j in T.serial(depth):
                multiply_high(acc, T.shift_left(peak[0] - scores[i, j], score_shift), multiplier[head])
                scores[i, j] = T.Cast("int32", table[T.min(acc[0], 255)])
                total[0] = total[0] + scores[i, j]
            for j in T.serial(cols):
                acc[0] = 0
                add_products(acc, scores, i, values, v_row + j, depth)
                multiply_high(
                    acc,
                    T.shift_left(acc[0], shift),
                    T.Cast("int32", T.truncdiv(ratio[head], T.Cast("uint32", total[0]))),
                )
                out[out_row + i, out_col + j] = saturated(acc[0] + zero_point, "int8")

"""The tile operators: what kernels are made of, as TIR that means exactly `tvmtiny.quant.integer`.

Each is a TVMScript macro that writes one schedulable block. The block carries two annotations: `tvmtiny.tile`, the
operator, and `tvmtiny.scalars`, its integer parameters. Built for LLVM the block is what it says; for a
microcontroller `tvmtiny.schedule.microkernels` puts the call of a C function of the same name and meaning in its
place. Rows may be dynamic (the tokens that are present), which TVM's own tensorize does not allow.

Arguments named `*_row`, `*_col` are the first row and column of the region of a buffer that an operator touches. The
columns of a product (weights, keys, values) may lie in pairs (`tvmtiny.kernels.columns`), which names another operator.
`workspace` is memory that a micro-kernel may overwrite (`Blocking.workspace`); the meaning of an operator needs none.
"""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from tvmtiny.kernels.columns import element, element_at, paired, region
from tvmtiny.quant.integer import NORM_FRACTION_BITS, NORM_OUTPUT_BITS

TILE = "tvmtiny.tile"
SCALARS = "tvmtiny.scalars"

assert (NORM_FRACTION_BITS, NORM_OUTPUT_BITS) == (24, 8), "layer_norm_s8 below is written for these"


def blocks_of(n: Any, rows: int) -> Any:
    """How many blocks of at most `rows` rows `n` rows make."""
    return T.truncdiv(n + (rows - 1), rows)


def block_start(block: Any, n: Any, rows: int) -> Any:
    """First row of a block; blocks differ by one row at most, as a short one at the end would cost most of a long."""
    return T.truncdiv(block * n, blocks_of(n, rows))


def block_rows(block: Any, n: Any, rows: int) -> Any:
    """Rows of a block. The bound is there for TVM, which does not derive it from the quotients."""
    return T.min(rows, block_start(block + 1, n, rows) - block_start(block, n, rows))


def saturated(value: Any, dtype: str) -> Any:
    """An int32 value clamped to the range of a narrower signed type, and cast to it."""
    limit = 1 << (int(dtype.removeprefix("int")) - 1)
    return T.Cast(dtype, T.max(T.min(value, limit - 1), -limit))


@T.inline
def add_products(acc, x, x_row, columns, j, depth):
    """acc[0] += x[x_row, :] . column j."""
    for k in T.serial(depth):
        acc[0] = acc[0] + T.Cast("int32", x[x_row, k]) * T.Cast("int32", element(columns, j, k))


@T.inline
def multiply_high(result, value, multiplier):
    """result[0] = (value * multiplier + 2**31) >> 32."""
    result[0] = T.Cast(
        "int32",
        T.shift_right(T.Cast("int64", value) * T.Cast("int64", multiplier) + T.int64(1 << 31), T.int64(32)),
    )


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
def dense_s32(x, x_row, weight, bias, multiplier, out, workspace, rows, cols, depth, shift):
    """out[r, c] = multiply_high((bias[c] + x[r, :] . weight[c, :]) << shift, multiplier[c]), left in int32."""
    with T.sblock("dense_s32"):
        T.reads(
            x[x_row : x_row + rows, 0:depth], region(weight, 0, cols, depth), bias[0:cols], multiplier[0:cols]
        )
        T.writes(out[0:rows, 0:cols], workspace[0:1])
        T.sblock_attr({"tvmtiny.tile": form("dense_s32", weight), "tvmtiny.scalars": [shift]})
        acc = T.sblock_alloc_buffer((1,), "int32")
        for i, j in T.grid(rows, cols):
            requantized_product(acc, x, x_row + i, weight, bias, multiplier, j, depth, shift, 0)
            out[i, j] = acc[0]


@T.inline
def lookup_s8(x, table, rows, cols):
    """x[r, c] = table[x[r, c] + 128], in place."""
    with T.sblock("lookup_s8"):
        T.reads(table[0:256], x[0:rows, 0:cols])
        T.writes(x[0:rows, 0:cols])
        T.sblock_attr({"tvmtiny.tile": "lookup_s8", "tvmtiny.scalars": []})
        for i, j in T.grid(rows, cols):
            x[i, j] = table[T.Cast("int32", x[i, j]) + 128]


@T.inline
def copy_s8(x, x_row, out, rows, cols):
    """out[r, c] = x[x_row + r, c]."""
    with T.sblock("copy_s8"):
        T.reads(x[x_row : x_row + rows, 0:cols])
        T.writes(out[0:rows, 0:cols])
        for i, j in T.grid(rows, cols):
            out[i, j] = x[x_row + i, j]


@T.inline
def columns_s8(x, out, count, depth):
    """The rows of x as columns, in the layout of `out`: element k of column j is x[j, k]."""
    with T.sblock("columns_s8"):
        T.reads(x[0:count, 0:depth])
        T.writes(region(out, 0, count, depth))
        for j, k in T.grid(count, depth):
            out[element_at(out, j, k)] = x[j, k]


@T.inline
def widen_s32(x, out, rows, cols):
    """out[r, c] = x[r, c], in int32."""
    with T.sblock("widen_s32"):
        T.reads(x[0:rows, 0:cols])
        T.writes(out[0:rows, 0:cols])
        for i, j in T.grid(rows, cols):
            out[i, j] = T.Cast("int32", x[i, j])


@T.inline
def clear_s32(t, rows, cols):
    """t[r, c] = 0."""
    with T.sblock("clear_s32"):
        T.reads()
        T.writes(t[0:rows, 0:cols])
        for i, j in T.grid(rows, cols):
            t[i, j] = 0


@T.inline
def add_residual_s32(t, x, x_row, rows, cols, zero_point, left_shift, bits):
    """t[r, c] = saturate(t[r, c] + ((x[r, c] - zero_point) << left_shift), bits), in place."""
    with T.sblock("add_residual_s32"):
        T.reads(x[x_row : x_row + rows, 0:cols], t[0:rows, 0:cols])
        T.writes(t[0:rows, 0:cols])
        T.sblock_attr({"tvmtiny.tile": "add_residual_s32", "tvmtiny.scalars": [zero_point, left_shift, bits]})
        for i, j in T.grid(rows, cols):
            t[i, j] = T.max(
                T.min(
                    t[i, j] + T.shift_left(T.Cast("int32", x[x_row + i, j]) - zero_point, left_shift),
                    (1 << (bits - 1)) - 1,
                ),
                -(1 << (bits - 1)),
            )


@T.inline
def add_residual_s16_s32(t, x, x_row, rows, cols, left_shift, bits):
    """As add_residual_s32 for an int16 residual stream x, whose zero point is 0."""
    with T.sblock("add_residual_s16_s32"):
        T.reads(x[x_row : x_row + rows, 0:cols], t[0:rows, 0:cols])
        T.writes(t[0:rows, 0:cols])
        T.sblock_attr({"tvmtiny.tile": "add_residual_s16_s32", "tvmtiny.scalars": [left_shift, bits]})
        for i, j in T.grid(rows, cols):
            t[i, j] = T.max(
                T.min(
                    t[i, j] + T.shift_left(T.Cast("int32", x[x_row + i, j]), left_shift),
                    (1 << (bits - 1)) - 1,
                ),
                -(1 << (bits - 1)),
            )


@T.inline
def requantize_s32_s8(t, out, out_row, rows, cols, multiplier, shift, zero_point):
    """out[r, c] = clamp8(multiply_high(t[r, c] << shift, multiplier) + zero_point)."""
    with T.sblock("requantize_s32_s8"):
        T.reads(t[0:rows, 0:cols])
        T.writes(out[out_row : out_row + rows, 0:cols])
        T.sblock_attr(
            {"tvmtiny.tile": "requantize_s32_s8", "tvmtiny.scalars": [multiplier, shift, zero_point]}
        )
        acc = T.sblock_alloc_buffer((1,), "int32")
        for i, j in T.grid(rows, cols):
            multiply_high(acc, T.shift_left(t[i, j], shift), multiplier)
            out[out_row + i, j] = saturated(acc[0] + zero_point, "int8")


@T.inline
def requantize_s32_s16(t, out, out_row, rows, cols, multiplier, shift, zero_point):
    """As requantize_s32_s8, with 16 bits: the model's logits, or its residual stream."""
    with T.sblock("requantize_s32_s16"):
        T.reads(t[0:rows, 0:cols])
        T.writes(out[out_row : out_row + rows, 0:cols])
        T.sblock_attr(
            {"tvmtiny.tile": "requantize_s32_s16", "tvmtiny.scalars": [multiplier, shift, zero_point]}
        )
        acc = T.sblock_alloc_buffer((1,), "int32")
        for i, j in T.grid(rows, cols):
            multiply_high(acc, T.shift_left(t[i, j], shift), multiplier)
            out[out_row + i, j] = saturated(acc[0] + zero_point, "int16")


@T.inline
def _normalize(name, factor, t, gamma, beta, out, out_row, rows, cols, root_extent, epsilon):
    """factor * t, less the sum of the row in a LayerNorm, over its root mean square; times gamma, plus beta."""
    with T.sblock(name):
        T.reads(t[0:rows, 0:cols], gamma[0:cols], beta[0:cols])
        T.writes(out[out_row : out_row + rows, 0:cols])
        T.sblock_attr({"tvmtiny.tile": name, "tvmtiny.scalars": [root_extent, T.int64(epsilon)]})
        total = T.sblock_alloc_buffer((1,), "int32")
        value = T.sblock_alloc_buffer((1,), "int32")
        wide = T.sblock_alloc_buffer((4,), "uint64")
        bits = T.sblock_alloc_buffer((3,), "int32")
        for i in T.serial(rows):
            total[0] = 0
            if name == "layer_norm_s8":
                for j in T.serial(cols):
                    total[0] = total[0] + t[i, j]
            wide[0] = T.uint64(epsilon)
            for j in T.serial(cols):
                value[0] = factor * t[i, j] - total[0]
                wide[0] = wide[0] + T.Cast("uint64", T.Cast("int64", value[0]) * T.Cast("int64", value[0]))
            # bits[0]: an even number of leading zeros of the sum of squares, wide[1]: its 32 leading bits
            bits[0] = 0
            for step in T.unroll(5):
                if T.shift_right(
                    wide[0], T.uint64(64) - T.Cast("uint64", T.shift_left(2, 4 - step))
                ) == T.uint64(0):
                    wide[0] = T.shift_left(wide[0], T.Cast("uint64", T.shift_left(2, 4 - step)))
                    bits[0] = bits[0] + T.shift_left(2, 4 - step)
            wide[1] = T.shift_right(wide[0], T.uint64(32))
            wide[2] = T.uint64(2348810240) - T.shift_right(wide[1] * T.uint64(1275068416), T.uint64(32))
            for _ in T.unroll(4):
                wide[3] = T.shift_right(wide[2] * wide[2], T.uint64(32))
                wide[3] = T.shift_right(wide[1] * wide[3], T.uint64(32))
                wide[2] = T.shift_right(wide[2] * (T.uint64(805306368) - wide[3]), T.uint64(29))
            # wide[2]: sqrt(cols) / sqrt(sum), normalized to 63 bits by bits[1] leading zeros
            wide[2] = wide[2] * T.uint64(root_extent)
            bits[1] = 0
            for step in T.unroll(6):
                if T.shift_right(
                    wide[2], T.uint64(63) - T.Cast("uint64", T.shift_left(1, 5 - step))
                ) == T.uint64(0):
                    wide[2] = T.shift_left(wide[2], T.Cast("uint64", T.shift_left(1, 5 - step)))
                    bits[1] = bits[1] + T.shift_left(1, 5 - step)
            wide[2] = T.shift_right(wide[2], T.uint64(32))
            bits[2] = 64 - bits[1] - (30 + T.shift_right(64 - bits[0], 1))
            for j in T.serial(cols):
                value[0] = factor * t[i, j] - total[0]
                if bits[2] >= 0:
                    value[0] = T.shift_left(value[0], bits[2])
                else:
                    value[0] = T.shift_right(value[0], 0 - bits[2])
                multiply_high(value, value[0], T.Cast("int32", wide[2]))
                multiply_high(value, value[0], gamma[j])
                value[0] = T.shift_right(value[0] + beta[j], 8)
                out[out_row + i, j] = saturated(value[0], "int8")


@T.inline
def layer_norm_s8(t, gamma, beta, out, out_row, rows, cols, root_extent, epsilon):
    """LayerNorm of each row; see tvmtiny.quant.integer.layer_norm_s8 for every step."""
    _normalize("layer_norm_s8", cols, t, gamma, beta, out, out_row, rows, cols, root_extent, epsilon)


@T.inline
def rms_norm_s8(t, gamma, beta, out, out_row, rows, cols, root_extent, epsilon):
    """RMSNorm of each row: a LayerNorm that does not subtract the mean."""
    _normalize("rms_norm_s8", 1, t, gamma, beta, out, out_row, rows, cols, root_extent, epsilon)


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
def scale_s8(t, gamma, beta, out, out_row, rows, cols, shift):
    """out[r, c] = clamp8((multiply_high(t[r, c] << shift, gamma[c]) + beta[c]) >> NORM_OUTPUT_BITS)."""
    with T.sblock("scale_s8"):
        T.reads(t[0:rows, 0:cols], gamma[0:cols], beta[0:cols])
        T.writes(out[out_row : out_row + rows, 0:cols])
        T.sblock_attr({"tvmtiny.tile": "scale_s8", "tvmtiny.scalars": [shift]})
        value = T.sblock_alloc_buffer((1,), "int32")
        for i, j in T.grid(rows, cols):
            multiply_high(value, T.shift_left(t[i, j], shift), gamma[j])
            out[out_row + i, j] = saturated(T.shift_right(value[0] + beta[j], 8), "int8")


@T.inline
def scores_s32(q, keys, out, workspace, rows, cols, depth):
    """out[r, c] = q[r, :] . key c."""
    with T.sblock("scores_s32"):
        T.reads(q[0:rows, 0:depth], region(keys, 0, cols, depth))
        T.writes(out[0:rows, 0:cols], workspace[0:1])
        T.sblock_attr({"tvmtiny.tile": form("scores_s32", keys), "tvmtiny.scalars": []})
        acc = T.sblock_alloc_buffer((1,), "int32")
        for i, j in T.grid(rows, cols):
            acc[0] = 0
            add_products(acc, q, i, keys, j, depth)
            out[i, j] = acc[0]


@T.inline
def scores_window_s32(q, row, keys, first, out, workspace, cols, depth):
    """out[0, c] = q[row, :] . key first + c: the scores of a token that attends to some keys only; plain columns."""
    with T.sblock("scores_window_s32"):
        T.reads(q[row : row + 1, 0:depth], keys[first : first + cols, 0:depth])
        T.writes(out[0:1, 0:cols], workspace[0:1])
        T.sblock_attr({"tvmtiny.tile": "scores_s32", "tvmtiny.scalars": []})
        acc = T.sblock_alloc_buffer((1,), "int32")
        for j in T.serial(cols):
            acc[0] = 0
            for k in T.serial(depth):
                acc[0] = acc[0] + T.Cast("int32", q[row, k]) * T.Cast("int32", keys[first + j, k])
            out[0, j] = acc[0]


@T.inline
def attend_window_s8(
    scores, table, multiplier, values, first, ratio, head, out, out_row, out_col, cols, depth, score_shift,
    shift, zero_point,
):  # fmt: skip
    """attend_s8 of one row of scores, of the tokens from `first` on; plain columns."""
    with T.sblock("attend_window_s8"):
        T.reads(
            scores[0:1, 0:depth],
            table[0:256],
            multiplier[head : head + 1],
            values[0:cols, first : first + depth],
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
                acc[0] = acc[0] + scores[0, k] * T.Cast("int32", values[j, first + k])
            multiply_high(
                acc,
                T.shift_left(acc[0], shift),
                T.Cast("int32", T.truncdiv(ratio[head], T.Cast("uint32", total[0]))),
            )
            out[out_row, out_col + j] = saturated(acc[0] + zero_point, "int8")


@T.inline
def attend_s8(
    scores, table, multiplier, values, ratio, head, out, out_row, out_col, rows, cols, depth, score_shift,
    shift, zero_point,
):  # fmt: skip
    """The softmax of scores (rows, depth), times the values: out[r, c] = requantize_s8(p[r, :] . channel c).

    p[r, j] = table[min(255, multiply_high((max(scores[r, :]) - scores[r, j]) << score_shift, multiplier[head]))], and
    the multiplier of row r is ratio[head] / sum(p[r, :]). A micro-kernel keeps p and its workspace in the memory of the
    scores, which are lost.
    """
    with T.sblock("attend_s8"):
        T.reads(
            scores[0:rows, 0:depth],
            table[0:256],
            multiplier[head : head + 1],
            region(values, 0, cols, depth),
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
                add_products(acc, scores, i, values, j, depth)
                multiply_high(
                    acc,
                    T.shift_left(acc[0], shift),
                    T.Cast("int32", T.truncdiv(ratio[head], T.Cast("uint32", total[0]))),
                )
                out[out_row + i, out_col + j] = saturated(acc[0] + zero_point, "int8")


@T.inline
def embed_s32(ids, token_table, position_table, first, out, rows, cols, token_factor, position_factor):
    """out[r, c] = token_table[ids[first + r], c] * token_factor + position_table[first + r, c] * position_factor."""
    with T.sblock("embed_s32"):
        T.reads(
            ids[first : first + rows], token_table[0:1, 0:cols], position_table[first : first + rows, 0:cols]
        )
        T.writes(out[0:rows, 0:cols])
        T.sblock_attr({"tvmtiny.tile": "embed_s32", "tvmtiny.scalars": [token_factor, position_factor]})
        for i, j in T.grid(rows, cols):
            out[i, j] = (
                T.Cast("int32", token_table[T.Cast("int32", ids[first + i]), j]) * token_factor
                + T.Cast("int32", position_table[first + i, j]) * position_factor
            )


@T.inline
def add_embedding_s32(t, ids, table, first, rows, cols, factor):
    """t[r, c] += table[ids[first + r], c] * factor."""
    with T.sblock("add_embedding_s32"):
        T.reads(ids[first : first + rows], table[0:1, 0:cols], t[0:rows, 0:cols])
        T.writes(t[0:rows, 0:cols])
        T.sblock_attr({"tvmtiny.tile": "add_embedding_s32", "tvmtiny.scalars": [factor]})
        for i, j in T.grid(rows, cols):
            t[i, j] = t[i, j] + T.Cast("int32", table[T.Cast("int32", ids[first + i]), j]) * factor


@T.inline
def mean_s8(x, out, rows, cols, ratio, shift, zero_point_in, zero_point):
    """out[0, c] = requantize_s8(sum_r (x[r, c] - zero_point_in)) with multiplier ratio / rows."""
    with T.sblock("mean_s8"):
        T.reads(x[0:rows, 0:cols])
        T.writes(out[0:1, 0:cols])
        T.sblock_attr(
            {
                "tvmtiny.tile": "mean_s8",
                "tvmtiny.scalars": [zero_point_in, T.uint32(ratio), shift, zero_point],
            }
        )
        acc = T.sblock_alloc_buffer((1,), "int32")
        for j in T.serial(cols):
            acc[0] = 0
            for i in T.serial(rows):
                acc[0] = acc[0] + T.Cast("int32", x[i, j]) - zero_point_in
            multiply_high(
                acc,
                T.shift_left(acc[0], shift),
                T.Cast("int32", T.truncdiv(T.uint32(ratio), T.Cast("uint32", rows))),
            )
            out[0, j] = saturated(acc[0] + zero_point, "int8")


@T.inline
def mean_s16_s32(x, out, rows, cols, ratio, shift):
    """out[0, c] = multiply_high((sum_r x[r, c]) << shift, ratio / rows), left in int32."""
    with T.sblock("mean_s16_s32"):
        T.reads(x[0:rows, 0:cols])
        T.writes(out[0:1, 0:cols])
        T.sblock_attr({"tvmtiny.tile": "mean_s16_s32", "tvmtiny.scalars": [T.uint32(ratio), shift]})
        acc = T.sblock_alloc_buffer((1,), "int32")
        for j in T.serial(cols):
            acc[0] = 0
            for i in T.serial(rows):
                acc[0] = acc[0] + T.Cast("int32", x[i, j])
            multiply_high(
                acc,
                T.shift_left(acc[0], shift),
                T.Cast("int32", T.truncdiv(T.uint32(ratio), T.Cast("uint32", rows))),
            )
            out[0, j] = acc[0]

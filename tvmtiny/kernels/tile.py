"""The tile operators: what kernels are made of, as TIR that means exactly `tvmtiny.quant.integer`.

Each is a TVMScript macro that writes one schedulable block. The block carries two annotations: `tvmtiny.tile`, the
operator, and `tvmtiny.scalars`, its integer parameters. Built for LLVM the block is what it says; for a
microcontroller `tvmtiny.schedule.microkernels` puts the call of a C function of the same name and meaning in its
place. Rows may be dynamic (the tokens that are present), which TVM's own tensorize does not allow.

Arguments named `*_row`, `*_col` are the first row and column of the region of a buffer that an operator touches.
Matrix products are in `tvmtiny.kernels.products`.
"""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from tvmtiny.quant.integer import NORM_FRACTION_BITS, NORM_OUTPUT_BITS, ROTARY_BITS

TILE = "tvmtiny.tile"
SCALARS = "tvmtiny.scalars"

TILE_ROWS = 4
"""Rows that the micro-kernels of every family but those of strips take at once, at most."""

assert (NORM_FRACTION_BITS, NORM_OUTPUT_BITS) == (24, 8), "layer_norm_s8 below is written for these"
assert ROTARY_BITS == 20, "rotary_s8 below is written for these"


def blocks_of(n: Any, rows: int) -> Any:
    """How many blocks of at most `rows` rows `n` rows make."""
    return T.truncdiv(n + (rows - 1), rows)


def block_start(block: Any, n: Any, rows: int) -> Any:
    """First row of a block.

    Blocks of up to TILE_ROWS rows are full but for the last one: a micro-kernel takes so many at once, and three in the
    same time. Longer ones differ by one row at most: their micro-kernels take any number of rows in proportion, but a
    short block at the end would cost most of a long one.
    """
    return block * rows if rows <= TILE_ROWS else T.truncdiv(block * n, blocks_of(n, rows))


def block_rows(block: Any, n: Any, rows: int) -> Any:
    """Rows of a block. The bound is there for TVM, which does not derive it from the quotients."""
    end = n if rows <= TILE_ROWS else block_start(block + 1, n, rows)
    return T.min(rows, end - block_start(block, n, rows))


def saturated(value: Any, dtype: str) -> Any:
    """An int32 value clamped to the range of a narrower signed type, and cast to it."""
    limit = 1 << (int(dtype.removeprefix("int")) - 1)
    return T.Cast(dtype, T.max(T.min(value, limit - 1), -limit))


@T.inline
def multiply_high(result, value, multiplier):
    """result[0] = (value * multiplier + 2**31) >> 32."""
    result[0] = T.Cast(
        "int32",
        T.shift_right(T.Cast("int64", value) * T.Cast("int64", multiplier) + T.int64(1 << 31), T.int64(32)),
    )


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
def rotary_s8(t, t_col, table, position, out, out_row, out_col, rows, cols):
    """The halves of each row turned by the angles of its position; see tvmtiny.quant.integer.rotary_s8."""
    with T.sblock("rotary_s8"):
        T.reads(t[0:rows, t_col : t_col + cols], table[position : position + rows, 0:cols])
        T.writes(out[out_row : out_row + rows, out_col : out_col + cols])
        T.sblock_attr({"tvmtiny.tile": "rotary_s8", "tvmtiny.scalars": []})
        a = T.sblock_alloc_buffer((1,), "int32")
        b = T.sblock_alloc_buffer((1,), "int32")
        cosine = T.sblock_alloc_buffer((1,), "int32")
        sine = T.sblock_alloc_buffer((1,), "int32")
        for i, j in T.grid(rows, cols // 2):
            a[0] = T.Cast("int32", saturated(t[i, t_col + j], "int16"))
            b[0] = T.Cast("int32", saturated(t[i, t_col + cols // 2 + j], "int16"))
            cosine[0] = T.Cast("int32", table[position + i, j])
            sine[0] = T.Cast("int32", table[position + i, cols // 2 + j])
            out[out_row + i, out_col + j] = saturated(
                T.shift_right(a[0] * cosine[0] - b[0] * sine[0] + 524288, 20), "int8"
            )
            out[out_row + i, out_col + cols // 2 + j] = saturated(
                T.shift_right(a[0] * sine[0] + b[0] * cosine[0] + 524288, 20), "int8"
            )


@T.inline
def gate_s8(gate, up, table, rows, cols, multiplier, shift, zero_point):
    """gate[r, c] = requantize_s8(table[gate[r, c] + 128] * up[r, c]), in place."""
    with T.sblock("gate_s8"):
        T.reads(up[0:rows, 0:cols], table[0:256], gate[0:rows, 0:cols])
        T.writes(gate[0:rows, 0:cols])
        T.sblock_attr({"tvmtiny.tile": "gate_s8", "tvmtiny.scalars": [multiplier, shift, zero_point]})
        acc = T.sblock_alloc_buffer((1,), "int32")
        for i, j in T.grid(rows, cols):
            acc[0] = T.Cast("int32", table[T.Cast("int32", gate[i, j]) + 128]) * T.Cast("int32", up[i, j])
            multiply_high(acc, T.shift_left(acc[0], shift), multiplier)
            gate[i, j] = saturated(acc[0] + zero_point, "int8")


@T.inline
def embed_s32(
    ids, token_table, position_table, first, position, out, rows, cols, token_factor, position_factor
):
    """out[r, c] = token_table[ids[first + r], c] * token_factor + position_table[position + r, c] * position_factor."""
    with T.sblock("embed_s32"):
        T.reads(
            ids[first : first + rows],
            token_table[0:1, 0:cols],
            position_table[position : position + rows, 0:cols],
        )
        T.writes(out[0:rows, 0:cols])
        T.sblock_attr({"tvmtiny.tile": "embed_s32", "tvmtiny.scalars": [token_factor, position_factor]})
        for i, j in T.grid(rows, cols):
            out[i, j] = (
                T.Cast("int32", token_table[T.Cast("int32", ids[first + i]), j]) * token_factor
                + T.Cast("int32", position_table[position + i, j]) * position_factor
            )


@T.inline
def embed_scaled_s32(ids, table, factors, first, out, rows, cols):
    """out[r, c] = table[id, c] * factors[id], id = ids[first + r]: a table with a scale a row."""
    with T.sblock("embed_scaled_s32"):
        T.reads(ids[first : first + rows], table[0:1, 0:cols], factors[0:1])
        T.writes(out[0:rows, 0:cols])
        T.sblock_attr({"tvmtiny.tile": "embed_scaled_s32", "tvmtiny.scalars": []})
        for i, j in T.grid(rows, cols):
            out[i, j] = T.Cast("int32", table[T.Cast("int32", ids[first + i]), j]) * T.Cast(
                "int32", factors[T.Cast("int32", ids[first + i])]
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


@T.inline
def depthwise_s8(
    x, weight, bias, multiplier, out, place, first, tap, taps, step, cols, per_channel, zero_point_in, shift,
    zero_point,
):  # fmt: skip
    """out[place, j] = requantize_s8(bias[j] + sum of weight[r, c, j] (x[y, x, j / per_channel] - zero_point_in)).

    first, tap, taps, step (pairs, rows and columns): the element of x under the first tap, that tap, how many there
    are, and how many elements of x lie from one to the next.
    """
    with T.sblock("depthwise_s8"):
        T.reads(
            x[
                first[0] : first[0] + (taps[0] - 1) * step[0] + 1,
                first[1] : first[1] + (taps[1] - 1) * step[1] + 1,
                0 : cols // per_channel,
            ],
            weight[tap[0] : tap[0] + taps[0], tap[1] : tap[1] + taps[1], 0:cols],
            bias[0:cols],
            multiplier[0:cols],
        )
        T.writes(out[place : place + 1, 0:cols])
        T.sblock_attr(
            {
                "tvmtiny.tile": "depthwise_s8",
                "tvmtiny.scalars": [step[0], step[1], per_channel, zero_point_in, shift, zero_point],
            }
        )
        acc = T.sblock_alloc_buffer((1,), "int32")
        for j in T.serial(cols):
            acc[0] = bias[j]
            for r, c in T.grid(taps[0], taps[1]):
                acc[0] = acc[0] + T.Cast("int32", weight[tap[0] + r, tap[1] + c, j]) * (
                    T.Cast(
                        "int32", x[first[0] + r * step[0], first[1] + c * step[1], T.truncdiv(j, per_channel)]
                    )
                    - zero_point_in
                )
            multiply_high(acc, T.shift_left(acc[0], shift), multiplier[j])
            out[place, j] = saturated(acc[0] + zero_point, "int8")

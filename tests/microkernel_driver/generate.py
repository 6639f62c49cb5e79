"""Random and extreme cases for each micro-kernel, expected bytes from tvmtiny.quant.integer.

A generator takes a random generator and the extents; what else a kernel needs (strides, misalignment, shifts)
it draws, within the bounds that the kernel's header states. `extreme` asks for values at the ends of their
ranges.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from microkernel_driver import decoders, stored
from microkernel_driver.cases import Argument, Buffer, Case, noise, strided
from tvmtiny.kernels.base import Blocking
from tvmtiny.quant import int4, integer

INT32_MAX = 2**31 - 1
KERNEL_SEED = 20261123
STRIP_ROWS, PAIR_ROWS = 6, 4
"""The most rows that a micro-kernel widens at a time, with plain columns and with pairs of them."""
Rng = np.random.Generator
Generator = Callable[[Rng, int, int, int, bool], Case]


def int8s(rng: Rng, shape: tuple[int, ...], extreme: bool) -> np.ndarray:
    if extreme:
        return rng.choice(np.array([-128, -127, 127], np.int8), shape)
    return rng.integers(-128, 128, shape, dtype=np.int8)


def int16s(rng: Rng, shape: tuple[int, ...], extreme: bool) -> np.ndarray:
    if extreme:
        return rng.choice(np.array([-32768, -32767, 32767], np.int16), shape)
    return rng.integers(-32768, 32768, shape, dtype=np.int16)


def int32s(rng: Rng, shape: tuple[int, ...], limit: int, extreme: bool) -> np.ndarray:
    """Values of every size up to +-limit, or at +-limit."""
    if extreme:
        return rng.choice(np.array([-limit, 1 - limit, -1, 0, 1, limit - 1, limit]), shape).astype(np.int32)
    size = rng.uniform(0, 1, shape)
    return (
        np.round(np.sign(rng.normal(size=shape)) * (limit + 1.0) ** size).clip(-limit, limit).astype(np.int32)
    )


def _skew(rng: Rng) -> int:
    return int(rng.integers(0, 4))


def _shift(rng: Rng, values: np.ndarray) -> int:
    """A left shift after which `values` still fit 32 bits."""
    most = 31 - int(np.abs(values.astype(np.int64)).max(initial=0)).bit_length()
    return int(rng.choice([0, most, int(rng.integers(0, most + 1))]))


def _multipliers(rng: Rng, count: int, extreme: bool) -> np.ndarray:
    if extreme:
        return rng.choice(np.array([0, 1, 2**30, INT32_MAX, -INT32_MAX - 1], np.int32), count)
    return int32s(rng, (count,), INT32_MAX, False)


def _zero_point(rng: Rng) -> int:
    return int(rng.choice([-128, 0, 127, int(rng.integers(-128, 128))]))


def _bias(rng: Rng, cols: int, depth: int, extreme: bool) -> np.ndarray:
    """Biases with which no accumulator overflows; the extreme ones come within one product of it."""
    limit = INT32_MAX - depth * 2**14
    return int32s(rng, (cols,), limit, True) if extreme else int32s(rng, (cols,), 2**20, False)


def _output(rng: Rng, values: np.ndarray, row_stride: int, col_stride: int = 1) -> Buffer:
    """Output of any layout, filled with noise: between its elements nothing may change."""
    rows, cols = values.shape
    size = (rows - 1) * row_stride + (cols - 1) * col_stride + 1 if rows else 0
    before = noise(rng, values.dtype, size)
    after = before.copy()
    for i in range(rows):
        for j in range(cols):
            after[i * row_stride + j * col_stride] = values[i, j]
    return Buffer(before, after, skew=_skew(rng) if values.dtype == np.int8 else 0)


def _workspace(rng: Rng, rows: int, depth: int) -> Buffer:
    """Room for a strip of widened rows, just so; the driver clears it after the call."""
    elements = min(rows, STRIP_ROWS) * -(-depth // 4) * 4
    return Buffer(noise(rng, np.int16, elements), np.zeros(elements, np.int16))


def _dense_operands(
    rng: Rng, rows: int, cols: int, depth: int, extreme: bool
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], list[Argument], int, int]:
    x, weight = int8s(rng, (rows, depth), extreme), int8s(rng, (cols, depth), extreme)
    bias, multiplier = _bias(rng, cols, depth, extreme), _multipliers(rng, cols, extreme)
    shift = _shift(rng, integer.dense_acc(x, weight, bias))
    stride = depth + int(rng.integers(0, 6))
    arguments: list[Argument] = [
        Buffer(strided(rng, x, stride), skew=_skew(rng)),
        Buffer(weight, skew=_skew(rng)),
        Buffer(bias),
        Buffer(multiplier),
    ]
    return (x, weight, bias, multiplier), arguments, stride, shift


def dense_s8(rng: Rng, rows: int, cols: int, depth: int, extreme: bool) -> Case:
    arrays, arguments, stride, shift = _dense_operands(rng, rows, cols, depth, extreme)
    zero_point = _zero_point(rng)
    y = integer.dense_s8(*arrays, shift, zero_point)
    transposed = rng.integers(0, 2)
    slack = int(rng.integers(0, 4))
    row_stride, col_stride = (1, rows + slack) if transposed else (cols + slack, 1)
    out, workspace = _output(rng, y, row_stride, col_stride), _workspace(rng, rows, depth)
    sizes = (rows, cols, depth, stride, row_stride, col_stride)
    return Case(
        "dense_s8",
        (*arguments, out, workspace, *sizes, shift, zero_point, workspace.content.nbytes),
        f"{rows}x{cols}x{depth}",
    )


def dense_s32(rng: Rng, rows: int, cols: int, depth: int, extreme: bool) -> Case:
    arrays, arguments, stride, shift = _dense_operands(rng, rows, cols, depth, extreme)
    out_stride = cols + int(rng.integers(0, 4))
    out, workspace = _output(rng, integer.dense_s32(*arrays, shift), out_stride), _workspace(rng, rows, depth)
    sizes = (rows, cols, depth, stride, out_stride)
    return Case(
        "dense_s32",
        (*arguments, out, workspace, *sizes, shift, workspace.content.nbytes),
        f"{rows}x{cols}x{depth}",
    )


def column_pairs(columns: np.ndarray, rng: Rng, stride: int) -> np.ndarray:
    """Columns (N, K) in pairs, byte by byte, `stride` elements a pair; noise fills what no column has."""
    count, depth = columns.shape
    pairs = -(-count // 2)
    result = noise(rng, np.int8, pairs * stride).reshape(pairs, stride)
    for j, column in enumerate(columns):
        result[j // 2, j % 2 : 2 * depth : 2] = column
    return result.reshape(-1)


def wide_pairs(columns: np.ndarray, rng: Rng, stride: int) -> np.ndarray:
    """Columns (N, K) as int16 in pairs: two elements of one column, two of the other."""
    pairs = -(-len(columns) // 2)
    result = noise(rng, np.int16, pairs * stride).reshape(pairs, -1, 2, 2)
    for j, column in enumerate(columns):
        part = result[j // 2, :, j % 2]
        for k, value in enumerate(column):
            part[k // 2, k % 2] = value
    return result.reshape(-1)


def _pairs_output(rng: Rng, columns: np.ndarray, stride: int) -> Buffer:
    """Pairs of columns that a kernel writes; what no column has may not change."""
    seed = int(rng.integers(0, 2**32))  # the same noise twice
    after = column_pairs(columns, np.random.default_rng(seed), stride)
    return Buffer(noise(np.random.default_rng(seed), np.int8, after.size), after)


def _fours(count: int) -> int:
    return -(-count // 4) * 4


def _strip_rows(rows: int) -> int:
    """Rows of the largest strip of pairs: three are widened as four."""
    return rows if rows < 3 else PAIR_ROWS


def _pairs_stride(rng: Rng, depth: int) -> int:
    """Elements from a pair of columns to the next: room for the columns, and sometimes more."""
    return 2 * _fours(depth) + 4 * int(rng.integers(0, 3))


def _dense_pairs(
    name: str, layout: str = "rows", dtype: type = np.int8, table: bool = False, wide: bool = False
) -> Generator:
    """A dense layer whose weights are pairs of columns; its outputs are rows, or pairs of rows or channels."""

    def generate(rng: Rng, rows: int, cols: int, depth: int, extreme: bool) -> Case:
        (x, weight, bias, multiplier), arguments, x_stride, shift = _dense_operands(
            rng, rows, cols, depth, extreme
        )
        w_stride, zero_point = _pairs_stride(rng, depth), _zero_point(rng)
        arguments[1] = Buffer((wide_pairs if wide else column_pairs)(weight, rng, w_stride))
        y = integer.dense_s32(x, weight, bias, multiplier, shift)
        look_up = Buffer(int8s(rng, (256,), False), skew=_skew(rng))
        if dtype is np.int8:
            y = integer.dense_s8(x, weight, bias, multiplier, shift, zero_point)
        if table:
            y = look_up.content[y.astype(np.int32) + 128]
        out_stride = cols + int(rng.integers(0, 4))
        if layout == "rows":
            out = _output(rng, y, out_stride)
        else:
            columns = y if layout == "keys" else y.T
            out_stride = _pairs_stride(rng, columns.shape[1])
            out = _pairs_output(rng, columns, out_stride)
        workspace = _workspace(rng, _strip_rows(rows), depth)
        scalars = [rows, cols, depth, x_stride, w_stride, out_stride, shift]
        scalars += [zero_point] if dtype is np.int8 else []
        last: list[Argument] = [workspace.content.nbytes, *([look_up] if table else [])]
        return Case(name, (*arguments, out, workspace, *scalars, *last), f"{rows}x{cols}x{depth}")

    return generate


def dense_table_s8(rng: Rng, rows: int, cols: int, depth: int, extreme: bool) -> Case:
    arrays, arguments, stride, shift = _dense_operands(rng, rows, cols, depth, extreme)
    zero_point, table = _zero_point(rng), int8s(rng, (256,), False)
    y = table[integer.dense_s8(*arrays, shift, zero_point).astype(np.int32) + 128]
    out_stride = cols + int(rng.integers(0, 4))
    out, workspace = _output(rng, y, out_stride), _workspace(rng, rows, depth)
    sizes = (rows, cols, depth, stride, out_stride, shift, zero_point, workspace.content.nbytes)
    buffers = (*arguments, Buffer(table, skew=_skew(rng)), out, workspace)
    return Case("dense_table_s8", (*buffers, *sizes), f"{rows}x{cols}x{depth}")


def _w4_operands(
    rng: Rng, rows: int, cols: int, depth: int, extreme: bool
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], list[Argument], int, int]:
    """As _dense_operands with int4 weights; the weights of the result are the integers that they stand for."""
    x, q = int8s(rng, (rows, depth), extreme), rng.integers(-8, 8, (cols, depth), dtype=np.int8)
    groups = rng.integers(1, 256, (cols, int4.groups_of(depth))).astype(np.uint8)
    if extreme:
        q, groups = rng.choice(np.array([-8, 7], np.int8), q.shape), np.full_like(groups, 255)
    packed = int4.pack(q)
    weight = int4.expand(packed, groups, depth)
    limit = INT32_MAX - depth * 128 * 2040
    bias = int32s(rng, (cols,), limit if extreme else 2**20, extreme)
    multiplier = _multipliers(rng, cols, extreme)
    shift = _shift(rng, integer.dense_acc(x, weight, bias))
    stride = depth + int(rng.integers(0, 6))
    arguments: list[Argument] = [
        Buffer(strided(rng, x, stride), skew=_skew(rng)),
        Buffer(packed, skew=_skew(rng)),
        Buffer(groups, skew=_skew(rng)),
        Buffer(bias),
        Buffer(multiplier),
    ]
    return (x, weight, bias, multiplier), arguments, stride, shift


def _w4_workspace(rng: Rng, rows: int, depth: int) -> Buffer:
    """Room for a strip of one or four rows, just so; the driver clears it after the call."""
    elements = Blocking(widened_rows=STRIP_ROWS).workspace_w4(rows, depth)
    return Buffer(noise(rng, np.int16, elements), np.zeros(elements, np.int16))


def dense_w4_s8(rng: Rng, rows: int, cols: int, depth: int, extreme: bool) -> Case:
    arrays, arguments, stride, shift = _w4_operands(rng, rows, cols, depth, extreme)
    zero_point, slack = _zero_point(rng), int(rng.integers(0, 4))
    y = integer.dense_s8(*arrays, shift, zero_point)
    row_stride, col_stride = (1, rows + slack) if rng.integers(0, 2) else (cols + slack, 1)
    out, workspace = _output(rng, y, row_stride, col_stride), _w4_workspace(rng, rows, depth)
    sizes = (rows, cols, depth, stride, row_stride, col_stride)
    return Case(
        "dense_w4_s8",
        (*arguments, out, workspace, *sizes, shift, zero_point, workspace.content.nbytes),
        f"{rows}x{cols}x{depth}",
    )


def dense_w4_s32(rng: Rng, rows: int, cols: int, depth: int, extreme: bool) -> Case:
    arrays, arguments, stride, shift = _w4_operands(rng, rows, cols, depth, extreme)
    out_stride = cols + int(rng.integers(0, 4))
    out = _output(rng, integer.dense_s32(*arrays, shift), out_stride)
    workspace = _w4_workspace(rng, rows, depth)
    sizes = (rows, cols, depth, stride, out_stride)
    return Case(
        "dense_w4_s32",
        (*arguments, out, workspace, *sizes, shift, workspace.content.nbytes),
        f"{rows}x{cols}x{depth}",
    )


def lookup_s8(rng: Rng, rows: int, cols: int, depth: int, extreme: bool) -> Case:
    x, table = int8s(rng, (rows, cols), extreme), int8s(rng, (256,), False)
    stride = cols + int(rng.integers(0, 4))
    before = strided(rng, x, stride)
    after = before.copy()
    for i, row in enumerate(integer.lookup_s8(x, table)):
        after[i * stride : i * stride + cols] = row
    return Case(
        "lookup_s8", (Buffer(before, after, _skew(rng)), Buffer(table, skew=_skew(rng)), rows, cols, stride)
    )


def _residual_sums(rng: Rng, term: np.ndarray, bits: int, extreme: bool) -> np.ndarray:
    """Sums of any size; with their term, many lie at the ends of `bits` bits or one beyond."""
    t, limit = int32s(rng, term.shape, INT32_MAX, extreme), 1 << (bits - 1)
    edges = rng.choice(np.array([-limit - 1, -limit, limit - 1, limit]), t.shape) - term
    on_edge = (rng.random(t.shape) < 0.3) & (np.abs(edges) <= INT32_MAX)
    return np.where(on_edge, edges, t).astype(np.int32)


def add_residual_s32(rng: Rng, rows: int, cols: int, depth: int, extreme: bool) -> Case:
    x = int8s(rng, (rows, cols), extreme)
    zero_point, bits = _zero_point(rng), int(rng.integers(2, 32))
    left_shift = int(rng.choice([0, 22, int(rng.integers(0, 23))]))
    t = _residual_sums(rng, (x.astype(np.int64) - zero_point) << left_shift, bits, extreme)
    t_stride, x_stride = cols + int(rng.integers(0, 4)), cols + int(rng.integers(0, 4))
    before = strided(rng, t, t_stride)
    after = before.copy()
    for i, row in enumerate(integer.add_residual_s32(t, x, zero_point, left_shift, bits)):
        after[i * t_stride : i * t_stride + cols] = row
    inputs = (Buffer(before, after), Buffer(strided(rng, x, x_stride), skew=_skew(rng)))
    return Case("add_residual_s32", (*inputs, rows, cols, t_stride, x_stride, zero_point, left_shift, bits))


def add_residual_s16_s32(rng: Rng, rows: int, cols: int, depth: int, extreme: bool) -> Case:
    x, bits = int16s(rng, (rows, cols), extreme), int(rng.integers(2, 32))
    left_shift = int(rng.choice([0, 15, int(rng.integers(0, 16))]))
    t = _residual_sums(rng, x.astype(np.int64) << left_shift, bits, extreme)
    if rng.integers(0, 2):  # most groups of four fit, as in a model
        t = (t >> (32 - bits) >> 1).astype(np.int32)
    t_stride, x_stride = cols + int(rng.integers(0, 4)), cols + int(rng.integers(0, 4))
    before = strided(rng, t, t_stride)
    after = before.copy()
    for i, row in enumerate(integer.add_residual_s16_s32(t, x, left_shift, bits)):
        after[i * t_stride : i * t_stride + cols] = row
    inputs = (Buffer(before, after), Buffer(strided(rng, x, x_stride), skew=_skew(rng) & 2))
    return Case("add_residual_s16_s32", (*inputs, rows, cols, t_stride, x_stride, left_shift, bits))


def _requantize(name: str, bits: int) -> Generator:
    def generate(rng: Rng, rows: int, cols: int, depth: int, extreme: bool) -> Case:
        t = int32s(rng, (rows, cols), INT32_MAX >> int(rng.choice([0, int(rng.integers(0, 24))])), extreme)
        shift, multiplier = _shift(rng, t), int(_multipliers(rng, 1, extreme)[0])
        zero_point = _zero_point(rng)
        function = {8: integer.requantize_s32_s8, 16: integer.requantize_s32_s16}[bits]
        y = function(t, multiplier, shift, zero_point)
        t_stride, out_stride = cols + int(rng.integers(0, 4)), cols + int(rng.integers(0, 4))
        source, out = Buffer(strided(rng, t, t_stride)), _output(rng, y, out_stride)
        return Case(name, (source, out, rows, cols, t_stride, out_stride, multiplier, shift, zero_point))

    return generate


def layer_norm_s8(rng: Rng, rows: int, cols: int, depth: int, extreme: bool) -> Case:
    return _norm("layer_norm_s8", rng, rows, cols, extreme)


def rms_norm_s8(rng: Rng, rows: int, cols: int, depth: int, extreme: bool) -> Case:
    return _norm("rms_norm_s8", rng, rows, cols, extreme)


def _norm(name: str, rng: Rng, rows: int, cols: int, extreme: bool) -> Case:
    limit = 2**integer.NORM_MAX_BITS // cols
    t = int32s(rng, (rows, cols), limit, extreme)
    if rows > 2:  # a row without spread, and one whose only spread is a single step
        t[1] = t[1, 0]
        t[2] = t[2, 0]
        t[2, -1] ^= 1
        t = t.clip(-limit, limit)
    gamma = _multipliers(rng, cols, extreme)
    beta = int32s(rng, (cols,), 2**30 - 1, True) if extreme else int32s(rng, (cols,), 2**15, False)
    epsilon = int(rng.choice([1, 2, 10**6, 2**33, 2**60]))
    y = getattr(integer, name)(t, gamma, beta, epsilon)
    t_stride, out_stride = cols + int(rng.integers(0, 4)), cols + int(rng.integers(0, 4))
    inputs = (Buffer(strided(rng, t, t_stride)), Buffer(gamma), Buffer(beta), _output(rng, y, out_stride))
    words = (integer.root_extent(cols), epsilon & 0xFFFFFFFF, epsilon >> 32)
    return Case(name, (*inputs, rows, cols, t_stride, out_stride, *words), f"{rows}x{cols} {epsilon}")


def scale_s8(rng: Rng, rows: int, cols: int, depth: int, extreme: bool) -> Case:
    shift = int(rng.integers(0, 9))
    t, gamma = int32s(rng, (rows, cols), 2 ** (31 - shift) - 1, extreme), _multipliers(rng, cols, extreme)
    gamma = np.where(rng.integers(0, 2, cols), gamma, -gamma).astype(np.int32)
    beta = int32s(rng, (cols,), 2**30 - 1, True) if extreme else int32s(rng, (cols,), 2**15, False)
    strides = cols + int(rng.integers(0, 4)), cols + int(rng.integers(0, 4))
    out = _output(rng, integer.scale_s8(t, gamma, beta, shift), strides[1])
    inputs = (Buffer(strided(rng, t, strides[0])), Buffer(gamma), Buffer(beta), out)
    return Case("scale_s8", (*inputs, rows, cols, *strides, shift), f"{rows}x{cols} {shift}")


def scores_s32(rng: Rng, rows: int, cols: int, depth: int, extreme: bool) -> Case:
    q, k = int8s(rng, (rows, depth), extreme), int8s(rng, (cols, depth), extreme)
    strides = [
        depth + int(rng.integers(0, 6)),
        depth + int(rng.integers(0, 6)),
        cols + int(rng.integers(0, 4)),
    ]
    inputs = (
        Buffer(strided(rng, q, strides[0]), skew=_skew(rng)),
        Buffer(strided(rng, k, strides[1]), skew=_skew(rng)),
    )
    out, workspace = _output(rng, integer.scores_s32(q, k), strides[2]), _workspace(rng, rows, depth)
    sizes = (rows, cols, depth, *strides)
    return Case(
        "scores_s32",
        (*inputs, out, workspace, *sizes, workspace.content.nbytes),
        f"{rows}x{cols}x{depth}",
    )


def product_s8(rng: Rng, rows: int, cols: int, depth: int, extreme: bool) -> Case:
    a, b = int8s(rng, (rows, depth), extreme), int8s(rng, (cols, depth), extreme)
    strides = [
        depth + int(rng.integers(0, 6)),
        depth + int(rng.integers(0, 6)),
        cols + int(rng.integers(0, 4)),
    ]
    acc = integer.scores_s32(a, b)
    shift, zero_point = _shift(rng, acc), int(rng.integers(-128, 128))
    multiplier = int(rng.choice([0, 1, INT32_MAX, int(rng.integers(0, 2**31))]))
    inputs = (
        Buffer(strided(rng, a, strides[0]), skew=_skew(rng)),
        Buffer(strided(rng, b, strides[1]), skew=_skew(rng)),
    )
    expected = integer.requantize_s8(acc, multiplier, shift, zero_point)
    out, workspace = _output(rng, expected, strides[2]), _workspace(rng, rows, depth)
    scalars = (rows, cols, depth, *strides, multiplier, shift, zero_point)
    arguments = (*inputs, out, workspace, *scalars, workspace.content.nbytes)
    return Case("product_s8", arguments, f"{rows}x{cols}x{depth}")


def softmax_u8(rng: Rng, rows: int, cols: int, depth: int, extreme: bool) -> Case:
    limit = 2**30 - 1 if extreme else 2 ** int(rng.integers(4, 22))
    scores = int32s(rng, (rows, cols), limit, extreme)
    table = rng.integers(0, 256, 256, dtype=np.uint8)
    table[0] = 255
    span = (
        scores.max(axis=1, initial=-limit).astype(np.int64) - scores.min(axis=1, initial=limit)
        if rows
        else scores
    )
    shift = _shift(rng, span)
    multiplier = int(rng.choice([0, 1, INT32_MAX, int(rng.integers(0, 2**31))]))
    p, row_sum = (
        integer.softmax_u8(scores, multiplier, shift, table)
        if rows
        else (scores.astype(np.uint8), scores[:, 0])
    )
    stride = cols + int(rng.integers(0, 4))
    source = Buffer(strided(rng, scores, stride))
    sums = Buffer(noise(rng, np.int32, rows), row_sum.astype(np.int32))
    if rng.integers(0, 2):  # in place
        p_stride, out = stride * int(rng.choice([1, 4])), source
        after = source.content.view(np.uint8).copy()
        for i in range(rows):
            after[i * p_stride : i * p_stride + cols] = p[i]
        source.expected = after
    else:
        p_stride = cols + int(rng.integers(0, 4))
        out = _output(rng, p, p_stride)
        out.skew = _skew(rng)
    arguments = (
        source,
        Buffer(table, skew=_skew(rng)),
        out,
        sums,
        rows,
        cols,
        stride,
        p_stride,
        multiplier,
        shift,
    )
    return Case("softmax_u8", arguments, f"{rows}x{cols}")


def values_s8(rng: Rng, rows: int, cols: int, depth: int, extreme: bool) -> Case:
    p = (
        rng.choice(np.array([0, 255], np.uint8), (rows, depth))
        if extreme
        else noise(rng, np.uint8, rows * depth)
    )
    p = p.reshape(rows, depth)
    p[:, :1] = 255
    v, row_sum = int8s(rng, (cols, depth), extreme), p.sum(axis=1, dtype=np.int32)
    shift = _shift(rng, integer.dense_acc(p, v, np.zeros(cols, np.int32)))
    ratio = int(rng.choice([0, 1, 2**32 - 1, int(rng.integers(0, 2**32))]))
    zero_point = _zero_point(rng)
    y = integer.values_s8(p, v, row_sum, ratio, shift, zero_point)
    strides = [
        depth + int(rng.integers(0, 6)),
        depth + int(rng.integers(0, 6)),
        cols + int(rng.integers(0, 4)),
    ]
    inputs = (
        Buffer(strided(rng, p, strides[0]), skew=_skew(rng)),
        Buffer(strided(rng, v, strides[1]), skew=_skew(rng)),
    )
    workspace = _workspace(rng, rows, depth)
    arguments = (*inputs, Buffer(row_sum), _output(rng, y, strides[2]), workspace)
    return Case(
        "values_s8",
        (*arguments, rows, cols, depth, *strides, ratio, shift, zero_point, workspace.content.nbytes),
        f"{rows}x{cols}x{depth}",
    )


def scores_s32_pairs(rng: Rng, rows: int, cols: int, depth: int, extreme: bool) -> Case:
    q, k = int8s(rng, (rows, depth), extreme), int8s(rng, (cols, depth), extreme)
    q_stride, k_stride = depth + int(rng.integers(0, 6)), _pairs_stride(rng, depth)
    out_stride = cols + int(rng.integers(0, 4))
    inputs = (Buffer(strided(rng, q, q_stride), skew=_skew(rng)), Buffer(column_pairs(k, rng, k_stride)))
    workspace = _workspace(rng, _strip_rows(rows), depth)
    sizes = (rows, cols, depth, q_stride, k_stride, out_stride, workspace.content.nbytes)
    out = _output(rng, integer.scores_s32(q, k), out_stride)
    return Case("scores_s32_pairs", (*inputs, out, workspace, *sizes), f"{rows}x{cols}x{depth}")


def values_s8_pairs(rng: Rng, rows: int, cols: int, depth: int, extreme: bool) -> Case:
    """The case of values_s8 with its values as pairs of channels."""
    plain = values_s8(rng, rows, cols, depth, extreme)
    p, v, row_sum, out, _, *scalars = plain.arguments
    assert isinstance(v, Buffer)
    v_stride = int(scalars[4])  # type: ignore[call-overload]
    columns = np.stack([v.content[j * v_stride : j * v_stride + depth] for j in range(cols)])
    scalars[4] = _pairs_stride(rng, depth)
    workspace = _workspace(rng, _strip_rows(rows), depth)
    scalars[-1] = workspace.content.nbytes
    pairs = Buffer(column_pairs(columns, rng, scalars[4]))
    return Case("values_s8_pairs", (p, pairs, row_sum, out, workspace, *scalars), plain.note)


def _attend(name: str, pairs: bool) -> Generator:
    """Scores to outputs in one call; what it leaves in the memory of the scores is its own affair."""

    def generate(rng: Rng, rows: int, cols: int, depth: int, extreme: bool) -> Case:
        scores = int32s(rng, (rows, depth), 2**30 - 1 if extreme else 2 ** int(rng.integers(4, 22)), extreme)
        table = rng.integers(0, 256, 256, dtype=np.uint8)
        table[0] = 255
        multiplier = int(rng.choice([0, 1, INT32_MAX, int(rng.integers(0, 2**31))]))
        v = int8s(rng, (cols, depth), extreme)
        ratio, zero_point = int(rng.choice([1, 2**32 - 1, int(rng.integers(0, 2**32))])), _zero_point(rng)
        y, shift = np.zeros((0, cols), np.int8), 0
        if rows:
            p, row_sum = integer.softmax_u8(scores, multiplier, 0, table)
            shift = _shift(rng, integer.dense_acc(p, v, np.zeros(cols, np.int32)))
            y = integer.values_s8(p, v, row_sum, ratio, shift, zero_point)
        stride, out_stride = _fours(depth) + 4 * int(rng.integers(0, 2)), cols + int(rng.integers(0, 4))
        v_stride = _pairs_stride(rng, depth) if pairs else depth + int(rng.integers(0, 6))
        values = column_pairs(v, rng, v_stride) if pairs else strided(rng, v, v_stride)
        source = noise(rng, np.int32, rows * stride).reshape(rows, stride)
        source[:, :depth] = scores
        lost = Buffer(source.reshape(-1), np.zeros(rows * stride, np.int32))  # the driver clears it
        buffers = (lost, Buffer(table, skew=_skew(rng)), Buffer(values), _output(rng, y, out_stride))
        scalars = (rows, cols, depth, stride, v_stride, out_stride, multiplier, 0, ratio, shift, zero_point)
        return Case(name, (*buffers, *scalars, 4 * rows * stride), f"{rows}x{cols}x{depth}")

    return generate


def embed_s32(rng: Rng, rows: int, cols: int, depth: int, extreme: bool) -> Case:
    first_row, vocabulary = int(rng.integers(0, 5)), int(rng.integers(1, 50))
    token, position = int8s(rng, (vocabulary, cols), extreme), int8s(rng, (first_row + rows, cols), extreme)
    ids = rng.integers(0, vocabulary, rows, dtype=np.uint16)
    factors = [int(rng.choice([0, 1, 2**23 - 1, 1 - 2**23, int(rng.integers(0, 2**23))])) for _ in range(2)]
    y = integer.embed_s32(ids, token, position[first_row:], *factors)
    stride = cols + int(rng.integers(0, 4))
    inputs = (
        Buffer(ids),
        Buffer(token, skew=_skew(rng)),
        Buffer(position, skew=_skew(rng)),
        _output(rng, y, stride),
    )
    return Case("embed_s32", (*inputs, rows, cols, first_row, stride, *factors))


def add_embedding_s32(rng: Rng, rows: int, cols: int, depth: int, extreme: bool) -> Case:
    vocabulary, stride = int(rng.integers(1, 50)), cols + int(rng.integers(0, 4))
    table, ids = int8s(rng, (vocabulary, cols), extreme), rng.integers(0, vocabulary, rows, dtype=np.uint16)
    factor = int(rng.choice([0, 1, 2**23 - 1, 1 - 2**23, int(rng.integers(0, 2**23))]))
    t = int32s(rng, (rows, cols), 2**30, extreme)
    sums = Buffer(strided(rng, t, stride))
    flat = sums.content.copy()
    for row, value in enumerate(integer.add_embedding_s32(t, ids, table, factor)):
        flat[row * stride : row * stride + cols] = value
    sums.expected = flat
    inputs = (sums, Buffer(ids), Buffer(table, skew=_skew(rng)))
    return Case("add_embedding_s32", (*inputs, rows, cols, stride, factor))


def mean_s8(rng: Rng, rows: int, cols: int, depth: int, extreme: bool) -> Case:
    x, zero_point_in, zero_point = int8s(rng, (rows, cols), extreme), _zero_point(rng), _zero_point(rng)
    stride = cols + int(rng.integers(0, 4))
    source, out = (
        Buffer(strided(rng, x, stride), skew=_skew(rng)),
        Buffer(noise(rng, np.int8, cols), skew=_skew(rng)),
    )
    shift, ratio = 0, int(rng.integers(0, 2**31))
    if rows:
        shift = _shift(rng, x.astype(np.int64).sum(axis=0) - rows * zero_point_in)
        ratio = min(2**32 - 1, ratio * int(rng.integers(1, rows + 1)))
        out.expected = integer.mean_s8(x, zero_point_in, ratio, shift, zero_point)
    return Case("mean_s8", (source, out, rows, cols, stride, zero_point_in, ratio, shift, zero_point))


def mean_s16_s32(rng: Rng, rows: int, cols: int, depth: int, extreme: bool) -> Case:
    x, stride = int16s(rng, (rows, cols), extreme), cols + int(rng.integers(0, 4))
    source = Buffer(strided(rng, x, stride), skew=_skew(rng) & 2)
    out, shift, ratio = Buffer(noise(rng, np.int32, cols)), 0, int(rng.integers(0, 2**31))
    if rows:
        shift = _shift(rng, x.astype(np.int64).sum(axis=0))
        ratio = min(2**32 - 1, ratio * int(rng.integers(1, rows + 1)))
        out.expected = integer.mean_s16_s32(x, ratio, shift)
    return Case("mean_s16_s32", (source, out, rows, cols, stride, ratio, shift))


def depthwise_s8(rng: Rng, rows: int, cols: int, depth: int, extreme: bool) -> Case:
    """A place whose taps lie inside of the input: a few, with gaps between, of `cols` channels."""
    taps, steps = (rows % 4, 1 + depth % 3), (int(rng.integers(1, 3)), int(rng.integers(1, 4)))
    per_channel = int(rng.choice([1, 1, 2, 3]))
    channels, cols = cols, cols * per_channel
    height, width = (max(1, (count - 1) * step + 1) for count, step in zip(taps, steps, strict=True))
    x, weight = int8s(rng, (height, width, channels), extreme), int8s(rng, (*taps, cols), extreme)
    zero_point_in, zero_point = _zero_point(rng), _zero_point(rng)
    bias, multiplier = int32s(rng, (cols,), 2**20, extreme), _multipliers(rng, cols, extreme)
    axes = tuple((1, 0, step) for step in steps)
    acc = 255 * np.abs(weight.astype(np.int64)).sum(axis=(0, 1)) + np.abs(bias.astype(np.int64))
    shift = _shift(rng, acc)
    y = integer.depthwise_s8(x, weight, bias, multiplier, (1, 1), axes, zero_point_in, shift, zero_point)
    buffers = [Buffer(part, skew=_skew(rng)) for part in (x, weight)] + [Buffer(bias), Buffer(multiplier)]
    buffers.append(Buffer(noise(rng, np.int8, cols), y.reshape(-1), skew=_skew(rng)))
    strides = (steps[0] * width * channels, steps[1] * channels, taps[1] * cols)
    scalars = (*taps, cols, *strides, per_channel, zero_point_in, shift, zero_point)
    return Case("depthwise_s8", (*buffers, *scalars), f"{taps} of {cols}")


def quantize_q16_s8(rng: Rng, rows: int, cols: int, depth: int, extreme: bool) -> Case:
    value = int32s(rng, (rows, cols), INT32_MAX, extreme)
    if value.size:
        value[0, 0] = -INT32_MAX - 1
    multiplier, zero_point = _multipliers(rng, cols, extreme), int32s(rng, (cols,), 2**30 - 1, False)
    shift = int(rng.integers(0, 31))
    y = integer.quantize_q16(value, multiplier, shift, zero_point)
    inputs = (
        Buffer(value),
        Buffer(multiplier),
        Buffer(zero_point),
        Buffer(noise(rng, np.int8, rows * cols), y),
    )
    return Case("quantize_q16_s8", (*inputs, rows, cols, shift))


def arith(rng: Rng, rows: int, cols: int, depth: int, extreme: bool) -> Case:
    edges = [0, 1, 2, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 2**30, 2**31 - 1, -1, -0x8000, -0x10000, -(2**31)]
    pairs = [(a, b) for a in edges for b in edges]
    a, b = (np.array([pair[side] for pair in pairs], np.int32) for side in (0, 1))
    if not extreme:
        count = min(rows * cols, 200)
        a, b = int32s(rng, (count,), INT32_MAX, False), noise(rng, np.int32, count)
    high = integer.multiply_high(a, b)
    saturated = [integer.saturate(a, 8), integer.saturate(a, 16), np.clip(a, 0, 255)]
    y = np.stack([high, high + (b >> 2), *saturated], axis=1).astype(np.int32)
    return Case("arith", (Buffer(a), Buffer(b), Buffer(noise(rng, np.int32, y.size), y), len(a)))


def reciprocal_sqrt(rng: Rng, rows: int, cols: int, depth: int, extreme: bool) -> Case:
    if extreme:
        values = sorted({(1 << bit) + step for bit in range(63) for step in (-1, 0, 1)} - {0})
    else:
        values = [max(1, int(rng.integers(0, 2**63)) >> int(rng.integers(0, 63))) for _ in range(200)]
    y = np.array([integer.reciprocal_sqrt(value) for value in values]).astype(np.uint32)
    source = Buffer(np.array(values, np.uint64))
    return Case("reciprocal_sqrt", (source, Buffer(noise(rng, np.uint32, y.size), y), len(values)))


GENERATORS: dict[str, Generator] = {
    "dense_s8": dense_s8,
    "dense_s32": dense_s32,
    "lookup_s8": lookup_s8,
    "add_residual_s32": add_residual_s32,
    "requantize_s32_s8": _requantize("requantize_s32_s8", 8),
    "requantize_s32_s16": _requantize("requantize_s32_s16", 16),
    "layer_norm_s8": layer_norm_s8,
    "scores_s32": scores_s32,
    "softmax_u8": softmax_u8,
    "values_s8": values_s8,
    "embed_s32": embed_s32,
    "mean_s8": mean_s8,
    "quantize_q16_s8": quantize_q16_s8,
    "arith": arith,
    "reciprocal_sqrt": reciprocal_sqrt,
    "product_s8": product_s8,
    "dense_s8_pairs": _dense_pairs("dense_s8_pairs"),
    "dense_table_s8_pairs": _dense_pairs("dense_table_s8_pairs", table=True),
    "dense_s32_pairs": _dense_pairs("dense_s32_pairs", dtype=np.int32),
    "dense_s8_keys": _dense_pairs("dense_s8_keys", "keys"),
    "dense_s8_channels": _dense_pairs("dense_s8_channels", "channels"),
    "scores_s32_pairs": scores_s32_pairs,
    "values_s8_pairs": values_s8_pairs,
    "attend_s8": _attend("attend_s8", pairs=False),
    "attend_s8_pairs": _attend("attend_s8_pairs", pairs=True),
    "dense_table_s8": dense_table_s8,
    "add_residual_s16_s32": add_residual_s16_s32,
    "mean_s16_s32": mean_s16_s32,
    "dense_w4_s8": dense_w4_s8,
    "dense_w4_s32": dense_w4_s32,
    "add_embedding_s32": add_embedding_s32,
    "scale_s8": scale_s8,
    "rms_norm_s8": rms_norm_s8,
    "depthwise_s8": depthwise_s8,
    "rotary_s8": decoders.rotary_s8,
    "gate_s8": decoders.gate_s8,
    "embed_scaled_s32": decoders.embed_scaled_s32,
    "unpack_s8": stored.unpack_s8,
    "unpack_rows_s8": stored.unpack_rows_s8,
    "huffman_s8": stored.huffman_s8,
    "huffman_rows_s8": stored.huffman_rows_s8,
}
"""By kernel name, in the order of cases.KERNELS."""

_WIDE = {
    "dense_s8_pairs": _dense_pairs("dense_s8_pairs", wide=True),
    "dense_table_s8_pairs": _dense_pairs("dense_table_s8_pairs", table=True, wide=True),
    "dense_s32_pairs": _dense_pairs("dense_s32_pairs", dtype=np.int32, wide=True),
    "dense_s8_keys": _dense_pairs("dense_s8_keys", "keys", wide=True),
    "dense_s8_channels": _dense_pairs("dense_s8_channels", "channels", wide=True),
}
"""Kernels whose operands a family has in another form."""


def generator(kernel: str, family: str) -> Generator:
    """The generator of a kernel's cases for a family."""
    return _WIDE.get(kernel, GENERATORS[kernel]) if family == "wide_weights" else GENERATORS[kernel]


def fixed_cases(kernel: str, family: str = "portable") -> list[Case]:
    """The cases that every core runs: rows 0 and 1, tails of every length, long loops, extremes, random shapes."""
    rng = np.random.default_rng(KERNEL_SEED + list(GENERATORS).index(kernel))
    shapes = [
        (0, 3, 5),
        (1, 1, 1),
        (1, 2, 4),
        (2, 1, 3),
        (3, 3, 7),
        (2, 4, 16),
        (5, 7, 33),
        (4, 6, 64),
        (1, 9, 37),
        (6, 3, 8),
        (7, 5, 30),
        (8, 2, 32),
        (9, 3, 31),
        (11, 4, 65),
        (3, 9, 150),
        (2, 5, 289),
        (2, 70, 20),
    ]
    for _ in range(8):
        rows, cols, depth = (int(n) for n in rng.integers(1, 41, 3))
        shapes.append((rows, cols, depth))
    make = generator(kernel, family)
    return [make(rng, *shape, extreme) for shape in shapes for extreme in (False, True)]

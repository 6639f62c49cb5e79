"""Multi-head self-attention with its output projection: depth first, so that the S x S matrix never exists.

Heads run in series; K and V of one head exist at a time. For a block of rows: Q, scores, exponentials, values. The
last head meets the contexts of the earlier ones block by block in the output projection and the epilogue, so that its
context never exists as a whole, and scores and sums share memory. V is kept transposed, a row a channel, so that the
sum over tokens runs along memory.
"""

from __future__ import annotations

import numpy as np
from tvm import relax, tirx
from tvm.script import tirx as T

from tvmtiny.kernels import tile, weights
from tvmtiny.kernels.base import Array, Blocking, Kernel, Operands, padded
from tvmtiny.kernels.epilogue import Epilogue, finish, finish_reference
from tvmtiny.quant import integer


def _infer(o: Operands) -> relax.TensorType:
    return relax.TensorType([o.shape("x")[0], o.shape("wo")[0]], "int8")


def _reference(o: Operands, n: int) -> Array:
    x, a = o["x"][:n], o.attrs
    heads, width = a["heads"], o.shape("wq")[0] // a["heads"]
    context = np.zeros((n, heads * width), np.int8)
    w = {p: weights.weight_values(o, f"w{p}", x.shape[1]) for p in "qkv"}
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        q, k, v = (
            integer.dense_s8(x, w[p][part], o[f"b{p}"][part], o[f"m{p}"][part], a[f"{p}_shift"], 0)
            for p in "qkv"
        )
        scores = integer.scores_s32(q, k)
        p, total = integer.softmax_u8(
            scores, int(o["score_multiplier"][head]), a["score_shift"], o["exp_table"]
        )
        context[:, part] = integer.values_s8(
            p, np.ascontiguousarray(v.T), total, int(o["ratio"][head]), a["value_shift"], 0
        )
    t = integer.dense_s32(
        context, weights.weight_values(o, "wo", heads * width), o["bo"], o["mo"], a["o_shift"]
    )
    return padded(finish_reference(t, o, Epilogue.of(a)), o.shape("x")[0])


@T.inline
def _attend(
    x, wq, gq, bq, mq, k, v, q, sums, p, row_sum, exp_table, score_multiplier, ratio, workspace,
    context, row, col, head, start, rows, n, width, depth, shifts, w4,
):  # fmt: skip
    """One head for `rows` tokens from `start`: Q, scores, exponentials, values into `context` at (row, col)."""
    weights.dense_s8(
        w4, x, start, wq, gq, bq, mq, head * width, q, 0, 0, workspace, rows, width, depth,
        shifts["q_shift"], 0,
    )  # fmt: skip
    tile.scores_s32(q, k, sums, workspace, rows, n, width)
    tile.softmax_u8(sums, exp_table, score_multiplier, head, p, row_sum, rows, n, shifts["score_shift"])
    tile.values_s8(
        p, v, row_sum, ratio, head, context, row, col, workspace, rows, width, n, shifts["value_shift"], 0
    )


def _prim_func(o: Operands, blocking: Blocking) -> tirx.PrimFunc:
    (S, E), D, N = o.shape("x"), o.shape("wq")[0], o.shape("wo")[0]
    H, P, R = o.attrs["heads"], D // o.attrs["heads"], min(blocking.rows, S)
    k_shift, v_shift, o_shift = (o.attrs[f"{p}_shift"] for p in "kvo")
    q_w, k_w, v_w, o_w = (weights.buffers(o, f"w{p}") for p in "qkvo")
    W = weights.workspace(blocking, o, [("wq", R, E), ("wk", S, E), ("wv", S, E), ("wo", R, D)])
    W = max(W, blocking.workspace(R, max(P, S)))
    shifts, e = o.attrs, Epilogue.of(o.attrs)

    @T.prim_func(private=True, s_tir=True)
    def attention(
        x: T.Buffer((S, E), "int8"),
        wq: T.Buffer(q_w.shape, q_w.dtype),
        gq: T.Buffer(q_w.groups, "uint8"),
        bq: T.Buffer((D,), "int32"),
        mq: T.Buffer((D,), "int32"),
        wk: T.Buffer(k_w.shape, k_w.dtype),
        gk: T.Buffer(k_w.groups, "uint8"),
        bk: T.Buffer((D,), "int32"),
        mk: T.Buffer((D,), "int32"),
        wv: T.Buffer(v_w.shape, v_w.dtype),
        gv: T.Buffer(v_w.groups, "uint8"),
        bv: T.Buffer((D,), "int32"),
        mv: T.Buffer((D,), "int32"),
        wo: T.Buffer(o_w.shape, o_w.dtype),
        go: T.Buffer(o_w.groups, "uint8"),
        bo: T.Buffer((N,), "int32"),
        mo: T.Buffer((N,), "int32"),
        exp_table: T.Buffer((256,), "uint8"),
        score_multiplier: T.Buffer((H,), "int32"),
        ratio: T.Buffer((H,), "uint32"),
        residual: T.Buffer((S, N), "int8"),
        gamma: T.Buffer((N,), "int32"),
        beta: T.Buffer((N,), "int32"),
        n: T.int32,
        out: T.Buffer((S, N), "int8"),
    ):
        earlier = T.sblock_alloc_buffer((S, max(1, D - P)), "int8")
        joined = T.sblock_alloc_buffer((R, D), "int8")
        k = T.sblock_alloc_buffer((S, P), "int8")
        v = T.sblock_alloc_buffer((P, S), "int8")
        q = T.sblock_alloc_buffer((R, P), "int8")
        sums = T.sblock_alloc_buffer((R, max(S, N)), "int32")
        p = T.sblock_alloc_buffer((R, S), "uint8")
        row_sum = T.sblock_alloc_buffer((R,), "int32")
        workspace = T.sblock_alloc_buffer((W,), "int16")
        for head in T.serial(H - 1):
            weights.dense_s8(
                k_w.int4, x, 0, wk, gk, bk, mk, head * P, k, 0, 0, workspace, n, P, E, k_shift, 0
            )
            weights.dense_s8_transposed(
                v_w.int4, x, 0, wv, gv, bv, mv, head * P, v, workspace, n, P, E, v_shift, 0
            )
            for block in T.serial(tile.blocks_of(n, R)):
                _attend(
                    x, wq, gq, bq, mq, k, v, q, sums, p, row_sum, exp_table, score_multiplier, ratio, workspace,
                    earlier, tile.block_start(block, n, R), head * P, head,
                    tile.block_start(block, n, R), tile.block_rows(block, n, R), n, P, E, shifts, q_w.int4,
                )  # fmt: skip
        weights.dense_s8(k_w.int4, x, 0, wk, gk, bk, mk, D - P, k, 0, 0, workspace, n, P, E, k_shift, 0)
        weights.dense_s8_transposed(v_w.int4, x, 0, wv, gv, bv, mv, D - P, v, workspace, n, P, E, v_shift, 0)
        for block in T.serial(tile.blocks_of(n, R)):
            if H > 1:
                tile.copy_s8(
                    earlier, tile.block_start(block, n, R), joined, tile.block_rows(block, n, R), D - P
                )
            _attend(
                x, wq, gq, bq, mq, k, v, q, sums, p, row_sum, exp_table, score_multiplier, ratio, workspace,
                joined, 0, D - P, H - 1,
                tile.block_start(block, n, R), tile.block_rows(block, n, R), n, P, E, shifts, q_w.int4,
            )  # fmt: skip
            weights.dense_s32(
                o_w.int4, joined, 0, wo, go, bo, mo, sums, workspace, tile.block_rows(block, n, R), N, D, o_shift,
            )  # fmt: skip
            finish(
                sums, residual, gamma, beta, out,
                tile.block_start(block, n, R), tile.block_rows(block, n, R), N, e,
            )  # fmt: skip

    return attention


def _macs(o: Operands, n: int) -> int:
    (_, embedding), width = o.shape("x"), o.shape("wq")[0]
    return n * width * (3 * embedding + o.shape("wo")[0]) + 2 * n * n * width


KERNEL = Kernel(
    name="attention",
    arguments=(
        "x",
        "wq",
        "gq",
        "bq",
        "mq",
        "wk",
        "gk",
        "bk",
        "mk",
        "wv",
        "gv",
        "bv",
        "mv",
        "wo",
        "go",
        "bo",
        "mo",
        "exp_table",
        "score_multiplier",
        "ratio",
        "residual",
        "gamma",
        "beta",
    ),
    infer=_infer,
    reference=_reference,
    prim_func=_prim_func,
    macs=_macs,
    inplace=("x", "residual"),
)

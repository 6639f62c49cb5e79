"""Multi-head self-attention with its output projection: depth first, so that the S x S matrix never exists.

Heads run in series; K and V of one head exist at a time. For a block of rows: Q, scores, exponentials, values. The
last head meets the contexts of the earlier ones block by block in the output projection and the epilogue, so that its
context never exists as a whole. Scores, their exponentials and the sums share memory. V is kept transposed, a column a
channel, so that the sum over tokens runs along memory.

In the folded form (`passes.fold_query_key`; no operand `wk`) the queries of a head have E columns and the keys of all
heads are the tokens. Where keys lie in pairs, a copy of x does, made once; else x is read as a whole until the last
block of the last head, so the output may not overwrite it.

With a window (attributes `before` and `after`) token i attends to tokens i - before to i + after only: causal and local
attention. Rows go one by one then, each with the keys of its window, so that what is masked costs nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax, tirx
from tvm.script import tirx as T

from tvmtiny.kernels import products, tile, weights
from tvmtiny.kernels.base import PLAIN, Array, Blocking, Kernel, Operands, padded
from tvmtiny.kernels.columns import columns_shape, fours
from tvmtiny.kernels.epilogue import Epilogue, finish, finish_reference
from tvmtiny.quant import integer


def _infer(o: Operands) -> relax.TensorType:
    return relax.TensorType([o.shape("x")[0], o.shape("wo")[0]], Epilogue.of(o.attrs).dtype)


def _reference(o: Operands, n: int) -> Array:
    x, a = o["x"][:n], o.attrs
    n = len(x)  # a model whose tokens become fewer on the way has rows of several numbers
    heads, width = a["heads"], o.shape("wv")[0] // a["heads"]
    context = np.zeros((n, heads * width), np.int8)
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        q, v = (_projected(o, x, letter, head) for letter in "qv")
        k = x if _folded(o) else _projected(o, x, "k", head)
        for rows, keys in _windows(a, n) if "before" in a else [(slice(0, n), slice(0, n))]:
            scores = integer.scores_s32(q[rows], k[keys])
            p, total = integer.softmax_u8(
                scores, int(o["score_multiplier"][head]), a["score_shift"], o["exp_table"]
            )
            context[rows, part] = integer.values_s8(
                p, np.ascontiguousarray(v[keys].T), total, int(o["ratio"][head]), a["value_shift"], 0
            )
    t = integer.dense_s32(
        context, weights.weight_values(o, "wo", heads * width), o["bo"], o["mo"], a["o_shift"]
    )
    return padded(finish_reference(t, o, Epilogue.of(a)), o.shape("x")[0])


def _windows(attrs: dict[str, Any], n: int) -> list[tuple[slice, slice]]:
    """Each token with the tokens that it attends to."""
    before, after = attrs["before"], attrs["after"]
    return [(slice(i, i + 1), slice(max(0, i - before), min(n, i + after + 1))) for i in range(n)]


def _folded(o: Operands) -> bool:
    return "wk" not in o


def _projected(o: Operands, x: Array, letter: str, head: int) -> Array:
    """Q, K or V of one head."""
    arrays = (weights.weight_values(o, f"w{letter}", x.shape[1]), o[f"b{letter}"], o[f"m{letter}"])
    weight, bias, multiplier = (np.split(array, o.attrs["heads"])[head] for array in arrays)
    return integer.dense_s8(x, weight, bias, multiplier, o.attrs[f"{letter}_shift"], 0)


@T.inline
def _attend_window(
    k, v, q, sums, exp_table, score_multiplier, ratio, workspace, context, row, col, head, i, first, end,
    query_width, width, shifts,
):  # fmt: skip
    """Row i of a block: its scores with the keys from `first` to before `end`, their softmax times V."""
    products.scores_window_s32(q, i, k, first, sums, workspace, end - first, query_width)
    products.attend_window_s8(
        sums, exp_table, score_multiplier, v, first, ratio, head, context, row + i, col, width, end - first,
        shifts["score_shift"], shifts["value_shift"], 0,
    )  # fmt: skip


@T.inline
def _attend(
    x, wq, gq, bq, mq, k, v, q, sums, exp_table, score_multiplier, ratio, workspace,
    context, row, col, head, start, rows, n, query_width, width, depth, shifts, w4,
):  # fmt: skip
    """One head for `rows` tokens from `start`: Q, scores, their softmax times V into `context` at (row, col)."""
    weights.dense_s8(
        w4, x, start, wq, gq, bq, mq, head * query_width, q, 0, 0, workspace, rows, query_width, depth,
        shifts["q_shift"], 0,
    )  # fmt: skip
    if "before" in shifts:
        for i in T.serial(rows):
            _attend_window(
                k, v, q, sums, exp_table, score_multiplier, ratio, workspace, context, row, col, head, i,
                T.max(0, start + i - shifts["before"]), T.min(n, start + i + shifts["after"] + 1),
                query_width, width, shifts,
            )  # fmt: skip
    else:
        products.scores_s32(q, k, sums, workspace, rows, n, query_width)
        products.attend_s8(
            sums, exp_table, score_multiplier, v, ratio, head, context, row, col, rows, width, n,
            shifts["score_shift"], shifts["value_shift"], 0,
        )  # fmt: skip


def _prim_func(o: Operands, blocking: Blocking) -> tirx.PrimFunc:
    (S, E), D, N = o.shape("x"), o.shape("wv")[0], o.shape("wo")[0]
    H, P, R, folded = o.attrs["heads"], D // o.attrs["heads"], min(blocking.rows, S), _folded(o)
    Q = E if folded else P
    tokens_are_keys = folded and blocking.columns == PLAIN
    q_w, k_w, v_w, o_w = (weights.buffers(o, f"w{p}", blocking) for p in "qkvo")
    used = [("wq", R, E), ("wv", S, E), ("wo", R, D), *([] if folded else [("wk", S, E)])]
    W = max(weights.workspace(blocking, o, used), blocking.workspace(R, Q))
    shifts, e = o.attrs, Epilogue.of(o.attrs)
    v_shift, o_shift = shifts["v_shift"], shifts["o_shift"]

    @T.prim_func(private=True, s_tir=True)
    def attention(
        x: T.Buffer((S, E), "int8"),
        wq: T.Buffer(q_w.shape, q_w.dtype),
        gq: T.Buffer(q_w.groups, "uint8"),
        bq: T.Buffer((H * Q,), "int32"),
        mq: T.Buffer((H * Q,), "int32"),
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
        residual: T.Buffer((S, N), e.residual_dtype),
        gamma: T.Buffer((N,), "int32"),
        beta: T.Buffer((N,), "int32"),
        n: T.int32,
        out: T.Buffer((S, N), e.dtype),
    ):
        earlier = T.sblock_alloc_buffer((S, max(1, D - P)), "int8")
        joined = T.sblock_alloc_buffer((R, D), "int8")
        k = T.sblock_alloc_buffer(columns_shape(S, Q, blocking.columns), "int8")
        v = T.sblock_alloc_buffer(columns_shape(P, S, blocking.columns), "int8")
        q = T.sblock_alloc_buffer((R, Q), "int8")
        sums = T.sblock_alloc_buffer((R, fours(max(S, N))), "int32")
        workspace = T.sblock_alloc_buffer((W,), "int16")
        if folded and not tokens_are_keys:
            products.columns_s8(x, k, n, E)
        for head in T.serial(H - 1):
            if not folded:
                weights.dense_s8_keys(
                    k_w.int4, x, wk, gk, bk, mk, head * P, k, workspace, n, P, E, shifts["k_shift"]
                )
            weights.dense_s8_channels(v_w.int4, x, wv, gv, bv, mv, head * P, v, workspace, n, P, E, v_shift)
            for block in T.serial(tile.blocks_of(n, R)):
                _attend(
                    x, wq, gq, bq, mq, x if tokens_are_keys else k, v, q, sums, exp_table, score_multiplier,
                    ratio, workspace, earlier, tile.block_start(block, n, R), head * P, head,
                    tile.block_start(block, n, R), tile.block_rows(block, n, R), n, Q, P, E, shifts, q_w.int4,
                )  # fmt: skip
        if not folded:
            weights.dense_s8_keys(
                k_w.int4, x, wk, gk, bk, mk, D - P, k, workspace, n, P, E, shifts["k_shift"]
            )
        weights.dense_s8_channels(v_w.int4, x, wv, gv, bv, mv, D - P, v, workspace, n, P, E, v_shift)
        for block in T.serial(tile.blocks_of(n, R)):
            if H > 1:
                tile.copy_s8(
                    earlier, tile.block_start(block, n, R), joined, tile.block_rows(block, n, R), D - P
                )
            _attend(
                x, wq, gq, bq, mq, x if tokens_are_keys else k, v, q, sums, exp_table, score_multiplier, ratio,
                workspace, joined, 0, D - P, H - 1,
                tile.block_start(block, n, R), tile.block_rows(block, n, R), n, Q, P, E, shifts, q_w.int4,
            )  # fmt: skip
            weights.dense_s32(
                o_w.int4, joined, 0, wo, go, bo, mo, sums, workspace, tile.block_rows(block, n, R), N, D, o_shift,
            )  # fmt: skip
            finish(
                sums, residual, gamma, beta, out,
                tile.block_start(block, n, R), tile.block_rows(block, n, R), N, e,
            )  # fmt: skip

    return attention


def macs(n: int, embedding: int, outputs: int, queries: int, keys: int, values: int) -> int:
    """Multiply-accumulates of n tokens.

    Args:
        queries, keys, values: columns of the projections, all heads together; without keys the tokens are the keys.
    """
    projections = embedding * (queries + keys + values) + values * outputs
    return n * projections + n * n * (queries + values)


def _macs(o: Operands, n: int) -> int:
    keys = 0 if _folded(o) else o.shape("wk")[0]
    queries, values = o.shape("wq")[0], o.shape("wv")[0]
    total = macs(n, o.shape("x")[1], o.shape("wo")[0], queries, keys, values)
    if "before" not in o.attrs:
        return total
    attended = sum(k.stop - k.start for _, k in _windows(o.attrs, n))
    return total - (n * n - attended) * (queries + values)


def _inplace(o: Operands) -> tuple[str, ...]:
    """Not x where the tokens are the keys (a copy of them in pairs would allow it, at the price of two rules).

    Rows of `earlier` are copied before those of the output are written; `codegen.program` sees to it that a result is
    not larger than what it overwrites.
    """
    return (*(() if _folded(o) else ("x",)), "residual", "earlier")


def _pairable(o: Operands) -> bool:
    """Every head begins with a pair of columns of Q, K and V, and no window begins within a pair of keys."""
    return "before" not in o.attrs and all(
        o.shape(name)[0] // o.attrs["heads"] % 2 == 0 for name in ("wq", "wv")
    )


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
    inplace=_inplace,
    variant=lambda o: " ".join(
        [*(["folded"] if _folded(o) else []), *(["window"] if "before" in o.attrs else [])]
    ),
    columns=("wq", "wk", "wv", "wo"),
    pairable=_pairable,
)

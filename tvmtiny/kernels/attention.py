"""Multi-head self-attention with its output projection: depth first, so that the S x S matrix never exists.

Heads run in series; K and V of one head exist at a time. For a block of rows: Q, scores, exponentials, values. The
last head meets the contexts of the earlier ones block by block in the output projection and the epilogue, so that its
context never exists as a whole. Scores, their exponentials and the sums share memory. V is kept transposed, a column a
channel, so that the sum over tokens runs along memory.

With tokens outer (`Blocking.tokens_outer`) K and V of all heads exist at once, and a block of rows meets head after
head; then no contexts of other blocks do. Tokens are widened for each projection instead of for each head of it.

In the folded form (`passes.fold_query_key`; no operand `wk`) the queries of a head have E columns and the keys of all
heads are the tokens. Where keys lie in pairs, a copy of x does, made once; else x is read as a whole until the last
block of the last head, so the output may not overwrite it.

With a window (attributes `before` and `after`) token i attends to tokens i - before to i + after only: causal and local
attention. Rows go one by one then, each with the keys of its window, so that what is masked costs nothing.

With fewer heads of K and V than of Q (attribute `kv_heads`) each serves the same number of heads of Q, one after
another (grouped-query attention). With the operand `rotary` the rows of Q and K are turned by the angles of their
positions, from int32, so that they are rounded once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax, tirx
from tvm.script import tirx as T

from tvmtiny.kernels import products, tile, weights
from tvmtiny.kernels.base import PLAIN, Array, Blocking, Kernel, Operands, State, Stepping, padded
from tvmtiny.kernels.columns import columns_shape, fours
from tvmtiny.kernels.epilogue import Epilogue, finish, finish_reference
from tvmtiny.quant import integer


def _infer(o: Operands) -> relax.TensorType:
    return relax.TensorType([o.shape("x")[0], o.shape("wo")[0]], Epilogue.of(o.attrs).dtype)


def _reference(o: Operands, n: int) -> Array:
    x, a = o["x"][:n], o.attrs
    n = len(x)  # a model whose tokens become fewer on the way has rows of several numbers
    heads, width = a["heads"], o.shape("wv")[0] // kv_heads(o)
    context = np.zeros((n, heads * width), np.int8)
    seen = _seen(a, n) if "before" in a else None
    for head in range(heads):
        part, group = slice(head * width, (head + 1) * width), head * kv_heads(o) // heads
        q, v = projected(o, x, "q", head), projected(o, x, "v", group)
        k = x if _folded(o) else projected(o, x, "k", group)
        p, total = exponentials(o, head, integer.scores_s32(q, k), seen)
        context[:, part] = integer.values_s8(
            p, np.ascontiguousarray(v.T), total, int(o["ratio"][head]), a["value_shift"], 0
        )
    t = integer.dense_s32(
        context, weights.weight_values(o, "wo", heads * width), o["bo"], o["mo"], a["o_shift"]
    )
    return padded(finish_reference(t, o, Epilogue.of(a)), o.shape("x")[0])


def exponentials(o: Operands, head: int, scores: Array, seen: Array | None = None) -> tuple[Array, Array]:
    """`integer.softmax_u8` of the scores of one head, each row over the keys that it has seen."""
    multiplier, shift, table = int(o["score_multiplier"][head]), o.attrs["score_shift"], o["exp_table"]
    if seen is None:
        return integer.softmax_u8(scores, multiplier, shift, table)
    largest = np.where(seen, scores, np.iinfo(np.int32).min).max(axis=1, keepdims=True)
    p, _ = integer.softmax_u8(np.where(seen, scores, largest), multiplier, shift, table)
    p = np.where(seen, p, 0).astype(np.uint8)
    return p, p.sum(axis=1, dtype=np.int64).astype(np.int32)


def _seen(attrs: dict[str, Any], n: int) -> Array:
    """bool (n, n): the tokens that each token attends to."""
    distance = np.arange(n) - np.arange(n)[:, None]
    return np.asarray((distance >= -attrs["before"]) & (distance <= attrs["after"]))


def _folded(o: Operands) -> bool:
    return "wk" not in o


def kv_heads(o: Operands) -> int:
    """Heads of K and V."""
    return int(o.attrs.get("kv_heads", o.attrs["heads"]))


def projected(o: Operands, x: Array, letter: str, head: int, start: int = 0) -> Array:
    """Q, K or V of one head for the tokens x, the first of which has the position `start`."""
    arrays = (weights.weight_values(o, f"w{letter}", x.shape[1]), o[f"b{letter}"], o[f"m{letter}"])
    heads = o.attrs["heads"] if letter == "q" else kv_heads(o)
    weight, bias, multiplier = (np.split(array, heads)[head] for array in arrays)
    if letter in "qk" and "rotary" in o:
        t = integer.dense_s32(x, weight, bias, multiplier, o.attrs[f"{letter}_shift"])
        return integer.rotary_s8(t, o["rotary"][start : start + len(x)])
    return integer.dense_s8(x, weight, bias, multiplier, o.attrs[f"{letter}_shift"], 0)


@T.inline
def rotary_rows(
    w4, x, x_row, w, g, b, m, w_row, rotary, position, sums, out, out_row, out_col, workspace, rows, width, depth,
    shift,
):  # fmt: skip
    """`rows` rows of one head of Q or K, turned by the angles of the positions from `position` on; sums: a block."""
    weights.dense_s32(w4, x, x_row, w, g, b, m, w_row, sums, workspace, rows, width, depth, shift)
    tile.rotary_s8(sums, 0, rotary, position, out, out_row, out_col, rows, width)


@T.inline
def _keys_and_values(
    k_w, v_w, x, wk, gk, bk, mk, wv, gv, bv, mv, rotary, w_row, k, v, sums, workspace, n, width, depth, R, form,
):  # fmt: skip
    """K and V of one of their heads, for all tokens."""
    if form["rotary"]:
        for block in T.serial(tile.blocks_of(n, R)):
            rotary_rows(
                k_w.int4, x, tile.block_start(block, n, R), wk, gk, bk, mk, w_row, rotary,
                tile.block_start(block, n, R), sums, k, tile.block_start(block, n, R), 0, workspace,
                tile.block_rows(block, n, R), width, depth, form["k_shift"],
            )  # fmt: skip
    elif not form["folded"]:
        weights.dense_s8_keys(
            k_w.int4, x, wk, gk, bk, mk, w_row, k, workspace, n, width, depth, form["k_shift"]
        )
    weights.dense_s8_channels(
        v_w.int4, x, wv, gv, bv, mv, w_row, v, workspace, n, width, depth, form["v_shift"]
    )


@T.inline
def _attend_window(
    k, v, q, sums, exp_table, score_multiplier, ratio, workspace, context, row, col, head, i, first, end,
    query_width, width, form,
):  # fmt: skip
    """Row i of a block: its scores with the keys from `first` to before `end`, their softmax times V."""
    products.scores_window_s32(q, i, 0, k, first, sums, workspace, end - first, query_width)
    products.attend_window_s8(
        sums, exp_table, score_multiplier, v, 0, first, ratio, head, context, row + i, col, width, end - first,
        form["score_shift"], form["value_shift"], 0,
    )  # fmt: skip


@T.inline
def _attend(
    x, wq, gq, bq, mq, rotary, k, v, q, sums, exp_table, score_multiplier, ratio, workspace,
    context, row, col, head, start, rows, n, query_width, width, depth, form, w4,
):  # fmt: skip
    """One head for `rows` tokens from `start`: Q, scores, their softmax times V into `context` at (row, col)."""
    if form["rotary"]:
        rotary_rows(
            w4, x, start, wq, gq, bq, mq, head * query_width, rotary, start, sums, q, 0, 0, workspace, rows,
            query_width, depth, form["q_shift"],
        )  # fmt: skip
    else:
        weights.dense_s8(
            w4, x, start, wq, gq, bq, mq, head * query_width, q, 0, 0, workspace, rows, query_width, depth,
            form["q_shift"], 0,
        )  # fmt: skip
    if "before" in form:
        for i in T.serial(rows):
            _attend_window(
                k, v, q, sums, exp_table, score_multiplier, ratio, workspace, context, row, col, head, i,
                T.max(0, start + i - form["before"]), T.min(n, start + i + form["after"] + 1),
                query_width, width, form,
            )  # fmt: skip
    else:
        products.scores_s32(q, 0, k, 0, sums, workspace, rows, n, query_width)
        products.attend_s8(
            sums, exp_table, score_multiplier, v, 0, ratio, head, context, row, col, rows, width, n,
            form["score_shift"], form["value_shift"], 0,
        )  # fmt: skip


@T.inline
def _attend_all(
    x, wq, gq, bq, mq, k, v, q, sums, exp_table, score_multiplier, ratio, workspace, context, start, rows, n,
    heads, group, query_width, width, depth, form, w4,
):  # fmt: skip
    """All heads for `rows` tokens from `start`, with K and V of all heads."""
    weights.dense_s8(
        w4, x, start, wq, gq, bq, mq, 0, q, 0, 0, workspace, rows, heads * query_width, depth, form["q_shift"], 0
    )  # fmt: skip
    for head in T.serial(heads):
        products.scores_s32(
            q, head * query_width, k, 0 if form["folded"] else T.truncdiv(head, group) * width, sums, workspace,
            rows, n, query_width,
        )  # fmt: skip
        products.attend_s8(
            sums, exp_table, score_multiplier, v, T.truncdiv(head, group) * width, ratio, head, context, 0,
            head * width, rows, width, n, form["score_shift"], form["value_shift"], 0,
        )  # fmt: skip


def _tokens_outer(o: Operands, blocking: Blocking) -> bool:
    """Whether all heads are computed for a block of tokens: several heads, no window, no rotary positions.

    In pairs a head width that is a multiple of four: its keys begin with a whole word and end with one.
    """
    plain = "before" not in o.attrs and "rotary" not in o and o.attrs["heads"] > 1
    width = o.shape("wv")[0] // kv_heads(o)
    return blocking.tokens_outer and plain and (blocking.columns == PLAIN or width % 4 == 0)


def _prim_func(o: Operands, blocking: Blocking) -> tirx.PrimFunc:
    (S, E), N, H, folded = o.shape("x"), o.shape("wo")[0], o.attrs["heads"], _folded(o)
    G, P, R = H // kv_heads(o), o.shape("wv")[0] // kv_heads(o), min(blocking.rows, S)
    D, V, Q = H * P, kv_heads(o) * P, E if folded else P
    tokens_are_keys, together = folded and blocking.columns == PLAIN, _tokens_outer(o, blocking)
    KD, VD, QD = (E if folded else V, V, H * Q) if together else (Q, P, Q)  # K, V and Q that exist at once
    q_w, k_w, v_w, o_w = (weights.buffers(o, f"w{p}", blocking) for p in "qkvo")
    used = [("wq", R, E), ("wv", S, E), ("wo", R, D), *([] if folded else [("wk", S, E)])]
    W = max(weights.workspace(blocking, o, used), blocking.workspace(R, Q))
    form, e = {**o.attrs, "folded": folded, "rotary": "rotary" in o}, Epilogue.of(o.attrs)

    @T.prim_func(private=True, s_tir=True)
    def attention(
        x: T.Buffer((S, E), "int8"),
        wq: T.Buffer(q_w.shape, q_w.dtype),
        gq: T.Buffer(q_w.groups, "uint8"),
        bq: T.Buffer((H * Q,), "int32"),
        mq: T.Buffer((H * Q,), "int32"),
        wk: T.Buffer(k_w.shape, k_w.dtype),
        gk: T.Buffer(k_w.groups, "uint8"),
        bk: T.Buffer((V,), "int32"),
        mk: T.Buffer((V,), "int32"),
        wv: T.Buffer(v_w.shape, v_w.dtype),
        gv: T.Buffer(v_w.groups, "uint8"),
        bv: T.Buffer((V,), "int32"),
        mv: T.Buffer((V,), "int32"),
        wo: T.Buffer(o_w.shape, o_w.dtype),
        go: T.Buffer(o_w.groups, "uint8"),
        bo: T.Buffer((N,), "int32"),
        mo: T.Buffer((N,), "int32"),
        exp_table: T.Buffer((256,), "uint8"),
        score_multiplier: T.Buffer((H,), "int32"),
        ratio: T.Buffer((H,), "uint32"),
        rotary: T.Buffer((S, P), "int16"),
        residual: T.Buffer((S, N), e.residual_dtype),
        gamma: T.Buffer((N,), "int32"),
        beta: T.Buffer((N,), "int32"),
        n: T.int32,
        out: T.Buffer((S, N), e.dtype),
    ):
        earlier = T.sblock_alloc_buffer((S, max(1, D - P)), "int8")
        joined = T.sblock_alloc_buffer((R, D), "int8")
        k = T.sblock_alloc_buffer(columns_shape(S, KD, blocking.columns), "int8")
        v = T.sblock_alloc_buffer(columns_shape(VD, S, blocking.columns), "int8")
        q = T.sblock_alloc_buffer((R, QD), "int8")
        sums = T.sblock_alloc_buffer((R, fours(max(S, N, P))), "int32")
        workspace = T.sblock_alloc_buffer((W,), "int16")
        if folded and not tokens_are_keys:
            products.columns_s8(x, k, n, E)
        for head in T.serial(0 if together else H - 1):
            if T.truncmod(head, G) == 0:
                _keys_and_values(
                    k_w, v_w, x, wk, gk, bk, mk, wv, gv, bv, mv, rotary, T.truncdiv(head, G) * P, k, v, sums,
                    workspace, n, P, E, R, form,
                )  # fmt: skip
            for block in T.serial(tile.blocks_of(n, R)):
                _attend(
                    x, wq, gq, bq, mq, rotary, x if tokens_are_keys else k, v, q, sums, exp_table,
                    score_multiplier, ratio, workspace, earlier, tile.block_start(block, n, R), head * P, head,
                    tile.block_start(block, n, R), tile.block_rows(block, n, R), n, Q, P, E, form, q_w.int4,
                )  # fmt: skip
        if together:
            _keys_and_values(
                k_w, v_w, x, wk, gk, bk, mk, wv, gv, bv, mv, rotary, 0, k, v, sums, workspace, n, V, E, R, form
            )  # fmt: skip
        elif G == 1:  # else those of the head before serve
            _keys_and_values(
                k_w, v_w, x, wk, gk, bk, mk, wv, gv, bv, mv, rotary, V - P, k, v, sums, workspace, n, P, E, R,
                form,
            )  # fmt: skip
        for block in T.serial(tile.blocks_of(n, R)):
            if together:
                _attend_all(
                    x, wq, gq, bq, mq, x if tokens_are_keys else k, v, q, sums, exp_table, score_multiplier, ratio,
                    workspace, joined, tile.block_start(block, n, R), tile.block_rows(block, n, R), n, H, G, Q, P,
                    E, form, q_w.int4,
                )  # fmt: skip
            else:
                if H > 1:
                    tile.copy_s8(
                        earlier, tile.block_start(block, n, R), joined, tile.block_rows(block, n, R), D - P
                    )
                _attend(
                    x, wq, gq, bq, mq, rotary, x if tokens_are_keys else k, v, q, sums, exp_table,
                    score_multiplier, ratio, workspace, joined, 0, D - P, H - 1,
                    tile.block_start(block, n, R), tile.block_rows(block, n, R), n, Q, P, E, form, q_w.int4,
                )  # fmt: skip
            weights.dense_s32(
                o_w.int4, joined, 0, wo, go, bo, mo, 0, sums, workspace, tile.block_rows(block, n, R), N, D,
                form["o_shift"],
            )  # fmt: skip
            finish(
                sums, residual, gamma, beta, out,
                tile.block_start(block, n, R), tile.block_rows(block, n, R), N, e,
            )  # fmt: skip

    return attention


def macs(n: int, embedding: int, outputs: int, queries: int, keys: int, values: int, group: int = 1) -> int:
    """Multiply-accumulates of n tokens.

    Args:
        queries, keys, values: columns of the projections, all heads together; without keys the tokens are the keys.
        group: heads of Q for each of K and V.
    """
    projections = embedding * (queries + keys + values) + group * values * outputs
    return n * projections + n * n * (queries + group * values)


def _macs(o: Operands, n: int) -> int:
    keys = 0 if _folded(o) else o.shape("wk")[0]
    queries, values, group = o.shape("wq")[0], o.shape("wv")[0], o.attrs["heads"] // kv_heads(o)
    total = macs(n, o.shape("x")[1], o.shape("wo")[0], queries, keys, values, group)
    if "before" not in o.attrs:
        return total
    attended = int(_seen(o.attrs, n).sum())
    return total - (n * n - attended) * (queries + group * values)


def _inplace(o: Operands) -> tuple[str, ...]:
    """Not x where the tokens are the keys (a copy of them in pairs would allow it, at the price of two rules).

    Rows of `earlier` are copied before those of the output are written; `codegen.program` sees to it that a result is
    not larger than what it overwrites.
    """
    return (*(() if _folded(o) else ("x",)), "residual", "earlier")


def _pairable(o: Operands) -> bool:
    """Every head begins with a pair of columns of Q, K and V, and no window begins within a pair of keys.

    Rotary positions turn rows, and pairs of keys are none.
    """
    widths = (o.shape("wq")[0] // o.attrs["heads"], o.shape("wv")[0] // kv_heads(o))
    return "before" not in o.attrs and "rotary" not in o and all(width % 2 == 0 for width in widths)


def _stepping(o: Operands, _tokens: int) -> Stepping | str:
    """By the kernel `attention_step`, which keeps K and V of the tokens that later ones attend to."""
    if _folded(o):
        return "has Q K^T in one matrix, which keeps no keys"
    (S, _), V, before = o.shape("x"), o.shape("wv")[0], o.attrs.get("before", 0)
    if o.attrs.get("after", 1) > 0:
        return "attends to tokens that are still to come"
    slots, endless = min(before + 1, S), before + 1 < S and "rotary" not in o
    state = {"k_cache": State((kv_heads(o) * slots, V // kv_heads(o))), "v_cache": State((V, slots))}
    return Stepping("attention_step", state, True, 0 if endless else S, slots)


def variant(o: Operands) -> str:
    """Which of the forms an attention has, in words."""
    forms = {
        "folded": _folded(o),
        "window": "before" in o.attrs,
        "grouped": kv_heads(o) != o.attrs["heads"],
        "rotary": "rotary" in o,
    }
    return " ".join(name for name, present in forms.items() if present)


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
        "rotary",
        "residual",
        "gamma",
        "beta",
    ),
    infer=_infer,
    reference=_reference,
    prim_func=_prim_func,
    macs=_macs,
    inplace=_inplace,
    variant=variant,
    columns=("wq", "wk", "wv", "wo"),
    pairable=_pairable,
    stepping=_stepping,
)

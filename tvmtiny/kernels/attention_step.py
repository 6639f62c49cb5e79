"""Causal attention of the next tokens of a sequence: what earlier tokens left of K and V is kept from step to step.

Of each head of K and V there are C slots, K a row a token and V a column a token, as the matrix products read them.
A token has slot `position modulo C`. C is the number of positions, or the window, whose slots are then a ring. Softmax
and the sum over V are exact in any order of the tokens, so a ring is read as it lies: the slots that are filled are
those of the window, when each token is put in before it attends. Tokens therefore go one by one behind the
projections, which take all new tokens at once.

The operands and parameters are those of `attention`, and so are the bytes.
"""

from __future__ import annotations

import numpy as np
from tvm import relax, tirx
from tvm.script import tirx as T

from tvmtiny.kernels import attention, products, tile, weights
from tvmtiny.kernels.attention import exponentials, kv_heads, projected
from tvmtiny.kernels.base import Array, Blocking, Kernel, Operands, padded
from tvmtiny.kernels.columns import fours
from tvmtiny.kernels.epilogue import Epilogue, finish, finish_reference
from tvmtiny.quant import integer


def _infer(o: Operands) -> relax.TensorType:
    return relax.TensorType([o.shape("x")[0], o.shape("wo")[0]], Epilogue.of(o.attrs).dtype)


def _reference(o: Operands, n: int) -> Array:
    x, a, start = o["x"][:n], o.attrs, int(o["start"])
    heads, groups, C = a["heads"], kv_heads(o), o.shape("v_cache")[1]
    k, v = o["k_cache"].reshape(groups, C, -1), o["v_cache"].reshape(groups, -1, C)
    q = [projected(o, x, "q", head, start) for head in range(heads)]
    new_k, new_v = ([projected(o, x, part, group, start) for group in range(groups)] for part in "kv")
    context = np.zeros((len(x), heads * k.shape[-1]), np.int8)
    for i in range(len(x)):
        for group in range(groups):
            k[group, (start + i) % C], v[group, :, (start + i) % C] = new_k[group][i], new_v[group][i]
        filled = min(start + i + 1, C)
        for head in range(heads):
            group = head * groups // heads
            scores = integer.scores_s32(q[head][i : i + 1], k[group, :filled])
            p, total = exponentials(o, head, scores)
            values = np.ascontiguousarray(v[group, :, :filled])
            columns = slice(head * k.shape[-1], (head + 1) * k.shape[-1])
            context[i, columns] = integer.values_s8(
                p, values, total, int(o["ratio"][head]), a["value_shift"], 0
            )
    weight = weights.weight_values(o, "wo", context.shape[1])
    t = integer.dense_s32(context, weight, o["bo"], o["mo"], a["o_shift"])
    return padded(finish_reference(t, o, Epilogue.of(a)), o.shape("x")[0])


@T.inline
def _project(w4, x, w, g, b, m, rotary, start, t, out, workspace, n, heads, width, depth, R, turned, shift):
    """Q or K of all their heads, for the new tokens."""
    if turned:
        for block in T.serial(tile.blocks_of(n, R)):
            weights.dense_s32(
                w4, x, tile.block_start(block, n, R), w, g, b, m, 0, t, workspace, tile.block_rows(block, n, R),
                heads * width, depth, shift,
            )  # fmt: skip
            for head in T.serial(heads):
                tile.rotary_s8(
                    t, head * width, rotary, start + tile.block_start(block, n, R), out,
                    tile.block_start(block, n, R), head * width, tile.block_rows(block, n, R), width,
                )  # fmt: skip
    else:
        weights.dense_s8(w4, x, 0, w, g, b, m, 0, out, 0, 0, workspace, n, heads * width, depth, shift, 0)


@T.inline
def _keep(k_new, v_new, i, k_cache, v_cache, slot, capacity, groups, width):
    """Put K and V of new token i into their slot, of every head."""
    with T.sblock("keep"):
        T.reads(k_new[i, 0 : groups * width], v_new[i, 0 : groups * width])
        T.writes(k_cache[0 : groups * capacity, 0:width], v_cache[0 : groups * width, 0:capacity])
        for group, j in T.grid(groups, width):
            k_cache[group * capacity + slot, j] = k_new[i, group * width + j]
            v_cache[group * width + j, slot] = v_new[i, group * width + j]


def _prim_func(o: Operands, blocking: Blocking) -> tirx.PrimFunc:
    (M, E), N, H, K = o.shape("x"), o.shape("wo")[0], o.attrs["heads"], kv_heads(o)
    V, C, R, G = o.shape("wv")[0], o.shape("v_cache")[1], min(blocking.rows, M), H // K
    P, S = V // K, o.shape("rotary")[0]
    D, L = H * P, fours(C)
    turned, e, a = "rotary" in o, Epilogue.of(o.attrs), o.attrs
    q_w, k_w, v_w, o_w = (weights.buffers(o, f"w{p}", blocking) for p in "qkvo")
    used = [("wq", M, E), ("wk", M, E), ("wv", M, E), ("wo", R, D)]
    W = max(weights.workspace(blocking, o, used), blocking.workspace(1, P))

    @T.prim_func(private=True, s_tir=True)
    def attention_step(
        x: T.Buffer((M, E), "int8"),
        wq: T.Buffer(q_w.shape, q_w.dtype),
        gq: T.Buffer(q_w.groups, "uint8"),
        bq: T.Buffer((D,), "int32"),
        mq: T.Buffer((D,), "int32"),
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
        residual: T.Buffer((M, N), e.residual_dtype),
        gamma: T.Buffer((N,), "int32"),
        beta: T.Buffer((N,), "int32"),
        k_cache: T.Buffer((K * C, P), "int8"),
        v_cache: T.Buffer((V, C), "int8"),
        start: T.int32,
        n: T.int32,
        out: T.Buffer((M, N), e.dtype),
    ):
        q = T.sblock_alloc_buffer((M, D), "int8")
        k_new = T.sblock_alloc_buffer((M, V), "int8")
        v_new = T.sblock_alloc_buffer((M, V), "int8")
        context = T.sblock_alloc_buffer((M, D), "int8")
        turning = T.sblock_alloc_buffer((R, D), "int32")
        scores = T.sblock_alloc_buffer((1, L), "int32")
        t = T.sblock_alloc_buffer((R, N), "int32")
        workspace = T.sblock_alloc_buffer((W,), "int16")
        _project(
            q_w.int4, x, wq, gq, bq, mq, rotary, start, turning, q, workspace, n, H, P, E, R, turned,
            a["q_shift"],
        )  # fmt: skip
        _project(
            k_w.int4, x, wk, gk, bk, mk, rotary, start, turning, k_new, workspace, n, K, P, E, R, turned,
            a["k_shift"],
        )  # fmt: skip
        weights.dense_s8(v_w.int4, x, 0, wv, gv, bv, mv, 0, v_new, 0, 0, workspace, n, V, E, a["v_shift"], 0)
        for i in T.serial(n):
            _keep(k_new, v_new, i, k_cache, v_cache, T.truncmod(start + i, C), C, K, P)
            for head in T.serial(H):
                products.scores_window_s32(
                    q, i, head * P, k_cache, T.truncdiv(head, G) * C, scores, workspace,
                    T.min(start + i + 1, C), P,
                )  # fmt: skip
                products.attend_window_s8(
                    scores, exp_table, score_multiplier, v_cache, T.truncdiv(head, G) * P, 0, ratio, head,
                    context, i, head * P, P, T.min(start + i + 1, C), a["score_shift"], a["value_shift"], 0,
                )  # fmt: skip
        for block in T.serial(tile.blocks_of(n, R)):
            weights.dense_s32(
                o_w.int4, context, tile.block_start(block, n, R), wo, go, bo, mo, 0, t, workspace,
                tile.block_rows(block, n, R), N, D, a["o_shift"],
            )  # fmt: skip
            finish(
                t,
                residual,
                gamma,
                beta,
                out,
                tile.block_start(block, n, R),
                tile.block_rows(block, n, R),
                N,
                e,
            )

    return attention_step


def _macs(o: Operands, n: int) -> int:
    """Of n tokens when every slot is filled: the most that a step takes."""
    (E, N), keys, C = (o.shape("x")[1], o.shape("wo")[0]), o.shape("wk")[0], o.shape("v_cache")[1]
    queries = o.shape("wq")[0]
    return n * (E * (queries + 2 * keys) + queries * N + 2 * C * queries)


KERNEL = Kernel(
    name="attention_step",
    arguments=(*attention.KERNEL.arguments, "k_cache", "v_cache", "start"),
    infer=_infer,
    reference=_reference,
    prim_func=_prim_func,
    macs=_macs,
    inplace=lambda o: ("x", "residual"),
    variant=attention.variant,
    columns=("wq", "wk", "wv", "wo"),
    state=("k_cache", "v_cache"),
    pairable=lambda o: False,  # a token's slot may be the second of a pair
)

"""Gated feed-forward (SwiGLU, GEGLU): down(activation(gate(x)) * up(x)), by tiles of tokens.

The two hidden layers (R, F) exist for a tile only. The activation is a table of int16, so that a hidden value is
rounded with its product.
"""

from __future__ import annotations

from tvm import relax, tirx
from tvm.script import tirx as T

from tvmtiny.kernels import tile, weights
from tvmtiny.kernels.base import Array, Blocking, Kernel, Operands, by_rows, padded
from tvmtiny.kernels.epilogue import Epilogue, finish, finish_reference
from tvmtiny.quant import integer


def _infer(o: Operands) -> relax.TensorType:
    return relax.TensorType([o.shape("x")[0], o.shape("wd")[0]], Epilogue.of(o.attrs).dtype)


def _reference(o: Operands, n: int) -> Array:
    a, x = o.attrs, o["x"][:n]
    gate, up = (
        integer.dense_s8(
            x,
            weights.weight_values(o, f"w{p}", x.shape[1]),
            o[f"b{p}"],
            o[f"m{p}"],
            a[f"{p}_shift"],
            a[f"{p}_zero"],
        )
        for p in "gu"
    )
    hidden = integer.gate_s8(gate, up, o["table"], a["multiplier"], a["hidden_shift"], a["hidden_zero"])
    t = integer.dense_s32(
        hidden, weights.weight_values(o, "wd", hidden.shape[1]), o["bd"], o["md"], a["d_shift"]
    )
    return padded(finish_reference(t, o, Epilogue.of(a)), o.shape("x")[0])


def _prim_func(o: Operands, blocking: Blocking) -> tirx.PrimFunc:
    (S, E), F, N = o.shape("x"), o.shape("wg")[0], o.shape("wd")[0]
    R, e, a = min(blocking.rows, S), Epilogue.of(o.attrs), o.attrs
    W = weights.workspace(blocking, o, [("wg", R, E), ("wu", R, E), ("wd", R, F)])
    g_w, u_w, d_w = (weights.buffers(o, f"w{p}", blocking) for p in "gud")

    @T.prim_func(private=True, s_tir=True)
    def glu(
        x: T.Buffer((S, E), "int8"),
        wg: T.Buffer(g_w.shape, g_w.dtype),
        gg: T.Buffer(g_w.groups, "uint8"),
        bg: T.Buffer((F,), "int32"),
        mg: T.Buffer((F,), "int32"),
        wu: T.Buffer(u_w.shape, u_w.dtype),
        gu: T.Buffer(u_w.groups, "uint8"),
        bu: T.Buffer((F,), "int32"),
        mu: T.Buffer((F,), "int32"),
        table: T.Buffer((256,), "int16"),
        wd: T.Buffer(d_w.shape, d_w.dtype),
        gd: T.Buffer(d_w.groups, "uint8"),
        bd: T.Buffer((N,), "int32"),
        md: T.Buffer((N,), "int32"),
        residual: T.Buffer((S, N), e.residual_dtype),
        gamma: T.Buffer((N,), "int32"),
        beta: T.Buffer((N,), "int32"),
        n: T.int32,
        out: T.Buffer((S, N), e.dtype),
    ):
        gate = T.sblock_alloc_buffer((R, F), "int8")
        up = T.sblock_alloc_buffer((R, F), "int8")
        t = T.sblock_alloc_buffer((R, N), "int32")
        workspace = T.sblock_alloc_buffer((W,), "int16")
        for block in T.serial(tile.blocks_of(n, R)):
            weights.dense_s8(
                g_w.int4, x, tile.block_start(block, n, R), wg, gg, bg, mg, 0, gate, 0, 0, workspace,
                tile.block_rows(block, n, R), F, E, a["g_shift"], a["g_zero"],
            )  # fmt: skip
            weights.dense_s8(
                u_w.int4, x, tile.block_start(block, n, R), wu, gu, bu, mu, 0, up, 0, 0, workspace,
                tile.block_rows(block, n, R), F, E, a["u_shift"], a["u_zero"],
            )  # fmt: skip
            tile.gate_s8(
                gate, up, table, tile.block_rows(block, n, R), F, a["multiplier"], a["hidden_shift"],
                a["hidden_zero"],
            )  # fmt: skip
            weights.dense_s32(
                d_w.int4, gate, 0, wd, gd, bd, md, 0, t, workspace, tile.block_rows(block, n, R), N, F,
                a["d_shift"],
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

    return glu


def _macs(o: Operands, n: int) -> int:
    return n * o.shape("wg")[0] * (2 * o.shape("x")[1] + o.shape("wd")[0])


KERNEL = Kernel(
    name="glu",
    arguments=(
        "x",
        "wg",
        "gg",
        "bg",
        "mg",
        "wu",
        "gu",
        "bu",
        "mu",
        "table",
        "wd",
        "gd",
        "bd",
        "md",
        "residual",
        "gamma",
        "beta",
    ),
    infer=_infer,
    reference=_reference,
    prim_func=_prim_func,
    macs=_macs,
    inplace=lambda o: ("x", "residual"),
    columns=("wg", "wu", "wd"),
    stepping=by_rows,
)

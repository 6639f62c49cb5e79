"""Feed-forward: dense, activation, dense, epilogue, by tiles of tokens, so that the S x F hidden layer never exists."""

from __future__ import annotations

from tvm import relax, tirx
from tvm.script import tirx as T

from tvmtiny.kernels import tile, weights
from tvmtiny.kernels.base import Array, Blocking, Kernel, Operands, by_rows, padded
from tvmtiny.kernels.epilogue import Epilogue, finish, finish_reference
from tvmtiny.quant import integer


def _infer(o: Operands) -> relax.TensorType:
    return relax.TensorType([o.shape("x")[0], o.shape("w2")[0]], Epilogue.of(o.attrs).dtype)


def _reference(o: Operands, n: int) -> Array:
    a, x = o.attrs, o["x"][:n]
    w1 = weights.weight_values(o, "w1", x.shape[1])
    hidden = integer.dense_s8(x, w1, o["b1"], o["m1"], a["shift1"], a["hidden_zero_point"])
    if "table" in o:
        hidden = integer.lookup_s8(hidden, o["table"])
    t = integer.dense_s32(
        hidden, weights.weight_values(o, "w2", hidden.shape[1]), o["b2"], o["m2"], a["shift2"]
    )
    return padded(finish_reference(t, o, Epilogue.of(a)), o.shape("x")[0])


def _prim_func(o: Operands, blocking: Blocking) -> tirx.PrimFunc:
    (S, E), F, N = o.shape("x"), o.shape("w1")[0], o.shape("w2")[0]
    R, e, activated = min(blocking.rows, S), Epilogue.of(o.attrs), "table" in o
    W = weights.workspace(blocking, o, [("w1", R, E), ("w2", R, F)])
    first, second = weights.buffers(o, "w1", blocking), weights.buffers(o, "w2", blocking)
    shift1, shift2, zero_point = o.attrs["shift1"], o.attrs["shift2"], o.attrs["hidden_zero_point"]

    @T.prim_func(private=True, s_tir=True)
    def ffn(
        x: T.Buffer((S, E), "int8"),
        w1: T.Buffer(first.shape, first.dtype),
        g1: T.Buffer(first.groups, "uint8"),
        b1: T.Buffer((F,), "int32"),
        m1: T.Buffer((F,), "int32"),
        table: T.Buffer((256,), "int8"),
        w2: T.Buffer(second.shape, second.dtype),
        g2: T.Buffer(second.groups, "uint8"),
        b2: T.Buffer((N,), "int32"),
        m2: T.Buffer((N,), "int32"),
        residual: T.Buffer((S, N), e.residual_dtype),
        gamma: T.Buffer((N,), "int32"),
        beta: T.Buffer((N,), "int32"),
        n: T.int32,
        out: T.Buffer((S, N), e.dtype),
    ):
        hidden = T.sblock_alloc_buffer((R, F), "int8")
        t = T.sblock_alloc_buffer((R, N), "int32")
        workspace = T.sblock_alloc_buffer((W,), "int16")
        for block in T.serial(tile.blocks_of(n, R)):
            if activated:
                weights.dense_table_s8(
                    first.int4, x, tile.block_start(block, n, R), w1, g1, b1, m1, table, hidden, workspace,
                    tile.block_rows(block, n, R), F, E, shift1, zero_point,
                )  # fmt: skip
            else:
                weights.dense_s8(
                    first.int4, x, tile.block_start(block, n, R), w1, g1, b1, m1, 0, hidden, 0, 0, workspace,
                    tile.block_rows(block, n, R), F, E, shift1, zero_point,
                )  # fmt: skip
            weights.dense_s32(
                second.int4, hidden, 0, w2, g2, b2, m2, 0, t, workspace, tile.block_rows(block, n, R), N, F, shift2,
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

    return ffn


def _macs(o: Operands, n: int) -> int:
    return n * o.shape("w1")[0] * (o.shape("x")[1] + o.shape("w2")[0])


KERNEL = Kernel(
    name="ffn",
    arguments=("x", "w1", "g1", "b1", "m1", "table", "w2", "g2", "b2", "m2", "residual", "gamma", "beta"),
    infer=_infer,
    reference=_reference,
    prim_func=_prim_func,
    macs=_macs,
    inplace=lambda o: ("x", "residual"),
    columns=("w1", "w2"),
    stepping=by_rows,
)

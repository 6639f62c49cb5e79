"""Dense layer: x (M, K), weight (N, K) -> (M, N).

Either int8 straight from the accumulator with an optional activation table, or int32 with an epilogue (residual,
LayerNorm, int16).
"""

from __future__ import annotations

from tvm import relax, tirx
from tvm.script import tirx as T

from tvmtiny.kernels import tile, weights
from tvmtiny.kernels.base import Array, Blocking, Kernel, Operands, by_rows, padded
from tvmtiny.kernels.epilogue import Epilogue, finish, finish_reference
from tvmtiny.quant import integer


def _infer(o: Operands) -> relax.TensorType:
    dtype = Epilogue.of(o.attrs).dtype if o.attrs["epilogue"] else "int8"
    return relax.TensorType([o.shape("x")[0], o.shape("weight")[0]], dtype)


def _reference(o: Operands, n: int) -> Array:
    rows = o.shape("x")[0]
    x = o["x"][: min(n, rows)]
    weight = weights.weight_values(o, "weight", x.shape[1])
    if o.attrs["epilogue"]:
        t = integer.dense_s32(x, weight, o["bias"], o["multiplier"], o.attrs["shift"])
        return padded(finish_reference(t, o, Epilogue.of(o.attrs)), rows)
    y = integer.dense_s8(x, weight, o["bias"], o["multiplier"], o.attrs["shift"], o.attrs["zero_point"])
    return padded(integer.lookup_s8(y, o["table"]) if "table" in o else y, rows)


def _prim_func(o: Operands, blocking: Blocking) -> tirx.PrimFunc:
    return _with_epilogue(o, blocking) if o.attrs["epilogue"] else _plain(o, blocking)


def _plain(o: Operands, blocking: Blocking) -> tirx.PrimFunc:
    (M, K), N = o.shape("x"), o.shape("weight")[0]
    shift, zero_point, activated = o.attrs["shift"], o.attrs["zero_point"], "table" in o
    w = weights.buffers(o, "weight", blocking)
    W = weights.workspace(blocking, o, [("weight", M, K)])

    @T.prim_func(private=True, s_tir=True)
    def dense(
        x: T.Buffer((M, K), "int8"),
        weight: T.Buffer(w.shape, w.dtype),
        groups: T.Buffer(w.groups, "uint8"),
        bias: T.Buffer((N,), "int32"),
        multiplier: T.Buffer((N,), "int32"),
        table: T.Buffer((256,), "int8"),
        n: T.int32,
        out: T.Buffer((M, N), "int8"),
    ):
        workspace = T.sblock_alloc_buffer((W,), "int16")
        if activated:
            weights.dense_table_s8(
                w.int4, x, 0, weight, groups, bias, multiplier, table, out, workspace, T.min(n, M), N, K, shift,
                zero_point,
            )  # fmt: skip
        else:
            weights.dense_s8(
                w.int4, x, 0, weight, groups, bias, multiplier, 0, out, 0, 0, workspace, T.min(n, M), N, K,
                shift, zero_point,
            )  # fmt: skip

    return dense


def _with_epilogue(o: Operands, blocking: Blocking) -> tirx.PrimFunc:
    (M, K), N = o.shape("x"), o.shape("weight")[0]
    R, shift, e = min(blocking.rows, M), o.attrs["shift"], Epilogue.of(o.attrs)
    w = weights.buffers(o, "weight", blocking)
    W = weights.workspace(blocking, o, [("weight", R, K)])

    @T.prim_func(private=True, s_tir=True)
    def dense(
        x: T.Buffer((M, K), "int8"),
        weight: T.Buffer(w.shape, w.dtype),
        groups: T.Buffer(w.groups, "uint8"),
        bias: T.Buffer((N,), "int32"),
        multiplier: T.Buffer((N,), "int32"),
        residual: T.Buffer((M, N), e.residual_dtype),
        gamma: T.Buffer((N,), "int32"),
        beta: T.Buffer((N,), "int32"),
        n: T.int32,
        out: T.Buffer((M, N), e.dtype),
    ):
        t = T.sblock_alloc_buffer((R, N), "int32")
        workspace = T.sblock_alloc_buffer((W,), "int16")
        for block in T.serial(tile.blocks_of(T.min(n, M), R)):
            weights.dense_s32(
                w.int4, x, tile.block_start(block, T.min(n, M), R), weight, groups, bias, multiplier, 0, t,
                workspace, tile.block_rows(block, T.min(n, M), R), N, K, shift,
            )  # fmt: skip
            finish(
                t,
                residual,
                gamma,
                beta,
                out,
                tile.block_start(block, T.min(n, M), R),
                tile.block_rows(block, T.min(n, M), R),
                N,
                e,
            )

    return dense


def _macs(o: Operands, n: int) -> int:
    return min(n, o.shape("x")[0]) * o.shape("weight")[0] * o.shape("x")[1]


KERNEL = Kernel(
    name="dense",
    arguments=("x", "weight", "groups", "bias", "multiplier", "table", "residual", "gamma", "beta"),
    infer=_infer,
    reference=_reference,
    prim_func=_prim_func,
    macs=_macs,
    # Without an epilogue, columns are written while later ones still need the row of x.
    inplace=lambda o: ("residual", "x") if o.attrs["epilogue"] else (),
    columns=("weight",),
    # Tied weights are the rows of an embedding, too.
    pairable=lambda o: not o.attrs.get("tied"),
    stepping=by_rows,
)

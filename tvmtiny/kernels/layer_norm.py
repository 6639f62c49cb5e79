"""LayerNorm on its own (pre-LayerNorm models), RMSNorm, a factor and an offset a column, or no more than a rounding.

x (S, E) int8 or int16 -> (S, E) int8. The rounding makes the int8 copy of an int16 tensor.
"""

from __future__ import annotations

import numpy as np
from tvm import relax, tirx
from tvm.script import tirx as T

from tvmtiny.kernels import tile
from tvmtiny.kernels.base import Array, Blocking, Kernel, Operands, by_rows, padded
from tvmtiny.kernels.epilogue import Epilogue, finish, finish_reference


def _infer(o: Operands) -> relax.TensorType:
    return relax.TensorType(list(o.shape("residual")), "int8")


def _reference(o: Operands, n: int) -> Array:
    rows, cols = o.shape("residual")
    t = np.zeros((min(n, rows), cols), np.int32)
    return padded(finish_reference(t, o, Epilogue.of(o.attrs)), rows)


def _prim_func(o: Operands, blocking: Blocking) -> tirx.PrimFunc:
    S, E = o.shape("residual")
    R, e = min(blocking.rows, S), Epilogue.of(o.attrs)

    @T.prim_func(private=True, s_tir=True)
    def layer_norm(
        residual: T.Buffer((S, E), e.residual_dtype),
        gamma: T.Buffer((E,), "int32"),
        beta: T.Buffer((E,), "int32"),
        n: T.int32,
        out: T.Buffer((S, E), "int8"),
    ):
        t = T.sblock_alloc_buffer((R, E), "int32")
        for block in T.serial(tile.blocks_of(T.min(n, S), R)):
            tile.clear_s32(t, tile.block_rows(block, T.min(n, S), R), E)
            finish(
                t,
                residual,
                gamma,
                beta,
                out,
                tile.block_start(block, T.min(n, S), R),
                tile.block_rows(block, T.min(n, S), R),
                E,
                e,
            )

    return layer_norm


def _variant(o: Operands) -> str:
    e = Epilogue.of(o.attrs)
    return "scale" if e.scaled else "rms" if e.uncentred else "" if e.norm else "rounding"


KERNEL = Kernel(
    name="layer_norm",
    arguments=("residual", "gamma", "beta"),
    infer=_infer,
    reference=_reference,
    prim_func=_prim_func,
    macs=lambda o, n: 0,
    inplace=lambda o: ("residual",),
    variant=_variant,
    stepping=by_rows,
)

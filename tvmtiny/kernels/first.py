"""The first token's row (CLS pooling); x (S, E) -> (1, E).

An int8 row is copied. A row of an int16 residual stream takes an epilogue: one rounding to int8, or to int16 where a
LayerNorm follows.
"""

from __future__ import annotations

from tvm import relax, tirx
from tvm.script import tirx as T

from tvmtiny.kernels import tile
from tvmtiny.kernels.base import Array, Blocking, Kernel, Operands
from tvmtiny.kernels.epilogue import Epilogue, finish, finish_reference


def _infer(o: Operands) -> relax.TensorType:
    dtype = Epilogue.of(o.attrs).dtype if o.attrs["epilogue"] else "int8"
    return relax.TensorType([1, o.shape("x")[1]], dtype)


def _reference(o: Operands, n: int) -> Array:
    if o.attrs["epilogue"]:
        return finish_reference(o["x"][:1].astype("int32"), o, Epilogue.of(o.attrs))
    return o["x"][:1].copy()


def _prim_func(o: Operands, blocking: Blocking) -> tirx.PrimFunc:
    return _with_epilogue(o) if o.attrs["epilogue"] else _copy(o)


def _copy(o: Operands) -> tirx.PrimFunc:
    S, E = o.shape("x")

    @T.prim_func(private=True, s_tir=True)
    def first(x: T.Buffer((S, E), "int8"), n: T.int32, out: T.Buffer((1, E), "int8")):
        for i in T.serial(E):
            with T.sblock("first"):
                j = T.axis.spatial(E, i)
                T.reads(x[0, j])
                T.writes(out[0, j])
                out[0, j] = x[0, j]

    return first


def _with_epilogue(o: Operands) -> tirx.PrimFunc:
    (S, E), e = o.shape("x"), Epilogue.of(o.attrs)

    @T.prim_func(private=True, s_tir=True)
    def first(x: T.Buffer((S, E), "int16"), n: T.int32, out: T.Buffer((1, E), e.dtype)):
        t = T.sblock_alloc_buffer((1, E), "int32")
        tile.widen_s32(x, t, 1, E)
        finish(t, x, t, t, out, 0, 1, E, e)

    return first


KERNEL = Kernel(
    name="first",
    arguments=("x",),
    infer=_infer,
    reference=_reference,
    prim_func=_prim_func,
    macs=lambda o, n: 0,
    inplace=lambda o: ("x",),
)

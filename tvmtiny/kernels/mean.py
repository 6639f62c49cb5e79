"""Mean over the tokens that are present; x (S, E) -> (1, E).

int8 becomes int8. The mean of an int16 residual stream stays int32 and takes an epilogue: one rounding to int8, or to
int16 where a LayerNorm follows.
"""

from __future__ import annotations

from tvm import relax, tirx
from tvm.script import tirx as T

from tvmtiny.kernels import tile
from tvmtiny.kernels.base import Array, Blocking, Kernel, Operands
from tvmtiny.kernels.epilogue import Epilogue, finish, finish_reference
from tvmtiny.quant import integer


def _infer(o: Operands) -> relax.TensorType:
    dtype = Epilogue.of(o.attrs).dtype if o.attrs["epilogue"] else "int8"
    return relax.TensorType([1, o.shape("x")[1]], dtype)


def _reference(o: Operands, n: int) -> Array:
    x, a = o["x"][:n], o.attrs
    if a["epilogue"]:
        t = integer.mean_s16_s32(x, a["ratio"], a["shift"])
        return finish_reference(t[None], o, Epilogue.of(a))
    return integer.mean_s8(x, a["zero_point_in"], a["ratio"], a["shift"], a["zero_point"])[None]


def _prim_func(o: Operands, blocking: Blocking) -> tirx.PrimFunc:
    return _with_epilogue(o) if o.attrs["epilogue"] else _plain(o)


def _plain(o: Operands) -> tirx.PrimFunc:
    S, E = o.shape("x")
    ratio, shift = o.attrs["ratio"], o.attrs["shift"]
    zero_point_in, zero_point = o.attrs["zero_point_in"], o.attrs["zero_point"]

    @T.prim_func(private=True, s_tir=True)
    def mean(x: T.Buffer((S, E), "int8"), n: T.int32, out: T.Buffer((1, E), "int8")):
        tile.mean_s8(x, out, n, E, ratio, shift, zero_point_in, zero_point)

    return mean


def _with_epilogue(o: Operands) -> tirx.PrimFunc:
    S, E = o.shape("x")
    ratio, shift, e = o.attrs["ratio"], o.attrs["shift"], Epilogue.of(o.attrs)

    @T.prim_func(private=True, s_tir=True)
    def mean(x: T.Buffer((S, E), "int16"), n: T.int32, out: T.Buffer((1, E), e.dtype)):
        t = T.sblock_alloc_buffer((1, E), "int32")
        tile.mean_s16_s32(x, t, n, E, ratio, shift)
        finish(t, x, t, t, out, 0, 1, E, e)

    return mean


KERNEL = Kernel(
    name="mean",
    arguments=("x",),
    infer=_infer,
    reference=_reference,
    prim_func=_prim_func,
    macs=lambda o, n: 0,
)

"""Mean over the tokens that are present; x (S, E) int8 -> (1, E) int8."""

from __future__ import annotations

from tvm import relax, tirx
from tvm.script import tirx as T

from tvmtiny.kernels import tile
from tvmtiny.kernels.base import Array, Blocking, Kernel, Operands
from tvmtiny.quant import integer


def _infer(o: Operands) -> relax.TensorType:
    return relax.TensorType([1, o.shape("x")[1]], "int8")


def _reference(o: Operands, n: int) -> Array:
    a = o.attrs
    return integer.mean_s8(o["x"][:n], a["zero_point_in"], a["ratio"], a["shift"], a["zero_point"])[None]


def _prim_func(o: Operands, blocking: Blocking) -> tirx.PrimFunc:
    S, E = o.shape("x")
    ratio, shift = o.attrs["ratio"], o.attrs["shift"]
    zero_point_in, zero_point = o.attrs["zero_point_in"], o.attrs["zero_point"]

    @T.prim_func(private=True, s_tir=True)
    def mean(x: T.Buffer((S, E), "int8"), n: T.int32, out: T.Buffer((1, E), "int8")):
        tile.mean_s8(x, out, n, E, ratio, shift, zero_point_in, zero_point)

    return mean


KERNEL = Kernel(
    name="mean",
    arguments=("x",),
    infer=_infer,
    reference=_reference,
    prim_func=_prim_func,
    macs=lambda o, n: 0,
)

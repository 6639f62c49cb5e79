"""Sum (or mean), maximum or minimum over the middle axis of x (A, R, B) -> (A, B)."""

from __future__ import annotations

from tvm import relax, tirx
from tvm.script import tirx as T

from tvmtiny.kernels import tile
from tvmtiny.kernels.base import Array, Blocking, Kernel, Operands
from tvmtiny.quant.tensor_arithmetic import reduce_s8


def _infer(o: Operands) -> relax.TensorType:
    A, _, B = o.shape("x")
    return relax.TensorType([A, B], "int8")


def _reference(o: Operands, n: int) -> Array:
    a = o.attrs
    return reduce_s8(a["kind"], o["x"], a["zero_point_in"], a["multiplier"], a["shift"], a["zero_point"])


@T.inline
def _sum(x, acc, i, j, extent, zero_point_in, multiplier, shift, zero_point):
    acc[0] = 0
    for r in T.serial(extent):
        acc[0] = acc[0] + T.Cast("int32", x[i, r, j]) - zero_point_in
    acc[0] = T.shift_left(acc[0], shift)
    tile.multiply_high(acc, acc[0], multiplier)
    acc[0] = acc[0] + zero_point


@T.inline
def _extreme(x, acc, i, j, extent, largest):
    acc[0] = T.Cast("int32", x[i, 0, j])
    for r in T.serial(extent):
        if largest:
            acc[0] = T.max(acc[0], T.Cast("int32", x[i, r, j]))
        else:
            acc[0] = T.min(acc[0], T.Cast("int32", x[i, r, j]))


def _prim_func(o: Operands, blocking: Blocking) -> tirx.PrimFunc:
    (A, R, B), a = o.shape("x"), o.attrs
    kind, zero_point_in = a["kind"], a["zero_point_in"]
    multiplier, shift, zero_point = a["multiplier"], a["shift"], a["zero_point"]

    @T.prim_func(private=True, s_tir=True)
    def reduce(x: T.Buffer((A, R, B), "int8"), out: T.Buffer((A, B), "int8")):
        with T.sblock("reduce"):
            T.reads(x[0:A, 0:R, 0:B])
            T.writes(out[0:A, 0:B])
            acc = T.sblock_alloc_buffer((1,), "int32")
            for i, j in T.grid(A, B):
                if kind == "sum":
                    _sum(x, acc, i, j, R, zero_point_in, multiplier, shift, zero_point)
                else:
                    _extreme(x, acc, i, j, R, kind == "max")
                out[i, j] = tile.saturated(acc[0], "int8")

    return reduce


KERNEL = Kernel(
    name="reduce",
    arguments=("x",),
    infer=_infer,
    reference=_reference,
    prim_func=_prim_func,
    macs=lambda o, n: 0,
)

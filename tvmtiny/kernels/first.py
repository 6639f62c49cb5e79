"""The first token's row (CLS pooling); x (S, E) int8 -> (1, E) int8."""

from __future__ import annotations

from tvm import relax, tirx
from tvm.script import tirx as T

from tvmtiny.kernels.base import Array, Blocking, Kernel, Operands


def _infer(o: Operands) -> relax.TensorType:
    return relax.TensorType([1, o.shape("x")[1]], "int8")


def _reference(o: Operands, n: int) -> Array:
    return o["x"][:1].copy()


def _prim_func(o: Operands, blocking: Blocking) -> tirx.PrimFunc:
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


KERNEL = Kernel(
    name="first",
    arguments=("x",),
    infer=_infer,
    reference=_reference,
    prim_func=_prim_func,
    macs=lambda o, n: 0,
    inplace=lambda o: ("x",),
)

"""A function of one int8 value, by table; x (M, N) -> (M, N)."""

from __future__ import annotations

from tvm import relax, tirx
from tvm.script import tirx as T

from tvmtiny.kernels.base import Array, Blocking, Kernel, Operands
from tvmtiny.quant import integer


def _reference(o: Operands, n: int) -> Array:
    return integer.lookup_s8(o["x"], o["table"])


def _prim_func(o: Operands, blocking: Blocking) -> tirx.PrimFunc:
    M, N = o.shape("x")

    @T.prim_func(private=True, s_tir=True)
    def lookup(x: T.Buffer((M, N), "int8"), table: T.Buffer((256,), "int8"), out: T.Buffer((M, N), "int8")):
        with T.sblock("lookup"):
            T.reads(x[0:M, 0:N], table[0:256])
            T.writes(out[0:M, 0:N])
            for i, j in T.grid(M, N):
                out[i, j] = table[T.Cast("int32", x[i, j]) + 128]

    return lookup


KERNEL = Kernel(
    name="lookup",
    arguments=("x", "table"),
    infer=lambda o: relax.TensorType(list(o.shape("x")), "int8"),
    reference=_reference,
    prim_func=_prim_func,
    macs=lambda o, n: 0,
    inplace=lambda o: ("x",),
)

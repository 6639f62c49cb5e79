"""Sum, product, quotient, maximum or minimum of two int8 tensors that broadcast; flat operands -> flat result.

The result has the extents d0 to d3; a step along axis i moves a by a0..a3 elements and b by b0..b3, 0 where the operand
is broadcast.
"""

from __future__ import annotations

import numpy as np
from tvm import relax, tirx
from tvm.script import tirx as T

from tvmtiny.kernels import tile
from tvmtiny.kernels.base import Array, Blocking, Kernel, Operands
from tvmtiny.quant.tensor_arithmetic import binary_s8

AXES = 4


def _list(o: Operands, letter: str) -> list[int]:
    return [int(o.attrs[f"{letter}{axis}"]) for axis in range(AXES)]


def _size(o: Operands) -> int:
    return int(np.prod(_list(o, "d")))


def _broadcast(o: Operands, letter: str) -> Array:
    index = np.zeros(_list(o, "d"), np.int64)
    for axis, stride in enumerate(_list(o, letter)):
        steps = np.arange(index.shape[axis]) * stride
        index = index + steps.reshape([-1 if i == axis else 1 for i in range(AXES)])
    return np.asarray(o[letter][index])


def _reference(o: Operands, n: int) -> Array:
    a = o.attrs
    return binary_s8(
        a["kind"], _broadcast(o, "a"), _broadcast(o, "b"), (a["za"], a["zb"]), (a["fa"], a["fb"]),
        a["multiplier"], a["shift"], a["zero_point"],
    ).reshape(-1)  # fmt: skip


@T.inline
def _combine(kind, acc, p, q, multiplier, shift):
    if kind == "add":
        acc[0] = T.shift_left(p + q, shift)
    elif kind == "multiply":
        acc[0] = T.shift_left(p * q, shift)
    elif kind == "maximum":
        acc[0] = T.shift_left(T.max(p, q), shift)
    else:
        acc[0] = T.shift_left(T.min(p, q), shift)
    tile.multiply_high(acc, acc[0], multiplier)


@T.inline
def _divide(acc, p, q, multiplier, shift):
    acc[0] = T.shift_left(p, shift)
    tile.multiply_high(
        acc,
        acc[0],
        T.Cast("int32", T.truncdiv(T.uint32(multiplier), T.Cast("uint32", T.max(T.max(q, -q), 1)))),
    )
    if q < 0:
        acc[0] = 0 - acc[0]


def _prim_func(o: Operands, blocking: Blocking) -> tirx.PrimFunc:
    (d0, d1, d2, d3), (a0, a1, a2, a3), (b0, b1, b2, b3) = (_list(o, letter) for letter in "dab")
    A, B, N, a_ = o.shape("a")[0], o.shape("b")[0], _size(o), o.attrs
    kind, za, zb, fa, fb = (a_[key] for key in ("kind", "za", "zb", "fa", "fb"))
    multiplier, shift, zero_point = a_["multiplier"], a_["shift"], a_["zero_point"]

    @T.prim_func(private=True, s_tir=True)
    def binary(a: T.Buffer((A,), "int8"), b: T.Buffer((B,), "int8"), out: T.Buffer((N,), "int8")):
        with T.sblock("binary"):
            T.reads(a[0:A], b[0:B])
            T.writes(out[0:N])
            acc = T.sblock_alloc_buffer((1,), "int32")
            left = T.sblock_alloc_buffer((1,), "int32")
            right = T.sblock_alloc_buffer((1,), "int32")
            for i, j, k, m in T.grid(d0, d1, d2, d3):
                left[0] = (T.Cast("int32", a[i * a0 + j * a1 + k * a2 + m * a3]) - za) * fa
                right[0] = (T.Cast("int32", b[i * b0 + j * b1 + k * b2 + m * b3]) - zb) * fb
                if kind == "divide":
                    _divide(acc, left[0], right[0], multiplier, shift)
                else:
                    _combine(kind, acc, left[0], right[0], multiplier, shift)
                out[((i * d1 + j) * d2 + k) * d3 + m] = tile.saturated(acc[0] + zero_point, "int8")

    return binary


KERNEL = Kernel(
    name="binary",
    arguments=("a", "b"),
    infer=lambda o: relax.TensorType([_size(o)], "int8"),
    reference=_reference,
    prim_func=_prim_func,
    macs=lambda o, n: 0,
    inplace=lambda o: ("a", "b"),
)

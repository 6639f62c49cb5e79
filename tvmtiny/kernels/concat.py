"""Tensors one behind the other along an axis: parts (A, Ci) -> (A, C0 + C1 + ...), each brought to the result's scale.

A tensor that is joined along another axis than the last has that axis, and those behind it, as its columns.
"""

from __future__ import annotations

import numpy as np
from tvm import relax, tirx
from tvm.script import tirx as T

from tvmtiny.kernels import tile
from tvmtiny.kernels.base import Array, Blocking, Kernel, Operands
from tvmtiny.quant import integer

PARTS = ("x0", "x1", "x2", "x3")


def _infer(o: Operands) -> relax.TensorType:
    present = [part for part in PARTS if part in o]
    return relax.TensorType([o.shape("x0")[0], sum(o.shape(part)[1] for part in present)], "int8")


def _reference(o: Operands, n: int) -> Array:
    a = o.attrs
    rows = [
        integer.requantize_s8(o[part].astype(np.int64) - a[f"z{i}"], a[f"m{i}"], a[f"s{i}"], a["zero_point"])
        for i, part in enumerate(PARTS)
        if part in o
    ]
    return np.concatenate(rows, axis=1)


@T.inline
def _part(x, out, first, rows, cols, zero_point_in, multiplier, shift, zero_point):
    with T.sblock("part"):
        T.reads(x[0:rows, 0:cols])
        T.writes(out[0:rows, first : first + cols])
        acc = T.sblock_alloc_buffer((1,), "int32")
        for i, j in T.grid(rows, cols):
            acc[0] = T.shift_left(T.Cast("int32", x[i, j]) - zero_point_in, shift)
            tile.multiply_high(acc, acc[0], multiplier)
            out[i, first + j] = tile.saturated(acc[0] + zero_point, "int8")


def _prim_func(o: Operands, blocking: Blocking) -> tirx.PrimFunc:
    a, A = o.attrs, o.shape("x0")[0]
    C0, C1, C2, C3 = (o.shape(part)[1] if part in o else 1 for part in PARTS)
    third, fourth = "x2" in o, "x3" in o
    N = C0 + C1 + C2 * third + C3 * fourth
    z = a["zero_point"]
    p0, p1, p2, p3 = ((a[f"z{i}"], a[f"m{i}"], a[f"s{i}"]) for i in range(4))

    @T.prim_func(private=True, s_tir=True)
    def concat(
        x0: T.Buffer((A, C0), "int8"),
        x1: T.Buffer((A, C1), "int8"),
        x2: T.Buffer((A, C2), "int8"),
        x3: T.Buffer((A, C3), "int8"),
        out: T.Buffer((A, N), "int8"),
    ):
        _part(x0, out, 0, A, C0, p0[0], p0[1], p0[2], z)
        _part(x1, out, C0, A, C1, p1[0], p1[1], p1[2], z)
        if third:
            _part(x2, out, C0 + C1, A, C2, p2[0], p2[1], p2[2], z)
        if fourth:
            _part(x3, out, C0 + C1 + C2, A, C3, p3[0], p3[1], p3[2], z)

    return concat


KERNEL = Kernel(
    name="concat",
    arguments=PARTS,
    infer=_infer,
    reference=_reference,
    prim_func=_prim_func,
    macs=lambda o, n: 0,
)

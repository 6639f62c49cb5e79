"""Elements of a tensor in another order: transposes, slices, repeats; flat x -> flat result.

The result has the extents d0 to d3; a step along axis i moves x by x0..x3 elements, from element `base` on. An order
that is not of this form comes as a table of places, `index`.
"""

from __future__ import annotations

import numpy as np
from tvm import relax, tirx
from tvm.script import tirx as T

from tvmtiny.kernels.base import Array, Blocking, Kernel, Operands

AXES = 4


def _extents(o: Operands) -> list[int]:
    return [int(o.attrs[f"d{axis}"]) for axis in range(AXES)]


def _size(o: Operands) -> int:
    return int(o.shape("index")[0]) if "index" in o else int(np.prod(_extents(o)))


def _reference(o: Operands, n: int) -> Array:
    if "index" in o:
        return np.asarray(o["x"][o["index"].astype(np.int64)])
    index = np.full(_extents(o), o.attrs["base"], np.int64)
    for axis in range(AXES):
        steps = np.arange(index.shape[axis]) * o.attrs[f"x{axis}"]
        index = index + steps.reshape([-1 if i == axis else 1 for i in range(AXES)])
    return np.asarray(o["x"][index.reshape(-1)])


def _prim_func(o: Operands, blocking: Blocking) -> tirx.PrimFunc:
    return _gather(o) if "index" in o else _strided(o)


def _gather(o: Operands) -> tirx.PrimFunc:
    X, N = o.shape("x")[0], _size(o)

    @T.prim_func(private=True, s_tir=True)
    def copy(x: T.Buffer((X,), "int8"), index: T.Buffer((N,), "uint16"), out: T.Buffer((N,), "int8")):
        with T.sblock("gather"):
            T.reads(x[0:X], index[0:N])
            T.writes(out[0:N])
            for i in T.serial(N):
                out[i] = x[T.Cast("int32", index[i])]

    return copy


def _strided(o: Operands) -> tirx.PrimFunc:
    (d0, d1, d2, d3), base = _extents(o), o.attrs["base"]
    x0, x1, x2, x3 = (o.attrs[f"x{axis}"] for axis in range(AXES))
    X, N = o.shape("x")[0], _size(o)

    @T.prim_func(private=True, s_tir=True)
    def copy(x: T.Buffer((X,), "int8"), out: T.Buffer((N,), "int8")):
        with T.sblock("copy"):
            T.reads(x[0:X])
            T.writes(out[0:N])
            for i, j, k, m in T.grid(d0, d1, d2, d3):
                out[((i * d1 + j) * d2 + k) * d3 + m] = x[base + i * x0 + j * x1 + k * x2 + m * x3]

    return copy


KERNEL = Kernel(
    name="copy",
    arguments=("x", "index"),
    infer=lambda o: relax.TensorType([_size(o)], "int8"),
    reference=_reference,
    prim_func=_prim_func,
    macs=lambda o, n: 0,
)

"""Causal convolution over tokens: x (S, C) -> (S / stride, N), with an optional activation table.

Token p of the result sees `kernel` rows of x, of which row p * stride is number `before`; what lies before the first
row is the row `pad`. Patches are gathered for a block of tokens at a time and multiplied as rows of a dense layer, so
the matrix of all patches never exists. In a step the last `before` rows of earlier tokens are kept in `history`, which
begins as rows of `pad`.
"""

from __future__ import annotations

import numpy as np
from tvm import relax, tirx
from tvm.script import tirx as T

from tvmtiny.kernels import tile, weights
from tvmtiny.kernels.base import Array, Blocking, Kernel, Operands, State, Stepping, padded
from tvmtiny.quant import integer


def _infer(o: Operands) -> relax.TensorType:
    return relax.TensorType([_rows(o), o.shape("weight")[0]], "int8")


def _rows(o: Operands) -> int:
    return o.shape("x")[0] // int(o.attrs["stride"])


def _reference(o: Operands, n: int) -> Array:
    a, C, n = o.attrs, o.shape("x")[1], min(n, _rows(o))
    stride, kernel, before = a["stride"], a["kernel"], a["before"]
    earlier = o["history"] if "history" in o else np.broadcast_to(o["pad"], (before, C))
    rows = np.concatenate([earlier, o["x"]])
    patches = [rows[p * stride : p * stride + kernel].reshape(-1) for p in range(n)]
    if "history" in o:
        o["history"][:] = rows[n * stride : n * stride + before]
    weight = weights.weight_values(o, "weight", kernel * C)
    y = integer.dense_s8(np.stack(patches), weight, o["bias"], o["multiplier"], a["shift"], a["zero_point"])
    return padded(integer.lookup_s8(y, o["table"]) if "table" in o else y, _rows(o))


@T.inline
def _gather(x, earlier, patches, start, rows, cols, form):
    """The patches of `rows` tokens from `start` on; earlier: the rows before the first, or one that they all are."""
    with T.sblock("gather"):
        T.reads(x[0 : form["x_rows"], 0:cols], earlier[0 : form["earlier_rows"], 0:cols])
        T.writes(patches[0:rows, 0 : form["kernel"] * cols])
        for i, k, c in T.grid(rows, form["kernel"], cols):
            if (start + i) * form["stride"] + k >= form["before"]:
                patches[i, k * cols + c] = x[(start + i) * form["stride"] + k - form["before"], c]
            elif form["earlier_rows"] > 1:
                patches[i, k * cols + c] = earlier[(start + i) * form["stride"] + k, c]
            else:
                patches[i, k * cols + c] = earlier[0, c]


@T.inline
def _remember(x, history, rows, cols, before):
    """Keep the last rows, of those before and `rows` new ones."""
    with T.sblock("remember"):
        T.reads(x[0:rows, 0:cols], history[0:before, 0:cols])
        T.writes(history[0:before, 0:cols])
        for j, c in T.grid(before, cols):
            if rows + j >= before:
                history[j, c] = x[rows + j - before, c]
            else:
                history[j, c] = history[rows + j, c]


def _prim_func(o: Operands, blocking: Blocking) -> tirx.PrimFunc:
    (M, C), N, a = o.shape("x"), o.shape("weight")[0], o.attrs
    S, K, R = _rows(o), int(a["kernel"]) * C, min(blocking.rows, _rows(o))
    B, later, activated = int(a["before"]), "history" in o, "table" in o
    w, W = weights.buffers(o, "weight", blocking), weights.workspace(blocking, o, [("weight", R, K)])
    form = {**a, "x_rows": M, "earlier_rows": B if later else 1}
    shift, zero_point, stride = a["shift"], a["zero_point"], a["stride"]

    @T.prim_func(private=True, s_tir=True)
    def convolution(
        x: T.Buffer((M, C), "int8"),
        pad: T.Buffer((1, C), "int8"),
        weight: T.Buffer(w.shape, w.dtype),
        groups: T.Buffer(w.groups, "uint8"),
        bias: T.Buffer((N,), "int32"),
        multiplier: T.Buffer((N,), "int32"),
        table: T.Buffer((256,), "int8"),
        history: T.Buffer((B if later else 1, C), "int8"),
        n: T.int32,
        out: T.Buffer((S, N), "int8"),
    ):
        patches = T.sblock_alloc_buffer((R, K), "int8")
        workspace = T.sblock_alloc_buffer((W,), "int16")
        for block in T.serial(tile.blocks_of(n, R)):
            _gather(
                x, history if later else pad, patches, tile.block_start(block, n, R),
                tile.block_rows(block, n, R), C, form,
            )  # fmt: skip
            weights.dense_s8(
                w.int4, patches, 0, weight, groups, bias, multiplier, 0, out, tile.block_start(block, n, R), 0,
                workspace, tile.block_rows(block, n, R), N, K, shift, zero_point,
            )  # fmt: skip
        if activated:
            tile.lookup_s8(out, table, n, N)
        if later:
            _remember(x, history, n * stride, C, B)

    return convolution


def _stepping(o: Operands, _tokens: int) -> Stepping | str:
    if o.attrs["before"] < o.attrs["kernel"] - o.attrs["stride"]:
        return "looks at rows that are still to come"
    pad = tuple(int(value) for value in o["pad"].value.numpy().reshape(-1))
    return Stepping(state={"history": State((int(o.attrs["before"]), o.shape("x")[1]), pad)})


KERNEL = Kernel(
    name="convolution",
    arguments=("x", "pad", "weight", "groups", "bias", "multiplier", "table", "history"),
    infer=_infer,
    reference=_reference,
    prim_func=_prim_func,
    macs=lambda o, n: n * o.shape("weight")[0] * int(o.attrs["kernel"]) * o.shape("x")[1],
    columns=("weight",),
    state=("history",),
    stepping=_stepping,
)

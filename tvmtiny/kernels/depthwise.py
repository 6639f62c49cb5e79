"""Depthwise convolution with stride, padding and dilation; x (H, W, C) -> (places, N), N a multiple of C.

The taps that lie outside of the input add nothing, which is what padding with zeros means.
"""

from __future__ import annotations

from typing import Any

from tvm import relax, tirx
from tvm.script import tirx as T

from tvmtiny.kernels import tile
from tvmtiny.kernels.base import Array, Blocking, Kernel, Operands
from tvmtiny.quant import integer


def _places(o: Operands) -> tuple[int, int]:
    """Rows and columns of the result."""
    return int(o.attrs["rows"]), int(o.attrs["cols"])


def _infer(o: Operands) -> relax.TensorType:
    rows, cols = _places(o)
    return relax.TensorType([rows * cols, o.shape("weight")[2]], "int8")


def _reference(o: Operands, n: int) -> Array:
    a = o.attrs
    found = integer.depthwise_s8(
        o["x"], o["weight"], o["bias"], o["multiplier"], _places(o),
        tuple((a[f"stride_{axis}"], a[f"before_{axis}"], a[f"step_{axis}"]) for axis in "yx"),
        a["zero_point_in"], a["shift"], a["zero_point"],
    )  # fmt: skip
    return found.reshape(-1, found.shape[-1])


def _first_tap(place: Any, stride: int, before: int, step: int) -> Any:
    """The first tap of a place that lies inside of the input."""
    return T.truncdiv(T.max(before - place * stride, 0) + (step - 1), step)


def _taps(place: Any, stride: int, before: int, step: int, taps: int, extent: int) -> Any:
    """How many taps of a place lie inside of an axis of the input."""
    end = T.truncdiv(extent - 1 + before - place * stride, step) + 1
    return T.min(taps, end) - _first_tap(place, stride, before, step)


def _first(place: Any, stride: int, before: int, step: int) -> Any:
    """The element of the input under the first of these taps."""
    return place * stride - before + _first_tap(place, stride, before, step) * step


def _prim_func(o: Operands, blocking: Blocking) -> tirx.PrimFunc:
    (H, W, C), (taps_y, taps_x, N) = o.shape("x"), o.shape("weight")
    rows, cols = _places(o)
    a = o.attrs
    y, x_ = ((a[f"stride_{axis}"], a[f"before_{axis}"], a[f"step_{axis}"]) for axis in "yx")
    zero_point_in, shift, zero_point = a["zero_point_in"], a["shift"], a["zero_point"]

    @T.prim_func(private=True, s_tir=True)
    def depthwise(
        x: T.Buffer((H, W, C), "int8"),
        weight: T.Buffer((taps_y, taps_x, N), "int8"),
        bias: T.Buffer((N,), "int32"),
        multiplier: T.Buffer((N,), "int32"),
        out: T.Buffer((rows * cols, N), "int8"),
    ):
        for i, j in T.grid(rows, cols):
            tile.depthwise_s8(
                x, weight, bias, multiplier, out, i * cols + j,
                (_first(i, *y), _first(j, *x_)), (_first_tap(i, *y), _first_tap(j, *x_)),
                (_taps(i, *y, taps_y, H), _taps(j, *x_, taps_x, W)), (y[2], x_[2]), N, N // C,
                zero_point_in, shift, zero_point,
            )  # fmt: skip

    return depthwise


def _macs(o: Operands, n: int) -> int:
    rows, cols = _places(o)
    taps_y, taps_x, N = o.shape("weight")
    return rows * cols * taps_y * taps_x * N


KERNEL = Kernel(
    name="depthwise",
    arguments=("x", "weight", "bias", "multiplier"),
    infer=_infer,
    reference=_reference,
    prim_func=_prim_func,
    macs=_macs,
)

"""A depthwise convolution becomes an integer operator: a dense layer of a few weights for each channel."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from tvm import relax

from tvmtiny.kernels import emit_call
from tvmtiny.passes.fuse_dense import ACTIVATIONS
from tvmtiny.passes.graph import array_of, constant
from tvmtiny.passes.operators import attributes, parts
from tvmtiny.passes.quantization import Quantization
from tvmtiny.quant import qparams
from tvmtiny.quant.qparams import QuantParams

LOWEST = -128
"""The zero point with which the clamp to int8 is a ReLU."""


def quantize_depthwise(c: Quantization, var: relax.Var, call: relax.Call) -> tuple[Any, QuantParams]:
    """The integer operator of `depthwise` and the parameters of its result.

    The zero point of the input is not folded into the bias: a tap outside of the input adds nothing.
    """
    (x, weight, bias), _, _ = parts(call)
    value, attrs = c.operand(x), attributes(call)
    activation = attrs.pop("activation")
    taps = array_of(weight).astype(np.float64)
    columns, b = taps.reshape(-1, taps.shape[2]).T, array_of(bias).astype(np.float64)
    integers = qparams.int8_weights(columns, b, value.params)
    out = c.range_of(var.name, "out")
    out = dataclasses.replace(out, scale=qparams.floor_scale(float(out.scale), integers.unit))
    layer = qparams.dense(columns, b, value.params, out.scale, var.name, integers=integers)
    zero_point_in = int(value.params.zero_point)
    unfolded = layer.bias + zero_point_in * layer.weight.sum(axis=1, dtype=np.int64)
    tensors = {
        "x": value.expr,
        "weight": constant(np.ascontiguousarray(layer.weight.T.reshape(taps.shape))),
        "bias": constant(unfolded.astype(np.int32)),
        "multiplier": constant(layer.multiplier),
    }
    scalars = {"zero_point_in": zero_point_in, "shift": layer.shift, "zero_point": int(out.zero_point)}
    result = emit_call(
        "depthwise",
        tensors,
        c.n,
        **{k: v for k, v in attrs.items() if k not in ("residual", "norm")},
        **scalars,
    )
    if activation == "none" or int(out.zero_point) == LOWEST:
        return result, out
    table = constant(qparams.table(ACTIVATIONS[activation], out, out))
    return emit_call("lookup", {"x": c.builder.emit(result), "table": table}, c.n), out

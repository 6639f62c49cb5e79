"""A gated feed-forward block becomes an integer operator."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from tvm import relax

from tvmtiny.kernels import emit_call
from tvmtiny.passes.fuse_dense import ACTIVATIONS
from tvmtiny.passes.graph import array_of, constant
from tvmtiny.passes.operators import attributes, parts
from tvmtiny.passes.quantization import Quantization, dense_tensors
from tvmtiny.quant import qparams
from tvmtiny.quant.qparams import QuantParams


def quantize_glu(c: Quantization, var: relax.Var, call: relax.Call) -> tuple[Any, QuantParams]:
    """The integer operator of `tvmtiny.glu` and the parameters of its result."""
    (x, *arrays), _, _ = parts(call)
    value, observed = c.operand(x), c.observed(x)
    wg, bg, wu, bu, wd, bd = (array_of(array).astype(np.float64) for array in arrays)
    gates = c.integer_weights(var.name, "wg", wg, bg, value.params, observed)
    ups = c.integer_weights(var.name, "wu", wu, bu, value.params, observed)
    pre, up = c.range_of(var.name, "pre"), c.range_of(var.name, "up", symmetric=True)
    pre = dataclasses.replace(pre, scale=qparams.floor_scale(pre.scale, gates.unit))
    up = dataclasses.replace(up, scale=qparams.floor_scale(up.scale, ups.unit))
    first = qparams.dense(wg, bg, value.params, pre.scale, var.name, integers=gates)
    second = qparams.dense(wu, bu, value.params, up.scale, var.name, integers=ups)
    table, unit = qparams.wide_table(ACTIVATIONS[attributes(call)["activation"]], pre)
    hidden = c.range_of(var.name, "hidden")
    hidden = dataclasses.replace(
        hidden, scale=max(hidden.scale, unit * up.scale / qparams.MAX_REAL_MULTIPLIER)
    )
    (multiplier,), shift = qparams.fixed_point(unit * up.scale / hidden.scale)
    qparams.check_shift(2.0**22, shift, var.name)
    integers = c.integer_weights(var.name, "wd", wd, bd, hidden, c.statistics.get(f"{var.name}.hidden"))
    epilogue, scale, operands, out = c.epilogue(var, call, integers.unit, integers.bound)
    down = qparams.dense(wd, bd, hidden, scale, var.name, np.inf, integers)
    tensors = {
        "x": value.expr, "table": constant(table), **dense_tensors(first, "wg", "bg", "mg"),
        **dense_tensors(second, "wu", "bu", "mu"), **dense_tensors(down, "wd", "bd", "md"), **operands,
    }  # fmt: skip
    attrs = {
        "g_shift": first.shift, "u_shift": second.shift, "d_shift": down.shift, "g_zero": int(pre.zero_point),
        "u_zero": 0, "multiplier": int(multiplier), "hidden_shift": shift, "hidden_zero": int(hidden.zero_point),
    }  # fmt: skip
    return emit_call("glu", tensors, c.length(var, call), **attrs, **epilogue.attrs()), out

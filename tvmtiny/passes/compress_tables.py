"""Embedding tables become compressed: the rows of the tokens that are there are decoded, then embedded as before.

A table whose rows have scales of their own is left alone: it is the weights of a dense layer, too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax

from tvmtiny.kernels import emit_call, kernel_of, operands_of
from tvmtiny.passes.graph import Emit, Graph, array_of, constant, function_pass, rebuild
from tvmtiny.storage.choice import store_table


def CompressTables(form: str) -> tvm.transform.Pass:  # noqa: N802
    """The pass over an integer module; `form` is one of `storage.choice.FORMS`."""

    def rewrite(_graph: Graph, var: relax.Var, value: Any, emit: Emit) -> Any | None:
        kernel = kernel_of(value)
        if kernel is None or kernel.name != "embed" or "row_factors" in operands_of(value):
            return None
        o = operands_of(value)
        stored = store_table(array_of(o["tokens"]), form)
        if stored is None:
            return None
        constants = {name: constant(array) for name, array in stored.operands.items()}
        call = emit_call(stored.kernel, {"ids": o["ids"], **constants}, o.n, **stored.attrs)
        rows = emit(call, f"{var.name}_tokens")
        numbers = constant(np.arange(o.shape("ids")[0], dtype=np.uint16))
        return emit_call("embed", {**o.tensors, "ids": numbers, "tokens": rows}, o.n, **o.attrs, gathered=1)

    return function_pass("CompressTables", lambda main: rebuild(main, rewrite))

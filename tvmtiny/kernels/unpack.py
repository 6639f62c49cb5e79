"""int8 values from indices into a codebook (`tvmtiny.storage.indices`).

Without `ids` data is one row, (1, row_bytes) -> (1, count); with ids (S,) the rows that they name, (S, count).
"""

from __future__ import annotations

import numpy as np
from tvm import relax, tirx
from tvm.script import tirx as T

from tvmtiny.kernels import stored
from tvmtiny.kernels.base import Array, Blocking, Kernel, Operands, by_rows, padded
from tvmtiny.storage import indices


def _infer(o: Operands) -> relax.TensorType:
    rows = o.shape("ids")[0] if "ids" in o else 1
    return relax.TensorType([rows, o.attrs["count"]], "int8")


def _reference(o: Operands, n: int) -> Array:
    values = indices.unpack(np.asarray(o["data"]), np.asarray(o["codebook"]), o.attrs["count"])
    return padded(values[o["ids"][:n]], o.shape("ids")[0]) if "ids" in o else values


def _prim_func(o: Operands, blocking: Blocking) -> tirx.PrimFunc:
    (R, B), entries, C = o.shape("data"), o.shape("codebook")[0], o.attrs["count"]
    bits = indices.index_bits(entries)
    if "ids" not in o:

        @T.prim_func(private=True, s_tir=True)
        def unpack(
            data: T.Buffer((R, B), "uint8"),
            codebook: T.Buffer((entries,), "int8"),
            out: T.Buffer((R, C), "int8"),
        ):
            stored.unpack_s8(data, codebook, out, C, B, bits)

        return unpack
    S = o.shape("ids")[0]

    @T.prim_func(private=True, s_tir=True)
    def unpack_rows(
        ids: T.Buffer((S,), "uint16"),
        data: T.Buffer((R, B), "uint8"),
        codebook: T.Buffer((entries,), "int8"),
        n: T.int32,
        out: T.Buffer((S, C), "int8"),
    ):
        stored.unpack_rows_s8(ids, data, codebook, out, T.min(n, S), C, R, B, bits)

    return unpack_rows


KERNEL = Kernel(
    name="unpack",
    arguments=("ids", "data", "codebook"),
    infer=_infer,
    reference=_reference,
    prim_func=_prim_func,
    macs=lambda o, n: 0,
    variant=lambda o: "rows" if "ids" in o else "",
    stepping=by_rows,
)

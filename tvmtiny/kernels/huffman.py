"""Bytes from a Huffman code (`tvmtiny.storage.huffman`): int8, or uint8 with the attribute `unsigned`.

Without `ids` data is one array, -> (1, count); with ids (S,) and `starts` the rows that they name, -> (S, count).
"""

from __future__ import annotations

import numpy as np
from tvm import relax, tirx
from tvm.script import tirx as T

from tvmtiny.kernels import stored
from tvmtiny.kernels.base import Array, Blocking, Kernel, Operands, by_rows, padded
from tvmtiny.storage.huffman import GROUP, LIMIT, Code


def _dtype(o: Operands) -> str:
    return "uint8" if o.attrs["unsigned"] else "int8"


def _infer(o: Operands) -> relax.TensorType:
    rows = o.shape("ids")[0] if "ids" in o else 1
    return relax.TensorType([rows, o.attrs["count"]], _dtype(o))


def _reference(o: Operands, n: int) -> Array:
    code, data, count = (
        Code(np.asarray(o["symbols"]), np.asarray(o["lengths"])),
        np.asarray(o["data"]),
        o.attrs["count"],
    )
    if "ids" not in o:
        return code.decode(data, count).view(_dtype(o))[None]
    rows = [
        code.decode(data, count * (row % GROUP + 1), int(o["starts"][row // GROUP]))[-count:]
        for row in o["ids"][:n].tolist()
    ]
    return padded(np.stack(rows).view(_dtype(o)), o.shape("ids")[0])


def _prim_func(o: Operands, blocking: Blocking) -> tirx.PrimFunc:
    B, N, C, dtype = o.shape("data")[0], o.shape("symbols")[0], o.attrs["count"], _dtype(o)
    if "ids" not in o:

        @T.prim_func(private=True, s_tir=True)
        def huffman(
            data: T.Buffer((B,), "uint8"),
            symbols: T.Buffer((N,), "uint8"),
            lengths: T.Buffer((LIMIT,), "uint8"),
            out: T.Buffer((1, C), dtype),
        ):
            table = T.sblock_alloc_buffer((stored.TABLE,), "uint16")
            stored.huffman_s8(data, symbols, lengths, out, table, C, B, N, dtype)

        return huffman
    S, G = o.shape("ids")[0], o.shape("starts")[0]

    @T.prim_func(private=True, s_tir=True)
    def huffman_rows(
        ids: T.Buffer((S,), "uint16"),
        starts: T.Buffer((G,), "uint32"),
        data: T.Buffer((B,), "uint8"),
        symbols: T.Buffer((N,), "uint8"),
        lengths: T.Buffer((LIMIT,), "uint8"),
        n: T.int32,
        out: T.Buffer((S, C), dtype),
    ):
        table = T.sblock_alloc_buffer((stored.TABLE,), "uint16")
        stored.huffman_rows_s8(
            ids, starts, data, symbols, lengths, out, table, T.min(n, S), C, G, B, N, dtype
        )

    return huffman_rows


KERNEL = Kernel(
    name="huffman",
    arguments=("ids", "starts", "data", "symbols", "lengths"),
    infer=_infer,
    reference=_reference,
    prim_func=_prim_func,
    macs=lambda o, n: 0,
    variant=lambda o: "rows" if "ids" in o else "",
    stepping=by_rows,
)

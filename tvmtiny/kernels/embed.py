"""Token embedding plus positions, gathered straight from flash; ids (S,) uint16 -> (S, E) int8 or int16.

A second input of ids, such as token types, may select from a table of its own.
"""

from __future__ import annotations

from tvm import relax, tirx
from tvm.script import tirx as T

from tvmtiny.kernels import tile
from tvmtiny.kernels.base import Array, Blocking, Kernel, Operands, padded
from tvmtiny.kernels.epilogue import Epilogue, finish, finish_reference
from tvmtiny.quant import integer


def _infer(o: Operands) -> relax.TensorType:
    return relax.TensorType(list(o.shape("positions")), Epilogue.of(o.attrs).dtype)


def _reference(o: Operands, n: int) -> Array:
    t = integer.embed_s32(
        o["ids"][:n], o["tokens"], o["positions"], o.attrs["token_factor"], o.attrs["position_factor"]
    )
    if "segments" in o:
        t = integer.add_embedding_s32(t, o["segment_ids"][:n], o["segments"], o.attrs["segment_factor"])
    return padded(finish_reference(t, o, Epilogue.of(o.attrs)), o.shape("positions")[0])


def _prim_func(o: Operands, blocking: Blocking) -> tirx.PrimFunc:
    (S, E), V = o.shape("positions"), o.shape("tokens")[0]
    R, e = min(blocking.rows, S), Epilogue.of(o.attrs)
    token_factor, position_factor = o.attrs["token_factor"], o.attrs["position_factor"]
    segmented, G = "segments" in o, o.shape("segments")[0]
    segment_factor = o.attrs.get("segment_factor", 0)

    @T.prim_func(private=True, s_tir=True)
    def embed(
        ids: T.Buffer((S,), "uint16"),
        tokens: T.Buffer((V, E), "int8"),
        positions: T.Buffer((S, E), "int8"),
        segment_ids: T.Buffer((S,), "uint16"),
        segments: T.Buffer((G, E), "int8"),
        gamma: T.Buffer((E,), "int32"),
        beta: T.Buffer((E,), "int32"),
        n: T.int32,
        out: T.Buffer((S, E), e.dtype),
    ):
        t = T.sblock_alloc_buffer((R, E), "int32")
        for block in T.serial(tile.blocks_of(n, R)):
            tile.embed_s32(
                ids,
                tokens,
                positions,
                tile.block_start(block, n, R),
                t,
                tile.block_rows(block, n, R),
                E,
                token_factor,
                position_factor,
            )
            if segmented:
                tile.add_embedding_s32(
                    t,
                    segment_ids,
                    segments,
                    tile.block_start(block, n, R),
                    tile.block_rows(block, n, R),
                    E,
                    segment_factor,
                )
            finish(
                t,
                positions,
                gamma,
                beta,
                out,
                tile.block_start(block, n, R),
                tile.block_rows(block, n, R),
                E,
                e,
            )

    return embed


KERNEL = Kernel(
    name="embed",
    arguments=("ids", "tokens", "positions", "segment_ids", "segments", "gamma", "beta"),
    infer=_infer,
    reference=_reference,
    prim_func=_prim_func,
    macs=lambda o, n: 0,
    variant=lambda o: "segments" if "segments" in o else "",
)

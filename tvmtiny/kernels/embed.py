"""Token embedding plus positions, gathered straight from flash; ids (S,) uint16 -> (S, E) int8 or int16.

A second input of ids, such as token types, may select from a table of its own. The table of tokens may have a scale a
row (operand `row_factors`), as one that is the weights of the last layer, too. A step has the number of earlier tokens
as its operand `start`. With the attribute `gathered` the ids count the rows, decoded for the tokens there are.
"""

from __future__ import annotations

from typing import Any

from tvm import relax, tirx
from tvm.script import tirx as T

from tvmtiny.kernels import tile
from tvmtiny.kernels.base import Array, Blocking, Kernel, Operands, Stepping, padded
from tvmtiny.kernels.epilogue import Epilogue, finish, finish_reference
from tvmtiny.quant import integer

POSITION_BITS = 31
"""Positions that are added to scaled rows saturate to this width; `passes.quantize` sees to it that none does."""


def _infer(o: Operands) -> relax.TensorType:
    return relax.TensorType([o.shape("ids")[0], o.shape("tokens")[1]], Epilogue.of(o.attrs).dtype)


def _reference(o: Operands, n: int) -> Array:
    ids, a, start = o["ids"][:n], o.attrs, o.tensors.get("start", 0)
    if "row_factors" in o:
        t = integer.embed_scaled_s32(ids, o["tokens"], o["row_factors"])
        if "positions" in o:
            positions = o["positions"][start : start + len(ids)]
            t = integer.add_residual_s32(t, positions, 0, a["position_shift"], POSITION_BITS)
    elif "positions" in o:
        positions = o["positions"][start : start + len(ids)]
        t = integer.embed_s32(ids, o["tokens"], positions, a["token_factor"], a["position_factor"])
    else:
        t = integer.add_embedding_s32(
            o["tokens"][ids].astype("int32") * 0, ids, o["tokens"], a["token_factor"]
        )
    if "segments" in o:
        t = integer.add_embedding_s32(t, o["segment_ids"][:n], o["segments"], a["segment_factor"])
    return padded(finish_reference(t, o, Epilogue.of(a)), o.shape("ids")[0])


@T.inline
def _sum(ids, tokens, row_factors, positions, first, position, t, rows, cols, form):
    """The embedding of `rows` tokens from `first` on, the first of which has the number `position`."""
    if form["scaled"]:
        tile.embed_scaled_s32(ids, tokens, row_factors, first, t, rows, cols)
        if form["positioned"]:
            tile.add_residual_s32(
                t, positions, position, rows, cols, 0, form["position_shift"], POSITION_BITS
            )
    elif form["positioned"]:
        tile.embed_s32(
            ids,
            tokens,
            positions,
            first,
            position,
            t,
            rows,
            cols,
            form["token_factor"],
            form["position_factor"],
        )
    else:
        tile.clear_s32(t, rows, cols)
        tile.add_embedding_s32(t, ids, tokens, first, rows, cols, form["token_factor"])


def _prim_func(o: Operands, blocking: Blocking) -> tirx.PrimFunc:
    S, (V, E), L = o.shape("ids")[0], o.shape("tokens"), o.shape("positions")[0]
    R, e = min(blocking.rows, S), Epilogue.of(o.attrs)
    form: dict[str, Any] = {**o.attrs, "scaled": "row_factors" in o, "positioned": "positions" in o}
    segmented, G, later = "segments" in o, o.shape("segments")[0], "start" in o

    @T.prim_func(private=True, s_tir=True)
    def embed(
        ids: T.Buffer((S,), "uint16"),
        tokens: T.Buffer((V, E), "int8"),
        row_factors: T.Buffer((V,), "uint16"),
        positions: T.Buffer((L, E), "int8"),
        segment_ids: T.Buffer((S,), "uint16"),
        segments: T.Buffer((G, E), "int8"),
        gamma: T.Buffer((E,), "int32"),
        beta: T.Buffer((E,), "int32"),
        start: T.int32,
        n: T.int32,
        out: T.Buffer((S, E), e.dtype),
    ):
        t = T.sblock_alloc_buffer((R, E), "int32")
        for block in T.serial(tile.blocks_of(n, R)):
            _sum(
                ids, tokens, row_factors, positions, tile.block_start(block, n, R),
                (start if later else 0) + tile.block_start(block, n, R), t, tile.block_rows(block, n, R), E, form,
            )  # fmt: skip
            if segmented:
                tile.add_embedding_s32(
                    t, segment_ids, segments, tile.block_start(block, n, R), tile.block_rows(block, n, R), E,
                    form["segment_factor"],
                )  # fmt: skip
            finish(
                t, tokens, gamma, beta, out, tile.block_start(block, n, R), tile.block_rows(block, n, R), E, e
            )

    return embed


def _stepping(o: Operands, _tokens: int) -> Stepping | str:
    return Stepping(positioned=True, positions=o.shape("positions")[0]) if "positions" in o else Stepping()


KERNEL = Kernel(
    name="embed",
    arguments=(
        "ids",
        "tokens",
        "row_factors",
        "positions",
        "segment_ids",
        "segments",
        "gamma",
        "beta",
        "start",
    ),
    infer=_infer,
    reference=_reference,
    prim_func=_prim_func,
    macs=lambda o, n: 0,
    inplace=lambda o: ("tokens",) if o.attrs.get("gathered") else (),
    variant=lambda o: "segments" if "segments" in o else "",
    stepping=_stepping,
)

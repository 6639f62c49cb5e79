"""The tile operators that bring weights from the form in which flash holds them to bytes: see `tvmtiny.storage`."""

from __future__ import annotations

from tvm.script import tirx as T

from tvmtiny.storage import huffman

TABLE = 258
"""Elements (uint16) of a decoder's work memory: TVMT_HUFFMAN_TABLE of tvmt_huffman.h."""

assert huffman.GROUP == 4, "huffman_rows_s8 below is written for it"


@T.inline
def unpack_value(data, row, codebook, out, out_row, i, bits, last):
    """out[out_row, i] = codebook[index i of row `row`]; an index lies in one or two bytes, `last` is the last one."""
    out[out_row, i] = codebook[
        T.bitwise_and(
            T.shift_right(
                T.bitwise_or(
                    T.Cast("int32", data[row, T.truncdiv(i * bits, 8)]),
                    T.shift_left(T.Cast("int32", data[row, T.min(T.truncdiv(i * bits, 8) + 1, last)]), 8),
                ),
                T.truncmod(i * bits, 8),
            ),
            T.shift_left(1, bits) - 1,
        )
    ]


@T.inline
def unpack_s8(data, codebook, out, cols, row_bytes, bits):
    """out[0, i] = codebook[index i], of `cols` indices."""
    with T.sblock("unpack_s8"):
        T.reads(data[0:1, 0:row_bytes], codebook[0 : T.shift_left(1, bits)])
        T.writes(out[0:1, 0:cols])
        T.sblock_attr({"tvmtiny.tile": "unpack_s8", "tvmtiny.scalars": [bits]})
        for i in T.serial(cols):
            unpack_value(data, 0, codebook, out, 0, i, bits, row_bytes - 1)


@T.inline
def unpack_rows_s8(ids, data, codebook, out, rows, cols, table_rows, row_bytes, bits):
    """out[r, i] = codebook[index i of row ids[r]]."""
    with T.sblock("unpack_rows_s8"):
        T.reads(ids[0:rows], data[0:table_rows, 0:row_bytes], codebook[0 : T.shift_left(1, bits)])
        T.writes(out[0:rows, 0:cols])
        T.sblock_attr({"tvmtiny.tile": "unpack_rows_s8", "tvmtiny.scalars": [bits]})
        for r, i in T.grid(rows, cols):
            unpack_value(data, T.Cast("int32", ids[r]), codebook, out, r, i, bits, row_bytes - 1)


@T.inline
def next_byte(data, symbols, lengths, at, place, symbol, length, out, out_row, i, dtype):
    """out[out_row, i] = the symbol whose word begins at the bit at[0], which moves behind it.

    place: of the word among those of its length, as far as it has been read. symbol: how many are shorter. length: of
    the word, 0 before its end is found.
    """
    place[0] = 0
    symbol[0] = 0
    length[0] = 0
    for bits in T.serial(huffman.LIMIT):
        if length[0] == 0:
            place[0] = place[0] * 2 + T.bitwise_and(
                T.shift_right(T.Cast("int32", data[T.truncdiv(at[0], 8)]), 7 - T.truncmod(at[0], 8)),
                1,
            )
            at[0] = at[0] + 1
            if place[0] < T.Cast("int32", lengths[bits]):
                length[0] = bits + 1
                out[out_row, i] = T.Cast(dtype, symbols[symbol[0] + place[0]])
            place[0] = place[0] - T.Cast("int32", lengths[bits])
            symbol[0] = symbol[0] + T.Cast("int32", lengths[bits])


@T.inline
def huffman_s8(data, symbols, lengths, out, table, cols, size, n_symbols, dtype):
    """out[0, i] = byte i of `data`."""
    with T.sblock("huffman_s8"):
        T.reads(data[0:size], symbols[0:n_symbols], lengths[0 : huffman.LIMIT])
        T.writes(out[0:1, 0:cols], table[0:1])
        T.sblock_attr({"tvmtiny.tile": "huffman_s8", "tvmtiny.scalars": []})
        at = T.sblock_alloc_buffer((1,), "int32")
        place = T.sblock_alloc_buffer((1,), "int32")
        symbol = T.sblock_alloc_buffer((1,), "int32")
        length = T.sblock_alloc_buffer((1,), "int32")
        at[0] = 0
        for i in T.serial(cols):
            next_byte(data, symbols, lengths, at, place, symbol, length, out, 0, i, dtype)


@T.inline
def huffman_rows_s8(
    ids, starts, data, symbols, lengths, out, table, rows, cols, groups, size, n_symbols, dtype
):  # fmt: skip
    """out[r, i] = byte i of row ids[r]; the rows of its group before it go through the same place."""
    with T.sblock("huffman_rows_s8"):
        T.reads(
            ids[0:rows],
            starts[0:groups],
            data[0:size],
            symbols[0:n_symbols],
            lengths[0 : huffman.LIMIT],
        )
        T.writes(out[0:rows, 0:cols], table[0:1])
        T.sblock_attr({"tvmtiny.tile": "huffman_rows_s8", "tvmtiny.scalars": []})
        at = T.sblock_alloc_buffer((1,), "int32")
        place = T.sblock_alloc_buffer((1,), "int32")
        symbol = T.sblock_alloc_buffer((1,), "int32")
        length = T.sblock_alloc_buffer((1,), "int32")
        for r in T.serial(rows):
            at[0] = T.Cast("int32", starts[T.truncdiv(T.Cast("int32", ids[r]), 4)])
            for _before in T.serial(T.truncmod(T.Cast("int32", ids[r]), 4) + 1):
                for i in T.serial(cols):
                    next_byte(data, symbols, lengths, at, place, symbol, length, out, r, i, dtype)

"""Cases for the micro-kernels that decode weights, expected bytes from tvmtiny.storage."""

from __future__ import annotations

import numpy as np

from microkernel_driver.cases import Argument, Buffer, Case, noise
from tvmtiny.kernels.stored import TABLE
from tvmtiny.storage import indices
from tvmtiny.storage.huffman import GROUP, Code, histogram_of

Rng = np.random.Generator


def _out(rng: Rng, values: np.ndarray) -> Buffer:
    return Buffer(
        noise(rng, np.int8, values.size), values.reshape(-1).view(np.int8), skew=int(rng.integers(0, 4))
    )


def _ids(rng: Rng, rows: int, table_rows: int) -> np.ndarray:
    return rng.integers(0, table_rows, rows).astype(np.uint16)


def _packed(rng: Rng, rows: int, cols: int) -> tuple[np.ndarray, np.ndarray, int]:
    """A table of any indices and any codebook, and their bits."""
    bits = int(rng.integers(1, indices.MAX_BITS + 1))
    data = rng.integers(0, 256, (rows, indices.row_bytes(cols, bits))).astype(np.uint8)
    return data, rng.integers(-128, 128, 2**bits).astype(np.int8), bits


def unpack_s8(rng: Rng, rows: int, cols: int, depth: int, extreme: bool) -> Case:
    count = cols * depth
    data, codebook, bits = _packed(rng, 1, count)
    out = _out(rng, indices.unpack(data, codebook, count))
    arguments = (Buffer(data, skew=int(rng.integers(0, 4))), Buffer(codebook), out, count, bits)
    return Case("unpack_s8", arguments, f"{count} of {bits} bits")


def unpack_rows_s8(rng: Rng, rows: int, cols: int, depth: int, extreme: bool) -> Case:
    data, codebook, bits = _packed(rng, cols, depth)
    ids = _ids(rng, rows, cols)
    out = _out(rng, indices.unpack(data, codebook, depth)[ids])
    arguments = (Buffer(ids), Buffer(data), Buffer(codebook), out, rows, depth, data.shape[1], bits)
    return Case("unpack_rows_s8", arguments, f"{rows} of {cols}x{depth}, {bits} bits")


def _coded(rng: Rng, rows: int, cols: int, extreme: bool) -> tuple[np.ndarray, Code, np.ndarray, np.ndarray]:
    """Bytes (rows, cols), their code, data and starts; extreme: as unequal as the longest words ask for."""
    distinct = int(rng.integers(1, 257))
    share = np.exp(-np.arange(distinct) * (0.7 if extreme else rng.uniform(0, 0.05)))
    values = rng.permutation(256)[:distinct][rng.choice(distinct, (rows, cols), p=share / share.sum())]
    values = values.astype(np.uint8)
    code = Code.of(histogram_of(values))
    return values, code, *code.encode(values)


def _code_arguments(rng: Rng, data: np.ndarray, code: Code, out: Buffer) -> list[Argument]:
    table = Buffer(noise(rng, np.uint16, TABLE), np.zeros(TABLE, np.uint16))  # cleared by the driver
    return [
        Buffer(data, skew=int(rng.integers(0, 4))),
        Buffer(code.symbols),
        Buffer(code.lengths),
        out,
        table,
    ]


def huffman_s8(rng: Rng, rows: int, cols: int, depth: int, extreme: bool) -> Case:
    values, code, data, _ = _coded(rng, cols, depth, extreme)
    arguments = _code_arguments(rng, data, code, _out(rng, values))
    sizes = (len(data), len(code.symbols), values.size)
    return Case("huffman_s8", (*arguments, *sizes, 2 * TABLE), f"{values.size}, {len(code.symbols)} distinct")


def huffman_rows_s8(rng: Rng, rows: int, cols: int, depth: int, extreme: bool) -> Case:
    values, code, data, starts = _coded(rng, cols + GROUP, depth, extreme)
    ids = _ids(rng, rows, len(values))
    arguments = _code_arguments(rng, data, code, _out(rng, values[ids]))
    sizes = (rows, depth, len(data), len(code.symbols))
    return Case(
        "huffman_rows_s8",
        (Buffer(ids), Buffer(starts), *arguments, *sizes, 2 * TABLE),
        f"{rows} of {len(values)}x{depth}, {len(code.symbols)} distinct",
    )

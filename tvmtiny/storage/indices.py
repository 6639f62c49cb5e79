"""int8 values as indices of a few bits into a codebook of the distinct ones.

A row of indices begins at a byte: eight indices of b bits are b bytes, the first in the lowest bits. The codebook has
2**b entries, so that no index lies beyond it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

MAX_BITS = 7
"""Indices of eight bits would be the values themselves."""


def index_bits(distinct: int) -> int:
    """Bits of an index into a codebook of `distinct` values."""
    return max(1, int(distinct - 1).bit_length())


def row_bytes(count: int, bits: int) -> int:
    """Bytes of a row of `count` indices."""
    return -(-count * bits // 8)


def pack(values: Array) -> tuple[Array, Array]:
    """int8 (R, C) of at most 2**MAX_BITS distinct values -> uint8 (R, row_bytes), codebook int8 (2**bits,)."""
    distinct = np.unique(values)
    bits = index_bits(len(distinct))
    assert bits <= MAX_BITS, f"{len(distinct)} distinct values"
    indices = np.searchsorted(distinct, values).astype(np.uint8)
    flat = np.unpackbits(indices[..., None], axis=-1, bitorder="little", count=bits).reshape(len(values), -1)
    codebook = np.full(2**bits, distinct[-1], np.int8)
    codebook[: len(distinct)] = distinct
    return np.packbits(flat, axis=1, bitorder="little"), codebook


def unpack(data: Array, codebook: Array, count: int) -> Array:
    """What `pack` packed: int8 (R, count)."""
    bits = index_bits(len(codebook))
    flat = np.unpackbits(data, axis=1, bitorder="little", count=count * bits).reshape(len(data), count, bits)
    return np.asarray(codebook[np.packbits(flat, axis=-1, bitorder="little")[..., 0]])

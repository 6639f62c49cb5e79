"""How the columns of a matrix product lie in memory: plain, a column a row of the buffer, or in pairs.

Columns are weights of a dense layer, keys, or channels of the values. Plain columns are a buffer (N, K). Pairs are
(ceil(N / 2), K filled up to a multiple of four, 2): the elements of two columns alternate, so that a core with 16-bit
SIMD loads two elements of both in one word. What fills up multiplies with zeros, so its content does not matter.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm.script import tirx as T

from tvmtiny.kernels.base import Array


def fours(depth: int) -> int:
    """`depth` filled up to a multiple of four."""
    return -(-depth // 4) * 4


def columns_shape(count: int, depth: int, pairs: bool) -> tuple[int, ...]:
    """Shape of a buffer of `count` columns of `depth` elements."""
    return (-(-count // 2), fours(depth), 2) if pairs else (count, depth)


def in_pairs(columns: Array) -> Array:
    """Plain columns (N, K) as pairs (ceil(N / 2), K', 2), filled up with zeros."""
    count, depth = columns.shape
    filled = np.zeros((count + count % 2, fours(depth)), columns.dtype)
    filled[:count, :depth] = columns
    return np.ascontiguousarray(filled.reshape(-1, 2, filled.shape[1]).transpose(0, 2, 1))


def paired(columns: Any) -> bool:
    """Whether a TIR buffer holds pairs of columns."""
    return len(columns.shape) == 3


def element(columns: Any, j: Any, k: Any) -> Any:
    """Element k of column j of a TIR buffer."""
    return columns[element_at(columns, j, k)]


def element_at(columns: Any, j: Any, k: Any) -> tuple[Any, ...]:
    """The indices of element k of column j."""
    return (T.truncdiv(j, 2), k, T.truncmod(j, 2)) if paired(columns) else (j, k)


def region(columns: Any, first: Any, count: Any, depth: Any) -> Any:
    """The part of a TIR buffer that holds `count` columns from `first` on, which is even where they lie in pairs."""
    if not paired(columns):
        return columns[first : first + count, 0:depth]
    start = T.truncdiv(first, 2)
    return columns[start : start + T.truncdiv(count + 1, 2), 0:depth, 0:2]

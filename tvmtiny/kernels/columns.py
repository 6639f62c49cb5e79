"""How the columns of a matrix product lie in memory.

Columns are weights of a dense layer, keys, or channels of the values. In C order:

- `plain` (N, K): a column a row of the buffer.
- `pairs` (ceil(N / 2), K', 2), where K' is K filled up to a multiple of four: the elements of two columns alternate, so
  that a core with 16-bit SIMD loads two elements of both in one word.
- `wide_pairs` (ceil(N / 2), K' / 2, 2, 2) of int16: two elements of one column, then two of the other, as such a core
  multiplies them. Twice the memory, so for weights in flash only.

What fills up is multiplied with zeros, so its content does not matter.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm.script import tirx as T

from tvmtiny.kernels.base import PAIRS, PLAIN, WIDE_PAIRS, Array


def fours(depth: int) -> int:
    """`depth` filled up to a multiple of four."""
    return -(-depth // 4) * 4


def columns_shape(count: int, depth: int, layout: str) -> tuple[int, ...]:
    """Shape of a buffer of `count` columns of `depth` elements."""
    if layout == PLAIN:
        return (count, depth)
    pairs = -(-count // 2)
    return (pairs, fours(depth), 2) if layout == PAIRS else (pairs, fours(depth) // 2, 2, 2)


def columns_type(layout: str) -> str:
    """Element type of weights."""
    return "int16" if layout == WIDE_PAIRS else "int8"


def laid_out(columns: Array, layout: str) -> Array:
    """Plain columns (N, K) of int8 in another layout, filled up with zeros."""
    if layout == PLAIN:
        return columns
    count, depth = columns.shape
    filled = np.zeros((count + count % 2, fours(depth)), columns_type(layout))
    filled[:count, :depth] = columns
    pairs = filled.reshape(-1, 2, filled.shape[1])
    if layout == PAIRS:
        return np.ascontiguousarray(pairs.transpose(0, 2, 1))
    return np.ascontiguousarray(pairs.reshape(len(pairs), 2, -1, 2).transpose(0, 2, 1, 3))


def layout_of(columns: Any) -> str:
    """The layout of a TIR buffer of columns, by its rank."""
    return {2: PLAIN, 3: PAIRS, 4: WIDE_PAIRS}[len(columns.shape)]


def paired(columns: Any) -> bool:
    """Whether a TIR buffer holds pairs of columns."""
    return layout_of(columns) != PLAIN


def element(columns: Any, j: Any, k: Any) -> Any:
    """Element k of column j of a TIR buffer."""
    return columns[element_at(columns, j, k)]


def element_at(columns: Any, j: Any, k: Any) -> tuple[Any, ...]:
    """The indices of element k of column j."""
    pair, second = T.truncdiv(j, 2), T.truncmod(j, 2)
    if layout_of(columns) == WIDE_PAIRS:
        return (pair, T.truncdiv(k, 2), second, T.truncmod(k, 2))
    return (pair, k, second) if paired(columns) else (j, k)


def region(columns: Any, first: Any, count: Any, depth: Any, start: Any = 0) -> Any:
    """The part of a TIR buffer that holds elements of `count` columns from `first` on, which is even in pairs.

    Args:
        start: the first of the `depth` elements; 0 in `wide_pairs`.
    """
    if not paired(columns):
        return columns[first : first + count, start : start + depth]
    pair = T.truncdiv(first, 2)
    end = pair + T.truncdiv(count + 1, 2)
    if layout_of(columns) == WIDE_PAIRS:
        return columns[pair:end, 0 : T.truncdiv(depth + 1, 2), 0:2, 0:2]
    return columns[pair:end, start : start + depth, 0:2]

"""Canonical Huffman codes of bytes, with words of at most LIMIT bits.

A code is what a decoder needs: the symbols in the order of their words (shorter ones first, then by value), and how
many words there are of each length. Bits are read from the highest of each byte. In a table whose rows are wanted one
at a time the first bit of every GROUP-th row is known, and those before a row in its group are decoded with it.

The lengths are the best that there are within LIMIT: package-merge, Larmore and Hirschberg, "A fast algorithm for
optimal length-limited Huffman codes" (J. ACM 37, 1990). `tvmt_huffman.h` decodes on the device.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

LIMIT = 12
"""Bits of the longest word; longer ones would save less than a thousandth of what they cost a decoder."""

GROUP = 4
"""Rows that share an entry of `starts`."""

BEHIND = 3
"""Bytes behind the last word: a decoder loads four at a time."""


def code_lengths(weights: Array, limit: int = LIMIT) -> Array:
    """Bits of the word of each symbol: int (n,), for positive weights (n,), 1 <= n <= 2**limit.

    A package is a set of words, as a row that counts how often each symbol is in it: so often its word grows by a bit.
    """
    n = len(weights)
    if n == 1:
        return np.ones(1, np.int64)
    own_cost, own = weights.astype(np.int64), np.eye(n, dtype=np.int64)
    cost, packages = np.zeros(0, np.int64), np.zeros((0, n), np.int64)
    for _ in range(limit):
        cost, packages = np.concatenate([own_cost, cost]), np.concatenate([own, packages])
        order = np.argsort(cost, kind="stable")
        merged = packages[order]
        pairs = order[: len(order) // 2 * 2].reshape(-1, 2)
        cost, packages = cost[pairs].sum(axis=1), packages[pairs].sum(axis=1)
    return np.asarray(merged[: 2 * n - 2].sum(axis=0))


@dataclasses.dataclass(frozen=True)
class Code:
    """A code as flash holds it.

    Attributes:
        symbols: uint8 (n,).
        lengths: words of 1 to LIMIT bits, uint8 (LIMIT,).
    """

    symbols: Array
    lengths: Array

    @classmethod
    def of(cls, histogram: Array) -> Code:
        """The best code that `lengths` can state for bytes of which there are `histogram` (256,), at least one."""
        used = np.flatnonzero(histogram)
        bits = code_lengths(histogram[used])
        if (
            np.all(bits == 8) and len(bits) == 256
        ):  # a byte cannot count them; such bytes become no shorter anyway
            by_weight = np.argsort(histogram[used], kind="stable")
            bits[by_weight[-1]], bits[by_weight[:2]] = 7, 9
        order = np.lexsort((used, bits))
        lengths = np.bincount(bits, minlength=LIMIT + 1)[1:]
        return cls(used[order].astype(np.uint8), lengths.astype(np.uint8))

    @property
    def bytes(self) -> int:
        """In flash."""
        return self.symbols.nbytes + self.lengths.nbytes

    def words(self) -> tuple[Array, Array]:
        """Word and its length in bits of each symbol, by byte: int64 (256,), length 0 where there is none."""
        words, bits = np.zeros(256, np.int64), np.zeros(256, np.int64)
        word, at = 0, 0
        for length, count in enumerate(self.lengths.tolist(), 1):
            word <<= 1
            chosen = self.symbols[at : at + count]
            words[chosen], bits[chosen] = word + np.arange(len(chosen)), length
            word, at = word + count, at + count
        return words, bits

    def bits(self, histogram: Array) -> int:
        """What bytes of which there are `histogram` take."""
        return int((self.words()[1] * histogram).sum())

    def encode(self, values: Array) -> tuple[Array, Array]:
        """Bytes (R, C) -> data uint8, and the first bit of every GROUP-th row uint32."""
        words, lengths = self.words()
        flat = values.reshape(-1)
        sizes = lengths[flat]
        assert np.all(sizes > 0), "a byte that the code has no word for"
        places = np.concatenate([[0], np.cumsum(sizes)])
        stream = np.zeros(int(places[-1]), np.uint8)
        for bit in range(int(sizes.max())):
            longer = sizes > bit
            stream[places[:-1][longer] + bit] = words[flat[longer]] >> (sizes[longer] - 1 - bit) & 1
        data = np.concatenate([np.packbits(stream), np.zeros(BEHIND, np.uint8)])
        starts = places[: -1 : values.shape[1]][::GROUP]
        return data, starts.astype(np.uint32)

    def decode(self, data: Array, count: int, first: int = 0) -> Array:
        """`count` bytes from the bit `first` on: uint8 (count,)."""
        words, lengths = self.words()
        entries = np.zeros(2**LIMIT, np.int64)  # by the next LIMIT bits: symbol, and the length above it
        for symbol in self.symbols.tolist():
            low = int(words[symbol]) << int(LIMIT - lengths[symbol])
            entries[low : low + 2 ** int(LIMIT - lengths[symbol])] = int(lengths[symbol]) << 8 | symbol
        bits = np.unpackbits(data)[first:]
        padded = np.concatenate([bits, np.zeros(LIMIT, np.uint8)]).astype(np.int64)
        windows = sum(
            padded[i : len(bits) + i] << (LIMIT - 1 - i) for i in range(LIMIT)
        )  # what the next bits are, at each bit
        steps, at, out = entries[windows].tolist(), 0, np.zeros(count, np.uint8)
        for i in range(count):
            out[i] = steps[at] & 255
            at += steps[at] >> 8
        return out


def histogram_of(values: Array) -> Array:
    """How often each byte occurs: int64 (256,)."""
    return np.bincount(values.reshape(-1).view(np.uint8), minlength=256)


def entropy_bits(histogram: Array) -> float:
    """The least that any code takes for bytes of which there are `histogram`."""
    used = histogram[histogram > 0].astype(np.float64)
    return float((used * np.log2(used.sum() / used)).sum())


def shared(histograms: list[Array]) -> list[int]:
    """For each array of bytes which of the others share its code: equal numbers for those that do.

    A code costs its symbols and lengths. Two groups become one as long as that is worth more than what the words of a
    common code take longer, the most worthwhile pair first.
    """

    def cost(histogram: Array) -> float:
        return entropy_bits(histogram) / 8 + np.count_nonzero(histogram) + LIMIT

    groups = {number: ([number], histogram, cost(histogram)) for number, histogram in enumerate(histograms)}

    def gain(one: int, other: int) -> float:
        return groups[one][2] + groups[other][2] - cost(groups[one][1] + groups[other][1])

    gains = {pair: gain(*pair) for pair in itertools.combinations(groups, 2)}
    while gains and max(gains.values()) > 0:
        one, other = max(gains, key=lambda pair: gains[pair])
        members, histogram, _ = groups.pop(other)
        joint = groups[one][1] + histogram
        groups[one] = ([*groups[one][0], *members], joint, cost(joint))
        gains = {pair: found for pair, found in gains.items() if other not in pair and one not in pair}
        gains |= {(min(one, third), max(one, third)): gain(one, third) for third in groups if third != one}
    numbers = [0] * len(histograms)
    for number, (members, _, _) in groups.items():
        for member in members:
            numbers[member] = number
    return numbers

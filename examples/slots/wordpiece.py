"""Learn a WordPiece vocabulary, the same one on every run.

The trainer of the tokenizers library breaks ties by the iteration order of a randomly seeded hash map, so two
runs differ; here ties go to the pair that sorts first. Pieces are learned as in byte-pair encoding (Sennrich
et al., 2016), as that trainer does too, and written the WordPiece way: `##` inside a word.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise

INSIDE = "##"

Pair = tuple[str, str]


class _Words:
    """Distinct words as lists of pieces, with the count of every adjacent pair kept up to date."""

    def __init__(self, counts: Counter[str]) -> None:
        self.counts = [counts[word] for word in sorted(counts)]
        self.pieces = [[word[0], *(INSIDE + letter for letter in word[1:])] for word in sorted(counts)]
        self.pairs: Counter[Pair] = Counter()
        self.places: defaultdict[Pair, set[int]] = defaultdict(set)
        for index in range(len(self.pieces)):
            self._count(index, 1)

    def _count(self, index: int, sign: int) -> None:
        pieces = self.pieces[index]
        for pair in pairwise(pieces):
            self.pairs[pair] += sign * self.counts[index]
            self.places[pair].add(index)

    def best(self) -> Pair | None:
        """The most frequent pair, of equals the one that sorts first; None when no pair occurs twice."""
        pair = min(self.pairs, key=lambda p: (-self.pairs[p], p), default=None)
        return pair if pair and self.pairs[pair] > 1 else None

    def merge(self, pair: Pair) -> str:
        """Join every occurrence of `pair`; returns the new piece."""
        joined = pair[0] + pair[1].removeprefix(INSIDE)
        for index in self.places.pop(pair):
            self._count(index, -1)
            self.pieces[index] = _join(self.pieces[index], pair, joined)
            self._count(index, 1)
        del self.pairs[pair]
        return joined


def _join(pieces: list[str], pair: Pair, joined: str) -> list[str]:
    """`pieces` with each occurrence of `pair`, from the left, replaced by `joined`."""
    result: list[str] = []
    for piece in pieces:
        if result and (result[-1], piece) == pair:
            result[-1] = joined
        else:
            result.append(piece)
    return result


def learn(counts: Counter[str], specials: list[str], size: int, alphabet: int) -> dict[str, int]:
    """A vocabulary of at most `size` pieces.

    Args:
        counts: how often each word occurs.
        specials: pieces that come first, in this order.
        alphabet: how many letters to keep; words with any other letter count for nothing.

    Returns:
        index by piece.
    """
    letters: Counter[str] = Counter()
    for word, count in counts.items():
        for letter in word:
            letters[letter] += count
    kept = set(sorted(letters, key=lambda letter: (-letters[letter], letter))[:alphabet])
    words = _Words(Counter({word: count for word, count in counts.items() if set(word) <= kept}))
    vocabulary = [*specials, *sorted({piece for pieces in words.pieces for piece in pieces})]
    known = set(vocabulary)
    while len(vocabulary) < size and (pair := words.best()):
        piece = words.merge(pair)
        if piece not in known:
            known.add(piece)
            vocabulary.append(piece)
    return {piece: index for index, piece in enumerate(vocabulary)}

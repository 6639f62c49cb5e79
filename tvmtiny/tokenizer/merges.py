"""Byte-pair vocabularies as tvmt_merges has them: symbols, and merges by their left symbol.

A merge takes 6 bytes, the merges of a left symbol 2 more, a character 6, and a table of bytes 512.
"""

from __future__ import annotations

import dataclasses
import itertools

from tvmtiny.errors import UserError
from tvmtiny.tokenizer.spec import TokenizerSpec, byte_piece

NO_SYMBOL = 0xFFFF
SMALLEST_WORD = 64
LARGEST_WORD = 255
"""Symbols; the C counts a token's in a byte."""


@dataclasses.dataclass(frozen=True)
class PackedMerges:
    """The arrays and numbers of tvmt_merges; `ranked` is its `merged`."""

    characters: list[int]
    character_ids: list[int]
    byte_ids: list[int]
    first: list[int]
    right: list[int]
    rank: list[int]
    ranked: list[int]
    longest: int
    word_symbols: int

    @property
    def bytes(self) -> int:
        """Flash that the arrays take."""
        halves = (self.character_ids, self.byte_ids, self.first, self.right, self.rank, self.ranked)
        return 4 * len(self.characters) + 2 * sum(map(len, halves))


def byte_characters() -> list[str]:
    """The character that stands for each byte in vocabularies of bytes (GPT-2, `bytes_to_unicode`)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = itertools.count(0x100)
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def model_alphabet(spec: TokenizerSpec) -> frozenset[str] | None:
    """Characters that are symbols; None: every character matters, by its bytes."""
    if spec.splitting.byte_level or spec.byte_fallback:
        return None
    return frozenset(piece for piece in spec.vocabulary if len(piece) == 1)


def pack(spec: TokenizerSpec, word_symbols: int | None = None) -> PackedMerges:
    """The tables of a byte-pair encoding.

    Args:
        word_symbols: most symbols of a word that work memory holds; chosen when None.

    Raises:
        UserError: `word_symbols` is too small for the longest token, or too large.
    """
    characters = [] if spec.splitting.byte_level else sorted(p for p in spec.vocabulary if len(p) == 1)
    ranks = {pair: rank for rank, pair in enumerate(spec.merges)}
    longest = _longest(spec)
    ids = spec.vocabulary
    rows = sorted((ids[left], ids[right], rank) for (left, right), rank in ranks.items())
    lefts = [left for left, _, _ in rows]
    first = [0] * (max(lefts, default=-1) + 2)
    for left in lefts:
        first[left + 1] += 1
    return PackedMerges(
        characters=[ord(c) for c in characters],
        character_ids=[ids[c] for c in characters],
        byte_ids=_byte_ids(spec),
        first=list(itertools.accumulate(first)),
        right=[right for _, right, _ in rows],
        rank=[rank for _, _, rank in rows],
        ranked=[ids[left + right] for left, right in spec.merges],
        longest=longest,
        word_symbols=_word_symbols(longest, word_symbols) if spec.merges else 0,
    )


def _byte_ids(spec: TokenizerSpec) -> list[int]:
    if spec.splitting.byte_level:
        return [spec.vocabulary.get(character, NO_SYMBOL) for character in byte_characters()]
    return [spec.vocabulary[byte_piece(byte)] for byte in range(256)] if spec.byte_fallback else []


def _longest(spec: TokenizerSpec) -> int:
    """Most initial symbols of a token that merges can give."""
    return max((len(left + right) for left, right in spec.merges), default=1)


def _word_symbols(longest: int, wanted: int | None) -> int:
    if wanted is None:
        wanted = min(LARGEST_WORD, max(SMALLEST_WORD, 4 * longest))
    if not longest < wanted <= LARGEST_WORD:
        raise UserError(
            f"Work memory for {wanted} symbols of a word: the longest token has {longest} symbols, and "
            f"{LARGEST_WORD} are possible.",
            f"Give --word-symbols between {longest + 1} and {LARGEST_WORD}."
            if longest < LARGEST_WORD
            else "Prune the vocabulary.",
        )
    return wanted

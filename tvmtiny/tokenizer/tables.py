"""All tables of a tokenizer: characters, and the vocabulary of its model."""

from __future__ import annotations

import dataclasses

from tvmtiny.errors import UserError
from tvmtiny.tokenizer import merges, trie
from tvmtiny.tokenizer.characters import CharacterTable, character_table
from tvmtiny.tokenizer.normalize import reorders, spaces_chinese
from tvmtiny.tokenizer.spec import TokenizerSpec
from tvmtiny.tokenizer.unicode import combining

MOST_TOKENS = 0xFFFF

_SOURCES = {
    "tvmt_split_words": "tvmt_tokenizer_words.c",
    "tvmt_split_gpt2": "tvmt_tokenizer_gpt2.c",
    "tvmt_split_marks": "tvmt_tokenizer_marks.c",
}


@dataclasses.dataclass(frozen=True)
class Tables:
    """What the C needs of a tokenizer.

    Attributes:
        characters: classes of code points.
        trie: the pieces of a WordPiece model, else None.
        merges: symbols and merges of a byte-pair encoding, else None.
        max_tokens: where texts are cut, with the ids around them.
    """

    spec: TokenizerSpec
    characters: CharacterTable
    trie: trie.PackedTrie | None
    merges: merges.PackedMerges | None
    max_tokens: int

    @property
    def model(self) -> str:
        """The C model."""
        if self.trie is not None:
            return "tvmt_wordpiece"
        return "tvmt_bpe" if self.spec.merges else "tvmt_symbols"

    @property
    def sources(self) -> tuple[str, ...]:
        """C files of microtvm_projects/common that the tables need."""
        model = {
            "tvmt_wordpiece": ("tvmt_tokenizer_wordpiece.c",),
            "tvmt_bpe": ("tvmt_tokenizer_bpe.c", "tvmt_tokenizer_symbols.c"),
            "tvmt_symbols": ("tvmt_tokenizer_symbols.c",),
        }
        return ("tvmt_tokenizer.c", _SOURCES[self.spec.splitting.splitter], *model[self.model])

    @property
    def special_bytes(self) -> int:
        """Bytes of the longest special token."""
        return max((len(text.encode()) for text in self.spec.specials), default=0)

    @property
    def work_words(self) -> int:
        """Work memory in units of 16 bits; see the C of each model."""
        held = (self.special_bytes + 1) // 2
        if self.trie is not None:
            return held + (self.trie.longest + 2) // 2
        if self.merges is None or not self.spec.merges:
            return max(held, 1)
        size = self.merges.word_symbols
        return held + 3 * size + 16 + (size + 1) // 2

    @property
    def vocabulary_bytes(self) -> int:
        """Flash of the vocabulary's arrays."""
        packed = self.trie or self.merges
        return packed.bytes if packed else 0


def build_tables(
    spec: TokenizerSpec, max_tokens: int | None = None, word_symbols: int | None = None
) -> Tables:
    """The tables of a tokenizer.

    Args:
        max_tokens: cut texts here, if the tokenizer does not cut them earlier.
        word_symbols: most symbols of a word that byte-pair encoding holds in work memory; chosen when None.

    Raises:
        UserError: something that the C cannot do exactly.
    """
    cut = min(limit for limit in (spec.max_tokens, max_tokens, MOST_TOKENS) if limit is not None)
    around = len(spec.before) + len(spec.after)
    if cut < max(around, 1):
        raise UserError(
            f"Texts are cut to {cut} tokens, and {around} stand around every text.", "Allow more tokens."
        )
    _check_parts(spec)
    if spec.kind != "wordpiece":
        alphabet = merges.model_alphabet(spec)
        _check_order(spec, alphabet)
        return Tables(spec, character_table(spec, alphabet), None, merges.pack(spec, word_symbols), cut)
    initial, inside = trie.reachable_pieces(spec)
    alphabet = frozenset("".join((*initial, *inside)))
    _check_order(spec, alphabet)
    return Tables(spec, character_table(spec, alphabet), trie.pack(initial, inside), None, cut)


def _check_parts(spec: TokenizerSpec) -> None:
    """Refuse parts that do not go together."""
    if spec.kind == "wordpiece" and spec.splitting.byte_level:
        raise UserError(
            "The tokenizer is a WordPiece model over bytes.",
            "Use BertPreTokenizer, Whitespace or WhitespaceSplit.",
        )
    if spec.byte_fallback and spec.splitting.byte_level:
        raise UserError("The tokenizer falls back to bytes from bytes.", "Set byte_fallback to false.")
    if spaces_chinese(spec.steps) and spec.splitting.splitter != "tvmt_split_words":
        raise UserError(
            "The tokenizer's BertNormalizer puts spaces around ideographs, and its pre-tokenizer keeps spaces.",
            "Set handle_chinese_chars to false, or use BertPreTokenizer.",
        )


def _check_order(spec: TokenizerSpec, alphabet: frozenset[str] | None) -> None:
    """Refuse a vocabulary in which the order of combining marks shows: NFD sorts them, the C does not."""
    if not reorders(spec.steps):
        return
    marks = [] if alphabet is None else sorted(filter(combining, alphabet))
    if alphabet is None or len(marks) > 1:
        found = "bytes" if alphabet is None else ", ".join(f"U+{ord(mark):04X}" for mark in marks[:2])
        raise UserError(
            f"The tokenizer's normalizer decomposes characters, and its vocabulary has {found}: the order of combining "
            "marks would show, which the device does not sort.",
            "Strip accents, or do without NFD.",
        )

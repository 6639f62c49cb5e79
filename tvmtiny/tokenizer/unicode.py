"""What the tokenizers library does with every code point: its sets and maps, from unicode.json.

scripts/sweep_unicode.py has written that file by asking the library; nothing here is taken from a Unicode standard.
"""

from __future__ import annotations

import functools
import json
import unicodedata
from importlib import resources
from typing import Any

CODE_POINTS = 0x110000
SURROGATES = range(0xD800, 0xE000)
SETS = (
    *("control", "clean_space", "chinese", "accent", "bert_accent", "space", "punctuation"),
    *("word", "word_space", "letter", "number", "regex_space"),
)
HANGUL = range(0xAC00, 0xD7A4)


@functools.cache
def _data() -> dict[str, Any]:
    file = resources.files("tvmtiny.tokenizer") / "unicode.json"
    found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return found


def swept_library() -> str:
    """Name and version of the library that the tables were swept from."""
    return str(_data()["library"])


@functools.cache
def code_point_ranges(name: str) -> tuple[tuple[int, int], ...]:
    """First and last code point of each run of a set."""
    pairs = (item.partition("-") for item in " ".join(_data()["sets"][name]).split())
    return tuple((int(first, 16), int(last or first, 16)) for first, _, last in pairs)


@functools.cache
def code_point_set(name: str) -> frozenset[str]:
    r"""The characters of a set.

    `control` and `clean_space`: what BertNormalizer removes and makes a space; `chinese`: what it puts spaces around;
    `accent` and `bert_accent`: what StripAccents and BertNormalizer remove; `space` and `punctuation`: what
    BertPreTokenizer removes and isolates; `word` and `word_space`: what Whitespace joins and removes; `letter`,
    `number`, `regex_space`: \p{L}, \p{N}, \s of the regular expression of ByteLevel.
    """
    return frozenset(chr(c) for first, last in code_point_ranges(name) for c in range(first, last + 1))


@functools.cache
def code_point_map(name: str) -> dict[str, str]:
    """What becomes of the characters that `decompose` (NFD, without Hangul) and `lower` change."""
    found: dict[str, str] = {}
    for item in " ".join(_data()["maps"][name]).split():
        code_point, _, results = item.partition(">")
        found[chr(int(code_point, 16))] = "".join(chr(int(result, 16)) for result in results.split("+"))
    return found


def hangul_jamo(syllable: str) -> str:
    """The conjoining jamo of a Hangul syllable (Unicode 15.0, section 3.12)."""
    index = ord(syllable) - HANGUL.start
    tail = index % 28
    lead_and_vowel = chr(0x1100 + index // 588) + chr(0x1161 + index % 588 // 28)
    return lead_and_vowel + (chr(0x11A7 + tail) if tail else "")


def decompose(character: str) -> str:
    """NFD of one character."""
    if ord(character) in HANGUL:
        return hangul_jamo(character)
    return code_point_map("decompose").get(character, character)


def combining(character: str) -> bool:
    """Whether canonical ordering may move a character, by Python's Unicode: no older than any of the library's."""
    return unicodedata.combining(character) != 0

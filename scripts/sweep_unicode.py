"""Ask the tokenizers library what it does with every code point, and write tvmtiny/tokenizer/unicode.json.

    python scripts/sweep_unicode.py

The library mixes several versions of Unicode: its normalization, its general categories, its regular expressions and
Rust's lower case are not of one age. So no table here comes from a Unicode standard; each is what the library does.
Run it again when a new release of the library behaves differently (tests/unit/test_tokenizer_unicode.py tells).
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

OUTPUT = Path(__file__).resolve().parents[1] / "tvmtiny" / "tokenizer" / "unicode.json"
HANGUL = range(0xAC00, 0xD7A4)


def code_points() -> Iterator[int]:
    """Every Unicode scalar value."""
    yield from range(0xD800)
    yield from range(0xE000, 0x110000)


def ranges(contains: Callable[[str], bool]) -> list[tuple[int, int]]:
    """First and last code point of every run for which `contains` holds."""
    found: list[tuple[int, int]] = []
    for code_point in code_points():
        if not contains(chr(code_point)):
            continue
        if found and found[-1][1] == code_point - 1:
            found[-1] = (found[-1][0], code_point)
        else:
            found.append((code_point, code_point))
    return found


def mapping(normalizer: normalizers.Normalizer) -> dict[int, str]:
    """What a normalizer changes, by code point."""
    results = ((c, normalizer.normalize_str(chr(c))) for c in code_points())
    return {c: result for c, result in results if result != chr(c)}


def matches(pattern: str) -> Callable[[str], bool]:
    """Whether the library's regular expressions match a character; U+0001 is in none of the classes asked for."""
    split = pre_tokenizers.Split(Regex(pattern), "isolated").pre_tokenize_str
    return lambda character: len(split(f"\x01{character}\x01")) > 1


def pieces(pre_tokenizer: pre_tokenizers.PreTokenizer, count: int) -> Callable[[str], bool]:
    """Whether `a`, a character and `a` become `count` words: 2 where it is removed, 3 where it stands alone."""
    split = pre_tokenizer.pre_tokenize_str
    return lambda character: len(split(f"a{character}a")) == count


def hangul(syllable: int) -> str:
    """The conjoining jamo of a syllable (Unicode 15.0, section 3.12)."""
    index = syllable - HANGUL.start
    tail = index % 28
    return chr(0x1100 + index // 588) + chr(0x1161 + index % 588 // 28) + (chr(0x11A7 + tail) if tail else "")


def packed_ranges(found: list[tuple[int, int]]) -> list[str]:
    """Lines of `first-last` or `only`, hexadecimal."""
    text = " ".join(f"{a:x}-{b:x}" if a != b else f"{a:x}" for a, b in found)
    return textwrap.wrap(text, 110)


def packed_mapping(found: dict[int, str]) -> list[str]:
    """Lines of `code point>result+result`, hexadecimal."""
    text = " ".join(f"{c:x}>{'+'.join(f'{ord(r):x}' for r in result)}" for c, result in found.items())
    return textwrap.wrap(text, 110)


def main() -> None:
    """Sweep and write."""
    clean = mapping(
        normalizers.BertNormalizer(
            clean_text=True, handle_chinese_chars=False, strip_accents=False, lowercase=False
        )
    )
    chinese = mapping(
        normalizers.BertNormalizer(
            clean_text=False, handle_chinese_chars=True, strip_accents=False, lowercase=False
        )
    )
    accents = mapping(normalizers.StripAccents())
    bert_accents = mapping(
        normalizers.BertNormalizer(
            clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False
        )
    )
    nfd = mapping(normalizers.NFD())
    assert all(nfd[c] == hangul(c) for c in HANGUL)
    assert set(clean.values()) == {"", " "}
    assert all(result == f" {chr(c)} " for c, result in chinese.items())
    assert set(accents.values()) == {""}
    bert = pre_tokenizers.BertPreTokenizer()
    sets = {
        "control": ranges(lambda c: clean.get(ord(c)) == ""),
        "clean_space": ranges(lambda c: clean.get(ord(c)) == " "),
        "chinese": ranges(lambda c: ord(c) in chinese),
        "accent": ranges(lambda c: ord(c) in accents),
        "bert_accent": ranges(lambda c: bert_accents.get(ord(c)) == ""),
        "space": ranges(pieces(bert, 2)),
        "punctuation": ranges(pieces(bert, 3)),
        "letter": ranges(matches(r"\p{L}")),
        "number": ranges(matches(r"\p{N}")),
        "regex_space": ranges(matches(r"\s")),
        "word": ranges(pieces(pre_tokenizers.Whitespace(), 1)),
        "word_space": ranges(pieces(pre_tokenizers.Whitespace(), 2)),
    }
    data = {
        "library": f"tokenizers {tokenizers.__version__}",
        "sets": {name: packed_ranges(found) for name, found in sets.items()},
        "maps": {
            "decompose": packed_mapping({c: r for c, r in nfd.items() if c not in HANGUL}),
            "lower": packed_mapping(mapping(normalizers.Lowercase())),
        },
    }
    OUTPUT.write_text(json.dumps(data, indent=0) + "\n", encoding="utf-8")
    print(f"{OUTPUT}: {OUTPUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()

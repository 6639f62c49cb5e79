"""unicode.json against the library that it was swept from: a new release that behaves differently shows here."""

from __future__ import annotations

import itertools
import random

import pytest
from tokenizers import Regex, normalizers, pre_tokenizers

from tvmtiny.tokenizer import normalize, split
from tvmtiny.tokenizer.split import CharacterClass
from tvmtiny.tokenizer.unicode import SETS, SURROGATES, code_point_map, code_point_ranges, code_point_set


def characters() -> list[str]:
    """Both sides of every boundary of every table, and random ones."""
    bounds = itertools.chain.from_iterable(code_point_ranges(name) for name in SETS)
    found = {bound + side for pair in bounds for bound in pair for side in (-1, 0, 1)}
    found |= {
        ord(c) + side for name in ("decompose", "lower") for c in code_point_map(name) for side in (0, 1)
    }
    draw = random.Random(0)
    found |= {draw.randrange(0x110000) for _ in range(4000)} | {
        draw.randrange(0xAC00, 0xD7A4) for _ in range(200)
    }
    return [chr(c) for c in sorted(found) if 0 <= c < 0x110000 and c not in SURROGATES]


CHARACTERS = characters()


def bert(clean: bool, chinese: bool, strip: bool | None, lower: bool) -> normalizers.Normalizer:
    return normalizers.BertNormalizer(
        clean_text=clean, handle_chinese_chars=chinese, strip_accents=strip, lowercase=lower
    )


def options(clean: bool, chinese: bool, strip: bool | None, lower: bool) -> dict[str, object]:
    names = ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase")
    return {"type": "BertNormalizer", **dict(zip(names, (clean, chinese, strip, lower), strict=True))}


@pytest.mark.parametrize(
    ("library", "data"),
    [
        *((bert(*flags), options(*flags)) for flags in itertools.product((False, True), repeat=4)),
        (bert(True, True, None, True), options(True, True, None, True)),
        (normalizers.NFD(), {"type": "NFD"}),
        (normalizers.Lowercase(), {"type": "Lowercase"}),
        (normalizers.StripAccents(), {"type": "StripAccents"}),
    ],
)
def test_normalizers(library: normalizers.Normalizer, data: dict[str, object]) -> None:
    steps, _ = normalize.normalizer_steps(data)
    wrong = [c for c in CHARACTERS if normalize.apply(steps, c) != library.normalize_str(c)]
    assert not wrong


@pytest.mark.parametrize("pre_tokenizer", ["BertPreTokenizer", "Whitespace", "WhitespaceSplit"])
def test_word_splitters(pre_tokenizer: str) -> None:
    library = getattr(pre_tokenizers, pre_tokenizer)()
    classify = split.read_splitting({"type": pre_tokenizer}, None).classify
    pieces = {CharacterClass.SPACE: (2,), CharacterClass.ISOLATED: (3,), CharacterClass.LETTER: (1,)}
    kept = (3,) if pre_tokenizer == "Whitespace" else (1,)
    wrong = [
        c for c in CHARACTERS if len(library.pre_tokenize_str(f"a{c}a")) not in pieces.get(classify(c), kept)
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("pattern", "name"), [(r"\p{L}", "letter"), (r"\p{N}", "number"), (r"\s", "regex_space")]
)
def test_classes_of_patterns(pattern: str, name: str) -> None:
    library = pre_tokenizers.Split(Regex(pattern), "isolated")
    members = code_point_set(name)
    wrong = [c for c in CHARACTERS if (len(library.pre_tokenize_str(f"\x01{c}\x01")) > 1) != (c in members)]
    assert not wrong

"""Tokenizers for the tests, one of each kind, as contents of tokenizer.json: the same ones on every run.

The library's trainers break ties at random, so the vocabularies are learned here.
"""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from tvmtiny.tokenizer.merges import byte_characters

EXAMPLE = Path(__file__).parents[1] / "examples" / "intent"
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
MARK = "▁"

MULTILINGUAL = (
    "Größe und Maße für Übergänge",
    "l'été déjà vu à Noël, ça c'est l'œuvre",
    "Привет, мир: как дела? Ёлка",
    "日本語のテスト。東京",
    "안녕하세요 세계",
    "¿qué tal mañana, ñandú?",
    "हिन्दी भाषा",
    "สวัสดีชาวโลก",
    "العربية لغة",
    "Ελληνικά Άλφα γλώσσα",
    "İstanbul ISPARTA ﬁne Ⅷ ½ x² ǅ ẞ",
)
"""Texts of many scripts."""


def corpus() -> list[str]:
    """The example's own utterances and MULTILINGUAL."""
    lines = (EXAMPLE / "utterances.txt").read_text("utf-8").splitlines()
    return [*(line.partition("\t")[2] for line in lines), *MULTILINGUAL * 3]


@functools.cache
def learn_merges(words: tuple[str, ...], count: int) -> list[tuple[str, str]]:
    """The most frequent pairs, joined one after another (Sennrich et al., 2016); of equals the first by name."""
    counts = Counter(words)
    splits, weights = [list(word) for word in counts], list(counts.values())
    merges = []
    for _ in range(count):
        pairs: Counter[tuple[str, str]] = Counter()
        for split, weight in zip(splits, weights, strict=True):
            for pair in pairwise(split):
                pairs[pair] += weight
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        splits = [_joined(split, best) for split in splits]
    return merges


def _joined(split: list[str], pair: tuple[str, str]) -> list[str]:
    found: list[str] = []
    for piece in split:
        if found and (found[-1], piece) == pair:
            found[-1] += piece
        else:
            found.append(piece)
    return found


def _tokenizer(model: dict[str, Any], vocabulary: dict[str, int], **parts: Any) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [
        {"id": vocabulary[token], "content": token, **flags, "special": True}
        for token in (*SPECIALS, "[SEP]x")
        if token in vocabulary
    ]
    empty = dict.fromkeys(
        ("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder")
    )
    return {
        "version": "1.0",
        **empty,
        "added_tokens": added,
        **parts,
        "model": {**model, "vocab": vocabulary},
    }


def _ids(pieces: list[str]) -> dict[str, int]:
    return {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}


def _around(vocabulary: dict[str, int]) -> dict[str, Any]:
    return {
        "type": "BertProcessing",
        "sep": ["[SEP]", vocabulary["[SEP]"]],
        "cls": ["[CLS]", vocabulary["[CLS]"]],
    }


def _bert(lowercase: bool, strip_accents: bool | None = None) -> dict[str, Any]:
    options = {"clean_text": True, "handle_chinese_chars": True, "strip_accents": strip_accents}
    return {"type": "BertNormalizer", **options, "lowercase": lowercase}


def wordpiece(normalizer: dict[str, Any] | None, pre_tokenizer: str = "BertPreTokenizer") -> dict[str, Any]:
    """WordPiece over the normalized corpus; its normalizer is the library's."""
    import tokenizers

    probe = tokenizers.Tokenizer(tokenizers.models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"))
    template = json.loads(probe.to_str()) | {
        "normalizer": normalizer,
        "pre_tokenizer": {"type": pre_tokenizer},
    }
    probe = tokenizers.Tokenizer.from_str(json.dumps(template))
    normalized = [probe.normalizer.normalize_str(t) if probe.normalizer else t for t in corpus()]
    words = [word for text in normalized for word, _ in probe.pre_tokenizer.pre_tokenize_str(text)]
    whole = [left + right for left, right in learn_merges(tuple(words), 250)]
    letters = sorted({letter for word in words for letter in word})
    pieces = [*letters, *whole]
    vocabulary = _ids([*SPECIALS, *pieces, *(f"##{piece}" for piece in pieces)])
    model = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##"}
    return _tokenizer(
        {**model, "max_input_chars_per_word": 100},
        vocabulary,
        normalizer=normalizer,
        pre_tokenizer={"type": pre_tokenizer},
        post_processor=_around(vocabulary),
    )


def byte_level(count: int, *, prefix_space: bool = False, use_regex: bool = True) -> dict[str, Any]:
    """Byte-level byte-pair encoding with `count` merges."""
    letters = byte_characters()
    texts = ["".join(letters[byte] for byte in text.encode()) for text in corpus()]
    space = letters[ord(" ")]
    words = [word for text in texts for word in text.replace(space, f"\n{space}").split("\n") if word]
    merges = learn_merges(tuple(words), count)
    vocabulary = _ids([*SPECIALS, "[SEP]x", *letters, *(left + right for left, right in merges)])
    options = {"add_prefix_space": prefix_space, "trim_offsets": True, "use_regex": use_regex}
    model = {"type": "BPE", "unk_token": None, "merges": [list(pair) for pair in merges]}
    return _tokenizer(model, vocabulary, pre_tokenizer={"type": "ByteLevel", **options})


def sentencepiece(scheme: str, *, fallback: bool, fuse: bool, split: bool = True) -> dict[str, Any]:
    """Byte-pair encoding of characters with U+2581 in place of spaces."""
    texts = [MARK + text.replace(" ", MARK) for text in corpus()]
    words = [word for text in texts for word in text.replace(MARK, f"\n{MARK}").split("\n") if word]
    merges = learn_merges(tuple(words), 200)
    letters = sorted({letter for word in words for letter in word if letter < "\u3000"})
    merges = [pair for pair in merges if set("".join(pair)) <= set(letters)]
    fallbacks = [f"<0x{byte:02X}>" for byte in range(256)] if fallback else []
    vocabulary = _ids([*SPECIALS, *fallbacks, *letters, *(left + right for left, right in merges)])
    model = {"type": "BPE", "unk_token": "[UNK]", "fuse_unk": fuse, "byte_fallback": fallback}
    space = {"type": "Metaspace", "replacement": MARK, "prepend_scheme": scheme, "split": split}
    return _tokenizer({**model, "merges": [list(pair) for pair in merges]}, vocabulary, pre_tokenizer=space)


def llama() -> dict[str, Any]:
    """As SentencePiece's own encoder does it: the whole text is one word."""
    steps = [
        {"type": "Prepend", "prepend": MARK},
        {"type": "Replace", "pattern": {"String": " "}, "content": MARK},
    ]
    return sentencepiece("never", fallback=True, fuse=True) | {
        "pre_tokenizer": None,
        "normalizer": {"type": "Sequence", "normalizers": steps},
    }


def characters() -> dict[str, Any]:
    """Characters in lower case."""
    letters = sorted({letter for text in corpus() for letter in text.lower() if letter < "\u0500"})
    vocabulary = _ids([*SPECIALS, *letters])
    model = {"type": "BPE", "unk_token": "[UNK]", "fuse_unk": False, "byte_fallback": False, "merges": []}
    return _tokenizer(model, vocabulary, normalizer={"type": "Lowercase"}, post_processor=_around(vocabulary))


def bpe_of_words() -> dict[str, Any]:
    """Byte-pair encoding of BERT's words."""
    data = sentencepiece("never", fallback=False, fuse=True)
    return data | {"normalizer": _bert(lowercase=True), "pre_tokenizer": {"type": "BertPreTokenizer"}}


def marked_wordpiece() -> dict[str, Any]:
    """WordPiece with marks in place of spaces."""
    normalizer = _bert(lowercase=True) | {"handle_chinese_chars": False}
    data = wordpiece(normalizer)
    vocabulary = data["model"]["vocab"]
    for piece in (MARK, f"{MARK}p", f"##{MARK}"):
        vocabulary[piece] = len(vocabulary)
    space = {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "first", "split": True}
    return data | {"pre_tokenizer": space}


def wordpiece_of_texts() -> dict[str, Any]:
    """WordPiece without a pre-tokenizer: spaces are parts of words."""
    data = wordpiece({"type": "Lowercase"})
    vocabulary = data["model"]["vocab"]
    for piece in (" ", "## ", "## the ", "##e "):
        vocabulary[piece] = len(vocabulary)
    return data | {"pre_tokenizer": None}


def wordpiece_of_replacements() -> dict[str, Any]:
    """WordPiece whose normalizer also gives characters that it takes away from texts."""
    replacements = [("x", ""), ("€", "b"), ("中", "ß"), ("é", "ok")]
    steps = [{"type": "Replace", "pattern": {"String": a}, "content": b} for a, b in replacements]
    data = wordpiece(_bert(lowercase=True))
    return data | {"normalizer": {"type": "Sequence", "normalizers": [*steps, data["normalizer"]]}}


def shipped() -> dict[str, Any]:
    """The tokenizer of the intent example."""
    data: dict[str, Any] = json.loads((EXAMPLE / "tokenizer.json").read_text("utf-8"))
    return data


_STRIPPED = {
    "type": "Sequence",
    "normalizers": [{"type": "NFD"}, {"type": "Lowercase"}, {"type": "StripAccents"}],
}

CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "shipped": shipped,
    "wordpiece_uncased": lambda: wordpiece(_bert(lowercase=True)),
    "wordpiece_cased": lambda: wordpiece(_bert(lowercase=False)),
    "wordpiece_accents": lambda: wordpiece(_bert(lowercase=True, strip_accents=False)),
    "wordpiece_sequence": lambda: wordpiece(_STRIPPED, "Whitespace"),
    "wordpiece_plain": lambda: wordpiece(None, "WhitespaceSplit"),
    "wordpiece_texts": wordpiece_of_texts,
    "wordpiece_replacements": wordpiece_of_replacements,
    "wordpiece_marks": marked_wordpiece,
    "byte_level": lambda: byte_level(200),
    "byte_level_prefix": lambda: byte_level(100, prefix_space=True),
    "byte_level_whole": lambda: byte_level(100, use_regex=False),
    "bytes": lambda: byte_level(0, use_regex=False),
    "metaspace": lambda: sentencepiece("always", fallback=False, fuse=False),
    "metaspace_first": lambda: sentencepiece("first", fallback=False, fuse=True),
    "metaspace_never": lambda: sentencepiece("never", fallback=True, fuse=True),
    "metaspace_whole": lambda: sentencepiece("always", fallback=True, fuse=False, split=False),
    "llama": llama,
    "bpe_words": bpe_of_words,
    "characters": characters,
}


@functools.cache
def case(name: str) -> dict[str, Any]:
    """The tokenizer of a case, made once; not to be changed."""
    return CASES[name]()

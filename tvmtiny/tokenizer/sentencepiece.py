"""SentencePiece's .model files (a protocol buffer) as tokenizer.json: byte-pair encodings without text normalization.

Field numbers: sentencepiece_model.proto of github.com/google/sentencepiece. Wire format: the Protocol Buffers
documentation, "Encoding".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from tvmtiny.errors import UserError

MARK = "▁"
_UNIGRAM, _BPE = 1, 2
_MODEL_TYPES = {_UNIGRAM: "unigram", _BPE: "bpe", 3: "word", 4: "char"}
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = 1, 2, 3, 4

Value = int | bytes


def _fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """(field number, value) of a message: an integer, the bits of a number, or bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        size = {1: 8, 5: 4}.get(wire)
        if wire == 2:
            size, at = _varint(data, at)
        if size is None or at + size > len(data):
            raise ValueError(f"wire type {wire} at byte {at}")
        yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if byte < 0x80:
            return value, at
    raise ValueError(f"a number that does not end at byte {at}")


def _piece(data: bytes) -> tuple[str, float, int]:
    """Text, score and type of a piece."""
    text, score, kind = "", 0.0, _NORMAL
    for number, value in _fields(data):
        if number == 1 and isinstance(value, bytes):
            text = value.decode("utf-8")
        elif number == 2 and isinstance(value, bytes):
            score = struct.unpack("<f", value)[0]
        elif number == 3 and isinstance(value, int):
            kind = value
    return text, score, kind


def _options(data: bytes) -> dict[int, Value]:
    return dict(_fields(data))


def convert_sentencepiece(data: bytes, source: str) -> dict[str, Any]:
    """The contents of a tokenizer.json.

    Args:
        data: the .model file.
        source: its name, for messages.

    Raises:
        UserError: not such a file, another kind than byte-pair encoding, or text normalization.
    """
    pieces: list[tuple[str, float, int]] = []
    trainer: dict[int, Value] = {}
    normalizer: dict[int, Value] = {}
    try:
        for number, value in _fields(data):
            if number == 1 and isinstance(value, bytes):
                pieces.append(_piece(value))
            elif number == 2 and isinstance(value, bytes):
                trainer = _options(value)
            elif number == 3 and isinstance(value, bytes):
                normalizer = _options(value)
    except (ValueError, UnicodeDecodeError, struct.error) as error:
        raise UserError(f"{source} is not a SentencePiece model: {error}.") from error
    if not pieces:
        raise UserError(f"{source} is not a SentencePiece model: it has no pieces.")
    _check_options(trainer, normalizer, source)
    return _tokenizer(pieces, bool(trainer.get(35, 0)), bool(normalizer.get(3, 1)))


def _check_options(trainer: dict[int, Value], normalizer: dict[int, Value], source: str) -> None:
    kind = trainer.get(3, _UNIGRAM)
    if kind != _BPE:
        raise UserError(
            f"{source} is a {_MODEL_TYPES.get(int(kind), 'unknown')} model.",
            "On the device SentencePiece models of the type bpe are supported.",
        )
    if normalizer.get(2):
        raise UserError(
            f"{source} normalizes texts with a table of its own ({_text(normalizer.get(1))}).",
            "Train it with --normalization_rule_name=identity.",
        )
    if normalizer.get(4, 1):
        raise UserError(f"{source} removes extra spaces.", "Train it with --remove_extra_whitespaces=false.")
    if trainer.get(24, 0):
        raise UserError(
            f"{source} treats a space as a suffix.", "Train it without --treat_whitespace_as_suffix."
        )


def _text(value: Value | None) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else "unnamed"


def _tokenizer(pieces: list[tuple[str, float, int]], byte_fallback: bool, prefix: bool) -> dict[str, Any]:
    vocabulary = {text: index for index, (text, _, _) in enumerate(pieces)}
    unknown = next((text for text, _, kind in pieces if kind == _UNKNOWN), None)
    specials = [text for text, _, kind in pieces if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED)]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    steps: list[dict[str, Any]] = [{"type": "Prepend", "prepend": MARK}] if prefix else []
    steps.append({"type": "Replace", "pattern": {"String": " "}, "content": MARK})
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": vocabulary[s], "content": s, **flags, "special": True} for s in specials],
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "BPE",
            "unk_token": unknown,
            "fuse_unk": True,
            "byte_fallback": byte_fallback,
            "vocab": vocabulary,
            "merges": _merges(pieces),
        },
    }


def _merges(pieces: list[tuple[str, float, int]]) -> list[list[str]]:
    """Every way to make a piece of two, the best score first: SentencePiece joins the pair of the best result."""
    scores = {text: score for text, score, kind in pieces if kind == _NORMAL}
    found = []
    for text, score in scores.items():
        splits = [(text[:at], text[at:]) for at in range(1, len(text))]
        found += [(-score, left, right) for left, right in splits if left in scores and right in scores]
    return [[left, right] for _, left, right in sorted(found, key=lambda row: row[0])]

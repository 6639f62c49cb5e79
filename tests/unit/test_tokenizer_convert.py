"""Tokenizers in other formats: what they become, and what is refused."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from tokenizer_cases import byte_level

from tvmtiny.errors import UserError
from tvmtiny.tokenizer.check import check
from tvmtiny.tokenizer.convert import convert
from tvmtiny.tokenizer.fuzz import fuzz_texts
from tvmtiny.tokenizer.spec import parse_spec
from tvmtiny.tokenizer.tables import build_tables

BPE, UNIGRAM = 2, 1
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6


def field(number: int, value: int | float | bytes) -> bytes:
    """A field of a protocol buffer message (Protocol Buffers documentation, "Encoding")."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    data = b""
    while value > 0x7F:
        data, value = data + bytes([value & 0x7F | 0x80]), value >> 7
    return data + bytes([value])


def sentencepiece_model(
    pieces: list[tuple[str, float, int]], *, kind: int = BPE, charsmap: bytes = b"", fallback: bool = True
) -> bytes:
    """A model file with trainer and normalizer options."""
    rows = [
        field(1, field(1, text.encode()) + field(2, score) + field(3, type_)) for text, score, type_ in pieces
    ]
    trainer = field(3, kind) + field(35, int(fallback))
    normalizer = field(1, b"identity") + field(2, charsmap) + field(3, 1) + field(4, 0)
    return b"".join(rows) + field(2, trainer) + field(3, normalizer)


PIECES = [
    ("<unk>", 0.0, UNKNOWN),
    ("<s>", 0.0, CONTROL),
    ("</s>", 0.0, CONTROL),
    *((f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)),
    ("▁a", -0.0, NORMAL),
    ("bc", -1.0, NORMAL),
    ("▁abc", -2.0, NORMAL),
    ("ab", -3.0, NORMAL),
    *((letter, -10.0 - index, NORMAL) for index, letter in enumerate("▁abcd")),
]


def test_a_sentencepiece_model(tmp_path: Path) -> None:
    path = tmp_path / "spm.model"
    path.write_bytes(sentencepiece_model(PIECES))
    data = convert(path)
    spec = parse_spec(data)
    assert spec.size == len(PIECES)
    assert spec.byte_fallback
    assert spec.merges == (("▁", "a"), ("b", "c"), ("▁a", "bc"), ("a", "b"))
    tables = build_tables(spec)
    report = check(data, tables, [b"abc abcd", b"", b" a", "é ab\n".encode(), *fuzz_texts(spec, 200, seed=3)])
    assert report.equal == report.texts


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (sentencepiece_model(PIECES, kind=UNIGRAM), "is a unigram model"),
        (sentencepiece_model(PIECES, charsmap=b"table"), "normalizes texts with a table of its own"),
        (b"", "has no pieces"),
        (b"\xff\xff\xff", "not a SentencePiece model"),
        (field(1, b"\x0a\xff"), "not a SentencePiece model"),
        (sentencepiece_model(PIECES).replace(field(4, 0), field(4, 1)), "removes extra spaces"),
    ],
)
def test_other_sentencepiece_models_are_refused(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "spm.model"
    path.write_bytes(data)
    with pytest.raises(UserError, match=message):
        convert(path)


def test_a_vocabulary_of_bert(tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    path.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nplay\n##ing\np\n##s\nÉ\n", encoding="utf-8")
    data = convert(path)
    spec = parse_spec(data)
    assert (spec.size, spec.before, spec.after) == (9, (2,), (3,))
    report = check(data, build_tables(spec), [b"Play playing plays", "É é".encode(), b"[SEP]"])
    assert report.equal == report.texts == 3
    assert parse_spec(convert(path, lowercase=False)).steps != spec.steps


def test_merges_beside_a_vocabulary(tmp_path: Path) -> None:
    model = byte_level(30)["model"]
    lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
    (tmp_path / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"vocab.json is missing"):
        convert(tmp_path / "merges.txt")
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    data = convert(tmp_path / "merges.txt")
    assert data["model"]["merges"] == model["merges"]
    spec = parse_spec(data)
    report = check(data, build_tables(spec), fuzz_texts(spec, 200, seed=4))
    assert report.equal == report.texts


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vocab.txt", "a\nb\n", r"has no \[UNK\]"),
        ("tokenizer.bin", "", "no format that is known"),
        ("tokenizer.json", "{}", "no `model`"),
    ],
)
def test_other_files_are_refused(name: str, content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        convert(path)
    with pytest.raises(UserError, match="There is no file"):
        convert(tmp_path / "nothing.json")

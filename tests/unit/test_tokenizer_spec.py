"""What a tokenizer.json may hold, and what is refused, and why."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
from tokenizer_cases import byte_level, llama, sentencepiece, shipped

from tvmtiny.errors import UserError
from tvmtiny.frontend.data import InputSpec
from tvmtiny.tokenizer.attach import attach_tokenizer
from tvmtiny.tokenizer.spec import load_spec, parse_spec
from tvmtiny.tokenizer.split import Prefix
from tvmtiny.tokenizer.tables import build_tables

EXAMPLE = Path(__file__).parents[2] / "examples" / "intent" / "tokenizer.json"
IDS = InputSpec("input_ids", "tokens", (32,), 1000, "int64")


def changed(data: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with one field changed: `model.vocab`, `added_tokens.0.lstrip`."""
    result = copy.deepcopy(data)
    *parents, last = path.split(".")
    place: Any = result
    for name in parents:
        place = place[int(name)] if isinstance(place, list) else place[name]
    place[last] = value
    return result


def test_the_example() -> None:
    spec = load_spec(EXAMPLE)
    assert (spec.kind, spec.size, spec.max_tokens) == ("wordpiece", 1000, 32)
    assert (spec.before, spec.after, spec.unknown_id) == ((2,), (3,), 1)
    assert spec.specials == {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3}
    assert spec.max_characters == 100


def test_kinds() -> None:
    assert parse_spec(byte_level(5)).kind == "bpe"
    assert parse_spec(byte_level(0, use_regex=False)).kind == "bytes"
    assert parse_spec(llama()).splitting.prefix_when is Prefix.ALWAYS


REFUSED = [
    (shipped, "model.type", "Unigram", "Unknown tokenizer kind Unigram"),
    (shipped, "model.unk_token", None, "names no unknown token"),
    (shipped, "model.unk_token", "<nothing>", "is not in its vocabulary"),
    (shipped, "model.vocab", {}, "no vocabulary"),
    (shipped, "model.vocab", {"[UNK]": 1, "a": 65535}, "the id 65535; ids from 0 to 65534"),
    (shipped, "model.vocab", {"[UNK]": 1, "a": -1}, "the id -1"),
    (shipped, "model.vocab", {"[UNK]": 1, "a": 9, "b": 9}, "'a' and 'b' have the same id 9"),
    (shipped, "model.vocab", {"[UNK]": 1, "a": 2}, "'a' and '[CLS]' have the same id 2"),
    (shipped, "normalizer.type", "NFKC", "normalizer NFKC is not supported"),
    (shipped, "pre_tokenizer.type", "Digits", "pre-tokenizer Digits is not supported"),
    (shipped, "post_processor.type", "Unheard", "post-processor Unheard is not supported"),
    (shipped, "post_processor.special_tokens.[CLS].ids", [5000], "adds the id 5000"),
    (shipped, "truncation.direction", "Left", "at the left"),
    (shipped, "added_tokens.0.lstrip", True, "'[PAD]' has lstrip"),
    (shipped, "added_tokens.0.normalized", True, "'[PAD]' has normalized"),
    (shipped, "added_tokens.0.content", "", "1 to 255 bytes"),
    (shipped, "added_tokens.0.content", "x" * 256, "1 to 255 bytes"),
    (shipped, "added_tokens.0.content", "a\0", "none of them zero"),
    (lambda: byte_level(3), "model.dropout", 0.1, "dropout = 0.1"),
    (lambda: byte_level(3), "model.ignore_merges", True, "ignore_merges = True"),
    (lambda: byte_level(3), "model.continuing_subword_prefix", "##", "continuing_subword_prefix"),
    (lambda: byte_level(3), "model.merges", [["a", "q"]], "has no piece 'aq'"),
    (lambda: byte_level(3), "model.merges", [["a"]], "is not a pair"),
    (lambda: byte_level(3), "model.merges", None, "no list of merges"),
    (
        lambda: sentencepiece("always", fallback=False, fuse=True),
        "model.byte_fallback",
        True,
        "no piece <0x00>",
    ),
    (
        lambda: sentencepiece("always", fallback=False, fuse=True),
        "pre_tokenizer.prepend_scheme",
        "x",
        "scheme x",
    ),
]


@pytest.mark.parametrize(("make", "path", "value", "message"), REFUSED)
def test_refused(make: Any, path: str, value: Any, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        parse_spec(changed(make(), path, value))


def test_a_prefix_to_texts_that_may_vanish_is_refused() -> None:
    steps = [{"type": "Prepend", "prepend": "▁"}, {"type": "StripAccents"}]
    sequence = {"type": "Sequence", "normalizers": steps}
    with pytest.raises(UserError, match="removes every character"):
        parse_spec(changed(llama(), "normalizer", sequence))
    late = {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, steps[0]]}
    with pytest.raises(UserError, match="prepends a character after other steps"):
        parse_spec(changed(llama(), "normalizer", late))


def test_normalized_added_tokens_are_fine_without_a_normalizer() -> None:
    data = byte_level(3)
    for token in data["added_tokens"]:
        token["normalized"] = True
    assert parse_spec(data).specials == parse_spec(byte_level(3)).specials
    with pytest.raises(UserError, match="has normalized = true"):
        parse_spec(changed(data, "added_tokens.0.normalized", False))


def test_a_normalizer_that_replaces_strings_is_refused() -> None:
    replace = {"type": "Replace", "pattern": {"Regex": "a+"}, "content": "b"}
    with pytest.raises(UserError, match="depends on several characters"):
        parse_spec(changed(shipped(), "normalizer", replace))


def test_order_of_combining_marks_is_refused_where_it_shows() -> None:
    data = changed(byte_level(3), "normalizer", {"type": "NFD"})
    with pytest.raises(UserError, match="order of combining marks"):
        build_tables(parse_spec(data))


@pytest.mark.parametrize(
    ("make", "path", "value", "message"),
    [
        (shipped, "pre_tokenizer", {"type": "ByteLevel"}, "WordPiece model over bytes"),
        (shipped, "pre_tokenizer", {"type": "Metaspace"}, "spaces around ideographs"),
        (lambda: byte_level(3), "normalizer", {"type": "BertNormalizer"}, "spaces around ideographs"),
        (
            lambda: sentencepiece("never", fallback=True, fuse=False),
            "pre_tokenizer",
            {"type": "ByteLevel"},
            "falls back to bytes from bytes",
        ),
    ],
)
def test_parts_that_do_not_go_together(make: Any, path: str, value: Any, message: str) -> None:
    data = make()
    data["added_tokens"] = []
    spec = parse_spec(changed(data, path, value))
    with pytest.raises(UserError, match=message):
        build_tables(spec)


def test_too_little_room_is_refused() -> None:
    with pytest.raises(UserError, match="cut to 1 tokens, and 2 stand around"):
        build_tables(load_spec(EXAMPLE), max_tokens=1)
    with pytest.raises(UserError, match="Work memory for 3 symbols"):
        build_tables(parse_spec(byte_level(50)), word_symbols=3)


@pytest.mark.parametrize("text", ["", "[]", '{"model": 1}', "{"])
def test_files_that_are_no_tokenizer(text: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"JSON|tokenizer\.json"):
        load_spec(path)
    with pytest.raises(UserError, match="no tokenizer file"):
        load_spec(tmp_path / "nothing.json")


def test_a_tokenizer_fits_its_model() -> None:
    attached = attach_tokenizer(EXAMPLE, [IDS], 24, has_length=True)
    assert attached is not None
    assert (attached.input, attached.tables.max_tokens) == ("input_ids", 24)
    assert attach_tokenizer(None, [IDS], 24, has_length=False) is None


@pytest.mark.parametrize(
    ("specs", "has_length", "message"),
    [
        ([InputSpec("input_ids", "tokens", (32,), 999)], True, "ids up to 999; .* 999 rows"),
        ([InputSpec("input_ids", "tokens", (32,), 1024)], True, "ids up to 999; .* 1024 rows"),
        ([IDS], False, "fixed number of tokens"),
        ([InputSpec("x", "features", (32, 4))], True, "fills one input of token ids"),
        ([IDS, InputSpec("more", "tokens", (32,), 1000)], True, "'input_ids', 'more'"),
    ],
)
def test_a_tokenizer_of_another_model_is_refused(
    specs: list[InputSpec], has_length: bool, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        attach_tokenizer(EXAMPLE, specs, 32, has_length=has_length)

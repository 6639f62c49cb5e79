"""Other formats as tokenizer.json: vocab.txt (BERT), merges.txt beside vocab.json (GPT-2), SentencePiece's .model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tvmtiny.errors import UserError
from tvmtiny.tokenizer.sentencepiece import convert_sentencepiece
from tvmtiny.tokenizer.spec import parse_spec, read_json

FORMATS = "tokenizer.json, vocab.txt, merges.txt (with vocab.json beside it) or a SentencePiece .model"

_BERT_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def convert(path: Path, *, lowercase: bool = True) -> dict[str, Any]:
    """The contents of a tokenizer.json.

    Args:
        path: a file in one of `FORMATS`, told apart by its name.
        lowercase: of a vocab.txt, which does not say whether it is for lower case.

    Raises:
        UserError: another format, a damaged file, or a tokenizer that the device cannot do.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}.", f"Give a {FORMATS}.")
    if path.suffix == ".json":
        data = read_json(path)
    elif path.suffix == ".model":
        data = convert_sentencepiece(path.read_bytes(), str(path))
    elif path.suffix == ".txt":
        lines = _lines(path)
        merges = path.name.endswith("merges.txt")
        data = _gpt2(path, lines) if merges else _bert(path, lines, lowercase=lowercase)
    else:
        raise UserError(f"{path} is in no format that is known here.", f"Give a {FORMATS}.")
    parse_spec(data)
    return data


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error}.", f"Give a {FORMATS}.") from error
    return text.removesuffix("\n").split("\n")


def _added(content: str, index: int) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": index, "content": content, **flags, "special": True}


def _frame(model: dict[str, Any], added: list[dict[str, Any]], **parts: Any) -> dict[str, Any]:
    empty = {"truncation": None, "padding": None, "added_tokens": added, "normalizer": None}
    return {"version": "1.0", **empty, "pre_tokenizer": None, "post_processor": None, "decoder": None} | {
        **parts,
        "model": model,
    }


def _bert(path: Path, lines: list[str], *, lowercase: bool) -> dict[str, Any]:
    vocabulary = {piece.rstrip("\r"): index for index, piece in enumerate(lines)}
    missing = [token for token in ("[UNK]", "[CLS]", "[SEP]") if token not in vocabulary]
    if missing:
        raise UserError(f"{path} is no vocabulary of BERT: it has no {missing[0]}.", f"Give a {FORMATS}.")
    model = {
        "type": "WordPiece",
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
        "vocab": vocabulary,
    }
    normalizer = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True}
    return _frame(
        model,
        [_added(token, vocabulary[token]) for token in _BERT_SPECIALS if token in vocabulary],
        normalizer={**normalizer, "strip_accents": None, "lowercase": lowercase},
        pre_tokenizer={"type": "BertPreTokenizer"},
        post_processor={
            "type": "BertProcessing",
            "sep": ["[SEP]", vocabulary["[SEP]"]],
            "cls": ["[CLS]", vocabulary["[CLS]"]],
        },
    )


def _gpt2(path: Path, lines: list[str]) -> dict[str, Any]:
    beside = path.with_name(path.name.replace("merges.txt", "vocab.json"))
    if not beside.is_file():
        raise UserError(
            f"{path} has merges, but the vocabulary {beside} is missing.", "Put it beside the merges."
        )
    try:
        vocabulary = json.loads(beside.read_text("utf-8"))
    except ValueError as error:
        raise UserError(f"{beside} is not JSON: {error}.", f"Give a {FORMATS}.") from error
    if not isinstance(vocabulary, dict):
        raise UserError(f"{beside} is not an object of ids by piece.", f"Give a {FORMATS}.")
    merges = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    model = {"type": "BPE", "unk_token": None, "vocab": vocabulary, "merges": merges}
    end = "<|endoftext|>"
    return _frame(
        model,
        [_added(end, vocabulary[end])] if end in vocabulary else [],
        pre_tokenizer={
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": True,
        },
    )

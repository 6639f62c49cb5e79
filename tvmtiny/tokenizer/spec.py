"""A tokenizer.json of the tokenizers library, read and checked: what of it the device must do.

Nothing here needs the library.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tvmtiny.errors import UserError
from tvmtiny.tokenizer.normalize import Step, normalizer_steps
from tvmtiny.tokenizer.post_process import tokens_around
from tvmtiny.tokenizer.split import Splitting, read_splitting

KINDS = ("wordpiece", "bpe", "bytes", "chars")
LARGEST_ID = 0xFFFE
"""Ids are uint16 on the device, and 0xffff means none."""


@dataclasses.dataclass(frozen=True)
class TokenizerSpec:
    """What a tokenizer does.

    Attributes:
        kind: wordpiece; bpe; bytes and chars are byte-pair encodings without merges, over bytes and characters.
        vocabulary: id by piece of the model; inside a word pieces begin with `continuation`.
        merges: pairs of pieces, the lowest rank first.
        unknown: the piece that stands for what is not known; None: it is left out.
        continuation: what pieces inside a word begin with (WordPiece).
        max_characters: a longer word is unknown (WordPiece).
        fuse_unknown: unknown characters in a row are one token (byte-pair encoding).
        byte_fallback: unknown characters become tokens of their bytes (byte-pair encoding).
        steps: normalization of a character.
        splitting: how texts are split into words.
        specials: tokens that are found in texts as they are, id by text.
        before: ids before every text; after: ids behind it.
        max_tokens: where texts are cut, with the ids around them; None: nowhere.
    """

    kind: str
    vocabulary: dict[str, int]
    merges: tuple[tuple[str, str], ...]
    unknown: str | None
    continuation: str
    max_characters: int
    fuse_unknown: bool
    byte_fallback: bool
    steps: tuple[Step, ...]
    splitting: Splitting
    specials: dict[str, int]
    before: tuple[int, ...]
    after: tuple[int, ...]
    max_tokens: int | None

    @property
    def size(self) -> int:
        """Rows that an embedding table needs: the largest id and one."""
        return max(*self.vocabulary.values(), *self.specials.values(), -1) + 1

    @property
    def unknown_id(self) -> int | None:
        """Id of the unknown token."""
        return None if self.unknown is None else self.vocabulary[self.unknown]


def load_spec(path: Path | str) -> TokenizerSpec:
    """Read a tokenizer.json.

    Raises:
        UserError: not such a file, or something in it that the device cannot do exactly.
    """
    return parse_spec(read_json(Path(path)))


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; raises UserError when there is none."""
    remedy = "Give a tokenizer.json; tvmtiny tokenizer import makes one of other formats."
    if not path.is_file():
        raise UserError(f"There is no tokenizer file {path}.", remedy)
    try:
        data = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}.", remedy) from error
    if not isinstance(data, dict) or not isinstance(data.get("model"), dict):
        raise UserError(f"{path} is not a tokenizer.json: it has no `model`.", remedy)
    return data


def parse_spec(data: Mapping[str, Any]) -> TokenizerSpec:
    """As `load_spec`, of the file's contents."""
    model = data["model"]
    kind = _model_kind(model)
    steps, prefix = normalizer_steps(data.get("normalizer"))
    splitting = read_splitting(data.get("pre_tokenizer"), prefix)
    added = data.get("added_tokens") or []
    specials = _specials(added, normalizes=data.get("normalizer") is not None)
    vocabulary = _vocabulary(model, specials)
    known = {*vocabulary.values(), *specials.values()}
    unknown = model.get("unk_token")
    if unknown is not None and unknown not in vocabulary:
        raise UserError(f"The tokenizer's unknown token {unknown!r} is not in its vocabulary.")
    before, after = tokens_around(data.get("post_processor"), known)
    return TokenizerSpec(
        kind=kind if kind == "wordpiece" or model["merges"] else "bytes" if splitting.byte_level else "chars",
        vocabulary=vocabulary,
        merges=_merges(model, vocabulary) if kind == "bpe" else (),
        unknown=unknown,
        continuation=model.get("continuing_subword_prefix") or "",
        max_characters=int(model.get("max_input_chars_per_word", 100)),
        fuse_unknown=bool(model.get("fuse_unk", False)),
        byte_fallback=kind == "bpe" and _byte_fallback(model, vocabulary),
        steps=tuple(steps),
        splitting=splitting,
        specials=specials,
        before=before,
        after=after,
        max_tokens=_max_tokens(data.get("truncation")),
    )


def _model_kind(model: Mapping[str, Any]) -> str:
    kinds = {"WordPiece": "wordpiece", "BPE": "bpe"}
    found = model.get("type") or _guessed_type(model)
    if found not in kinds:
        raise UserError(
            f"Unknown tokenizer kind {found}.",
            f"The device can do {', '.join(KINDS)}: models WordPiece and BPE.",
        )
    refused = {"dropout": None, "end_of_word_suffix": "", "ignore_merges": False}
    if found == "WordPiece":
        if not isinstance(model.get("unk_token"), str):
            raise UserError("The tokenizer's WordPiece model names no unknown token (unk_token).")
        return kinds[found]
    for option, harmless in refused.items():
        if model.get(option) not in (None, harmless):
            raise UserError(
                f"The tokenizer's BPE model has {option} = {model[option]}, which is not supported."
            )
    if model.get("continuing_subword_prefix"):
        raise UserError("The tokenizer's BPE model has a continuing_subword_prefix, which is not supported.")
    if not isinstance(model.get("merges"), list):
        raise UserError("The tokenizer's BPE model has no list of merges.")
    return kinds[found]


def _guessed_type(model: Mapping[str, Any]) -> str | None:
    """Old files do not name the model."""
    if "merges" in model:
        return "BPE"
    return "WordPiece" if "max_input_chars_per_word" in model else None


def _vocabulary(model: Mapping[str, Any], specials: Mapping[str, int]) -> dict[str, int]:
    pieces = model.get("vocab")
    if not isinstance(pieces, dict) or not pieces:
        raise UserError("The tokenizer has no vocabulary.")
    owner: dict[int, str] = {}
    for piece, index in [*pieces.items(), *specials.items()]:
        if not isinstance(index, int) or not 0 <= index <= LARGEST_ID:
            raise UserError(
                f"The tokenizer's piece {piece!r} has the id {index}; ids from 0 to {LARGEST_ID} are possible.",
                "Prune the vocabulary: tvmtiny tokenizer prune.",
            )
        if owner.setdefault(index, piece) != piece:
            raise UserError(
                f"The tokenizer's pieces {owner[index]!r} and {piece!r} have the same id {index}."
            )
    return dict(pieces)


def _specials(added: list[Mapping[str, Any]], *, normalizes: bool) -> dict[str, int]:
    """Added tokens that are found in texts; raises UserError for ones that take more than their own characters.

    Args:
        normalizes: whether there is a normalizer; without one `normalized` makes no difference, if all agree in it.
    """
    found = {}
    mixed = len({bool(token.get("normalized")) for token in added}) > 1
    for token in added:
        content = token.get("content", "")
        options = ["single_word", "lstrip", "rstrip", *(["normalized"] if normalizes or mixed else [])]
        refused = [option for option in options if token.get(option)]
        if refused:
            raise UserError(
                f"The tokenizer's added token {content!r} has {refused[0]} = true, which is not supported.",
                "Set it to false, or make the token part of the model's vocabulary alone.",
            )
        if not 1 <= len(content.encode()) <= 255 or "\0" in content:
            raise UserError(
                f"The tokenizer's added token {content!r} must have 1 to 255 bytes, none of them zero."
            )
        found[content] = token.get("id", -1)
    if len(found) > 255:
        raise UserError(f"The tokenizer has {len(found)} added tokens; the device can do 255.")
    return found


def _merges(model: Mapping[str, Any], vocabulary: Mapping[str, int]) -> tuple[tuple[str, str], ...]:
    found = []
    for item in model["merges"]:
        pair = tuple(item.split(" ")) if isinstance(item, str) else tuple(item)
        if len(pair) != 2:
            raise UserError(f"The tokenizer's merge {item!r} is not a pair of pieces.")
        missing = [piece for piece in (*pair, "".join(pair)) if piece not in vocabulary]
        if missing:
            raise UserError(
                f"The tokenizer merges {pair[0]!r} and {pair[1]!r}, but has no piece {missing[0]!r}."
            )
        found.append((pair[0], pair[1]))
    if len(found) > LARGEST_ID:
        raise UserError(f"The tokenizer has {len(found)} merges; the device can do {LARGEST_ID}.")
    return tuple(found)


def byte_piece(byte: int) -> str:
    """The piece of a byte in vocabularies with byte fallback."""
    return f"<0x{byte:02X}>"


def _byte_fallback(model: Mapping[str, Any], vocabulary: Mapping[str, int]) -> bool:
    if not model.get("byte_fallback"):
        return False
    missing = [byte_piece(byte) for byte in range(256) if byte_piece(byte) not in vocabulary]
    if missing:
        raise UserError(
            f"The tokenizer falls back to bytes, but has no piece {missing[0]}.", "It needs <0x00> to <0xFF>."
        )
    return True


def _max_tokens(truncation: Mapping[str, Any] | None) -> int | None:
    if truncation is None:
        return None
    if truncation.get("direction", "Right") != "Right":
        raise UserError(
            f"The tokenizer cuts long texts at the {truncation['direction'].lower()}.",
            "The device keeps the beginning: set truncation.direction to Right.",
        )
    return int(truncation["max_length"])

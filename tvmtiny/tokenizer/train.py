"""New tokenizers, learned from a corpus by the tokenizers library."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tvmtiny.errors import UserError
from tvmtiny.tokenizer.library import require_library
from tvmtiny.tokenizer.spec import KINDS, LARGEST_ID

PAD, UNKNOWN, FIRST, LAST = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
SPECIALS = (PAD, UNKNOWN, FIRST, LAST)
BYTES = 256


def train(
    texts: Sequence[str], kind: str, vocabulary: int, *, max_tokens: int | None = None, lowercase: bool = True
) -> dict[str, Any]:
    """The contents of a tokenizer.json, with `[CLS]` before and `[SEP]` after every text.

    Args:
        kind: one of `KINDS`.
        vocabulary: most pieces, special tokens included; bytes have always all of theirs.
        max_tokens: where texts are cut; None: nowhere.
        lowercase: lower case and no accents (wordpiece), or lower case (chars).

    Raises:
        UserError: an unknown kind, or a vocabulary that is too small or too large for it.
        EnvironmentProblem: the library is not installed.
    """
    if kind not in KINDS:
        raise UserError(f"Unknown tokenizer kind '{kind}'.", f"Use one of {', '.join(KINDS)}.")
    least = len(SPECIALS) + (BYTES if kind in ("bpe", "bytes") else 1)
    if not least <= vocabulary <= LARGEST_ID + 1:
        raise UserError(
            f"A vocabulary of {vocabulary} pieces; {kind} takes {least} to {LARGEST_ID + 1}.",
            "Give another --vocab.",
        )
    makers = {"wordpiece": _wordpiece, "bpe": _byte_level, "bytes": _byte_level, "chars": _characters}
    tokenizer = makers[kind](
        require_library(), texts, BYTES + len(SPECIALS) if kind == "bytes" else vocabulary, lowercase
    )
    _finish(tokenizer, max_tokens)
    if kind == "bytes":
        return _as_bytes(json.loads(tokenizer.to_str()))
    found: dict[str, Any] = json.loads(tokenizer.to_str())
    return found


def _wordpiece(library: Any, texts: Sequence[str], size: int, lowercase: bool) -> Any:
    tokenizer = library.Tokenizer(library.models.WordPiece(unk_token=UNKNOWN))
    tokenizer.normalizer = library.normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    trainer = library.trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=list(SPECIALS), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _byte_level(library: Any, texts: Sequence[str], size: int, lowercase: bool) -> Any:
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = library.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIALS),
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _characters(library: Any, texts: Sequence[str], size: int, lowercase: bool) -> Any:
    tokenizer = library.Tokenizer(library.models.BPE(unk_token=UNKNOWN))
    if lowercase:
        tokenizer.normalizer = library.normalizers.Lowercase()
    trainer = library.trainers.BpeTrainer(
        vocab_size=0,  # the alphabet, and no merges
        special_tokens=list(SPECIALS),
        limit_alphabet=size - len(SPECIALS),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _as_bytes(data: dict[str, Any]) -> dict[str, Any]:
    """Without merges words make no difference: one pass over the bytes of the text."""
    data["pre_tokenizer"]["use_regex"] = False
    data["model"]["merges"] = []
    return data


def _finish(tokenizer: Any, max_tokens: int | None) -> None:
    ids = [(token, tokenizer.token_to_id(token)) for token in (FIRST, LAST)]
    processors = require_library().processors
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{FIRST} $A {LAST}", special_tokens=ids)
    if max_tokens is not None:
        tokenizer.enable_truncation(max_tokens)

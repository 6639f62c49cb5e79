"""Post-processors of tokenizer.json: the ids before and behind every text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvmtiny.errors import UserError

Ids = tuple[int, ...]


def tokens_around(processor: Mapping[str, Any] | None, known: set[int]) -> tuple[Ids, Ids]:
    """Ids before and after a single text.

    Args:
        known: ids of all pieces and added tokens.

    Raises:
        UserError: a post-processor that is not supported, or an id that is not known.
    """
    if processor is None or processor.get("type") == "ByteLevel":  # that one changes offsets, no ids
        return (), ()
    kind = processor.get("type")
    if kind == "Sequence":
        parts = [tokens_around(item, known) for item in processor.get("processors", [])]
        before = tuple(i for part in reversed(parts) for i in part[0])
        return before, tuple(i for part in parts for i in part[1])
    if kind == "TemplateProcessing":
        before, after = _template(processor)
    elif kind in ("BertProcessing", "RobertaProcessing"):
        before, after = (int(processor["cls"][1]),), (int(processor["sep"][1]),)
    else:
        raise UserError(f"The tokenizer's post-processor {kind} is not supported on the device.")
    strange = sorted({*before, *after} - known)
    if strange:
        raise UserError(f"The tokenizer's post-processor adds the id {strange[0]}, which no piece has.")
    return before, after


def _template(processor: Mapping[str, Any]) -> tuple[Ids, Ids]:
    before: list[int] = []
    after: list[int] | None = None
    for item in processor.get("single", []):
        if "Sequence" in item:
            if after is not None:
                raise UserError("The tokenizer's template repeats the text.")
            after = []
            continue
        ids = processor["special_tokens"][item["SpecialToken"]["id"]]["ids"]
        (before if after is None else after).extend(ids)
    if after is None:
        raise UserError("The tokenizer's template has no place for the text.")
    return tuple(before), tuple(after)

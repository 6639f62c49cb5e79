"""Normalizers of tokenizer.json that treat each character by itself, as chains of functions from it to a string."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tvmtiny.errors import UserError
from tvmtiny.tokenizer.unicode import code_point_map, code_point_set, decompose

Step = Callable[[str], str]
"""One character to what takes its place."""

SUPPORTED = (
    "BertNormalizer, Lowercase, NFD, StripAccents, Replace of a character, Prepend, and sequences of these"
)


def _clean(character: str) -> str:
    if character in code_point_set("control"):
        return ""
    return " " if character in code_point_set("clean_space") else character


def _space_chinese(character: str) -> str:
    return f" {character} " if character in code_point_set("chinese") else character


def _strip_accent(character: str) -> str:
    return "" if character in code_point_set("accent") else character


def _strip_bert_accent(character: str) -> str:
    return "" if character in code_point_set("bert_accent") else character


def _lower(character: str) -> str:
    return code_point_map("lower").get(character, character)


def _bert(options: Mapping[str, Any]) -> list[Step]:
    lower = bool(options.get("lowercase", True))
    strip = options.get("strip_accents")
    steps: list[Step] = []
    if options.get("clean_text", True):
        steps.append(_clean)
    if options.get("handle_chinese_chars", True):
        steps.append(_space_chinese)
    if lower if strip is None else strip:
        steps += [decompose, _strip_bert_accent]
    if lower:
        steps.append(_lower)
    return steps


@dataclasses.dataclass(frozen=True)
class _Replacement:
    """One character by a text."""

    pattern: str
    content: str

    def __call__(self, character: str) -> str:
        return self.content if character == self.pattern else character


def _replace(options: Mapping[str, Any]) -> list[Step]:
    pattern, content = options.get("pattern", {}).get("String"), options.get("content", "")
    if not isinstance(pattern, str) or len(pattern) != 1:
        raise UserError(
            f"The tokenizer's normalizer replaces {options.get('pattern')}, which depends on several characters.",
            "On the device only the replacement of one character is supported.",
        )
    return [_Replacement(pattern, content)]


def normalizer_steps(normalizer: Mapping[str, Any] | None) -> tuple[list[Step], str | None]:
    """What a normalizer does to each character, and the character that it puts before a text, if any.

    Raises:
        UserError: a normalizer that looks at more than one character.
    """
    if normalizer is None:
        return [], None
    kind = normalizer.get("type")
    if kind == "Sequence":
        return _sequence(normalizer.get("normalizers", []))
    if kind == "BertNormalizer":
        return _bert(normalizer), None
    if kind == "Replace":
        return _replace(normalizer), None
    simple: dict[Any, Step] = {"Lowercase": _lower, "NFD": decompose, "StripAccents": _strip_accent}
    if kind in simple:
        return [simple[kind]], None
    if kind == "Prepend" and len(normalizer.get("prepend", "")) == 1:
        return [], str(normalizer["prepend"])
    raise UserError(f"The tokenizer's normalizer {kind} is not supported on the device.", f"Use {SUPPORTED}.")


def _sequence(items: list[Mapping[str, Any]]) -> tuple[list[Step], str | None]:
    steps: list[Step] = []
    prefix: str | None = None
    for item in items:
        found, added = normalizer_steps(item)
        if added is not None and steps:
            raise UserError(
                "The tokenizer's normalizer prepends a character after other steps.",
                "Put Prepend first in the sequence.",
            )
        prefix = prefix if added is None else added
        steps += found
    if prefix is not None and removes(steps):
        raise UserError(
            "The tokenizer's normalizer prepends a character, also to texts of which it removes every character.",
            "Use Metaspace in place of Prepend.",
        )
    if prefix is not None:
        prefix = apply(steps, prefix)
        if len(prefix) != 1:
            raise UserError("The tokenizer's normalizer changes the character that it prepends.")
    return steps, prefix


def reorders(steps: Sequence[Step]) -> bool:
    """Whether combining marks change places (canonical ordering, a part of NFD)."""
    return decompose in steps


def replaced_characters(steps: Sequence[Step]) -> set[str]:
    """The characters that Replace names."""
    return {step.pattern for step in steps if isinstance(step, _Replacement)}


def removes(steps: Sequence[Step]) -> bool:
    """Whether a character may be left without a result."""
    removing = any(step in (_clean, _strip_accent, _strip_bert_accent) for step in steps)
    return removing or any(isinstance(step, _Replacement) and not step.content for step in steps)


def spaces_chinese(steps: Sequence[Step]) -> bool:
    """Whether ideographs get spaces around them."""
    return _space_chinese in steps


def apply(steps: Sequence[Step], text: str) -> str:
    """All steps, character by character."""
    for step in steps:
        text = "".join(map(step, text))
    return text

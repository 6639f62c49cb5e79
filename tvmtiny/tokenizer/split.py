"""Pre-tokenizers of tokenizer.json: how texts are split into words, and the class that each character has in that."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping
from typing import Any

from tvmtiny.errors import UserError
from tvmtiny.tokenizer.unicode import code_point_set

SUPPORTED = "BertPreTokenizer, Whitespace, WhitespaceSplit, ByteLevel, Metaspace or none"


class CharacterClass(enum.IntEnum):
    """enum tvmt_character_class of tvmt_tokenizer.h."""

    KEEP = 0
    DROP = 1
    SPACE = 2
    ISOLATED = 3
    MAP = 4
    LETTER = 5
    NUMBER = 6
    LOWER = 7


class Prefix(enum.IntEnum):
    """enum tvmt_prefix of tvmt_tokenizer.h: when a text gets a character before its first."""

    NEVER = 0
    ALWAYS = 1
    UNLESS_THERE = 2
    FIRST_UNLESS_THERE = 3


Classify = Callable[[str], CharacterClass]


def _keep(_: str) -> CharacterClass:
    return CharacterClass.KEEP


@dataclasses.dataclass(frozen=True)
class Splitting:
    """How texts become words.

    Attributes:
        splitter: the C splitter: tvmt_split_words, tvmt_split_gpt2 or tvmt_split_marks.
        classify: class of a normalized character; never DROP, MAP or LOWER.
        byte_level: whether symbols are bytes, written as the 256 characters of GPT-2.
        word_mark: character that begins words (tvmt_split_marks), or "".
        replace_space: what takes the place of a space, or "".
        prefix: character that a text gets before its first, and when.
    """

    splitter: str
    classify: Classify = _keep
    byte_level: bool = False
    word_mark: str = ""
    replace_space: str = ""
    prefix: str = ""
    prefix_when: Prefix = Prefix.NEVER


def read_splitting(pre_tokenizer: Mapping[str, Any] | None, prepended: str | None) -> Splitting:
    """The splitting of a pre-tokenizer.

    Args:
        prepended: character that the normalizer puts before every text.

    Raises:
        UserError: a pre-tokenizer that is not supported.
    """
    kind = pre_tokenizer.get("type") if pre_tokenizer else None
    found = _reader(kind)(pre_tokenizer or {})
    if prepended is None:
        return found
    if found.prefix_when is not Prefix.NEVER:
        raise UserError("The tokenizer's normalizer and its pre-tokenizer both put a character before texts.")
    return dataclasses.replace(found, prefix=prepended, prefix_when=Prefix.ALWAYS)


def _reader(kind: str | None) -> Callable[[Mapping[str, Any]], Splitting]:
    readers: dict[str | None, Callable[[Mapping[str, Any]], Splitting]] = {
        None: lambda _: Splitting("tvmt_split_marks"),
        "BertPreTokenizer": lambda _: Splitting("tvmt_split_words", _bert),
        "WhitespaceSplit": lambda _: Splitting("tvmt_split_words", _white_space),
        "Whitespace": lambda _: Splitting("tvmt_split_words", _words),
        "ByteLevel": _byte_level,
        "Metaspace": _metaspace,
    }
    if kind not in readers:
        raise UserError(
            f"The tokenizer's pre-tokenizer {kind} is not supported on the device.", f"Use {SUPPORTED}."
        )
    return readers[kind]


def _bert(character: str) -> CharacterClass:
    if character in code_point_set("space"):
        return CharacterClass.SPACE
    return CharacterClass.ISOLATED if character in code_point_set("punctuation") else CharacterClass.KEEP


def _white_space(character: str) -> CharacterClass:
    return CharacterClass.SPACE if character in code_point_set("space") else CharacterClass.KEEP


def _words(character: str) -> CharacterClass:
    r"""The pattern `\w+|[^\w\s]+`."""
    if character in code_point_set("word"):
        return CharacterClass.LETTER
    return CharacterClass.SPACE if character in code_point_set("word_space") else CharacterClass.KEEP


def _gpt2(character: str) -> CharacterClass:
    """The classes of GPT-2's pattern."""
    names = {
        "letter": CharacterClass.LETTER,
        "number": CharacterClass.NUMBER,
        "regex_space": CharacterClass.SPACE,
    }
    return next(
        (found for name, found in names.items() if character in code_point_set(name)), CharacterClass.KEEP
    )


def _byte_level(options: Mapping[str, Any]) -> Splitting:
    when = Prefix.UNLESS_THERE if options.get("add_prefix_space") else Prefix.NEVER
    if options.get("use_regex", True):
        return Splitting("tvmt_split_gpt2", _gpt2, byte_level=True, prefix=" ", prefix_when=when)
    return Splitting("tvmt_split_marks", byte_level=True, prefix=" ", prefix_when=when)


def _metaspace(options: Mapping[str, Any]) -> Splitting:
    mark = options.get("replacement", "▁")
    scheme = options.get("prepend_scheme") or ("always" if options.get("add_prefix_space", True) else "never")
    schemes = {
        "always": Prefix.UNLESS_THERE,
        "first": Prefix.FIRST_UNLESS_THERE,
        "never": Prefix.NEVER,
    }
    if scheme not in schemes:
        raise UserError(
            f"The tokenizer's Metaspace has the prepend_scheme {scheme}.", f"Use {', '.join(schemes)}."
        )
    return Splitting(
        "tvmt_split_marks",
        word_mark=mark if options.get("split", True) else "",
        replace_space=mark,
        prefix=mark,
        prefix_when=schemes[scheme],
    )

"""The table of character classes: what normalization and splitting make of each code point, as tvmt_characters has it.

Only what can reach the vocabulary is told apart: two characters that are both unknown to the model, and that split
texts alike, share a class.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections.abc import Iterable, Iterator

from tvmtiny.errors import UserError
from tvmtiny.tokenizer.normalize import apply, replaced_characters
from tvmtiny.tokenizer.spec import TokenizerSpec
from tvmtiny.tokenizer.split import CharacterClass
from tvmtiny.tokenizer.unicode import (
    CODE_POINTS,
    HANGUL,
    SETS,
    SURROGATES,
    code_point_map,
    code_point_ranges,
    hangul_jamo,
)

RUNS_IN_GROUP = 16
LONGEST_RUN = 32 + 0xFFFF
ASCII = 128
POOL_FLAG = 0x8000
HANGUL_TARGET = 0xFFFF
LAST_FLAG = 0x8000_0000

Alphabet = frozenset[str] | None
"""The characters that a model knows; None: it tells all characters apart, by their bytes."""

Entry = tuple[CharacterClass, str]
"""A class, and for MAP the text that takes the character's place: none for the jamo of a Hangul syllable."""

Run = tuple[int, int, Entry]
"""First code point, length, entry."""


@dataclasses.dataclass(frozen=True)
class CharacterTable:
    """The arrays of tvmt_characters."""

    ascii: list[int]
    group_start: list[int]
    group_offset: list[int]
    runs: bytes
    pool: list[int]

    @property
    def bytes(self) -> int:
        """Flash that the arrays take."""
        return len(self.ascii) + 6 * len(self.group_start) + len(self.runs) + 4 * len(self.pool)


def character_table(spec: TokenizerSpec, alphabet: Alphabet) -> CharacterTable:
    """The classes of all code points.

    Raises:
        UserError: a normalizer whose results the table cannot express.
    """
    runs = list(_joined(_evaluate(spec, alphabet)))
    _check_results(spec, runs)
    pool = _Pool()
    starts, offsets, data = [], [], bytearray()
    for index, (start, length, entry) in enumerate(_split(runs)):
        if index % RUNS_IN_GROUP == 0:
            starts.append(start)
            offsets.append(len(data))
        data += _encode(length, entry, pool)
    if len(data) > 0xFFFF or len(pool.code_points) > HANGUL_TARGET - POOL_FLAG:
        raise UserError(
            "The tokenizer's table of characters is larger than 64 KB.", "Use a simpler normalizer."
        )
    classes = [int(_class_at(runs, code_point)) for code_point in range(ASCII)]
    return CharacterTable(classes, starts, offsets, bytes(data), pool.code_points)


def results(spec: TokenizerSpec, character: str) -> list[tuple[str, CharacterClass]]:
    """What a character becomes, and the class of each result."""
    text = apply(spec.steps, character)
    if spec.splitting.replace_space:
        text = text.replace(" ", spec.splitting.replace_space)
    return [(result, spec.splitting.classify(result)) for result in text]


def mapped_characters(spec: TokenizerSpec) -> set[str]:
    """The characters that a normalizer may make others, without Hangul."""
    return {*code_point_map("decompose"), *code_point_map("lower"), *replaced_characters(spec.steps)}


def _evaluate(spec: TokenizerSpec, alphabet: Alphabet) -> Iterator[Run]:
    """Runs of equal treatment: between two places at which a set, a map or the alphabet begins or ends."""
    places = {0, CODE_POINTS, *range(ASCII + 1), SURROGATES.start, SURROGATES.stop, HANGUL.start, HANGUL.stop}
    for name in SETS:
        places.update(bound for first, last in code_point_ranges(name) for bound in (first, last + 1))
    named = {*mapped_characters(spec), *(alphabet or ()), *spec.splitting.word_mark}
    places.update(ord(character) + end for character in named for end in (0, 1))
    for start, stop in itertools.pairwise(sorted(places)):
        if start in SURROGATES:  # never occur
            continue
        entry = _entry(spec, chr(start), alphabet)
        if entry[0] is CharacterClass.MAP and entry[1]:
            yield from ((c, 1, _entry(spec, chr(c), alphabet)) for c in range(start, stop))
        else:
            yield start, stop - start, entry


def _entry(spec: TokenizerSpec, character: str, alphabet: Alphabet) -> Entry:
    found = _needed(spec, character)
    if not found:
        return CharacterClass.DROP, ""
    kinds = {kind for _, kind in found}
    text = "".join(result for result, _ in found)
    if kinds == {CharacterClass.SPACE} and spec.splitting.splitter == "tvmt_split_words":
        return CharacterClass.SPACE, ""
    if len(kinds) == 1 and _alike(spec, character, text, alphabet):
        return kinds.pop(), ""
    if text == chr(ord(character) + 32):
        return CharacterClass.LOWER, ""
    if ord(character) in HANGUL and text == hangul_jamo(character):
        return CharacterClass.MAP, ""
    return CharacterClass.MAP, text


def _needed(spec: TokenizerSpec, character: str) -> list[tuple[str, CharacterClass]]:
    """As `results`; where words are split at spaces, one character between spaces is one that stands alone."""
    found = results(spec, character)
    if spec.splitting.splitter == "tvmt_split_words":
        kinds = [kind for _, kind in found]
        if len(kinds) == 3 and kinds[0] is kinds[2] is CharacterClass.SPACE:
            return [(found[1][0], CharacterClass.ISOLATED)]
    return found


def _alike(spec: TokenizerSpec, character: str, text: str, alphabet: Alphabet) -> bool:
    """Whether the model gives the same tokens for a character as for what normalization makes of it."""
    if text == character:
        return True
    if alphabet is None or character in alphabet or set(text + character) & set(spec.splitting.word_mark):
        return False
    if len(text) == 1:
        return text not in alphabet
    # A word with one unknown character is unknown as a whole; characters that stand alone are words each.
    isolated = any(spec.splitting.classify(result) is CharacterClass.ISOLATED for result in text)
    return spec.kind == "wordpiece" and not isolated and not set(text) <= alphabet


def _joined(runs: Iterable[Run]) -> Iterator[Run]:
    """Neighbours of the same entry as one run; a gap belongs to the run before."""
    for entry, group in itertools.groupby(_without_gaps(runs), key=lambda run: run[2]):
        items = list(group)
        yield items[0][0], items[-1][0] + items[-1][1] - items[0][0], entry


def _without_gaps(runs: Iterable[Run]) -> Iterator[Run]:
    end: Run = (CODE_POINTS, 0, (CharacterClass.KEEP, ""))
    for (start, _, entry), (following, _, _) in itertools.pairwise([*runs, end]):
        yield start, following - start, entry


def _class_at(runs: list[Run], code_point: int) -> CharacterClass:
    return runs[bisect.bisect_right(runs, code_point, key=lambda run: run[0]) - 1][2][0]


def _check_results(spec: TokenizerSpec, runs: list[Run]) -> None:
    """The C looks up the class of a result by itself: it must be the one that the character needs."""
    changing = (CharacterClass.MAP, CharacterClass.LOWER, CharacterClass.DROP)
    mapped = [run for run in runs if run[2][0] in (CharacterClass.MAP, CharacterClass.LOWER)]
    for code_point in itertools.chain.from_iterable(
        range(start, start + length) for start, length, _ in mapped
    ):
        for result, needed in _needed(spec, chr(code_point)):
            own = _class_at(runs, ord(result))
            if (CharacterClass.KEEP if own in changing else own) is not needed:
                raise UserError(
                    f"The tokenizer's normalizer makes of U+{code_point:04X} a character that it would change again.",
                    "Use a normalizer that leaves its own results as they are.",
                )


def _split(runs: Iterable[Run]) -> Iterator[Run]:
    for start, length, entry in runs:
        for done in range(0, length, LONGEST_RUN):
            yield start + done, min(LONGEST_RUN, length - done), entry


def _too_large() -> UserError:
    return UserError("The tokenizer's table of characters is larger than 64 KB.", "Use a simpler normalizer.")


class _Pool:
    """Sequences of code points, each kept once."""

    def __init__(self) -> None:
        self.code_points: list[int] = []
        self._places: dict[str, int] = {}

    def target(self, text: str) -> int:
        if not text:
            return HANGUL_TARGET
        if len(text) == 1 and ord(text) < POOL_FLAG:
            return ord(text)
        if text not in self._places:
            self._places[text] = len(self.code_points)
            self.code_points += [*map(ord, text[:-1]), ord(text[-1]) | LAST_FLAG]
        if POOL_FLAG + self._places[text] >= HANGUL_TARGET:
            raise _too_large()
        return POOL_FLAG + self._places[text]


def _encode(length: int, entry: Entry, pool: _Pool) -> bytes:
    kind, text = entry
    head = bytes([kind << 5 | min(length - 1, 31)])
    more = (length - 32).to_bytes(2, "little") if length >= 32 else b""
    target = pool.target(text).to_bytes(2, "little") if kind is CharacterClass.MAP else b""
    return head + more + target

"""Does the C give the ids of the tokenizers library? On a corpus, and on random texts."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tvmtiny.tokenizer.fuzz import random_parts
from tvmtiny.tokenizer.host import ERROR_WORD, HostTokenizer
from tvmtiny.tokenizer.library import LibraryTokenizer
from tvmtiny.tokenizer.tables import Tables

BATCH = 4096
_EXAMPLES = 5
_CAPACITY = 0xFFFF


@dataclasses.dataclass(frozen=True)
class Difference:
    """A text for which the C and the library disagree; `found` is a negative status or the ids."""

    text: bytes
    found: list[int] | int
    expected: list[int]


@dataclasses.dataclass
class CheckReport:
    """How many texts were compared.

    Attributes:
        texts: how many.
        equal: for how many the ids are equal.
        refused: words that work memory could not hold (byte-pair encoding); nothing wrong was given.
        different: for how many the ids differ; `examples` are the first of these.
    """

    texts: int = 0
    equal: int = 0
    refused: int = 0
    different: int = 0
    examples: list[Difference] = dataclasses.field(default_factory=list)

    def add(self, text: bytes, found: list[int] | int, expected: list[int]) -> None:
        """Count one text."""
        self.texts += 1
        if found == expected:
            self.equal += 1
        elif found == ERROR_WORD:
            self.refused += 1
        else:
            self.different += 1
            if len(self.examples) < _EXAMPLES:
                self.examples.append(Difference(text, found, expected))


def check(
    data: Mapping[str, Any],
    tables: Tables,
    texts: Iterable[bytes],
    *,
    seed: int = 0,
    flags: tuple[str, ...] = (),
) -> CheckReport:
    """Compare the C, fed in random parts, with the library on each text.

    Args:
        data: contents of tokenizer.json.
        tables: of the same.
        seed: of the parts.
        flags: of the C compiler.

    Raises:
        EnvironmentProblem: there is no C compiler, or no library.
    """
    library = LibraryTokenizer(data, tables)
    device = HostTokenizer(tables, flags)
    draw = random.Random(seed)
    report = CheckReport()
    for batch in _batches(texts):
        for text, expected in zip(batch, library.encode(batch), strict=True):
            report.add(text, device.encode(random_parts(draw, text), _CAPACITY), expected)
    return report


def _batches(texts: Iterable[bytes]) -> Iterator[list[bytes]]:
    iterator = iter(texts)
    while batch := list(itertools.islice(iterator, BATCH)):
        yield batch

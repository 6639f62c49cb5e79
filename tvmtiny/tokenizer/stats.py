"""What a tokenizer does to a corpus, and what it costs on a device."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tvmtiny.errors import UserError
from tvmtiny.tokenizer.firmware import TEXT_BYTES, Measurement, measure
from tvmtiny.tokenizer.host import HostTokenizer
from tvmtiny.tokenizer.tables import Tables

MEASURED_TEXTS = 200
_CAPACITY = 0xFFFF


@dataclasses.dataclass(frozen=True)
class CorpusStats:
    """Tokens of a corpus, those around every text included.

    Attributes:
        texts: how many.
        bytes: of all texts.
        tokens: of all texts.
        longest_text_tokens: most of one text.
        truncated: share of the texts that were cut.
        unknown: share of the tokens that are the unknown token.
        used_pieces: how many different ids occurred; vocabulary: how many there are.
    """

    texts: int
    bytes: int
    tokens: int
    longest_text_tokens: int
    truncated: float
    unknown: float
    used_pieces: int
    vocabulary: int


def corpus_stats(tables: Tables, texts: Sequence[bytes]) -> CorpusStats:
    """Tokenize a corpus on this computer.

    Raises:
        UserError: a text has a word that work memory cannot hold.
        EnvironmentProblem: there is no C compiler.
    """
    whole = HostTokenizer(dataclasses.replace(tables, max_tokens=_CAPACITY))
    rows = [whole.encode([text], _CAPACITY) for text in texts]
    refused = next((text for text, row in zip(texts, rows, strict=True) if isinstance(row, int)), None)
    if refused is not None:
        raise UserError(
            f"Work memory cannot hold a word of {refused[:60]!r}.", "Give a larger --word-symbols."
        )
    found = [row for row in rows if isinstance(row, list)]
    tokens = sum(map(len, found))
    unknown = tables.spec.unknown_id
    return CorpusStats(
        texts=len(texts),
        bytes=sum(map(len, texts)),
        tokens=tokens,
        longest_text_tokens=max(map(len, found)),
        truncated=sum(len(row) > tables.max_tokens for row in found) / len(found),
        unknown=sum(row.count(unknown) for row in found) / tokens if tokens and unknown is not None else 0.0,
        used_pieces=len({index for row in found for index in row}),
        vocabulary=tables.spec.size,
    )


def device_stats(tables: Tables, texts: Sequence[bytes], target: str) -> tuple[Measurement, int]:
    """Measure on the emulated core of a target: what it took, and the bytes of the texts that it was given.

    Of a long corpus every n-th text is taken, MEASURED_TEXTS in all.
    """
    step = -(-len(texts) // MEASURED_TEXTS)
    chosen = [text[:TEXT_BYTES] for text in texts[::step]]
    return measure(tables, chosen, on="qemu", target=target), sum(map(len, chosen))

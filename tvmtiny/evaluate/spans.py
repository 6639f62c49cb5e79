"""Spans in BIO tags, and how many of them a model finds: what CoNLL's script conlleval counts.

A span begins at B-x, or at I-x that continues no span of x, and ends before the next tag that does not continue it.
Tjong Kim Sang and De Meulder, "Introduction to the CoNLL-2003 Shared Task" (2003); seqeval counts the same way.
"""

from __future__ import annotations

from collections.abc import Sequence

Span = tuple[str, int, int]
"""Kind, first token, token behind the last."""

OUTSIDE = "O"


def is_bio(labels: Sequence[str]) -> bool:
    """Whether names of classes are BIO tags: O, and B-x or I-x."""
    return OUTSIDE in labels and all(
        label == OUTSIDE or (label[:2] in {"B-", "I-"} and len(label) > 2) for label in labels
    )


def spans(tags: Sequence[str]) -> list[Span]:
    """The spans of a sequence of tags, in order."""
    found: list[Span] = []
    kind, start = "", 0
    for place, tag in enumerate((*tags, OUTSIDE)):
        prefix, _, own = tag.partition("-")
        if kind and (prefix != "I" or own != kind):
            found.append((kind, start, place))
            kind = ""
        if not kind and own:
            kind, start = own, place
    return found


def span_f1(found: Sequence[Sequence[str]], expected: Sequence[Sequence[str]]) -> float:
    """F1 over the spans of all sequences, kind and both ends equal; 0 where there is none of either."""
    right = total = 0
    for have, want in zip(found, expected, strict=True):
        own, true = set(spans(have)), set(spans(want))
        right += len(own & true)
        total += len(own) + len(true)
    return 2 * right / total if total else 0.0

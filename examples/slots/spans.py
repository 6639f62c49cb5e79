"""Spans of BIO tags and their F1, as conlleval counts them (Tjong Kim Sang and Buchholz, CoNLL-2000)."""

from __future__ import annotations

from collections.abc import Sequence

Span = tuple[str, int, int]


def spans(tags: Sequence[str]) -> set[Span]:
    """(label, first word, word behind the last); an I- of another label than before it begins a span."""
    found, label, start = set(), "", 0
    for place, tag in enumerate([*tags, "O"]):
        prefix, _, name = tag.partition("-")
        if label and (prefix != "I" or name != label):
            found.add((label, start, place))
            label = ""
        if prefix != "O" and not label:
            label, start = name, place
    return found


def f1_score(wanted: Sequence[Sequence[str]], found: Sequence[Sequence[str]], total: Sequence[int]) -> float:
    """F1 over all spans of all rows.

    Args:
        wanted, found: tags of the words of each row.
        total: spans of each whole row, those included that were cut off: they count as not found.
    """
    pairs = [(spans(w), spans(f)) for w, f in zip(wanted, found, strict=True)]
    right = sum(len(w & f) for w, f in pairs)
    said, there = sum(len(f) for _, f in pairs), int(sum(total))
    return 2 * right / (said + there) if said + there else 1.0

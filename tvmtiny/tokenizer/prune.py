"""A smaller vocabulary: what a corpus uses, and what that is made of.

On the corpus the pruned tokenizer finds the same pieces as the whole one. WordPiece takes the longest piece that fits,
and that one stays; a merge that byte-pair encoding applies on the corpus is part of a piece that stays.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tvmtiny.tokenizer.host import HostTokenizer
from tvmtiny.tokenizer.spec import TokenizerSpec, byte_piece, parse_spec
from tvmtiny.tokenizer.tables import build_tables

_CAPACITY = 0xFFFF


@dataclasses.dataclass(frozen=True)
class PrunedVocabulary:
    """A tokenizer.json with fewer pieces, and the old id of each new one."""

    data: dict[str, Any]
    old_ids: list[int]


def count_pieces(data: Mapping[str, Any], texts: Iterable[str]) -> Counter[int]:
    """How often each id occurs, texts not cut."""
    whole = {**data, "truncation": None}
    tokenizer = HostTokenizer(build_tables(parse_spec(whole)))
    counts: Counter[int] = Counter()
    for text in texts:
        ids = tokenizer.encode([text.encode("utf-8", "replace")], _CAPACITY)
        counts.update(ids if isinstance(ids, list) else ())
    return counts


def prune(
    data: Mapping[str, Any], texts: Sequence[str], *, minimum: int = 1, keep_characters: bool = True
) -> PrunedVocabulary:
    """Keep the pieces that occur in `texts`, special tokens, and what pieces are merged from.

    Args:
        data: contents of tokenizer.json.
        minimum: occurrences that keep a piece.
        keep_characters: also keep the single characters, so that other texts have tokens too.
    """
    spec = parse_spec(data)
    counts = count_pieces(data, texts)
    kept = {piece for piece, index in spec.vocabulary.items() if counts[index] >= minimum}
    if keep_characters:
        kept |= {piece for piece in spec.vocabulary if len(piece.removeprefix(spec.continuation)) == 1}
    fixed = {*spec.specials.values(), *spec.before, *spec.after, spec.unknown_id}
    kept |= {piece for piece, index in spec.vocabulary.items() if index in fixed}
    if spec.byte_fallback:
        kept |= {byte_piece(byte) for byte in range(256)}
    kept = _with_parts(spec, kept)
    ids = sorted({spec.vocabulary[piece] for piece in kept} | set(spec.specials.values()))
    return PrunedVocabulary(_renumbered(data, kept, {old: new for new, old in enumerate(ids)}), ids)


def _with_parts(spec: TokenizerSpec, kept: set[str]) -> set[str]:
    """Also the pieces that merges make these from."""
    found = set(kept)
    for left, right in reversed(spec.merges):
        if left + right in found:
            found |= {left, right}
    return found


def _renumbered(data: Mapping[str, Any], kept: set[str], new_ids: Mapping[int, int]) -> dict[str, Any]:
    pruned: dict[str, Any] = copy.deepcopy(dict(data))
    model = pruned["model"]
    model["vocab"] = {piece: new_ids[index] for piece, index in model["vocab"].items() if piece in kept}
    if "merges" in model:
        model["merges"] = [pair for pair in model["merges"] if set(_pair(pair)) <= kept]
    for token in pruned.get("added_tokens") or []:
        token["id"] = new_ids[token["id"]]
    _renumber_processor(pruned.get("post_processor"), new_ids)
    if pruned.get("padding"):
        pruned["padding"]["pad_id"] = new_ids.get(pruned["padding"]["pad_id"], 0)
    return pruned


def _pair(merge: str | Sequence[str]) -> tuple[str, str, str]:
    """Left, right, and what they make."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right, left + right


def _renumber_processor(processor: dict[str, Any] | None, new_ids: Mapping[int, int]) -> None:
    if processor is None:
        return
    for part in processor.get("processors", []):
        _renumber_processor(part, new_ids)
    for token in (processor.get("special_tokens") or {}).values():
        token["ids"] = [new_ids[index] for index in token["ids"]]
    for end in ("cls", "sep"):
        if end in processor:
            processor[end] = [processor[end][0], new_ids[processor[end][1]]]

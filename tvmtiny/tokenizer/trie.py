"""WordPiece vocabularies as the packed trie of tvmt_trie: breadth-first, children counted, ids by rank.

A node takes 2.5 bytes (its byte, its number of children, 8 bytes for each 16 nodes), a piece 2 more for its id.
"""

from __future__ import annotations

import dataclasses

from tvmtiny.errors import UserError
from tvmtiny.tokenizer.characters import mapped_characters, results
from tvmtiny.tokenizer.spec import TokenizerSpec
from tvmtiny.tokenizer.split import CharacterClass

NODES_IN_BLOCK = 16
LONGEST_PIECE = 250
"""Bytes; the C counts them in a byte."""


@dataclasses.dataclass
class _Node:
    children: dict[int, _Node] = dataclasses.field(default_factory=dict)
    piece: int | None = None


@dataclasses.dataclass(frozen=True)
class PackedTrie:
    """The arrays of tvmt_trie; `blocks` are (first_child, first_id, terminal), `longest` the longest path in bytes."""

    label: list[int]
    children: list[int]
    blocks: list[tuple[int, int, int]]
    ids: list[int]
    longest: int

    @property
    def bytes(self) -> int:
        """Flash that the arrays take."""
        return len(self.label) + len(self.children) + 8 * len(self.blocks) + 2 * len(self.ids)


def reachable_pieces(spec: TokenizerSpec) -> tuple[dict[str, int], dict[str, int]]:
    """The pieces that can begin a word, and those that can stand inside one (without the continuation mark).

    Left out are pieces with a character that normalization never gives, and with one that stands alone beside others.
    """
    initial, inside = {}, {}
    mapped = {result for c in mapped_characters(spec) for result, _ in results(spec, c)}
    for piece, index in spec.vocabulary.items():
        if _possible(spec, piece, mapped):
            initial[piece] = index
        rest = piece.removeprefix(spec.continuation)
        if piece.startswith(spec.continuation) and rest and _possible(spec, rest, mapped, whole_word=False):
            inside[rest] = index
    return initial, inside


def _possible(spec: TokenizerSpec, piece: str, mapped: set[str], *, whole_word: bool = True) -> bool:
    """Whether words may hold `piece`.

    Args:
        mapped: characters that are what normalization makes of others.
    """
    kinds = set()
    for character in piece:
        found = results(spec, character)
        kept = [result for result, kind in found if kind is not CharacterClass.SPACE] == [character]
        if not kept and character not in mapped:
            return False
        alone = kept and len(found) > 1  # with spaces around it
        kinds.add(CharacterClass.ISOLATED if alone else spec.splitting.classify(character))
    isolated = CharacterClass.ISOLATED in kinds
    return len(kinds) == 1 and (not isolated or (whole_word and len(piece) == 1))


def pack(initial: dict[str, int], inside: dict[str, int]) -> PackedTrie:
    """The trie of both sets: node 0 begins words, node 1 goes on inside them.

    Raises:
        UserError: a piece that is too long.
    """
    nodes = [_tree(initial), _tree(inside)]
    labels, first_child = [0, 0], []
    for node in nodes:  # grows while it is walked: breadth first
        first_child.append(len(nodes))
        for byte in sorted(node.children):
            labels.append(byte)
            nodes.append(node.children[byte])
    ids = [node.piece for node in nodes if node.piece is not None]
    blocks, seen = [], 0
    for start in range(0, len(nodes), NODES_IN_BLOCK):
        group = nodes[start : start + NODES_IN_BLOCK]
        terminal = sum(1 << bit for bit, node in enumerate(group) if node.piece is not None)
        blocks.append((first_child[start], seen, terminal))
        seen += terminal.bit_count()
    longest = max((len(piece.encode()) for piece in (*initial, *inside)), default=0)
    return PackedTrie(labels, [len(node.children) for node in nodes], blocks, ids, longest)


def _tree(pieces: dict[str, int]) -> _Node:
    root = _Node()
    for piece, index in pieces.items():
        data = piece.encode()
        if len(data) > LONGEST_PIECE:
            raise UserError(
                f"The tokenizer's piece {piece[:20]!r}... has {len(data)} bytes; {LONGEST_PIECE} are possible."
            )
        node = root
        for byte in data:
            node = node.children.setdefault(byte, _Node())
        node.piece = index
    return root

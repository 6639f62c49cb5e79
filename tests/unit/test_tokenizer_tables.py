"""The packed tables, read back in Python."""

from __future__ import annotations

import bisect
import random
from collections.abc import Iterator

import pytest
from tokenizer_cases import CASES, case, shipped

from tvmtiny.tokenizer.characters import CharacterTable, results
from tvmtiny.tokenizer.spec import TokenizerSpec, parse_spec
from tvmtiny.tokenizer.split import CharacterClass
from tvmtiny.tokenizer.tables import Tables, build_tables
from tvmtiny.tokenizer.trie import PackedTrie, reachable_pieces


def pieces_in(trie: PackedTrie, node: int, before: bytes = b"") -> Iterator[tuple[str, int]]:
    """Every piece below a node with its id, found as tvmt_tokenizer_wordpiece.c finds them."""
    block = node // 16
    first_child, first_id, terminal = trie.blocks[block]
    if terminal >> node % 16 & 1:
        yield before.decode(), trie.ids[first_id + (terminal & ((1 << node % 16) - 1)).bit_count()]
    child = first_child + sum(trie.children[block * 16 : node])
    for index in range(child, child + trie.children[node]):
        yield from pieces_in(trie, index, before + bytes([trie.label[index]]))


def test_the_trie_holds_every_piece() -> None:
    spec = parse_spec(shipped())
    tables = build_tables(spec)
    assert tables.trie is not None
    initial, inside = reachable_pieces(spec)
    assert dict(pieces_in(tables.trie, 0)) == initial
    assert dict(pieces_in(tables.trie, 1)) == inside
    unreachable = set(spec.vocabulary) - set(initial) - {f"##{piece}" for piece in inside}
    assert unreachable == set(spec.specials)


def find(table: CharacterTable, character: str) -> tuple[CharacterClass, int]:
    """Class and target of a character, by the run-length code."""
    code_point = ord(character)
    group = bisect.bisect_right(table.group_start, code_point) - 1
    at, start = table.group_offset[group], table.group_start[group]
    while True:
        kind, length = CharacterClass(table.runs[at] >> 5), (table.runs[at] & 31) + 1
        at += 1
        if length == 32:
            length += int.from_bytes(table.runs[at : at + 2], "little")
            at += 2
        target = 0
        if kind is CharacterClass.MAP:
            target = int.from_bytes(table.runs[at : at + 2], "little")
            at += 2
        if code_point < start + length:
            return kind, target
        start += length


def mapped(table: CharacterTable, character: str) -> str:
    """What takes the place of a character."""
    kind, target = find(table, character)
    if kind is CharacterClass.DROP:
        return ""
    if kind is CharacterClass.LOWER:
        return chr(ord(character) + 32)
    if kind is not CharacterClass.MAP or target == 0xFFFF:
        return character
    if target < 0x8000:
        return chr(target)
    end = next(i for i in range(target - 0x8000, len(table.pool)) if table.pool[i] >> 31)
    return "".join(chr(c & 0x7FFFFFFF) for c in table.pool[target - 0x8000 : end + 1])


def alphabet_of(tables: Tables) -> set[str]:
    return {character for piece in tables.spec.vocabulary for character in piece}


def samples(spec: TokenizerSpec) -> list[str]:
    draw = random.Random(0)
    scalars = (draw.randrange(draw.choice((0x80, 0x600, 0x3000, 0x11000, 0x110000))) for _ in range(6000))
    return [chr(c) for c in scalars if not 0xD800 <= c < 0xE000] + sorted("".join(spec.vocabulary))


@pytest.mark.parametrize("name", ["shipped", "wordpiece_accents", "byte_level", "metaspace", "characters"])
def test_what_is_known_is_mapped_as_the_normalizer_maps_it(name: str) -> None:
    tables = build_tables(parse_spec(case(name)))
    alphabet = alphabet_of(tables)
    for character in samples(tables.spec):
        expected = "".join(result for result, _ in results(tables.spec, character))
        if expected.strip() and set(expected.strip()) <= alphabet:
            assert mapped(tables.characters, character) == expected.strip(), hex(ord(character))


@pytest.mark.parametrize("name", CASES)
def test_the_table_of_ascii_repeats_the_runs(name: str) -> None:
    table = build_tables(parse_spec(case(name))).characters
    assert table.ascii == [int(find(table, chr(c))[0]) for c in range(128)]
    assert find(table, chr(0x10FFFF))[0] is not CharacterClass.MAP


def test_a_thousand_pieces_take_eight_kilobytes() -> None:
    tables = build_tables(parse_spec(shipped()))
    assert tables.characters.bytes + tables.vocabulary_bytes < 8192

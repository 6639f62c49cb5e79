"""Huffman codes and packed indices against their definitions, and the choice between them."""

from __future__ import annotations

import heapq
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmtiny.kernels.stored import TABLE
from tvmtiny.storage import choice, huffman, indices
from tvmtiny.storage.choice import store_arrays, store_table
from tvmtiny.storage.huffman import GROUP, LIMIT, Code, code_lengths, histogram_of

BYTES = st.lists(st.integers(0, 255), min_size=1, max_size=400)


def _bytes(values: list[int]) -> np.ndarray:
    return np.array(values, np.uint8)[None]


def _huffman_total(weights: list[int]) -> int:
    """Bits of the best code without a limit: the sum of all nodes of Huffman's tree."""
    heap, total = list(weights), 0
    heapq.heapify(heap)
    while len(heap) > 1:
        joined = heapq.heappop(heap) + heapq.heappop(heap)
        total += joined
        heapq.heappush(heap, joined)
    return total


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=60))
def test_lengths_without_need_of_a_limit_are_huffmans(weights: list[int]) -> None:
    lengths = code_lengths(np.array(weights), limit=60)
    assert int((lengths * weights).sum()) == _huffman_total(weights)


@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=5), st.integers(3, 4))
def test_limited_lengths_are_the_best_of_all(weights: list[int], limit: int) -> None:
    found = code_lengths(np.array(weights), limit)
    best = min(
        sum(w * n for w, n in zip(weights, lengths, strict=True))
        for lengths in itertools.product(range(1, limit + 1), repeat=len(weights))
        if sum(2.0**-n for n in lengths) <= 1
    )
    assert found.max() <= limit
    assert int((found * weights).sum()) == best


def test_fibonacci_weights_stay_within_the_limit() -> None:
    weights = [1, 1]
    while len(weights) < 30:
        weights.append(weights[-1] + weights[-2])
    lengths = code_lengths(np.array(weights))
    assert lengths.max() == LIMIT
    assert sum(2.0 ** -float(n) for n in lengths) == 1


def _words(code: Code) -> dict[str, int]:
    """Canonical words as text, from the definition: count upwards, append a 0 where the next is longer."""
    words: dict[str, int] = {}
    value, length = 0, 0
    sizes = np.repeat(np.arange(1, LIMIT + 1), code.lengths)
    for symbol, size in zip(code.symbols.tolist(), sizes.tolist(), strict=True):
        value <<= size - length
        length = size
        words[format(value, f"0{size}b")] = symbol
        value += 1
    return words


@given(BYTES, st.floats(0, 1))
def test_coded_bytes_come_back(values: list[int], skew: float) -> None:
    array = (_bytes(values) * skew).astype(np.uint8)
    code = Code.of(histogram_of(array))
    data, _ = code.encode(array)
    assert np.array_equal(code.decode(data, array.size), array[0])
    words = _words(code)  # and by the definition of a prefix code
    found, word = [], ""
    for bit in "".join(format(part, "08b") for part in data.tolist()):
        word += bit
        if word in words and len(found) < array.size:
            found.append(words[word])
            word = ""
    assert found == array[0].tolist()


@given(st.integers(1, 3), st.lists(st.integers(0, 255), max_size=3))
def test_all_bytes_equally_often_have_a_code_that_saves_nothing(times: int, more: list[int]) -> None:
    array = _bytes([*range(256)] * times + more)
    code = Code.of(histogram_of(array))
    assert int(code.lengths.sum()) == 256  # one of 256 words would not fit its byte
    data, _ = code.encode(array)
    assert np.array_equal(code.decode(data, array.size), array[0])
    assert store_arrays([array], "huffman") == [None]


@given(st.integers(1, 30), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_rows_are_found_by_their_starts(rows: int, cols: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = np.abs(rng.normal(0, 20, (rows, cols))).astype(np.uint8)
    code = Code.of(histogram_of(table))
    data, starts = code.encode(table)
    assert len(starts) == -(-rows // GROUP)
    for row in range(rows):
        group = code.decode(data, cols * (row % GROUP + 1), int(starts[row // GROUP]))
        assert np.array_equal(group[-cols:], table[row])


@given(st.integers(1, 128), st.integers(1, 9), st.integers(1, 33), st.integers(0, 2**32 - 1))
def test_packed_values_come_back(distinct: int, rows: int, cols: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.choice(rng.permutation(256)[:distinct] - 128, (rows, cols)).astype(np.int8)
    data, codebook = indices.pack(values)
    assert len(codebook) == 2 ** indices.index_bits(len(np.unique(values)))
    assert data.shape == (rows, -(-cols * indices.index_bits(len(codebook)) // 8))
    assert np.array_equal(indices.unpack(data, codebook, cols), values)


def test_equal_arrays_share_a_code_and_opposite_ones_do_not() -> None:
    rng = np.random.default_rng(0)
    low = [rng.integers(0, 16, 3000).astype(np.uint8) for _ in range(2)]
    high = [rng.integers(200, 216, 3000).astype(np.uint8) for _ in range(2)]
    groups = huffman.shared([histogram_of(array) for array in (*low, *high)])
    assert groups[0] == groups[1] != groups[2] == groups[3]


def _normal(seed: int, size: int = 4096, width: float = 12) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, width, size).clip(-127, 127).astype(np.int8)


def _few(seed: int, size: int = 4096) -> np.ndarray:
    return np.random.default_rng(seed).choice(np.array([-90, -30, 10, 127], np.int8), size)


@pytest.mark.parametrize("form", ["packed", "huffman", "auto"])
def test_stored_arrays_are_decoded_and_shorter(form: str) -> None:
    arrays = [_normal(1), _few(2), np.random.default_rng(3).integers(-128, 128, 4096).astype(np.int8)]
    stored = store_arrays(arrays, form)
    assert [one and one.kernel for one in stored] == {
        "packed": ["unpack", "unpack", None],
        "huffman": ["huffman", "huffman", None],
        "auto": ["huffman", "huffman", None],  # with one decoder
    }[form]
    for array, one in zip(arrays, stored, strict=True):
        if one is not None:
            assert sum(part.nbytes for part in one.operands.values()) < array.nbytes
            assert one.attrs["plain_bytes"] == array.nbytes


def _taken(arrays: list[np.ndarray], form: str) -> int:
    """Bytes of flash of all arrays in a form, code included."""
    stored = store_arrays(arrays, form)
    plain = sum(array.nbytes for array, one in zip(arrays, stored, strict=True) if one is None)
    used = [one for one in stored if one is not None]
    operands = {part.tobytes(): part.nbytes for one in used for part in one.operands.values()}
    decoders = sum(choice.DECODER_BYTES[kernel] for kernel in {one.kernel for one in used})
    return plain + sum(operands.values()) + choice.CALL_BYTES * len(used) + decoders


KINDS = st.tuples(st.integers(300, 3000), st.integers(2, 200), st.floats(0.3, 3))


@settings(max_examples=60, deadline=None)
@given(st.lists(KINDS, min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_auto_takes_no_more_than_any_form(kinds: list[tuple[int, int, float]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    arrays = []
    for size, distinct, power in kinds:
        share = np.arange(1, distinct + 1) ** -power
        book = (rng.permutation(256)[:distinct] - 128).astype(np.int8)
        arrays.append(rng.choice(book, size, p=share / share.sum()))
    arrays = list({array.tobytes(): array for array in arrays}.values())
    taken = {form: _taken(arrays, form) for form in choice.FORMS}
    assert taken["none"] == sum(array.nbytes for array in arrays)
    assert taken["auto"] == min(taken.values())


def test_a_second_decoder_must_pay_for_itself() -> None:
    """Huffman codes save 400 bytes more for one array, but their decoder takes 600."""
    skewed = np.random.default_rng(5).choice(np.array([-9, 0, 9], np.int8), 3200, p=[0.02, 0.96, 0.02])
    arrays = [_few(1, 3000), _few(2, 3000), skewed]
    stored = store_arrays(arrays, "auto")
    assert [one and one.kernel for one in stored] == ["unpack"] * 3
    huffman_bytes = Code.of(histogram_of(skewed)).bits(histogram_of(skewed)) // 8
    assert huffman_bytes < 3200 // 4 - 300


@pytest.mark.parametrize(
    ("header", "name", "value"),
    [
        ("tvmt_huffman", "TVMT_HUFFMAN_LIMIT", LIMIT),
        ("tvmt_huffman", "TVMT_HUFFMAN_BEHIND", huffman.BEHIND),
        ("tvmt_huffman", "TVMT_HUFFMAN_TABLE", TABLE),
        ("tvmt_huffman_rows_s8", "TVMT_HUFFMAN_GROUP", GROUP),
    ],
)
def test_the_decoder_has_the_same_numbers(header: str, name: str, value: int) -> None:
    folder = Path(__file__).parents[2] / "schedules" / "microkernels" / "portable"
    text = (folder / f"{header}.h").read_text("utf-8")
    defined = dict(re.findall(r"^#define (\w+) ([^/\n]+?) *(?:/\*.*)?$", text, re.MULTILINE))
    entries = defined.get("TVMT_HUFFMAN_ENTRIES", "")
    assert (
        sum(
            int(part)
            for part in defined[name].strip("()").replace("TVMT_HUFFMAN_ENTRIES", entries).split("+")
        )
        == value
    )


def test_what_a_decoder_would_eat_up_stays_plain() -> None:
    assert store_arrays([_few(1, 300)], "packed") == [None]
    assert store_table(_few(1, 300).reshape(10, 30), "auto") is None


def test_a_table_has_the_shorter_form() -> None:
    table = np.random.default_rng(4).choice(np.array([-100, 5, 90], np.int8), (200, 40), p=[0.05, 0.9, 0.05])
    stored = {form: store_table(table, form) for form in choice.FORMS}
    assert stored["none"] is None
    assert stored["auto"] is not None
    assert stored["auto"].kernel == "huffman"  # 0.57 bits a value, against two
    assert stored["packed"] is not None

"""The static memory planner: no overlap, never behind greedy-by-size, optimal where that can be computed."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from tvmtiny.codegen import plan_report, plan_search
from tvmtiny.codegen.planner import Buffer, Place, Plan, extend_lifetimes, lower_bound, may_overwrite, plan
from tvmtiny.errors import UserError


@dataclasses.dataclass(frozen=True)
class Ram:
    name: str
    origin: int
    bytes: int


STM32F746 = (
    Ram("dtcm", 0x20000000, 64 * 1024),
    Ram("sram1", 0x20010000, 240 * 1024),
    Ram("sram2", 0x2004C000, 16 * 1024),
)


def tensor(name, size, first, last, *, align=1, alias_of=None):
    return Buffer(name, size, align, first, last, alias_of=alias_of)


@st.composite
def buffer_sets(draw, max_count=12, max_bytes=200, max_steps=8):
    """Buffers of all kinds; about half name an earlier one as alias, legally or not."""
    buffers: list[Buffer] = []
    for i in range(draw(st.integers(1, max_count))):
        parent = draw(st.sampled_from([None, *buffers])) if buffers else None
        first = draw(st.integers(0, max_steps))
        size = draw(st.integers(1, max_bytes))
        if parent and draw(st.booleans()):
            first, size = max(parent.last, 0), min(size, parent.bytes)
        buffers.append(
            Buffer(
                name=f"b{i}",
                bytes=size,
                align=draw(st.sampled_from([1, 2, 4, 16])),
                first=first,
                last=draw(st.integers(first, max(first, max_steps))),
                kind=draw(st.sampled_from(["tensor", "tensor", "tensor", "scratch", "input", "output"])),
                alias_of=parent.name if parent else None,
            )
        )
    return buffers


def quick_plan(buffers) -> Plan:
    """Plan with limits so low that most searches reach them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_search, "EXACT_WORK", 600)
        patch.setattr(plan_search, "CLIMB_WORK", 600)
        return plan(buffers)


def owners_are_unique(result: Plan) -> bool:
    """Walk all bytes of all steps: a byte has one owner, or two of which one is computed in place."""
    for step in result.steps:
        owner: dict[int, str] = {}
        for row in result.buffers:
            if not row.first <= step <= row.last:
                continue
            for address in range(result.offsets[row.name], result.offsets[row.name] + row.bytes):
                other = owner.setdefault(address, row.name)
                if other != row.name and not _in_place_at(result, step, other, row.name):
                    return False
    return True


def _in_place_at(result, step, a, b):
    rows = {row.name: row for row in result.buffers}
    for child, parent in ((rows[a], rows[b]), (rows[b], rows[a])):
        if (
            result.in_place.get(child.name) == parent.name == child.alias_of
            and child.first == parent.last == step
            and child.bytes <= parent.bytes
            and result.offsets[child.name] == result.offsets[parent.name]
        ):
            return True
    return False


@settings(max_examples=150, deadline=None)
@given(buffer_sets())
def test_plans_are_sound(buffers):
    result = quick_plan(buffers)
    result.check()
    assert owners_are_unique(result)
    assert all(result.offsets[row.name] % row.align == 0 for row in buffers)
    assert result.align >= max(16, *(row.align for row in buffers))
    assert result.arena_bytes == max(result.offsets[row.name] + row.bytes for row in buffers)
    assert result.lower_bound <= result.arena_bytes
    assert max(result.live_bytes().values()) <= result.arena_bytes
    assert {row.name for row in result.buffers} == {row.name for row in buffers}


def greedy_by_size(buffers) -> int:
    """Peak of first-fit by falling size without sharing in place; written apart from the planner's own."""
    placed: list[tuple[Buffer, int]] = []
    for row in sorted(extend_lifetimes(buffers), key=lambda row: (-row.bytes, row.first)):
        offset = 0
        present = [(o, r) for r, o in placed if r.first <= row.last and row.first <= r.last]
        for start, other in sorted(present, key=lambda pair: pair[0]):
            if offset + row.bytes <= start:
                break
            offset = max(offset, math.ceil((start + other.bytes) / row.align) * row.align)
        placed.append((row, offset))
    return max(offset + row.bytes for row, offset in placed)


@settings(max_examples=100, deadline=None)
@given(buffer_sets(max_count=20))
def test_never_worse_than_greedy_by_size(buffers):
    assert quick_plan(buffers).arena_bytes <= greedy_by_size(buffers)


@settings(max_examples=30, deadline=None)
@given(buffer_sets(), st.randoms(use_true_random=False))
def test_equal_input_gives_equal_plans(buffers, rng):
    rng.random()  # the planner must depend neither on global random state nor on what was planned before
    assert plan(buffers) == plan(buffers)


def brute_force(buffers) -> int:
    """The least peak over all offsets. A byte is the unit, so this is for tiny sizes only."""
    rows = extend_lifetimes(buffers)
    for peak in itertools.count(max(row.bytes for row in rows)):
        if _can_place(rows, peak, []):
            return peak
    raise AssertionError


def _can_place(rows, peak, offsets) -> bool:
    if len(offsets) == len(rows):
        return True
    row = rows[len(offsets)]
    return any(
        all(_compatible(row, offset, *other) for other in zip(rows, offsets, strict=False))
        and _can_place(rows, peak, [*offsets, offset])
        for offset in range(0, peak - row.bytes + 1, row.align)
    )


def _compatible(row, offset, other, start) -> bool:
    if row.last < other.first or other.last < row.first:
        return True
    if offset + row.bytes <= start or start + other.bytes <= offset:
        return True
    return offset == start and (may_overwrite(row, other) or may_overwrite(other, row))


@settings(max_examples=150, deadline=None)
@given(buffer_sets(max_count=5, max_bytes=6, max_steps=4))
def test_tiny_sets_are_optimal(buffers):
    result = plan(buffers)
    best = brute_force(buffers)
    assert result.lower_bound <= best
    assert result.arena_bytes == best
    assert result.optimal


def test_best_is_found_where_greedy_by_size_is_not_best():
    # Time to the right, memory upward. By size first, b and c leave a hole that d does not fit.
    buffers = [
        tensor("a", 3, 0, 1),
        tensor("b", 4, 1, 2),
        tensor("c", 4, 3, 4),
        tensor("d", 3, 2, 3),
        tensor("e", 2, 4, 5),
        tensor("f", 5, 5, 6),
    ]
    result = plan(buffers)
    assert result.arena_bytes == result.lower_bound == 7
    assert result.optimal


def perfect_packing(count):
    """Cut a rectangle into pieces by halving the largest, alternately in time and memory."""
    pieces = [(0, 64, 0, 4096)]
    while len(pieces) < count:
        pieces.sort(key=lambda piece: (piece[1] - piece[0]) * (piece[3] - piece[2]))
        first, stop, low, high = pieces.pop()
        if len(pieces) % 2 and stop - first > 2:
            cut = first + (stop - first) // 3
            pieces += [(first, cut, low, high), (cut, stop, low, high)]
        else:
            cut = low + (high - low) * 2 // 5
            pieces += [(first, stop, low, cut), (first, stop, cut, high)]
    return [tensor(f"p{i}", high - low, first, stop - 1) for i, (first, stop, low, high) in enumerate(pieces)]


@pytest.mark.parametrize("count", [5, 16, 40, 100])
def test_perfect_packings_are_found(count):
    result = plan(perfect_packing(count))
    assert result.arena_bytes == result.lower_bound == 4096


# -- lifetimes of inputs and outputs


def test_inputs_are_live_before_the_run_and_outputs_after_it():
    buffers = [
        Buffer("x", 8, 1, 2, 2, "input"),
        tensor("t", 8, 0, 1),
        Buffer("early", 8, 1, 0, 0, "output"),
        Buffer("late", 8, 1, 2, 2, "output"),
    ]
    rows = {row.name: row for row in extend_lifetimes(buffers)}
    assert (rows["x"].first, rows["x"].last) == (-1, 2)
    assert (rows["early"].first, rows["early"].last) == (0, 3)
    assert rows["late"].last == 3
    assert extend_lifetimes(list(rows.values())) == tuple(rows.values())
    result = plan(buffers)
    assert result.arena_bytes == 24  # late overlaps t, which is dead then
    assert result.steps == range(-1, 4)
    assert result.live_bytes() == {-1: 8, 0: 24, 1: 24, 2: 24, 3: 16}


def test_an_input_may_be_overwritten_by_the_output():
    result = plan([Buffer("x", 64, 16, -1, 0, "input"), Buffer("y", 64, 16, 0, 0, "output", alias_of="x")])
    assert result.arena_bytes == 64
    assert result.in_place == {"y": "x"}


# -- in place


def test_in_place_is_used_when_legal():
    result = plan([tensor("a", 10, 0, 1), tensor("b", 10, 1, 2, alias_of="a")])
    assert result.offsets == {"a": 0, "b": 0}
    assert result.arena_bytes == result.lower_bound == 10


@pytest.mark.parametrize(
    "child",
    [
        pytest.param(tensor("b", 11, 1, 2, alias_of="a"), id="larger"),
        pytest.param(tensor("b", 9, 0, 2, alias_of="a"), id="begins before the last use"),
        pytest.param(tensor("b", 9, 1, 2), id="not asked for"),
    ],
)
def test_in_place_is_refused_when_not_legal(child):
    parent = tensor("a", 10, 0, 1)
    assert not may_overwrite(child, parent)
    result = plan([parent, child])
    assert result.in_place == {}
    assert result.arena_bytes == 10 + child.bytes


def test_only_one_buffer_takes_the_place_of_another():
    result = plan(
        [tensor("a", 10, 0, 1), tensor("b", 8, 1, 2, alias_of="a"), tensor("c", 9, 1, 2, alias_of="a")]
    )
    assert result.in_place == {"c": "a"}
    assert result.arena_bytes == 18


def test_in_place_chains():
    buffers = [tensor("t0", 10, 0, 1)]
    buffers += [tensor(f"t{i}", 10, i, i + 1, alias_of=f"t{i - 1}") for i in range(1, 9)]
    result = plan([*buffers, tensor("other", 6, 0, 9)])
    assert result.arena_bytes == 16
    assert len({result.offsets[row.name] for row in buffers}) == 1


def test_a_chain_within_one_step_is_not_in_place_throughout():
    # a, b and c are all live in step 1, and c may not overwrite a.
    buffers = [
        tensor("a", 10, 0, 1),
        tensor("b", 10, 1, 1, alias_of="a"),
        tensor("c", 10, 1, 2, alias_of="b"),
    ]
    assert plan(buffers).arena_bytes == brute_force(buffers) == 20


def test_in_place_is_not_used_when_it_costs_memory():
    # Sharing would tie a (live with p at the bottom) and b (live with q) to one offset: the plan must be free
    # not to.
    buffers = [
        tensor("a", 2, 0, 1),
        tensor("p", 4, 0, 0),
        tensor("b", 2, 1, 3, alias_of="a"),
        tensor("q", 4, 2, 3),
        tensor("r", 2, 1, 1),
    ]
    result = plan(buffers)
    assert result.arena_bytes == brute_force(buffers) == 6


def test_many_pairs_are_planned_at_the_bound():
    # Two residual additions a layer, each in place of the residual stream: more pairs than are tried
    # exhaustively.
    buffers = [Buffer("x0", 64, 16, -1, 1, "input")]
    for i in range(12):
        buffers.append(tensor(f"branch{i}", 48, 2 * i, 2 * i + 1, align=16))
        buffers.append(tensor(f"x{i + 1}", 64, 2 * i + 1, 2 * i + 3, align=16, alias_of=f"x{i}"))
    result = plan(buffers)
    assert result.arena_bytes == result.lower_bound == 64 + 48
    assert len(result.in_place) == 12


def test_the_lower_bound_knows_alignment():
    buffers = [tensor("a", 5, 0, 0, align=16), tensor("b", 6, 0, 0, align=16), tensor("c", 7, 0, 0, align=16)]
    # Two of the three take 16 bytes, the third one, at the top, at least 5.
    assert lower_bound(buffers) == plan(buffers).arena_bytes == 37


# -- the independent check


def corrupted(**changes) -> Plan:
    result = plan([tensor("a", 16, 0, 1, align=16), tensor("b", 16, 1, 2, align=16)])
    return dataclasses.replace(result, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"offsets": {"a": 0, "b": 0}}, "a and b overlap"),
        ({"offsets": {"a": 0, "b": 8}, "arena_bytes": 24}, "b is not aligned to 16"),
        ({"offsets": {"a": 0, "b": 32}}, "b leaves the arena"),
        ({"offsets": {"a": -16, "b": 0}}, "a leaves the arena"),
        ({"align": 8}, "a is not aligned to 16"),
    ],
)
def test_check_finds_defects(changes, message):
    with pytest.raises(AssertionError, match=message):
        corrupted(**changes).check()


# -- memory regions


def arena_of(size, *, regions=STM32F746, **options):
    return plan([tensor("a", size, 0, 0)], regions=regions, target="stm32f746", **options)


@pytest.mark.parametrize(
    ("kilobytes", "place"),
    [
        (64, Place(("dtcm",), 0x20000000)),
        (65, Place(("sram1",), 0x20010000)),
        (241, Place(("dtcm", "sram1"), 0x20000000)),
        (320, Place(("dtcm", "sram1", "sram2"), 0x20000000)),
    ],
)
def test_the_first_region_that_holds_the_arena(kilobytes, place):
    assert arena_of(kilobytes * 1024).place == place


def test_preference_is_the_order_given_not_that_of_addresses():
    assert arena_of(1024, regions=STM32F746[::-1]).place == Place(("sram2",), 0x2004C000)


def test_regions_with_a_gap_are_not_combined():
    apart = (Ram("dtcm", 0x20000000, 1024), Ram("axi", 0x24000000, 4096))
    assert arena_of(4096, regions=apart).place == Place(("axi",), 0x24000000)
    with pytest.raises(UserError, match=r"arena 4\.1 KB > 4 KB AXI of stm32f746"):
        arena_of(4097, regions=apart)


def test_alignment_of_the_region_counts():
    odd = (Ram("ram", 0x20000004, 1024),)
    assert arena_of(1012, regions=odd).place == Place(("ram",), 0x20000010)
    with pytest.raises(UserError, match=r"arena 1 KB > 0\.9 KB RAM"):
        arena_of(1013, regions=odd)


def test_without_regions_there_is_no_limit():
    assert arena_of(1 << 30, regions=()).place is None


def test_too_large_says_numbers_and_remedy():
    with pytest.raises(UserError) as caught:
        arena_of(341 * 1024, max_tokens=106)
    assert caught.value.message == "arena 341 KB > 320 KB DTCM+SRAM1+SRAM2 of stm32f746"
    assert caught.value.remedy.startswith("try --max-tokens 96")
    assert caught.value.exit_status == 2


def test_too_large_without_tokens():
    with pytest.raises(UserError) as caught:
        arena_of(320 * 1024 + 1)
    assert caught.value.message.startswith("arena 320.1 KB > 320 KB")
    assert caught.value.remedy == "Choose a target with more RAM or train a narrower model."


# -- defects of the caller


@pytest.mark.parametrize(
    ("buffers", "message"),
    [
        ([], "no buffers"),
        ([tensor("a", 1, 0, 0), tensor("a", 1, 0, 0)], "not unique"),
        ([tensor("a", 0, 0, 0)], "0 bytes"),
        ([tensor("a", 1, 0, 0, align=3)], "no power of two"),
        ([tensor("a", 1, 1, 0)], "live from step 1 to 0"),
        ([tensor("a", 1, -2, 0)], "live from step -2"),
        ([tensor("a", 1, 0, 0, alias_of="b")], "which is no buffer"),
        ([Buffer("a", 1, 1, 0, 0, "weights")], "kind 'weights'"),
    ],
)
def test_senseless_buffers_are_refused(buffers, message):
    with pytest.raises(ValueError, match=message):
        plan(buffers)


# -- printing


def example() -> Plan:
    return plan(
        [
            Buffer("tokens", 2048, 16, -1, 2, "input"),
            tensor("k", 512, 0, 1, align=16),
            Buffer("scores", 128, 16, 1, 1, "scratch"),
            tensor("attention", 2048, 2, 3, align=16, alias_of="tokens"),
            Buffer("logits", 16, 16, 3, 3, "output"),
        ],
        regions=STM32F746,
    )


def test_rows_are_plain_values_by_offset():
    rows = example().rows()
    assert [row["offset"] for row in rows] == sorted(row["offset"] for row in rows)
    attention = next(row for row in rows if row["name"] == "attention")
    assert attention == {
        "name": "attention",
        "kind": "tensor",
        "offset": 0,
        "bytes": 2048,
        "align": 16,
        "first_step": 2,
        "last_step": 3,
        "in_place_of": "tokens",
    }


def test_the_table_shows_every_buffer():
    console = Console(width=110)
    with console.capture() as captured:
        console.print(plan_report.render(example()))
    text = captured.get()
    for expected in ("tokens", "scratch", "████··", "2,048", "the lower bound", "dtcm at 0x20000000"):
        assert expected in text


def test_the_picture_shows_who_lies_where():
    result = plan([tensor("a", 8, 0, 1), tensor("b", 8, 1, 2), tensor("c", 8, 2, 3, alias_of="b")])
    lines = plan_report.picture(result, rows=2).splitlines()
    assert sorted(line.split()[-1] for line in lines) == sorted(["·aa··", "··bcc"])


def test_a_long_plan_is_squeezed():
    result = plan([tensor(f"t{i}", 16, i, i + 1) for i in range(300)])
    bars = {plan_report._bar(result, row.first, row.last) for row in result.buffers}
    assert {len(bar) for bar in bars} == {plan_report.BAR_COLUMNS}
    widths = {len(line) for line in plan_report.picture(result).splitlines()}
    assert widths == {10 + plan_report.PICTURE_COLUMNS}


def test_pair_choices_are_limited():
    items = [plan_search.Item(8, 1, i, i + 1) for i in range(60)]
    choices, exhaustive = plan_search.pair_choices(items, [(i + 1, i) for i in range(59)])
    assert not exhaustive
    assert len(choices) <= plan_search.MAX_CHOICES
    assert choices[-1] == ()
    assert len(choices[0]) == 59

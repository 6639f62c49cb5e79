"""Offsets for items with known sizes and lifetimes: dynamic storage allocation, solved for small sets.

An item occupies `bytes` bytes during the steps `first` to `last`. Two items that share a step must not
overlap, except a pair (child, parent) that shares an offset because the child is computed in place of the
parent. The peak address is to be small. The problem is NP-complete (Garey and Johnson, SR2), but a network
for a microcontroller has tens of items, not millions.

Method, in the order in which it is tried; every part ends as soon as the lower bound is reached:

1. Choose which pairs share (`pair_choices`). Items that share become one block, whose height varies over
   time.
2. Place the blocks one by one in several orders, first-fit and best-fit (`greedy`).
3. Branch and bound over the blocks in order of rising offset (`Exact`), with a limit of nodes.
4. Where that limit was reached, hill climbing over orders (`climb`), with a limit of steps.

No limit is a time and the random generator has a fixed seed: equal input gives equal offsets on every
machine. docs/memory-planner.md explains why each part is needed and cites sources.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Callable, Iterator, Sequence

Pair = tuple[int, int]

# Work limits, in placements of one block (some 10 us each): one to three seconds in total for a hard set.
EXACT_WORK = 50_000
CLIMB_WORK = 150_000
# A set with at most this many pairs has every combination of them tried, so that the optimum can be proven.
MAX_EXHAUSTIVE_PAIRS = 5
MAX_CHOICES = 16  # with more pairs
CLIMB_STARTS = 3
SEED = 2020


@dataclasses.dataclass(frozen=True)
class Item:
    """Something to place: size in bytes, alignment (power of two), first and last step (both inclusive)."""

    bytes: int
    align: int
    first: int
    last: int


@dataclasses.dataclass(frozen=True)
class Solution:
    """Offsets of the items, the pairs that share one, the peak, and whether no lower peak exists."""

    offsets: tuple[int, ...]
    pairs: tuple[Pair, ...]
    peak: int
    optimal: bool


@dataclasses.dataclass(frozen=True)
class Block:
    """Items at one offset, each in place of the one before; `heights[k]` bytes at step `first + k`."""

    members: tuple[int, ...]
    align: int
    first: int
    heights: tuple[int, ...]

    @property
    def steps(self) -> range:
        """The steps in which the block occupies memory."""
        return range(self.first, self.first + len(self.heights))

    @property
    def height(self) -> int:
        """Bytes between the offset and the highest address used at any step."""
        return max(self.heights)


class Problem:
    """Blocks and, for every two that share a step, how far apart they must be.

    `neighbours[i]` has a row (j, own, other) for each such j: either block i begins at least `other` bytes
    above the offset of j, or at least `own` bytes below it.
    """

    def __init__(self, items: Sequence[Item], pairs: Sequence[Pair]) -> None:
        self.pairs = tuple(pairs)
        self.items = len(items)
        self.blocks = _blocks(items, pairs)
        self.neighbours: list[list[tuple[int, int, int]]] = [[] for _ in self.blocks]
        for (i, a), (j, b) in itertools.combinations(enumerate(self.blocks), 2):
            low, high = max(a.steps.start, b.steps.start), min(a.steps.stop, b.steps.stop)
            if low < high:
                own = max(a.heights[low - a.first : high - a.first])
                other = max(b.heights[low - b.first : high - b.first])
                self.neighbours[i].append((j, own, other))
                self.neighbours[j].append((i, other, own))

    def peak(self, offsets: Sequence[int]) -> int:
        """The highest end address of a block."""
        return max(offset + block.height for offset, block in zip(offsets, self.blocks, strict=True))

    def solution(self, offsets: Sequence[int], *, optimal: bool = False) -> Solution:
        """The offsets of blocks as those of the items."""
        placed = [0] * self.items
        for offset, block in zip(offsets, self.blocks, strict=True):
            for member in block.members:
                placed[member] = offset
        return Solution(tuple(placed), self.pairs, self.peak(offsets), optimal)


def solve(items: Sequence[Item], pairs: Sequence[Pair], bound: int) -> Solution:
    """Place `items` with a small peak.

    Args:
        items: at least one.
        pairs: (child, parent) that may share an offset: the child begins in the last step of the parent and
            is not larger.
        bound: a peak that no placement can beat.
    """
    choices, exhaustive = pair_choices(items, pairs)
    best: Solution | None = None
    ranked: list[tuple[int, int, Problem, list[int]]] = []
    for index, choice in enumerate(choices):
        problem = Problem(items, choice)
        order, offsets = greedy(problem)
        if best is None or problem.peak(offsets) < best.peak:
            best = problem.solution(offsets)
        if best.peak <= bound:
            return dataclasses.replace(best, optimal=True)
        ranked.append((problem.peak(offsets), index, problem, order))
    assert best is not None  # there is always the choice of no pair
    return _improve(best, sorted(ranked, key=lambda row: row[:2]), bound, exhaustive)


def _improve(
    best: Solution, ranked: list[tuple[int, int, Problem, list[int]]], bound: int, exhaustive: bool
) -> Solution:
    """Better `best` by exact search over all choices of pairs, then by climbing from the most promising."""
    complete = exhaustive
    budget = EXACT_WORK
    for i, (_, _, problem, _) in enumerate(ranked):
        share = budget // (len(ranked) - i)
        search = Exact(problem, best.peak, bound, share)
        complete &= search.run()
        budget -= share - max(search.work, 0)
        if search.offsets:
            best = problem.solution(search.offsets)
        if best.peak <= bound:
            return dataclasses.replace(best, optimal=True)
    if complete:
        return dataclasses.replace(best, optimal=True)
    starts = ranked[:CLIMB_STARTS]
    for _, _, problem, order in starts:
        offsets = climb(problem, order, bound, CLIMB_WORK // len(starts))
        if problem.peak(offsets) < best.peak:
            best = problem.solution(offsets, optimal=problem.peak(offsets) <= bound)
    return best


# -- which pairs share an offset -----------------------------------------------------------------------------


def pair_choices(items: Sequence[Item], pairs: Sequence[Pair]) -> tuple[list[tuple[Pair, ...]], bool]:
    """Combinations of pairs to try, most sharing first and none last, and whether these are all there are."""
    ordered = sorted(pairs, key=lambda pair: (-items[pair[0]].bytes, pair))
    if len(ordered) <= MAX_EXHAUSTIVE_PAIRS:
        counts = range(len(ordered), -1, -1)
        subsets = itertools.chain.from_iterable(itertools.combinations(ordered, count) for count in counts)
        return [subset for subset in subsets if _compatible(items, subset)], True
    choices = [_maximal(items, ordered)]
    for pair in ordered[:MAX_CHOICES]:
        choices.append(_maximal(items, [other for other in ordered if other != pair]))
        choices.append(_maximal(items, [pair, *ordered]))
    return [*dict.fromkeys(choices[: MAX_CHOICES - 1]), ()], False


def _compatible(items: Sequence[Item], pairs: Sequence[Pair]) -> bool:
    """Whether all `pairs` can share at once.

    A parent can give its place to one child only. In a chain a <- b <- c where b lives for a single step, a
    and c are live in that step too and are no pair.
    """
    parents = dict(pairs)
    if len(set(parents.values())) < len(parents):
        return False
    return not any(
        items[parent].first == items[parent].last and parent in parents for parent in parents.values()
    )


def _maximal(items: Sequence[Item], pairs: Sequence[Pair]) -> tuple[Pair, ...]:
    chosen: list[Pair] = []
    for pair in pairs:
        if pair not in chosen and _compatible(items, [*chosen, pair]):
            chosen.append(pair)
    return tuple(sorted(chosen))


def _blocks(items: Sequence[Item], pairs: Sequence[Pair]) -> list[Block]:
    child_of = {parent: child for child, parent in pairs}
    roots = set(range(len(items))) - {child for child, _ in pairs}
    blocks = []
    for root in sorted(roots):
        members = [root]
        while members[-1] in child_of:
            members.append(child_of[members[-1]])
        parts = [items[member] for member in members]
        first = parts[0].first
        heights = [0] * (parts[-1].last - first + 1)
        for part in parts:
            for step in range(part.first - first, part.last - first + 1):
                heights[step] = max(heights[step], part.bytes)
        align = max(part.align for part in parts)
        blocks.append(Block(tuple(members), align, first, tuple(heights)))
    return blocks


# -- placing in a given order --------------------------------------------------------------------------------


def place(problem: Problem, order: Sequence[int], *, best_fit: bool = False) -> list[int]:
    """Offsets when the blocks are placed one by one in `order`.

    First-fit takes the lowest address that is free during all of a block's lifetime. Best-fit takes the gap
    that the block fills best, and the lowest address above all others where there is no gap.
    """
    offsets = [-1] * len(problem.blocks)
    for i in order:
        # Offsets strictly between the two numbers of a row would overlap a block that is already placed.
        forbidden = sorted(
            (offsets[j] - own, offsets[j] + other)
            for j, own, other in problem.neighbours[i]
            if offsets[j] >= 0
        )
        offsets[i] = _fit(forbidden, problem.blocks[i].align, best_fit)
    return offsets


def _fit(forbidden: list[tuple[int, int]], align: int, best_fit: bool) -> int:
    candidate = 0
    gap: tuple[int, int] | None = None  # slack, offset
    for low, high in forbidden:
        if candidate <= low:
            if not best_fit:
                return candidate
            gap = min(gap or (low - candidate, candidate), (low - candidate, candidate))
        if high > candidate:
            candidate = (high + align - 1) & -align
    return gap[1] if gap else candidate


def orders(problem: Problem) -> Iterator[list[int]]:
    """Orders of the blocks that do well: by size first, the yardstick that no plan may fall behind."""
    blocks = problem.blocks
    breadth: dict[int, int] = {}
    for block in blocks:
        for step, height in zip(block.steps, block.heights, strict=True):
            breadth[step] = breadth.get(step, 0) + height
    keys: tuple[Callable[[int], tuple[int, ...]], ...] = (
        lambda i: (-blocks[i].height, blocks[i].first),
        lambda i: (-max(breadth[step] for step in blocks[i].steps), -blocks[i].height),
        lambda i: (-sum(blocks[i].heights), blocks[i].first),
        lambda i: (-len(blocks[i].heights), -blocks[i].height),
        lambda i: (-len(problem.neighbours[i]), -blocks[i].height),
        lambda i: (blocks[i].first, -blocks[i].height),
        lambda i: (-blocks[i].steps.stop, -blocks[i].height),
    )
    for key in keys:
        yield sorted(range(len(blocks)), key=key)


def greedy(problem: Problem) -> tuple[list[int], list[int]]:
    """The best placement over `orders`, first-fit and best-fit: the order and the offsets."""
    results: list[tuple[int, int, list[int], list[int]]] = []
    for order in orders(problem):
        for best_fit in (False, True):
            offsets = place(problem, order, best_fit=best_fit)
            results.append((problem.peak(offsets), len(results), order, offsets))
    _, _, order, offsets = min(results)
    return order, offsets


# -- exact search --------------------------------------------------------------------------------------------


class Exact:
    """Branch and bound: depth first over the blocks in order of non-decreasing offset.

    In that order a block always rests on what is already placed in its steps, so the next offset of a block
    is known, and at each step the bytes placed so far plus the bytes still to come bound the peak. A block
    that would begin at or above where another one could end is not worth trying next (canonical solutions of
    MiniMalloc).

    Attributes:
        offsets: those of the best placement below the `peak` given, or empty.
    """

    def __init__(self, problem: Problem, peak: int, bound: int, work: int) -> None:
        self.blocks = problem.blocks
        self.peak, self.bound, self.work = peak, bound, work
        self.offsets: list[int] = []
        self._current = [0] * len(self.blocks)
        steps = max(block.steps.stop for block in self.blocks)
        # Per step, shifted by one because inputs live from step -1: height of what is placed, bytes still to
        # come.
        self._top = [0] * (steps + 1)
        self._rest = [0] * (steps + 1)
        for block in self.blocks:
            for step, height in zip(block.steps, block.heights, strict=True):
                self._rest[step + 1] += height

    def run(self) -> bool:
        """Search; True if the result is the best there is for these blocks."""
        self._descend(list(range(len(self.blocks))), 0)
        return self.work > 0 or self.peak <= self.bound

    def _descend(self, left: list[int], floor: int) -> None:
        if not left:
            self.offsets, self.peak = list(self._current), max(self._top)
            return
        self.work -= len(left)
        for offset, i in self._candidates(left, floor):
            if self.work <= 0 or self.peak <= self.bound:
                return
            block = self.blocks[i]
            span = slice(block.first + 1, block.first + 1 + len(block.heights))
            top, rest = self._top[span], self._rest[span]
            self._top[span] = [offset + height for height in block.heights]
            self._rest[span] = [bytes_ - height for bytes_, height in zip(rest, block.heights, strict=True)]
            self._current[i] = offset
            if self._promising(offset):
                self._descend([j for j in left if j != i], offset)
            self._top[span], self._rest[span] = top, rest

    def _candidates(self, left: list[int], floor: int) -> list[tuple[int, int]]:
        """(offset, block) to try next, lowest offset first."""
        rows = []
        for i in left:
            block = self.blocks[i]
            rests_on = max(floor, *self._top[block.first + 1 : block.first + 1 + len(block.heights)])
            rows.append(((rests_on + block.align - 1) & -block.align, -sum(block.heights), i))
        lowest_end = min(offset + self.blocks[i].height for offset, _, i in rows)
        result: dict[tuple[int, int, int, tuple[int, ...]], tuple[int, int]] = {}
        for offset, _, i in sorted(rows):
            if offset < lowest_end:
                block = self.blocks[i]
                # Of blocks that are alike, one stands for all.
                result.setdefault((offset, block.align, block.first, block.heights), (offset, i))
        return list(result.values())

    def _promising(self, floor: int) -> bool:
        return all(
            (max(top, floor) + rest if rest else top) < self.peak
            for top, rest in zip(self._top, self._rest, strict=True)
        )


# -- hill climbing -------------------------------------------------------------------------------------------


def climb(problem: Problem, order: list[int], bound: int, work: int) -> list[int]:
    """Offsets found by moving one block at a time forward in `order`, while that does not raise the peak.

    A block that ends at the peak, or one next to it, is moved more often than the others. Moves that leave
    the peak as it is are kept: they cross plateaus.
    """
    rng = random.Random(SEED)
    offsets = place(problem, order)
    peak = problem.peak(offsets)
    for _ in range(work // len(order)):
        if peak <= bound:
            break
        moved = _moved(problem, order, offsets, peak, rng)
        candidate = place(problem, moved)
        if problem.peak(candidate) <= peak:
            order, offsets, peak = moved, candidate, problem.peak(candidate)
    return offsets


def _moved(
    problem: Problem, order: list[int], offsets: list[int], peak: int, rng: random.Random
) -> list[int]:
    highest = [i for i in order if offsets[i] + problem.blocks[i].height == peak]
    block = rng.choice(highest)
    kind = rng.random()
    if kind < 0.3:
        block = rng.choice(order)
    elif kind < 0.6 and problem.neighbours[block]:
        block = rng.choice(problem.neighbours[block])[0]
    rest = [i for i in order if i != block]
    position = rng.randrange(len(order))
    return [*rest[:position], block, *rest[position:]]

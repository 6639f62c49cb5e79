"""Memory plans of transformer-like, random and perfectly packable buffer sets, beside two yardsticks.

    python benchmarks/planner.py [--plans]

Columns: what all buffers need without reuse, the lower bound (most bytes live in one step), greedy-by-size
(what TensorFlow Lite Micro does) without and with sharing in place, and tvmtiny's planner. Sizes in bytes.
Greedy with sharing in place gets every pair that fits, largest first.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import time
from collections.abc import Iterator

from rich import box
from rich.console import Console
from rich.table import Table

from tvmtiny.codegen import plan_report, plan_search
from tvmtiny.codegen.planner import Buffer, Kind, Plan, extend_lifetimes, may_overwrite, plan

ALIGN = 16
WIDTH = 124  # where there is no terminal
MAX_PRINTED = 60  # buffers of a plan


class Network:
    """Buffers of a chain of operators, one step each, in the order of the calls."""

    def __init__(self) -> None:
        self.step = 0
        self.rows: dict[str, Buffer] = {}

    def operator(
        self,
        name: str,
        size: int,
        reads: tuple[str, ...],
        *,
        in_place: str | None = None,
        scratch: int = 0,
        kind: Kind = "tensor",
    ) -> str:
        """Add a step that writes `name` from `reads`, with `scratch` bytes of its own; return `name`."""
        for source in reads:
            self.rows[source] = dataclasses.replace(self.rows[source], last=self.step)
        self.rows[name] = Buffer(name, size, ALIGN, self.step, self.step, kind, in_place)
        if scratch:
            label = f"{name}.scratch"
            self.rows[label] = Buffer(label, scratch, ALIGN, self.step, self.step, "scratch")
        self.step += 1
        return name

    @property
    def buffers(self) -> list[Buffer]:
        """What the operators so far need."""
        return list(self.rows.values())


def encoder(
    S: int, E: int, H: int, F: int, layers: int, *, row_block: int = 4, tile: int = 8, heads_apart: bool
) -> list[Buffer]:
    """An encoder as tvmtiny compiles it: heads in series, attention by row blocks, feed-forward by tiles.

    A head's context is written as a tensor of its own (`heads_apart`) or into one S x E tensor; the residual
    sums may be computed in place.
    """
    P = E // H
    net = Network()
    net.rows["x"] = Buffer("x", S * E, ALIGN, -1, -1, "input")
    x = "x"
    for layer in range(layers):
        contexts: list[str] = []
        for head in range(H):
            tag = f"l{layer}h{head}"
            k = net.operator(f"{tag}.k", S * P, (x,), scratch=2 * E * 2)
            v = net.operator(f"{tag}.v", S * P, (x,), scratch=2 * E * 2)
            reads = (x, k, v) if heads_apart or head == 0 else (x, k, v, contexts[0])
            if heads_apart or head == 0:
                size = S * P if heads_apart else S * E
                contexts.append(
                    net.operator(f"{tag}.ctx", size, reads, scratch=row_block * (S * 4 + P) + 2 * S)
                )
            else:
                net.operator(f"{tag}.rows", row_block * P, reads, scratch=row_block * S * 4 + 2 * S)
        y = net.operator(f"l{layer}.attn", S * E, (*contexts, x), in_place=x, scratch=E * 4)
        x = net.operator(f"l{layer}.ffn", S * E, (y,), in_place=y, scratch=tile * F + E * 4)
    net.operator("pooled", E, (x,), scratch=E * 4)
    net.operator("logits", 16, ("pooled",), kind="output")
    return net.buffers


def unfused_encoder(S: int, E: int, H: int, F: int, layers: int) -> list[Buffer]:
    """The same encoder with every operator's result as a whole, as an interpreter runs it."""
    net = Network()
    net.rows["x"] = Buffer("x", S * E, ALIGN, -1, -1, "input")
    x = "x"
    for layer in range(layers):
        q, k, v = (net.operator(f"l{layer}.{name}", S * E, (x,)) for name in "qkv")
        scores = net.operator(f"l{layer}.scores", H * S * S, (q, k))
        weights = net.operator(f"l{layer}.softmax", H * S * S, (scores,), in_place=scores)
        context = net.operator(f"l{layer}.context", S * E, (weights, v))
        projected = net.operator(f"l{layer}.projected", S * E, (context,))
        added = net.operator(f"l{layer}.added", S * E, (projected, x), in_place=x)
        norm = net.operator(f"l{layer}.norm", S * E, (added,), in_place=added)
        hidden = net.operator(f"l{layer}.hidden", S * F, (norm,))
        active = net.operator(f"l{layer}.gelu", S * F, (hidden,), in_place=hidden)
        down = net.operator(f"l{layer}.down", S * E, (active,))
        added2 = net.operator(f"l{layer}.added2", S * E, (down, norm), in_place=norm)
        x = net.operator(f"l{layer}.norm2", S * E, (added2,), in_place=added2)
    net.operator("logits", 16, (x,), kind="output")
    return net.buffers


def random_set(count: int, seed: int) -> list[Buffer]:
    """Sizes and lifetimes at random: some long-lived, most short; a third may be in place of another."""
    rng = random.Random(seed)
    buffers: list[Buffer] = []
    for i in range(count):
        dying = [row for row in buffers if row.last >= i // 2]
        parent = rng.choice(dying) if dying and rng.random() < 0.33 else None
        first = parent.last if parent else rng.randrange(count // 2)
        last = first + rng.choice((0, 1, 1, 2, 3, 5, rng.randrange(count // 2)))
        size = rng.choice((64, 512, 2048)) * rng.randrange(1, 9) + rng.randrange(64)
        if parent:
            size = min(size, parent.bytes)
        buffers.append(Buffer(f"b{i}", size, ALIGN, first, last, alias_of=parent.name if parent else None))
    return buffers


def cut_rectangle(count: int, seed: int) -> list[Buffer]:
    """A rectangle of time and memory cut into `count` pieces: the least peak is known, it is the bound."""
    rng = random.Random(seed)
    pieces = [(0, 2 * count, 0, 64 * count)]
    while len(pieces) < count:
        first, stop, low, high = pieces.pop(rng.randrange(len(pieces)))
        if rng.random() < 0.5 and stop - first > 1:
            cut = rng.randrange(first + 1, stop)
            pieces += [(first, cut, low, high), (cut, stop, low, high)]
        elif high - low > 1:
            cut = rng.randrange(low + 1, high)
            pieces += [(first, stop, low, cut), (first, stop, cut, high)]
        else:
            pieces.append((first, stop, low, high))
    return [
        Buffer(f"b{i}", ALIGN * (high - low), ALIGN, first, stop - 1)
        for i, (first, stop, low, high) in enumerate(pieces)
    ]


def sets() -> Iterator[tuple[str, list[Buffer]]]:
    """Every set with its name."""
    enc32 = {"S": 32, "E": 64, "H": 4, "F": 256, "layers": 2}
    bert = {"S": 128, "E": 128, "H": 2, "F": 512, "layers": 2}
    yield "enc32, one context tensor", encoder(**enc32, heads_apart=False)
    yield "enc32, a context per head", encoder(**enc32, heads_apart=True)
    yield "enc32, unfused", unfused_encoder(**enc32)
    yield "bert-tiny S 128", encoder(**bert, heads_apart=True)
    yield "bert-tiny S 128, unfused", unfused_encoder(**bert)
    yield "12 layers, 8 heads, S 64", encoder(64, 128, 8, 512, 12, heads_apart=True)
    for count in (12, 30, 60, 120, 200):
        yield f"random, {count} buffers", random_set(count, seed=count)
    for count in (12, 20, 30, 60, 120):
        yield f"cut rectangle, {count} pieces", cut_rectangle(count, seed=count)


def greedy_by_size(buffers: list[Buffer], *, in_place: bool) -> int:
    """Peak of first-fit in the order of falling size."""
    extended = extend_lifetimes(buffers)
    items = [plan_search.Item(row.bytes, row.align, row.first, row.last) for row in extended]
    pairs = [
        (i, j)
        for i, child in enumerate(extended)
        for j, parent in enumerate(extended)
        if in_place and may_overwrite(child, parent)
    ]
    choices, _ = plan_search.pair_choices(items, pairs)
    problem = plan_search.Problem(items, choices[0])
    order = next(plan_search.orders(problem))
    return problem.peak(plan_search.place(problem, order))


COLUMNS = ("buffers", "no reuse", "bound", "greedy", "+ in place", "tvmtiny", "over bound", "proven", "s")


def measure(buffers: list[Buffer]) -> tuple[Plan, list[str]]:
    """The plan of a set, and its row of `COLUMNS`."""
    start = time.perf_counter()
    result = plan(buffers)
    seconds = time.perf_counter() - start
    numbers = (
        len(buffers),
        result.total_bytes,
        result.lower_bound,
        greedy_by_size(buffers, in_place=False),
        greedy_by_size(buffers, in_place=True),
        result.arena_bytes,
    )
    over = 100 * (result.arena_bytes / result.lower_bound - 1)
    proven = "yes" if result.optimal else "no"
    return result, [*(f"{number:,}" for number in numbers), f"{over:.2f} %", proven, f"{seconds:.2f}"]


def main() -> None:
    """Print the comparison; with --plans also plans of transformers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plans", action="store_true", help="also print the plans of up to 60 buffers")
    arguments = parser.parse_args()
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH
    table = Table("set", box=box.SIMPLE_HEAD)
    for name in COLUMNS:
        table.add_column(name, justify="right")
    for name, buffers in sets():
        result, row = measure(buffers)
        table.add_row(name, *row)
        if arguments.plans and len(buffers) <= MAX_PRINTED:
            console.print(f"{name}\n", plan_report.render(result), plan_report.picture(result), sep="")
    console.print(table)


if __name__ == "__main__":
    main()

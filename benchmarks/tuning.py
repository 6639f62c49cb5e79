"""How good is the search? Measures every schedule of a model's kernels, then searches them again with several seeds.

    python benchmarks/tuning.py enc32 --target qemu-m4 --work-dir build/tune/sweep --plot search.png

The sweep measures every schedule once (minutes to an hour; it goes on where it was stopped). The searches then take
their measurements from it, so that they cost nothing, and know only what they have asked for. The objective is latency.
Printed, as Markdown: the size of each kernel's space, and how far the rules and the best are apart; what each choice
alone does to the rules' schedule; how far searches of several lengths are from the optimum of the whole model; and
after how many trials each reaches it.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib as mpl

from tvmtiny.bench.session import c_compiler
from tvmtiny.kernels import Blocking
from tvmtiny.schedule.signature import Signature
from tvmtiny.schedule.space import describe
from tvmtiny.schedule.variants import Variant, knobs_of
from tvmtiny.target import Target, load_target
from tvmtiny.tune.engine import Limits
from tvmtiny.tune.models import artifacts_of
from tvmtiny.tune.places import Place, place_of
from tvmtiny.tune.session import Options, Progress, Session
from tvmtiny.tune.store import Measurement, Store, condition
from tvmtiny.tune.tasks import Task, tasks_of

mpl.use("Agg")
from matplotlib import pyplot

SEEDS = range(5)
BATCH = 8
LENGTHS = (16, 32, 64, 128, 256)
NEAR = 1.001
"""As good as something: within 0.1 % of its cycles."""


class Asked(Store):
    """The measurements of a sweep, of which a search knows those that it has asked for."""

    def __init__(self, swept: Store) -> None:
        super().__init__(swept.directory, "")
        self._swept, self._asked = swept, dict[tuple[Signature, Blocking], Measurement]()

    def find(self, signature: Signature, point: Blocking) -> Measurement | None:
        """What the sweep has measured."""
        found = self._swept.find(signature, point)
        if found is not None:
            self._asked[signature, point] = found
        return found

    def known(self, signature: Signature) -> list[Measurement]:
        """What has been asked for."""
        return [found for (own, _), found in self._asked.items() if own == signature]


def curve(
    tasks: Sequence[Task], target: Target, place: Place, swept: Store, strategy: str, seed: int, trials: int
) -> list[float]:
    """One search: after each trial, cycles of the model with the best of each kernel so far, relative to the rules'."""
    rules = {task.signature: _of_rules(swept, task) * len(task.uses) for task in tasks}
    total, best, found = sum(rules.values()), dict.fromkeys(rules, 1.0), list[float]()

    def note(progress: Sequence[Progress], _: float) -> None:
        for one in progress:
            for value in one.curve[seen.get(one.task.signature, 0) :]:
                best[one.task.signature] = value
                found.append(sum(rules[own] * best[own] for own in rules) / total)
            seen[one.task.signature] = one.trials

    seen: dict[Signature, int] = {}
    options = Options("latency", strategy, trials, BATCH, seed, from_records=False)
    Session(tasks, target, place, Asked(swept), Limits(), options, note).run()
    return found


def _of_rules(swept: Store, task: Task) -> int:
    found = swept.find(task.signature, task.default)
    assert found is not None, f"{task.name} is not swept"
    return found.cycles


def table_of_spaces(tasks: Sequence[Task], swept: Store) -> Iterator[str]:
    """Size of each space, and the rules beside the best of it."""
    yield "| kernel | schedules | failed | by the rules | optimum | change | best schedule | within 0.2 % of it |"
    yield "|---|---:|---:|---:|---:|---:|---|---:|"
    for task in tasks:
        known = swept.known(task.signature)
        valid = [found for found in known if found.valid]
        best, rules = min(valid, key=lambda found: found.cycles), _of_rules(swept, task)
        near = sum(found.cycles <= 1.002 * best.cycles for found in valid)
        yield (
            f"| {task.signature.text} | {task.size} | {len(known) - len(valid)} | {rules:,} | {best.cycles:,} "
            f"| {100 * (best.cycles / rules - 1):+.1f} % | {describe(best.point)} | {near} |"
        )


def table_of_choices(tasks: Sequence[Task], swept: Store) -> Iterator[str]:
    """What becomes of the rules' schedule by other choices beside its rows; also two at once."""
    yield "| kernel | choice | cycles | code | scratch |"
    yield "|---|---|---:|---:|---:|"
    for task in tasks:
        rules = swept.find(task.signature, task.default)
        assert rules is not None, f"{task.name} is not swept"
        own = Variant.parse(task.default.variant)
        inlined = Variant.of(own.family, {"inlined": 1}).name
        outer = dataclasses.replace(task.default, tokens_outer=True)
        loops = [outer, dataclasses.replace(outer, variant=inlined)]
        knobs = [
            dataclasses.replace(task.default, variant=Variant.of(own.family, {name: value}).name)
            for name, knob in knobs_of(own.family, task.default.weights).items()
            for value in knob.choices[1:]
        ]
        for point in (*loops, *knobs):
            found = swept.find(task.signature, point)
            if found is not None and found.valid:
                changes = [
                    f"{100 * (getattr(found, name) / getattr(rules, name) - 1):+.1f} %"
                    for name in ("cycles", "code_bytes", "scratch_bytes")
                ]
                choice = describe(point).removeprefix(f"rows {point.rows}, {point.weights}, ")
                yield f"| {task.signature.brief} | {choice} | {' | '.join(changes)} |"


def table_of_searches(curves: dict[str, list[list[float]]], optimum: float) -> Iterator[str]:
    """How far the best so far is from the optimum, median of all seeds."""
    yield "| trials | " + " | ".join(curves) + " |"
    yield "|---:|" + "---:|" * len(curves)
    for length in LENGTHS:
        gaps = [statistics.median(one[min(length, len(one)) - 1] for one in some) for some in curves.values()]
        yield f"| {length} | " + " | ".join(f"{100 * (gap / optimum - 1):+.2f} %" for gap in gaps) + " |"


def trials_to(one: Sequence[float], goal: float) -> int:
    """The first trial after which a curve is as good as a goal; one more than there are when it never is."""
    return next((index for index, value in enumerate(one, start=1) if value <= goal * NEAR), len(one) + 1)


def table_of_trials(curves: dict[str, list[list[float]]], optimum: float) -> Iterator[str]:
    """After how many trials each seed of each strategy is as good as the optimum."""
    yield "| search | trials to within 0.1 % of the optimum, by seed | median | mean |"
    yield "|---|---|---:|---:|"
    for name, some in curves.items():
        needed = [trials_to(one, optimum) for one in some]
        mean, median = statistics.mean(needed), statistics.median(needed)
        yield f"| {name} | {', '.join(map(str, needed))} | {median:g} | {mean:.0f} |"


def plot(path: Path, title: str, curves: dict[str, list[list[float]]], optimum: float) -> None:
    """Every seed thin, the median of each strategy thick."""
    figure, axes = pyplot.subplots(figsize=(7, 4))
    for (name, some), colour in zip(curves.items(), ("tab:gray", "tab:blue", "tab:orange"), strict=False):
        length = min(map(len, some))
        steps = range(1, length + 1)
        for one in some:
            axes.step(steps, one[:length], where="post", color=colour, alpha=0.25, linewidth=0.8)
        median = [statistics.median(one[index] for one in some) for index in range(length)]
        axes.step(
            steps,
            median,
            where="post",
            color=colour,
            linewidth=2,
            label=f"{name}, median of {len(some)} seeds",
        )
    axes.axhline(
        optimum, color="black", linestyle=":", linewidth=1, label="optimum (every schedule measured)"
    )
    axes.set(title=title, xlabel="trials", ylabel="estimated cycles, rules = 1", xlim=(1, max(LENGTHS)))
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    print(f"\nwrote {path}")


def main() -> None:
    """Sweep, then search."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--target", required=True)
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--search", action="append", help="strategies to compare (random and xgb)")
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    target = load_target(arguments.target)
    place = place_of("qemu", target, timeout_s=300, jobs=0)
    with tempfile.TemporaryDirectory() as folder:
        artifacts = artifacts_of(arguments.models, target.name, None, Path(folder))
        tasks = tasks_of(artifacts, target, wide_weights=True)
    with Store(arguments.work_dir, condition(target, place.name, c_compiler())).opened() as swept:
        points = [(task, point) for task in tasks for design in task.designs for point in design.points()]
        # Twice as many trials as points: a session ends before a batch that would not be full.
        options = Options("latency", "sweep", 2 * len(points), 32, 0, from_records=False)
        if any(swept.find(task.signature, point) is None for task, point in points):
            Session(tasks, target, place, swept, Limits(), options).run()
        print("\n".join(table_of_spaces(tasks, swept)), "\n")
        print("\n".join(table_of_choices(tasks, swept)), "\n")
        best = sum(min(m.cycles for m in swept.known(t.signature) if m.valid) * len(t.uses) for t in tasks)
        optimum = best / sum(_of_rules(swept, task) * len(task.uses) for task in tasks)
        curves = {
            strategy: [curve(tasks, target, place, swept, strategy, seed, max(LENGTHS)) for seed in SEEDS]
            for strategy in arguments.search or ("random", "xgb")
        }
    print(f"Optimum: {100 * (optimum - 1):+.2f} % of the rules' cycles\n")
    print("\n".join(table_of_searches(curves, optimum)), "\n")
    print("\n".join(table_of_trials(curves, optimum)))
    if arguments.plot:
        plot(arguments.plot, f"{', '.join(arguments.models)} on {target.cpu}", curves, optimum)


if __name__ == "__main__":
    main()

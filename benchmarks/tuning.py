"""How good is the search? Sweeps the schedules of a model's kernels, then searches them again with several seeds.

    python benchmarks/tuning.py enc32 --target qemu-m4 --work-dir build/tune/sweep --plot search.png

The sweep measures every schedule once (minutes to an hour; it goes on where it was stopped). The searches then take
their measurements from it, so that they cost nothing. Printed: for each kernel the size of its space, how far the
rules' schedule is from the optimum, and the median number of trials until XGBoost-guided and random search are within
0.1 % of it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import matplotlib as mpl

from tvmtiny.bench.session import c_compiler
from tvmtiny.target import Target, load_target
from tvmtiny.tune.engine import Limits
from tvmtiny.tune.models import artifacts_of
from tvmtiny.tune.places import Place, place_of
from tvmtiny.tune.session import Options, Progress, Session
from tvmtiny.tune.store import DATABASE, Store
from tvmtiny.tune.tasks import Task, tasks_of

mpl.use("Agg")
from matplotlib import pyplot

SEEDS = range(5)
NEAR = 1.001


def search(task: Task, target: Target, place: Place, store: Store, strategy: str, seed: int) -> Progress:
    """One search of one kernel, from what is known: with an empty database of MetaSchedule, as a new run has it."""
    for name in DATABASE:
        (store.directory / name).unlink(missing_ok=True)
    session = Session(
        [task], target, place, store, Limits(), Options("latency", strategy, task.size, 8, seed)
    )
    session.run()
    return session.progress[0]


def trials_to(curve: list[float], goal: float) -> int:
    """The first trial after which a curve is near its goal; one more than there are when it never is."""
    return next((index for index, value in enumerate(curve, start=1) if value <= goal * NEAR), len(curve) + 1)


def compare(tasks: list[Task], target: Target, place: Place, store: Store, plot: Path) -> None:
    """Search every kernel with both strategies and all seeds; print and plot."""
    figure, panels = pyplot.subplots(1, len(tasks), figsize=(5 * len(tasks), 4), squeeze=False)
    for task, axes in zip(tasks, panels[0], strict=True):
        curves = {
            strategy: [search(task, target, place, store, strategy, seed).curve for seed in SEEDS]
            for strategy in ("random", "xgb")
        }
        optimum = min(min(curve) for curve in curves["random"])
        needed = {
            name: statistics.median(trials_to(curve, optimum) for curve in some)
            for name, some in curves.items()
        }
        print(
            f"{task.signature.text}: {task.size} schedules, optimum {optimum:.4f} of the rules' cycles; "
            f"trials until it: random {needed['random']:g}, xgb {needed['xgb']:g}"
        )
        for (name, some), colour in zip(curves.items(), ("tab:gray", "tab:blue"), strict=True):
            for curve in some:
                axes.step(range(1, len(curve) + 1), curve, where="post", color=colour, alpha=0.6, label=name)
        axes.set(title=task.name, xlabel="trials", ylabel="best so far, rules = 1")
        handles, labels = axes.get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        axes.legend(unique.values(), unique.keys())
    figure.tight_layout()
    figure.savefig(plot, dpi=120)
    print(f"wrote {plot}")


def main() -> None:
    """Sweep, then search."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--target", required=True)
    parser.add_argument("--kernel", help="only kernels of this name, such as ffn")
    parser.add_argument("--work-dir", type=Path, required=True)
    parser.add_argument("--plot", type=Path, default=Path("search.png"))
    arguments = parser.parse_args()
    target = load_target(arguments.target)
    place = place_of("qemu", target, timeout_s=300, jobs=0)
    with tempfile.TemporaryDirectory() as folder:
        artifacts = artifacts_of(arguments.models, target.name, None, Path(folder))
        tasks = tasks_of(artifacts, target, wide_weights=True)
    tasks = [task for task in tasks if arguments.kernel in (None, task.kernel.name)]
    condition = "\n".join([target.cpu, *target.flags, target.optimize, place.name, c_compiler()])
    with Store(arguments.work_dir, condition).opened() as store:
        total = sum(task.size for task in tasks)
        options = Options("latency", "sweep", total, 16, 0)
        Session(tasks, target, place, store, Limits(), options, lambda *_: None).run()
        compare(tasks, target, place, store, arguments.plot)


if __name__ == "__main__":
    main()

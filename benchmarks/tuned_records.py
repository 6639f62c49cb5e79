"""Makes the records that tvmtiny ships: schedules/tuned/<core>/<objective>.json, of the examples and the encoders.

    python benchmarks/tuned_records.py cortex-m4 cortex-m7 cortex-m33 cortex-m55 cortex-m0plus

It begins with the records that are there, of the core and of others whose kernels have the same schedules, and goes on
where it was stopped (build/tune/<core>). Run it again when the shapes of the examples or the micro-kernels change.
Records of an objective are of the schedules measured for all three: what was measured for one serves the others.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tvmtiny.artifact import Artifact
from tvmtiny.bench.session import c_compiler
from tvmtiny.compiler import compile as compile_model
from tvmtiny.resources import data_dir
from tvmtiny.schedule import records
from tvmtiny.schedule.records import OBJECTIVES, RULES, Record
from tvmtiny.target import Target, load_target
from tvmtiny.tune.engine import Limits
from tvmtiny.tune.models import artifacts_of
from tvmtiny.tune.places import place_of
from tvmtiny.tune.session import Options, Progress, Session
from tvmtiny.tune.store import Store, condition
from tvmtiny.tune.tasks import tasks_of

ROOT = Path(__file__).parents[1]
TARGETS = {
    "cortex-m0plus": "rp2040",
    "cortex-m4": "qemu-m4",
    "cortex-m7": "qemu-m7",
    "cortex-m33": "qemu-m33",
    "cortex-m55": "qemu-m55",
}
"""A target of each core whose emulated machine has memory enough."""

SAME_SPACE = {"cortex-m33": "cortex-m4", "cortex-m4": "cortex-m33"}
"""Cores whose records are tried first, as their kernels have the same schedules."""

EXAMPLES = ("intent", "motion", "keyword")
ENCODERS = ("enc32", "bert-tiny-32", "bert-tiny-128")


def main() -> None:
    """Tune and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cores", nargs="+", choices=sorted(TARGETS))
    parser.add_argument("--trials", type=int, default=16, help="a kernel and objective, known ones apart")
    parser.add_argument("--work-dir", type=Path, default=ROOT / "build" / "tune")
    parser.add_argument("--only", action="append", help="examples or encoders, instead of all")
    arguments = parser.parse_args()
    for core in arguments.cores:
        target = load_target(TARGETS[core])
        with tempfile.TemporaryDirectory(prefix="tvmtiny-records-") as folder:
            models = artifacts(arguments.only or [*EXAMPLES, *ENCODERS], target, Path(folder) / "models")
            begin_with(core, Path(folder) / "records")
            tune(models, target, arguments.work_dir / core, arguments.trials)


def artifacts(names: Sequence[str], target: Target, folder: Path) -> list[Artifact]:
    """The models, compiled."""
    examples = [
        compile_model(
            ROOT / "examples" / name / "model.onnx",
            target=target.name,
            calibration=ROOT / "examples" / name / "calibration.npz",
            tuned=RULES,
            output=folder / name,
        )
        for name in names
        if name in EXAMPLES
    ]
    return [
        *examples,
        *artifacts_of([name for name in names if name not in EXAMPLES], target.name, None, folder),
    ]


def begin_with(core: str, folder: Path) -> None:
    """Let the tuner find the records of cores with the same schedules where it looks for a user's."""
    os.environ[records.ENVIRONMENT_VARIABLE] = str(folder)
    other = SAME_SPACE.get(core)
    for objective in OBJECTIVES:
        path = data_dir("schedules") / "tuned" / str(other) / f"{objective}.json"
        if other is not None and path.is_file():
            records.write(folder / core / path.name, core, objective, records.read(path, other, objective))


def tune(models: Sequence[Artifact], target: Target, directory: Path, trials: int) -> None:
    """Search for every objective, then write what is best of everything measured."""
    place = place_of("qemu", target, timeout_s=300, jobs=0)
    tasks = {wide: tasks_of(models, target, wide_weights=wide) for wide in (True, False)}
    with Store(directory, condition(target, place.name, c_compiler())).opened() as store:
        sessions = {}
        for objective in OBJECTIVES:
            some = tasks[objective == "latency"]
            options = Options(objective, "xgb", trials * len(some), 8, 0)
            sessions[objective] = Session(some, target, place, store, Limits(), options, show, models)
            sessions[objective].run()
        for objective, session in sessions.items():
            write(target.cpu, objective, session.records(c_compiler()))


def show(progress: Sequence[Progress], seconds: float) -> None:
    """A line a batch."""
    print(f"{seconds:6.0f} s  {sum(one.trials for one in progress)} trials", flush=True)


def write(core: str, objective: str, made: Sequence[Record]) -> None:
    """Put records in the place of older ones of the same kernels."""
    path = ROOT / "schedules" / "tuned" / core / f"{objective}.json"
    known = records.read(path, core, objective) if path.is_file() else []
    merged = {one.signature: one for one in (*known, *made)}
    records.write(path, core, objective, merged.values())
    print(f"{path}: {len(merged)} records, {path.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()

"""`tvmtiny tune`: find the schedules of a model's kernels by measurement, and leave records for every later compile."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tvmtiny.cli import console
from tvmtiny.errors import EnvironmentProblem, UserError

if TYPE_CHECKING:
    from tvmtiny.artifact import Artifact
    from tvmtiny.schedule.records import Record
    from tvmtiny.target import Target
    from tvmtiny.tune.session import OnBatch, Options, Progress, Session
    from tvmtiny.tune.tasks import Task

REMEDY = "Install it: pip install 'tvmtiny[tune]'"


class Objective(enum.StrEnum):
    """What a schedule is chosen for."""

    latency = "latency"
    flash = "flash"
    balanced = "balanced"


class Strategy(enum.StrEnum):
    """How schedules are looked for."""

    xgb = "xgb"
    evolutionary = "evolutionary"
    random = "random"
    sweep = "sweep"


def command(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help="What `tvmtiny compile` wrote or takes, or encoders of `tvmtiny bench`; several share their kernels.",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Board or core; records serve every target of its core.")
    ] = None,
    on: Annotated[
        str, typer.Option(metavar="PLACE", help="Where candidates run: qemu, serial:PORT or rpc:HOST:PORT.")
    ] = "qemu",
    calibration: Annotated[
        Path | None, typer.Option(help="NPZ file, for a MODEL that is not compiled yet.", dir_okay=False)
    ] = None,
    objective: Annotated[
        Objective,
        typer.Option(
            help="latency may store weights as int16, twice the flash; balanced also weighs flash and RAM."
        ),
    ] = Objective.balanced,
    search: Annotated[
        Strategy,
        typer.Option(
            help="A cost model that ranks all schedules, MetaSchedule's evolution, random ones, or every one."
        ),
    ] = Strategy.xgb,
    trials: Annotated[
        int,
        typer.Option(help="Candidates over all kernels; the batch that reaches so many is the last.", min=1),
    ] = 400,
    batch: Annotated[int, typer.Option(help="Candidates that are built and measured at once.", min=1)] = 16,
    seed: Annotated[int, typer.Option(help="Of the search; the same gives the same trials.", min=0)] = 0,
    scratch_bytes: Annotated[
        int | None, typer.Option(help="Most scratch memory of a kernel.", min=1, show_default="no limit")
    ] = None,
    code_bytes: Annotated[
        int | None,
        typer.Option(help="Most code of a kernel and its micro-kernels.", min=1, show_default="no limit"),
    ] = None,
    work_dir: Annotated[
        Path | None,
        typer.Option(help="Keeps what was measured.", file_okay=False, show_default="build/tune/CORE"),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume/--restart", help="Go on with the work directory and records, or begin from nothing."
        ),
    ] = True,
    report: Annotated[
        Path | None,
        typer.Option(help="Write a page with convergence curves and operators here.", file_okay=False),
    ] = None,
    list_only: Annotated[bool, typer.Option("--list", help="Show the kernels and leave.")] = False,
    export: Annotated[
        Path | None,
        typer.Option(help="Write the records of a core and objective to this file.", dir_okay=False),
    ] = None,
    imported: Annotated[
        Path | None, typer.Option("--import", help="Replace the records by those of a file.", dir_okay=False)
    ] = None,
    merge: Annotated[
        list[Path] | None,
        typer.Option(
            help="Join a file's records with one's own, the faster of each; may be repeated.", dir_okay=False
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(help="QEMU processes at once; 0: one a processor.", min=0)] = 0,
    timeout: Annotated[float, typer.Option(help="Seconds until a candidate counts as hung.", min=1)] = 120,
    as_json: console.JsonOption = False,
) -> None:
    """Find the best schedule of each kernel by building and measuring candidates."""
    from tvmtiny.target import load_target

    if target is None:
        raise UserError("--target is needed.", "For example --target qemu-m4; tvmtiny targets lists them.")
    board = load_target(target)
    if export or imported or merge:
        _records(board, objective.value, export, imported, merge or [])
        return
    if not models:
        raise UserError(
            "Nothing to tune.", "Give a compiled directory, a model, or an encoder of tvmtiny bench."
        )
    with tempfile.TemporaryDirectory(prefix="tvmtiny-models-") as folder:
        artifacts, tasks = _tasks(models, board, calibration, Path(folder), objective.value)
        if list_only:
            _list(tasks, as_json=as_json)
            return
        _check_installed(
            with_model=search in {Strategy.xgb, Strategy.evolutionary}, with_report=report is not None
        )
        from tvmtiny.tune.session import Options

        options = Options(objective.value, search.value, trials, batch, seed, from_records=resume)
        directory = work_dir or Path("build") / "tune" / board.cpu
        limits = (scratch_bytes, code_bytes)
        _tune(
            tasks,
            artifacts,
            board,
            on,
            options,
            limits,
            directory,
            timeout,
            jobs,
            report,
            resume=resume,
            as_json=as_json,
        )


def _check_installed(*, with_model: bool, with_report: bool) -> None:
    import importlib.util

    needed = [
        "psutil",
        "cloudpickle",
        *(["xgboost"] if with_model else []),
        *(["matplotlib"] if with_report else []),
    ]
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise EnvironmentProblem(f"Tuning needs {', '.join(missing)}.", REMEDY)


def _tasks(
    models: list[str], board: Target, calibration: Path | None, folder: Path, objective: str
) -> tuple[list[Artifact], list[Task]]:
    with console.progress("loading TVM and the models"):
        from tvmtiny.tune.models import artifacts_of
        from tvmtiny.tune.tasks import tasks_of

        artifacts = artifacts_of(models, board.name, calibration, folder)
        tasks = tasks_of(artifacts, board, wide_weights=objective == "latency")
    if not tasks:
        raise UserError(
            f"No kernel of {', '.join(models)} has more than one schedule on {board.cpu}.",
            "There is nothing to tune.",
        )
    return artifacts, tasks


def _list(tasks: Sequence[Task], *, as_json: bool) -> None:
    rows = [
        {
            "kernel": task.kernel.name,
            "shapes": task.signature.text,
            "runs": len(task.uses),
            "operators": [f"{use.model}/{use.operator}" for use in task.uses],
            "schedules": task.size,
        }
        for task in tasks
    ]
    if as_json:
        console.show_json({"rows": rows})
        return
    table = console.table(
        "Kernels", "kernel and shapes", "runs", "schedules", "first use", right=("runs", "schedules")
    )
    for task in tasks:
        table.add_row(task.signature.text, str(len(task.uses)), str(task.size), task.name)
    console.show(table)
    total = sum(task.size for task in tasks)
    console.show(f"{total} schedules in all; --search sweep --trials {total} measures every one.")


def _tune(
    tasks: list[Task],
    artifacts: list[Artifact],
    board: Target,
    on: str,
    options: Options,
    limits: tuple[int | None, int | None],
    directory: Path,
    timeout: float,
    jobs: int,
    report: Path | None,
    *,
    resume: bool,
    as_json: bool,
) -> None:
    from tvmtiny.bench.session import c_compiler
    from tvmtiny.tune.engine import Limits
    from tvmtiny.tune.places import place_of
    from tvmtiny.tune.report import write_report
    from tvmtiny.tune.session import Session
    from tvmtiny.tune.store import Store, condition

    place, compiler = place_of(on, board, timeout_s=timeout, jobs=jobs), c_compiler()
    with Store(directory, condition(board, place.name, compiler)).opened() as store:
        if not resume:
            store.forget()
        if store.dropped_lines:
            console.message(
                f"{directory}: {store.dropped_lines} lines removed that are no measurements, e.g. of a run cut short."
            )
        with _live(options) as on_batch:
            session = Session(tasks, board, place, store, Limits(*limits), options, on_batch, artifacts)
            try:
                session.run()
            finally:
                records = session.records(compiler)
                saved = _save(board.cpu, options.objective, records) if session.decided else None
                if saved is None:
                    console.message(
                        f"No records of {options.objective} were written: the run ended before it chose for whole "
                        f"models. What was measured is in {directory}; the same command goes on from there."
                    )
    title = f"{board.cpu} on {place.name}, {options.objective}, {options.strategy}, seed {options.seed}"
    if report is not None:
        for path in write_report(report, title, tasks, session.progress, records):
            console.message(f"Wrote {path}")
    _show(session, records, as_json=as_json)
    console.message(f"Records: {saved}")


def _save(cpu: str, objective: str, records: Sequence[Record]) -> Path:
    """Put new records among the user's, in the place of older ones of the same kernels."""
    from tvmtiny.schedule.records import locked, read, user_folder, write

    path = user_folder() / cpu / f"{objective}.json"
    with locked(path):
        known = {record.signature: record for record in read(path, cpu, objective)} if path.is_file() else {}
        write(path, cpu, objective, (known | {record.signature: record for record in records}).values())
    return path


@contextlib.contextmanager
def _live(options: Options) -> Iterator[OnBatch]:
    """A table that follows the run on a terminal; a line a batch elsewhere."""
    from rich.console import Console
    from rich.live import Live

    terminal = Console(stderr=True)
    if not terminal.is_terminal:
        yield lambda progress, seconds: console.message(_line(progress, seconds))
        return
    with Live(console=terminal, transient=True) as live:
        yield lambda progress, seconds: live.update(_table(progress, seconds, options.trials))


def _line(progress: Sequence[Progress], seconds: float) -> str:
    trials, failed, wrong = _totals(progress)
    best = ", ".join(f"{100 * (one.best - 1):+.1f} %" for one in progress)
    rate = 60 * trials / max(1, seconds)
    return (
        f"{seconds:7.0f} s  {trials} trials, {rate:.0f} a minute, {failed} failed, {wrong} wrong; "
        f"best of each kernel: {best}"
    )


def _table(progress: Sequence[Progress], seconds: float, trials: int) -> Any:
    numbers = ("trials", "best", "improvement", "failed", "wrong")
    done, _, _ = _totals(progress)
    left = seconds / max(1, done) * max(0, trials - done)
    title = f"{done} of {trials} trials, {60 * done / max(1, seconds):.0f} a minute, about {left:.0f} s left"
    table = console.table(title, "kernel", *numbers, right=numbers)
    for one in progress:
        table.add_row(
            one.task.signature.brief,
            f"{one.trials} of {one.task.size}",
            f"{one.best:.4f}",
            f"{100 * (1 - one.best):.1f} %",
            str(one.failed),
            str(one.wrong),
        )
    return table


def _totals(progress: Sequence[Progress]) -> tuple[int, int, int]:
    def total(count: Callable[[Progress], int]) -> int:
        return sum(count(one) for one in progress)

    return total(lambda one: one.trials), total(lambda one: one.failed), total(lambda one: one.wrong)


def _show(session: Session, records: Sequence[Record], *, as_json: bool) -> None:
    trials, failed, wrong = _totals(session.progress)
    uses = {task.signature: len(task.uses) for task in session.tasks}
    before = sum(record.default.cycles * uses[record.signature] for record in records)
    after = sum(record.figures.cycles * uses[record.signature] for record in records)
    if as_json:
        rows = [{**record.to_json(), "uses": uses[record.signature]} for record in records]
        console.show_json(
            {
                "trials": trials,
                "failed": failed,
                "wrong": wrong,
                "estimated_cycles_rules": before,
                "estimated_cycles": after,
                "whole_models": _whole_models(session),
                "rows": rows,
            }
        )
        return
    numbers = ("runs", "rules", "tuned", "change", "flash", "scratch")
    table = console.table("Tuned kernels, cycles a run", "kernel", *numbers, "schedule", right=numbers)
    for record in records:
        table.add_row(
            record.signature.text,
            str(uses[record.signature]),
            f"{record.default.cycles:,}",
            f"{record.figures.cycles:,}",
            _change(record.default.cycles, record.figures.cycles),
            _change(record.default.flash_bytes, record.figures.flash_bytes),
            _change(record.default.scratch_bytes, record.figures.scratch_bytes),
            record.schedule,
        )
    console.show(table)
    console.show(
        f"{trials} trials, {failed} without a figure, {wrong} with wrong bytes (rejected). All tuned operators: "
        f"{before:,} cycles by the rules, {after:,} tuned ({_change(before, after)})."
    )
    if costs := _whole_models(session):
        _show_whole_models(costs)


def _whole_models(session: Session) -> dict[str, dict[str, int]] | None:
    """What decided where flash counts: figures of the models with the rules' schedules and with the chosen ones."""
    if (choice := session.choice) is None:
        return None
    return {
        name: dataclasses.asdict(cost) for name, cost in (("rules", choice.rules), ("tuned", choice.cost))
    }


def _show_whole_models(costs: dict[str, dict[str, int]]) -> None:
    numbers = ("rules", "tuned", "change")
    table = console.table("Whole models", "all together", *numbers, right=numbers)
    names = {
        "cycles": "cycles of tuned kernels",
        "flash": "code and weights, bytes",
        "memory": "arena, bytes",
    }
    for key, name in names.items():
        before, after = costs["rules"][key], costs["tuned"][key]
        table.add_row(name, f"{before:,}", f"{after:,}", _change(before, after))
    console.show(table)
    if costs["rules"] == costs["tuned"]:
        console.show("Nothing that was measured is better for them than the rules' schedules.")


def _change(before: int, after: int) -> str:
    return f"{100 * (after / before - 1):+.1f} %" if before else ""


def _records(
    board: Target, objective: str, export: Path | None, imported: Path | None, merge: Sequence[Path]
) -> None:
    """--export, --import and --merge of the user's records of a core and an objective."""
    from tvmtiny.schedule.records import locked, merged, read, user_folder, write

    cpu = board.cpu
    own = user_folder() / cpu / f"{objective}.json"
    try:
        with locked(own) if imported or merge else contextlib.nullcontext():
            if imported is not None:
                write(own, cpu, objective, read(imported, cpu, objective))
            for path in merge:
                known = read(own, cpu, objective) if own.is_file() else []
                write(own, cpu, objective, merged(known, read(path, cpu, objective)))
        if export is not None:
            write(export, cpu, objective, read(own, cpu, objective))
    except OSError as error:
        raise EnvironmentProblem(
            f"Cannot write records: {error}", "Make room, or choose another place."
        ) from error
    console.message(f"Records of {cpu}, {objective}: {export or own}")

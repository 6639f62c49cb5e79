"""The report of a tuning run: convergence of each task as a picture, and each operator before and after."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from tvmtiny.schedule.records import Record
from tvmtiny.tune.session import Progress
from tvmtiny.tune.tasks import Task

PICTURE, PAGE = "convergence.png", "report.md"


@dataclasses.dataclass(frozen=True)
class Row:
    """An operator of a model: cycles by the rules and by its record."""

    model: str
    operator: str
    kernel: str
    before: int
    after: int
    schedule: str


def rows(tasks: Sequence[Task], records: Sequence[Record]) -> list[Row]:
    """All operators that were tuned, by model."""
    found = {record.signature: record for record in records}
    listed = [
        Row(use.model, use.operator, task.kernel.name, r.default.cycles, r.figures.cycles, r.schedule)
        for task in tasks
        if (r := found.get(task.signature)) is not None
        for use in task.uses
    ]
    return sorted(listed, key=lambda row: row.model)


def write_report(
    directory: Path,
    title: str,
    tasks: Sequence[Task],
    progress: Sequence[Progress],
    records: Sequence[Record],
) -> list[Path]:
    """Write the page and its picture; returns their paths. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    _picture(directory / PICTURE, title, progress)
    (directory / PAGE).write_text(_page(title, tasks, progress, records), encoding="utf-8")
    return [directory / PAGE, directory / PICTURE]


def _picture(path: Path, title: str, progress: Sequence[Progress]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    for one in progress:
        axes.step(range(1, one.trials + 1), one.curve, where="post", label=one.task.name)
    axes.set(title=title, xlabel="trials of the task", ylabel="best so far, rules = 1")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _page(title: str, tasks: Sequence[Task], progress: Sequence[Progress], records: Sequence[Record]) -> str:
    lines = [f"# {title}", "", f"![convergence]({PICTURE})", "", "## Tasks", ""]
    lines += [
        "| kernel | uses | schedules | trials | failed | wrong | best score |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {p.task.signature.text} | {len(p.task.uses)} | {p.task.size} | {p.trials} | {p.failed} | {p.wrong} "
        f"| {p.best:.4f} |"
        for p in progress
    ]
    lines += ["", "## Operators, cycles before and after", ""]
    lines += [
        "| model | operator | kernel | rules | tuned | change | schedule |",
        "|---|---|---|---:|---:|---:|---|",
    ]
    lines += [
        f"| {r.model} | {r.operator} | {r.kernel} | {r.before:,} | {r.after:,} "
        f"| {100 * (r.after / r.before - 1):+.1f} % | {r.schedule} |"
        for r in rows(tasks, records)
    ]
    return "\n".join(lines) + "\n"

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
        change = [100 * (value - 1) for value in one.curve]
        last = one.curve.index(one.best)  # the trial that found the best
        label = f"{one.task.signature.brief}: {change[last]:+.1f} %, trial {last + 1} of {one.trials}"
        (line,) = axes.step(range(1, one.trials + 1), change, where="post", label=label)
        axes.plot([last + 1], [change[last]], "o", color=line.get_color(), markersize=5)
    axes.set(
        title=title, xlabel="trials of the kernel", ylabel="best score so far, change from the rules (%)"
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", title="best of each kernel")
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
    listed = rows(tasks, records)
    lines += [
        f"| {r.model} | {r.operator} | {r.kernel} | {r.before:,} | {r.after:,} | {_change(r)} | {r.schedule} |"
        for r in listed
    ]
    for model in dict.fromkeys(row.model for row in listed):
        own = [row for row in listed if row.model == model]
        total = Row(model, "", "", sum(row.before for row in own), sum(row.after for row in own), "")
        lines.append(
            f"| **{model}** | all tuned | | {total.before:,} | {total.after:,} | {_change(total)} | |"
        )
    return "\n".join(lines) + "\n"


def _change(row: Row) -> str:
    return f"{100 * (row.after / max(1, row.before) - 1):+.1f} %"

"""`tvmtiny bench`: what kernels and encoders need on emulated cores, beside what others need for the same work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tvmtiny.cli import console
from tvmtiny.errors import UserError

if TYPE_CHECKING:
    from tvmtiny.bench.catalog import Benchmark
    from tvmtiny.bench.compare import Comparison
    from tvmtiny.bench.results import Report

DEFAULT_TARGETS = ["qemu-m4", "qemu-m7"]


def command(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="Benchmarks, groups (kernels, encoders, features), families (gemv) or patterns ('dense-32*'); "
            "all if none.",
            show_default=False,
        ),
    ] = None,
    targets: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            help="Target with a core that QEMU emulates; may be repeated.",
            show_default="qemu-m4, qemu-m7",
        ),
    ] = None,
    list_only: Annotated[bool, typer.Option("--list", help="Show the benchmarks and leave.")] = False,
    save: Annotated[
        Path | None, typer.Option("--save", "-o", help="Write the figures to this JSON file.", dir_okay=False)
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(help="Show what changed since the figures of this file.", exists=True, dir_okay=False),
    ] = None,
    fail_above: Annotated[
        float | None,
        typer.Option(
            metavar="PERCENT",
            min=0,
            help="With --compare: exit status 1 when instructions, arena or flash grew by more.",
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds until one run counts as hung.", min=1)] = 600,
    as_json: console.JsonOption = False,
) -> None:
    """Count instructions and estimate cycles of kernels and whole encoders, beside the figures of others."""
    from tvmtiny.bench.catalog import load_catalog, select

    chosen = select(load_catalog(), names or [])
    if list_only:
        _list(chosen, as_json=as_json)
        return
    if fail_above is not None and compare is None:
        raise UserError("--fail-above needs figures to compare with.", "Give them with --compare FILE.")
    from tvmtiny.bench.results import load

    earlier = load(compare) if compare is not None else None
    report = _measure(chosen, targets or DEFAULT_TARGETS, timeout)
    if save is not None:
        report.save(save)
    comparison = _compare(earlier, report, names or []) if earlier is not None else None
    _print(report, comparison, as_json=as_json)
    if save is not None:
        console.message(f"Wrote {save}")
    if comparison is not None and fail_above is not None:
        comparison.check(fail_above)


def _list(chosen: list[Benchmark], *, as_json: bool) -> None:
    rows = [{"name": item.name, "group": item.group, "description": item.description} for item in chosen]
    if as_json:
        console.show_json({"rows": rows})
        return
    for group in dict.fromkeys(row["group"] for row in rows):
        table = console.table(group.capitalize(), "name", "what it measures")
        for row in rows:
            if row["group"] == group:
                table.add_row(row["name"], row["description"])
        console.show(table)


def _measure(chosen: list[Benchmark], targets: list[str], timeout: float) -> Report:
    from tvmtiny.bench.session import measure_all
    from tvmtiny.target import load_target

    boards = [load_target(name) for name in dict.fromkeys(targets)]
    with console.progress("starting") as show:

        def on_start(name: str, target: str, number: int, count: int) -> None:
            show(f"{number} of {count}: {name} on {target}")

        return measure_all(chosen, boards, timeout_s=timeout, on_start=on_start)


def _compare(earlier: Report, report: Report, names: list[str]) -> Comparison:
    from tvmtiny.bench.catalog import matches
    from tvmtiny.bench.compare import compare

    measured = {(row.target) for row in report.rows} | {item.target for item in report.skipped}
    expected = [
        (row.name, row.target)
        for row in earlier.rows
        if row.target in measured and (not names or any(matches(row.name, row.group, name) for name in names))
    ]
    return compare(earlier, report, expected)


def _print(report: Report, comparison: Comparison | None, *, as_json: bool) -> None:
    if as_json:
        extra = {"comparison": comparison.to_json()} if comparison is not None else {}
        console.show_json({**report.to_json(), **extra})
        return
    from tvmtiny.cli.bench_tables import show_comparison, show_report

    show_report(report)
    if comparison is not None:
        show_comparison(comparison)

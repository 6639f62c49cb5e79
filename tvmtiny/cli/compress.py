"""`tvmtiny compress`: a recipe trains a model and makes it smaller."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tvmtiny.cli import console

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.table import Table

    from tvmtiny.compress.progress import Event
    from tvmtiny.compress.runner import Result, Stage


def command(
    recipe: console.RecipeArgument,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="Directory of the result.", file_okay=False, show_default="build/RECIPE"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.", min=0)] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what each step would change; train and write nothing.")
    ] = False,
    no_resume: Annotated[
        bool, typer.Option("--no-resume", help="Train anew what an earlier run has trained already.")
    ] = False,
    as_json: console.JsonOption = False,
) -> None:
    """Train and compress the model of RECIPE; `tvmtiny compile DIR` then takes the result."""
    from tvmtiny.compress import require_packages

    require_packages()
    from tvmtiny.compress.recipe import load_recipe
    from tvmtiny.compress.runner import preview, run_recipe

    with _listener(str(recipe)) as listen:
        loaded = load_recipe(recipe)
        if dry_run:
            stages = preview(loaded, seed=seed, on_progress=listen)
            result = None
        else:
            directory = output or console.DEFAULT_PARENT / recipe.stem
            result = run_recipe(loaded, directory, seed=seed, resume=not no_resume, on_progress=listen)
            stages = list(result.stages)
    if as_json:
        console.show_json(_report(stages, result, seed))
    else:
        _show(stages, result, loaded.compile["target"])


@contextlib.contextmanager
def _listener(title: str) -> Iterator[Callable[[Event], None]]:
    """Shows events on standard error: as a line that changes, or in a log as a line each."""
    from rich.console import Console

    if not Console(stderr=True).is_terminal:
        yield lambda event: console.message(_line(event))
        return
    with console.progress(title) as update:
        yield lambda event: update(_line(event))


def _line(event: Event) -> str:
    count = f" {event.done}/{event.total}" if event.total else ""
    values = "".join(f", {name} {value:.4g}" for name, value in event.values.items())
    return f"{event.step}: {event.text}{count}{values}"


def _report(stages: list[Stage], result: Result | None, seed: int) -> dict[str, Any]:
    from dataclasses import asdict

    rows = [{**asdict(stage), "flash_bytes": stage.flash_bytes} for stage in stages]
    if result is None:
        return {"dry_run": True, "seed": seed, "rows": rows}
    return {
        "dry_run": False,
        "seed": seed,
        "directory": result.directory,
        "test": result.test,
        "test_of": "integers" if result.computes_integers else "float",
        "export_error": result.export_error,
        "rows": rows,
    }


def _show(stages: list[Stage], result: Result | None, target: str) -> None:
    console.show(_table(stages, target))
    console.show(
        "Sizes are those of `tvmtiny inspect`: arena and weights exact, code and cycles estimated, no tokenizer."
    )
    if result is None:
        console.show("Dry run: sizes only. Steps that choose by trained weights chose by untrained ones.")
        return
    console.show(
        "Metrics are those of the float module, from the step qat on of its integers; `tvmtiny evaluate` has those of "
        "the C."
    )
    figures = ", ".join(f"{name} {100 * value:.2f} %" for name, value in result.test.items())
    what = "The integers of the C" if result.computes_integers else "Float model"
    console.show(f"{what}, on {len(result.task.test)} test samples: {figures}")
    console.show_plain(f"Result: {result.directory}; next: tvmtiny compile {result.directory}")


def _table(stages: list[Stage], target: str) -> Table:
    metrics = list(dict.fromkeys(name for stage in stages for name in stage.metrics))
    numbers = ("parameters", "MACs", "flash (B)", "arena (B)", "cycles")
    table = console.table(f"Steps, on {target}", "step", *numbers, *metrics, right=(*numbers, *metrics))
    table.padding = (0, 1, 0, 0)  # so that a row fits into 110 columns
    before: Stage | None = None
    for stage in stages:
        sizes = ("parameters", "macs", "flash_bytes", "arena_bytes", "estimated_cycles")
        cells = [_change(getattr(stage, name), getattr(before, name, None)) for name in sizes]
        values = [f"{100 * stage.metrics[name]:.2f} %" if name in stage.metrics else "" for name in metrics]
        table.add_row(stage.step, *cells, *values)
        before = stage
    return table


def _change(value: int | None, before: int | None) -> str:
    """A size, and by how much it differs from the one before."""
    if value is None:
        return ""
    shown = f"{value:,}" if value < 1_000_000 else f"{value / 1e6:.2f} M"
    return shown if not before or value == before else f"{shown} ({100 * (value - before) / before:+.0f}%)"

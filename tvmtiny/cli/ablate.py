"""`tvmtiny ablate`: what each step of a recipe is worth, measured on the target, over several seeds."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tvmtiny.cli import console

if TYPE_CHECKING:
    from rich.table import Table

    from tvmtiny.ablate.run import Run
    from tvmtiny.ablate.session import Settings
    from tvmtiny.ablate.summary import Summary
    from tvmtiny.ablate.variants import Variant


def command(
    recipe: console.RecipeArgument,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Directory of finished runs and checkpoints.",
            file_okay=False,
            show_default="build/RECIPE-ablation",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each variant, with the seeds 0, 1, ...", min=1)] = 1,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Only this variant, beside the recipe; may be repeated.", show_default="all"
        ),
    ] = None,
    list_only: Annotated[bool, typer.Option("--list", help="Show the variants and leave.")] = False,
    where: Annotated[
        str,
        typer.Option(
            "--on", metavar="qemu|host", help="Where models are evaluated; the host gives no instructions."
        ),
    ] = "qemu",
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", help="Only the first N test samples.", min=1, show_default=False),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(help="Page with Pareto fronts.", dir_okay=False, show_default="OUTPUT/index.html"),
    ] = None,
    readme: Annotated[
        Path | None,
        typer.Option(
            help="Markdown file to write the table into, between its markers.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            help="Runs at once; more than one needs Ray.", min=1, show_default="processors, 1 without Ray"
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option("--ray", metavar="ADDRESS", help="Spread runs over a Ray cluster.", show_default=False),
    ] = None,
    no_resume: Annotated[
        bool, typer.Option("--no-resume", help="Measure again what an earlier call has finished.")
    ] = False,
    as_json: console.JsonOption = False,
) -> None:
    """Train, compile and measure a recipe with one change at a time; a killed ablation goes on where it was."""
    from tvmtiny.compress import require_packages

    require_packages()
    from tvmtiny.ablate.execution import default_jobs
    from tvmtiny.ablate.session import Settings, ablate
    from tvmtiny.ablate.summary import summarize
    from tvmtiny.ablate.text import check_readme, markdown, note, write_readme
    from tvmtiny.ablate.variants import load_variants

    variants = _chosen(load_variants(recipe), only or [])
    if list_only:
        _show_variants(variants)
        return
    if readme is not None:
        check_readme(readme, recipe.name)
    directory = output or console.DEFAULT_PARENT / f"{recipe.stem}-ablation"
    settings = Settings(seeds, where, limit, jobs or default_jobs(), address, resume=not no_resume)
    with _listener() as listen:
        runs = ablate(variants, directory, settings, listen)
    summary = summarize(runs)
    samples = "the test split" if limit is None else f"{limit} samples of the test split"
    given = _given(recipe, settings, only or [])
    about = note(summary, given, str(variants[0].recipe.compile["target"]), samples)
    if readme is not None:
        write_readme(readme, recipe.name, markdown(summary, about))
    place = html or directory / "index.html"
    _write_page(place, summary, recipe.name, about)
    if as_json:
        console.show_json(_report(summary, runs, place))
    else:
        _show(summary, about, place)


def _chosen(variants: list[Variant], only: list[str]) -> list[Variant]:
    """The recipe and the variants of these names, or all."""
    from tvmtiny.errors import UserError
    from tvmtiny.frontend.names import suggestion

    names = [variant.name for variant in variants]
    for name in only:
        if name not in names:
            raise UserError(f"There is no variant {name!r}.", suggestion(name, names))
    return [variants[0], *(v for v in variants[1:] if not only or v.name in only)]


def _given(recipe: Path, settings: Settings, only: list[str]) -> str:
    """The command that gives the same figures."""
    words = ["tvmtiny", "ablate", recipe.as_posix(), "--seeds", str(settings.seeds)]
    words += ["--on", settings.on] if settings.on != "qemu" else []
    words += ["--limit", str(settings.limit)] if settings.limit else []
    return shlex.join([*words, *(word for name in only for word in ("--only", name))])


@contextlib.contextmanager
def _listener() -> Iterator[Callable[[Run, int, int], None]]:
    """Shows finished runs on standard error, a line each."""
    with console.progress("running the recipe") as update:

        def listen(run: Run, done: int, total: int) -> None:
            metrics = ", ".join(f"{name} {value:.4g}" for name, value in run.metrics.items())
            console.message(f"[{done}/{total}] {run.variant}, seed {run.seed}: {run.failure or metrics}")
            update(f"{done} of {total} runs are finished")

        yield listen


def _write_page(path: Path, summary: Summary, recipe: str, about: str) -> None:
    from tvmtiny.ablate.page import page
    from tvmtiny.compress.progress import write

    write(path, page(summary, recipe, about).encode())


def _report(summary: Summary, runs: list[Run], html: Path) -> dict[str, Any]:
    from tvmtiny.ablate.summary import pareto_front

    fronts = {
        cost: sorted(pareto_front(summary, summary.metrics[0], cost)) for cost in summary.costs
    } if summary.metrics else {}  # fmt: skip
    return {
        "metrics": summary.metrics,
        "rows": [asdict(row) for row in summary.rows],
        "runs": [asdict(run) for run in runs],
        "pareto_fronts": fronts,
        "html": html,
    }


def _show_variants(variants: list[Variant]) -> None:
    from rich.markup import escape

    from tvmtiny.ablate.text import SECTIONS

    table = console.table("Variants", "variant", "what", "steps")
    for variant in variants:
        steps = ", ".join(step.kind for step in variant.recipe.steps)
        table.add_row(escape(variant.name), SECTIONS[variant.kind].lower(), steps)
    console.show(table)


def _show(summary: Summary, about: str, place: Path) -> None:
    from tvmtiny.ablate.text import columns

    console.show(_table(summary, columns(summary)))
    for row in summary.rows:
        if row.failure:
            console.show_plain(f"{row.variant} is not possible: {row.failure}")
    console.show_plain(about)
    console.show_plain(f"Page: {place}")


def _table(summary: Summary, names: list[str]) -> Table:
    from rich.markup import escape

    from tvmtiny.ablate.text import cell, title
    from tvmtiny.ablate.variants import WHOLE

    table = console.table("Ablation", "variant", *map(title, names), right=tuple(map(title, names)))
    table.padding = (0, 1, 0, 0)  # so that five figures with their spreads fit into 110 columns
    kind = WHOLE
    for row in summary.rows:
        if row.kind != kind:
            kind = row.kind
            table.add_section()
        cells = [cell(row, name).replace(" (", "\n(") for name in names]
        table.add_row(escape(row.variant), *cells)
    return table

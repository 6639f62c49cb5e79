"""What commands print: tables and JSON to standard output, messages and progress to standard error."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from tvmtiny.errors import TvmtinyError

# Rich assumes 80 columns where there is no terminal, which breaks the rows of a log.
WIDTH_WITHOUT_TERMINAL = 110

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output instead of tables.")
]


def existing_model(model: str) -> str:
    """`model` itself; raises typer.BadParameter when there is none of this name."""
    from tvmtiny.frontend.opening import hf_directory

    if hf_directory(model) is None and not Path(model).is_file():
        raise typer.BadParameter(f"There is no file '{model}'.")
    return model


DEFAULT_PARENT = Path("build")
"""Of directories that are written where no --output says otherwise."""

RecipeArgument = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="TOML file of a recipe.", exists=True, dir_okay=False)
]
RunnerOption = Annotated[
    str,
    typer.Option(
        "--on",
        metavar="host|qemu|serial:PORT",
        help="This computer, the core of the target in QEMU, or a board on a serial port.",
    ),
]
MaxTokensOption = Annotated[
    int | None, typer.Option(help="Longest input, in tokens.", min=1, show_default="the model's")
]
ShapeOption = Annotated[
    list[str] | None,
    typer.Option(help="INPUT=1x32: fix the sizes of an input; may be repeated.", show_default=False),
]


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console.width = WIDTH_WITHOUT_TERMINAL
    return console


def show(*things: Any) -> None:
    """Print tables or text (Rich markup) on standard output."""
    console = _console(stderr=False)
    for thing in things:
        console.print(thing)


def show_plain(text: str) -> None:
    """Print text that is no Rich markup (names of a model may look like it) on standard output."""
    from rich.markup import escape

    show(escape(text))


def show_json(report: dict[str, Any]) -> None:
    """Print `report` as one JSON object on standard output; NumPy scalars become numbers, paths strings."""

    def convert(value: Any) -> Any:
        return value.item() if hasattr(value, "item") else str(value)

    typer.echo(json.dumps(report, indent=2, default=convert))


def message(text: str) -> None:
    """Print plain text on standard error."""
    typer.echo(text, err=True)


def show_error(error: TvmtinyError) -> None:
    """Print what was wrong and, on the lines below, what to do about it."""
    from rich.markup import escape

    console = _console(stderr=True)
    # Soft wrapping keeps paths and commands in one piece, to be copied.
    console.print(f"[bold red]error:[/] {escape(error.message)}", soft_wrap=True)
    if error.remedy:
        console.print(escape(error.remedy), soft_wrap=True)


@contextlib.contextmanager
def progress(description: str) -> Iterator[Callable[[str], None]]:
    """Show a spinner with the elapsed time on standard error, if that is a terminal.

    Yields a function that replaces the description.
    """
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = _console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=None)
        yield lambda text: bar.update(task, description=text)


def table(title: str, *columns: str, right: tuple[str, ...] = ()) -> Table:
    """Return an empty table; the columns named in `right` hold numbers and are aligned to the right."""
    from rich import box
    from rich.table import Table

    result = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for column in columns:
        result.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return result


def kilobytes(count: int) -> str:
    """Format a size as users and data sheets name it (1 KB = 1024 B): whole where it is whole."""
    return f"{count // 1024:,} KB" if count % 1024 == 0 else f"{count / 1024:,.1f} KB"

"""The command line: one file a command. This file only assembles them and turns errors into exit statuses.

Exit status: 0 done; 1 environment, or a result that differs from the reference; 2 the user's input; 130
Ctrl-C.
`--help` must answer at once, so a command imports TVM, NumPy and the compiler inside its function.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tvmtiny import __version__
from tvmtiny.cli import (
    ablate,
    bench,
    board,
    compress,
    console,
    doctor,
    evaluate,
    inspect,
    profile,
    project,
    run,
    targets,
    tokenizer,
    tune,
)
from tvmtiny.cli import compile as compile_command
from tvmtiny.errors import TvmtinyError


class Commands(TyperGroup):
    """Reports a TvmtinyError as message and remedy; other exceptions are defects and keep their traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that the user named."""
        try:
            return super().invoke(ctx)
        except TvmtinyError as error:
            console.show_error(error)
            raise typer.Exit(error.exit_status) from error


app = typer.Typer(
    cls=Commands,
    help="Small transformers as int8 C with one static arena for Cortex-M microcontrollers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("doctor")(doctor.command)
app.command("targets")(targets.command)
app.command("inspect")(inspect.command)
app.command("compile")(compile_command.command)
app.command("compress")(compress.command)
app.command("run")(run.command)
app.command("project")(project.command)
app.command("profile")(profile.command)
app.command("evaluate")(evaluate.command)
app.command("ablate")(ablate.command)
app.command("bench")(bench.command)
app.command("tune")(tune.command)
app.add_typer(board.app, name="board")
app.add_typer(tokenizer.app, name="tokenizer")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tvmtiny {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and leave.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Options that stand before the command."""


def main() -> None:
    """Entry point of the `tvmtiny` script."""
    app()

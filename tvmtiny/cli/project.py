"""`tvmtiny project`: write a project that builds a compiled model's program, build it, flash it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tvmtiny.cli import console

if TYPE_CHECKING:
    from tvmtiny.artifact import Artifact
    from tvmtiny.target import Target

Model = Annotated[
    Path,
    typer.Argument(metavar="DIR", help="What `tvmtiny compile` wrote.", exists=True, file_okay=False),
]
TargetOption = Annotated[str | None, typer.Option(help="Another board than the model's.", show_default=False)]


TextOption = Annotated[
    bool, typer.Option("--text", help="The program takes texts (a model that was compiled with --tokenizer).")
]


def load_model(directory: Path, *, text: bool) -> Artifact:
    """The compiled model, or what takes texts in its place."""
    from tvmtiny.artifact import Artifact
    from tvmtiny.tokenizer.text_run import text_model

    artifact = Artifact.load(directory)
    return text_model(artifact) if text else artifact


def target_of(artifact: Artifact, name: str | None, kind: str | None = None) -> Target:
    """The target for a kind of project: the named one, or the model's own, or for "host" this computer."""
    from tvmtiny.target import HOST, load_target

    return load_target(name or (HOST if kind == HOST else artifact.target))


def command(
    directory: Model,
    kind: Annotated[
        str | None,
        typer.Option(
            help="A folder of microtvm_projects/; the target's own if not given.", show_default=False
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where to; DIR/build/TARGET if not given.", show_default=False),
    ] = None,
    target: TargetOption = None,
    build: Annotated[bool, typer.Option("--build", help="Also build it.")] = False,
    flash: Annotated[bool, typer.Option("--flash", help="Also build it and put it on the board.")] = False,
    text: TextOption = False,
    debug: Annotated[
        bool,
        typer.Option("--debug", help="The arena can be read over the link: it holds raw inputs."),
    ] = False,
    as_json: console.JsonOption = False,
) -> None:
    """Write a project around a compiled model: sources, Makefile, linker scripts, start-up code."""
    from tvmtiny.project.api import ProjectAPI

    artifact = load_model(directory, text=text)
    chosen = target_of(artifact, target, kind)
    api = ProjectAPI(kind or chosen.project)
    where = output or artifact.directory / "build" / chosen.name
    with console.progress("writing the project") as update:
        project = api.generate_project(artifact, chosen, where, debug=debug)
        if build or flash:
            update("building")
            api.build()
        if flash:
            update("flashing")
            api.flash()
    if as_json:
        report = {"kind": kind or chosen.project, "target": chosen.name, "directory": where}
        built = {"elf": project.elf if build or flash else None, "model_id": project.model_id}
        console.show_json({**report, **built, "flashed": flash})
        return
    console.show_plain(f"{kind or chosen.project} project for {chosen.name}: {where}")
    console.show_plain(f"Program: {project.elf}" if build or flash else f"Build it: make -C {where}")

"""A result of `tvmtiny compress` as the model of another command: what it holds becomes that command's defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tvmtiny.cli.console import existing_model
from tvmtiny.errors import UserError

COMPILED = "c"
"""Directory of the C of a result, inside the result's."""


def model_or_result(context: typer.Context, model: str) -> str:
    """The path of the model; the options of a result's directory become defaults, which given ones override."""
    directory = Path(model)
    if not directory.is_dir():
        return existing_model(model)

    from tvmtiny.compress.directory import read_options

    options = read_options(directory)
    found = str(options.pop("model"))
    several = {p.name for p in context.command.params if getattr(p, "multiple", False)}
    given = {_NAMES.get(name, name): _as_given(name, value) for name, value in options.items()}
    defaults = {name: [v] if name in several and isinstance(v, str) else v for name, v in given.items()}
    context.default_map = {"output": str(directory / COMPILED), **_name(directory), **defaults}
    return found


ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="ONNX file, .tflite file, ExportedProgram (.pt2), hf:DIR (a Hugging Face model directory), or the "
        "directory of a result of `tvmtiny compress`, with which come the options.",
        callback=model_or_result,
        is_eager=True,  # before the other options: it gives their defaults
    ),
]

_NAMES = {"shapes": "shape"}
"""Arguments of tvmtiny.compile whose option has another name."""


def _name(directory: Path) -> dict[str, str]:
    """The directory's name as the prefix of the C, where it can be that."""
    from tvmtiny.codegen.prefix import c_prefix

    try:
        return {"name": c_prefix(directory.resolve().name)}
    except UserError:
        return {}


def _as_given(name: str, value: Any) -> Any:
    """An argument of tvmtiny.compile as its option is given."""
    if name == "shapes":
        return [f"{key}={'x'.join(map(str, sizes))}" for key, sizes in value.items()]
    if isinstance(value, dict):
        return [f"{key}={part}" for key, part in value.items()]
    return str(value) if isinstance(value, Path) else value

"""A result of `tvmtiny compress` as the model of another command: what it holds becomes that command's defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from tvmtiny.cli.console import existing_model


def model_or_result(context: typer.Context, model: str) -> str:
    """The path of the model; the options of a result's directory become defaults, which given ones override."""
    if not Path(model).is_dir():
        return existing_model(model)

    from tvmtiny.compress.directory import read_options

    options = read_options(Path(model))
    found = str(options.pop("model"))
    context.default_map = {_NAMES.get(name, name): _as_given(name, value) for name, value in options.items()}
    return found


_NAMES = {"shapes": "shape"}
"""Arguments of tvmtiny.compile whose option has another name."""


def _as_given(name: str, value: Any) -> Any:
    """An argument of tvmtiny.compile as its option is given."""
    if name == "shapes":
        return [f"{key}={'x'.join(map(str, sizes))}" for key, sizes in value.items()]
    if isinstance(value, dict):
        return [f"{key}={part}" for key, part in value.items()]
    if name == "labels":
        return [str(value)]
    return str(value) if isinstance(value, Path) else value

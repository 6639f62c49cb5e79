"""jinja2 as every emitter uses it: unknown names are errors, block lines leave nothing behind."""

from __future__ import annotations

from pathlib import Path

import jinja2


def jinja_environment(place: str | Path, *, html: bool = False) -> jinja2.Environment:
    """The templates of a package (a name) or of a folder (a path).

    Args:
        html: escape what is put in; C, make and CMake stay as they are.
    """
    return jinja2.Environment(
        loader=jinja2.PackageLoader(place) if isinstance(place, str) else jinja2.FileSystemLoader(place),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=html,
    )

"""Find the kinds of project: the folders of microtvm_projects/ that have a handler."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import cast

from tvmtiny.errors import UserError
from tvmtiny.project.base import Kind, MakeKind
from tvmtiny.resources import data_dir

_HANDLER = "handler.py"


def project_kinds() -> list[str]:
    """The names of the kinds."""
    return sorted(path.parent.name for path in data_dir("microtvm_projects").glob(f"*/{_HANDLER}"))


@functools.cache
def load_kind(name: str) -> Kind:
    """The handler of the kind called `name`; raises UserError when there is none."""
    if name not in project_kinds():
        raise UserError(f"Unknown kind of project {name!r}.", f"Kinds: {', '.join(project_kinds())}.")
    return _load(data_dir(f"microtvm_projects/{name}") / _HANDLER, name)


def load_make_kind(name: str) -> MakeKind:
    """Likewise, of a kind whose programs `make` builds."""
    kind = load_kind(name)
    if not hasattr(kind, "plan"):
        raise UserError(
            f"Projects of the kind {name} are not built by make.", "Use `tvmtiny project --build`."
        )
    return cast(MakeKind, kind)


def _load(path: Path, name: str) -> Kind:
    spec = importlib.util.spec_from_file_location(f"tvmtiny.project.handlers.{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return cast(Kind, module)

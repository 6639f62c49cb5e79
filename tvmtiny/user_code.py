"""Python files that users name, such as the task of a recipe or a metric."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from tvmtiny.errors import UserError


def load_module(file: Path, remedy: str) -> ModuleType:
    """Import a file; once for the same contents.

    Args:
        remedy: what to do about a file that is not there or fails.

    Raises:
        UserError: there is no such file, or it fails.
    """
    place = file.resolve()
    if not place.is_file() or place.suffix != ".py":
        raise UserError(f"There is no Python file {file}.", remedy)
    digest = hashlib.sha256(f"{place}\n".encode(errors="surrogateescape") + place.read_bytes()).hexdigest()
    name = f"tvmtiny_user_{digest[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for the names in annotations
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if not isinstance(error, Exception) or isinstance(error, UserError):
            raise
        raise failure(file, error, remedy) from error
    return module


def failure(file: Path, error: Exception, remedy: str) -> UserError:
    """What went wrong in a user's file, with the line of it that comes last in the traceback."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == file.resolve()]
    line = f", line {frames[-1].lineno}" if frames else ""
    return UserError(f"{file}{line}: {type(error).__name__}: {error}", remedy)

"""Write the model directory: everything beside its final place first, then one rename."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tvmtiny.artifact import METADATA_FILE
from tvmtiny.errors import UserError


def check_output(directory: Path) -> None:
    """Refuse an output place that holds something else than a compiled model."""
    if directory.exists() and not directory.is_dir():
        raise UserError(
            f"{directory} exists and is not a directory.", "Give another output directory with -o."
        )
    if directory.is_dir() and any(directory.iterdir()) and not (directory / METADATA_FILE).is_file():
        raise UserError(
            f"{directory} is not empty and holds no compiled model.",
            "Give an empty or new directory with -o.",
        )


@contextlib.contextmanager
def replaced_directory(directory: Path) -> Iterator[Path]:
    """A temporary directory that takes the place of `directory` when the block ends without an error."""
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    except OSError as error:
        raise UserError(
            f"Cannot write beside {directory}: {error.strerror}.", "Give another output with -o."
        ) from error
    try:
        yield temporary
        temporary.chmod(0o755 & ~_umask())
        if directory.exists():
            old = temporary.with_name(temporary.name + "-old")
            directory.rename(old)
            temporary.rename(directory)
            shutil.rmtree(old)
        else:
            temporary.rename(directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_files(directory: Path, files: dict[str, str]) -> None:
    """Write text files, given by relative path."""
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def to_json(data: dict[str, Any]) -> str:
    """JSON with stable order and a final newline: the same input gives the same bytes."""
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"

"""Text files that users give."""

from __future__ import annotations

from pathlib import Path

from tvmtiny.errors import UserError


def read_lines(path: Path) -> list[str]:
    """The lines of a file in UTF-8, without their ends. Raises UserError where it is not text."""
    try:
        return path.read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error}.", "Save it as UTF-8.") from error

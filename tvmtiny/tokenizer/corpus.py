"""Corpora: UTF-8 files with a text a line, or LABEL<TAB>TEXT and further columns."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tvmtiny.errors import UserError

_HEADERS = ("intent", "label", "class")


@dataclasses.dataclass(frozen=True)
class Row:
    """A text, and its label where the file has one."""

    text: str
    label: str | None = None


def read_corpus(path: Path) -> list[Row]:
    """The rows of a corpus, without empty lines and without a header (`label<TAB>text` or `intent<TAB>text`).

    Raises:
        UserError: no such file, not UTF-8, or nothing in it.
    """
    if not path.is_file():
        raise UserError(f"There is no corpus {path}.", "Give a UTF-8 file with a text a line.")
    try:
        lines = path.read_text("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error}.", "Save it as UTF-8.") from error
    rows = [_row(line.removesuffix("\r")) for line in lines if line.strip()]
    if rows and rows[0].text == "text" and rows[0].label in _HEADERS:
        rows = rows[1:]
    if not rows:
        raise UserError(f"{path} holds no text.", "Give a UTF-8 file with a text a line.")
    return rows


def _row(line: str) -> Row:
    columns = line.split("\t")
    return Row(columns[0]) if len(columns) == 1 else Row(columns[1], columns[0])

"""Checks of the fields of a target file: each refusal names file, field, found and allowed values."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from tvmtiny.errors import UserError

_TYPE_NAMES = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}
_TYPE_NAMES |= {tuple: "an array of strings", list: "an array of tables", dict: "a table of strings"}


@dataclasses.dataclass(frozen=True)
class Field:
    """What a field may hold.

    Attributes:
        type: str, int, float (an int will do), bool, tuple (array of strings), list (array of tables) or dict
            (table of strings).
        required: whether the file must have it; else it is `default`.
        allowed: admissible values (of each entry, for a tuple); empty when any is.
        minimum, multiple: bounds of numbers.
        pattern: regular expression that a string matches as a whole.
    """

    type: type
    required: bool = False
    default: Any = None
    allowed: tuple[str, ...] = ()
    minimum: int | None = None
    multiple: int = 1
    pattern: str = ""


Fields: TypeAlias = dict[str, Field]


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of the TOML file at `path`; `prefix` is its place there, e.g. "memory[1]."."""

    path: Path
    data: dict[str, Any]
    prefix: str = ""

    def refuse(self, field: str, found: object, allowed: str) -> NoReturn:
        """Raise the UserError for `field`."""
        raise UserError(
            f"{self.path}: field {self.prefix}{field}: found {_toml(found)}; allowed: {allowed}.",
            "docs/adding-a-target.md describes each field.",
        )

    def check(self, fields: Fields) -> dict[str, Any]:
        """Every field's value or default; raises UserError at the first that `fields` does not admit."""
        for key in self.data:
            if key not in fields:
                near = difflib.get_close_matches(key, fields, n=1)
                hint = f" (did you mean {near[0]}?)" if near else ""
                self.refuse(key, self.data[key], f"only the fields {', '.join(fields)}{hint}")
        return {name: self._value(name, field) for name, field in fields.items()}

    def rows(self, value: list[dict[str, Any]]) -> Iterator[Table]:
        """The tables of the array `memory`."""
        for index, row in enumerate(value):
            yield Table(self.path, row, f"memory[{index}].")

    def _value(self, name: str, field: Field) -> Any:
        if name not in self.data:
            if field.required:
                self.refuse(name, None, _describe(field))
            return field.default
        value = self.data[name]
        if not _admits(field, value):
            self.refuse(name, value, _describe(field))
        return tuple(value) if field.type is tuple else value


def _admits(field: Field, value: Any) -> bool:
    if field.type is tuple:
        entries: list[Any] = value if isinstance(value, list) else [None]
        return all(isinstance(entry, str) and _allowed(field, entry) for entry in entries)
    if field.type is list:
        return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)
    if field.type is dict:
        return isinstance(value, dict) and all(isinstance(entry, str) for entry in value.values())
    if field.type in (int, float):
        number = isinstance(value, (int, field.type)) and not isinstance(value, bool)
        in_range = number and (field.minimum is None or value >= field.minimum)
        return in_range and (field.multiple == 1 or value % field.multiple == 0)
    return isinstance(value, field.type) and (field.type is bool or _allowed(field, value))


def _allowed(field: Field, value: Any) -> bool:
    if field.pattern and not re.fullmatch(field.pattern, value):
        return False
    return value in field.allowed if field.allowed else bool(value)


def _describe(field: Field) -> str:
    parts = [_TYPE_NAMES[field.type]]
    if field.allowed:
        parts.append("one of " + ", ".join(field.allowed))
    if field.pattern:
        parts.append(f"matching {field.pattern}")
    if field.minimum is not None:
        parts.append(f"at least {field.minimum}")
    if field.multiple != 1:
        parts.append(f"a multiple of {field.multiple}")
    return ", ".join(parts)


def _toml(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value)

"""Values of a recipe against the signature that takes them: names, types and bounds are stated once, there.

Types are those of typing, `Literal` for a choice; bounds are `annotated_types` inside `Annotated`. A parameter that
is a dataclass is a table of the recipe, read in the same way.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import inspect
import json
import types
from collections.abc import Callable, Mapping
from typing import Any, get_args, get_type_hints

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from tvmtiny.errors import UserError

_CONFIG = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)


def read(
    function: Callable[..., Any], table: Mapping[str, Any], where: str, without: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The keyword arguments that `table` gives to `function`, or to a dataclass.

    Args:
        where: the table's place in the recipe, for messages.
        without: parameters that are no one's to set in a recipe.

    Raises:
        UserError: a name that it does not take, with the nearest that it does; a value of another type or out of
            bounds; or a value that is missing.
    """
    parameters = {k: p for k, p in inspect.signature(function).parameters.items() if k not in without}
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    named = [k for k, p in parameters.items() if p.kind is not p.VAR_KEYWORD]
    hints = _hints(function)
    found = {}
    for name, value in table.items():
        if name not in named and not open_ended:
            raise unknown(name, named, where)
        found[name] = _value(hints.get(name, Any), value, f"{where}: {name}")
    missing = [k for k in named if parameters[k].default is inspect.Parameter.empty and k not in found]
    if missing:
        raise UserError(f"{where} lacks {', '.join(missing)}.", f"It takes {', '.join(named)}.")
    return found


def unknown(name: str, known: list[str], where: str) -> UserError:
    """The error for a name that is none of `known`."""
    near = difflib.get_close_matches(name, known, 1, 0.5)
    takes = f"It takes {', '.join(known)}." if known else "It takes no parameters."
    return UserError(f"{where} has no '{name}'{f'; did you mean {near[0]}?' if near else '.'}", takes)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Types by parameter, without those whose names are imported for type checkers alone: they take anything."""
    try:
        return get_type_hints(function, include_extras=True)
    except NameError:
        found: dict[str, Any] = {}
        for name, hint in function.__annotations__.items():
            one = types.SimpleNamespace(__annotations__={name: hint})
            with contextlib.suppress(NameError):
                found |= get_type_hints(one, function.__globals__, include_extras=True)
        return found


def _value(hint: Any, value: Any, where: str) -> Any:
    table = next((kind for kind in (hint, *get_args(hint)) if dataclasses.is_dataclass(kind)), None)
    if isinstance(table, type):
        if not isinstance(value, Mapping):
            raise UserError(
                f"{where} = {value!r}: it is a table.", "docs/compression.md shows one: [step.train]."
            )
        return table(**read(table, value, where))
    try:
        # As JSON, arrays become tuples and nothing else changes its type.
        return TypeAdapter(hint, config=_CONFIG).validate_json(json.dumps(value, default=str))
    except ValidationError as error:
        reasons = "; ".join(dict.fromkeys(row["msg"] for row in error.errors()))
        raise UserError(f"{where} = {value!r}: {reasons}.", "Correct the recipe.") from error
    except PydanticUserError as error:
        raise UserError(
            f"{where}: a recipe cannot give a value of type {hint}.",
            "Annotate the parameter with a plain type.",
        ) from error

"""The variants of a recipe: the whole, each step left out, its beginnings, and the changes that its [ablation] lists.

    [ablation]
    leave_out = true                   # each step left out
    prefixes = true                    # what stands after the training and after each step
    [[ablation.variant]]               # any number: one change each
    name = "a quarter of the heads"
    step.1.heads = 0.25                # of the first [[step]]
    [[ablation.variant]]
    name = "int4"
    compile.weights = "int4"           # task, train and compile likewise

Tables are laid over those of the recipe; any other value takes the place of the recipe's.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tvmtiny.compress.parameters import unknown
from tvmtiny.compress.recipe import Recipe, parse_recipe, read_toml
from tvmtiny.errors import UserError

WHOLE, WITHOUT, PREFIX, CHANGE = "recipe", "without", "prefix", "change"
_FIELDS = {"leave_out": bool, "prefixes": bool, "variant": list}
_CHANGED = ("task", "train", "compile", "step")


@dataclasses.dataclass(frozen=True)
class Variant:
    """A recipe with one change.

    Attributes:
        name: for people.
        kind: WHOLE (no change), WITHOUT (a step left out), PREFIX (only the first steps), CHANGE (one of [ablation]).
    """

    name: str
    kind: str
    recipe: Recipe


def load_variants(path: Path) -> list[Variant]:
    """The variants of a recipe file, the whole recipe first.

    Raises:
        UserError: a recipe that cannot be read, or a change that does not belong to it.
    """
    data = read_toml(path)
    recipe = parse_recipe(data, path)
    table = _table(data.get("ablation", {}), path)
    found = [Variant("recipe", WHOLE, recipe)]
    count = len(recipe.steps)
    if table.get("prefixes", True):
        for number in range(count):
            last = f"after {number} {recipe.steps[number - 1].kind}" if number else "before any step"
            found.append(Variant(last, PREFIX, dataclasses.replace(recipe, steps=recipe.steps[:number])))
    if table.get("leave_out", True):
        for number in range(count):
            rest = recipe.steps[:number] + recipe.steps[number + 1 :]
            name = f"without {number + 1} {recipe.steps[number].kind}"
            found.append(Variant(name, WITHOUT, dataclasses.replace(recipe, steps=rest)))
    for number, change in enumerate(table.get("variant", ()), 1):
        found.append(_changed(data, change, number, path))
    _check_names(found, path)
    return _without_twins(found)


def _table(table: Any, path: Path) -> Mapping[str, Any]:
    if not isinstance(table, Mapping):
        raise UserError(f"{path} has something else in place of the table [ablation].", _REMEDY)
    for name, value in table.items():
        if name not in _FIELDS:
            raise unknown(name, list(_FIELDS), f"{path}: [ablation]")
        if not isinstance(value, _FIELDS[name]):
            raise UserError(f"{path}: [ablation] {name} = {value!r}.", _REMEDY)
    return table


_REMEDY = "docs/evaluation.md shows an [ablation]."


def _changed(data: Mapping[str, Any], change: Any, number: int, path: Path) -> Variant:
    where = f"{path}: [[ablation.variant]] {number}"
    if not isinstance(change, Mapping) or not isinstance(change.get("name"), str):
        raise UserError(f"{where} has no name.", _REMEDY)
    for name in change:
        if name not in ("name", *_CHANGED):
            raise unknown(name, ["name", *_CHANGED], where)
    merged = copy.deepcopy(dict(data))
    for name, values in change.items():
        if name == "step":
            _change_steps(merged.get("step", []), values, where)
        elif name != "name":
            merged[name] = _merged(merged.get(name, {}), values)
    try:
        return Variant(change["name"], CHANGE, parse_recipe(merged, path))
    except UserError as error:
        raise UserError(f"{where} ({change['name']}): {error.message}", error.remedy) from error


def _change_steps(steps: list[Any], changes: Any, where: str) -> None:
    if not isinstance(changes, Mapping):
        raise UserError(f"{where}: step = {changes!r}.", "Write step.1.heads = 0.5, for example.")
    for number, values in changes.items():
        if not number.isdecimal() or not 1 <= int(number) <= len(steps):
            raise UserError(
                f"{where}: there is no step {number}.", f"The recipe has steps 1 to {len(steps)}."
            )
        steps[int(number) - 1] = _merged(steps[int(number) - 1], values)


def _merged(before: Any, changes: Any) -> Any:
    """Tables over tables; any other value in the place of what was."""
    if not isinstance(before, Mapping) or not isinstance(changes, Mapping):
        return changes
    return {**before, **{name: _merged(before.get(name), value) for name, value in changes.items()}}


def _check_names(variants: list[Variant], path: Path) -> None:
    names = [variant.name for variant in variants]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{path}: two variants are called {twice!r}.", "Give each a name of its own.")


def _without_twins(variants: list[Variant]) -> list[Variant]:
    """Of variants that come to the same, such as a recipe of one step without it, the first."""
    found: list[Variant] = []
    for variant in variants:
        if all(variant.recipe != other.recipe for other in found):
            found.append(variant)
    return found

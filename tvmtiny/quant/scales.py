"""Scales that a user gives to the compiler: of single values, by name, such as those that training has learned.

A value is called `<layer>.<value>`, as in `encoder_1.out`: `out` is the result of an operator, `hidden` what its second
matrix reads, `pre` what an activation reads, `q`, `k`, `v` and `context` those of attention, `branch` and `sum` what a
residual is added to and what comes of it; `<name>.input` is an input of features. Of `branch`, `sum` and int16 results
only the largest magnitude counts, 128 scale. In a file:

    {"encoder_1.out": {"scale": 0.0123, "zero_point": -3}, "encoder_1.q": {"scale": [0.02, 0.031]}}

`q`, `k`, `v` and `context` may have a scale for each head, an input one for each column. `<layer>.<matrix>`, as in
`encoder_1.w1`, are the step sizes of weights: a list for each row (output channel), of one for int8 and of one for each
group of 32 for int4. Where the columns of a layer's input have scales of their own, they are those of the weights times
the scale of their column in units of the largest one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from tvmtiny.errors import UserError
from tvmtiny.frontend.names import suggestion
from tvmtiny.passes.operators import MATRICES
from tvmtiny.quant.qparams import QuantParams

Scales: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Name of a value -> `scale` and `zero_point` (0 when it is left out): numbers, lists of them, or lists of lists."""

ScaleSource: TypeAlias = Path | str | Scales

BY_COLUMN = ("q", "k", "v", "context", "input")
"""Values that may have several scales."""

_WEIGHTS = {operand for operands in MATRICES.values() for operand in operands}

_FORM = 'Write {"LAYER.VALUE": {"scale": 0.02, "zero_point": -3}, ...}.'


def to_scales(chosen: Mapping[str, QuantParams]) -> dict[str, dict[str, Any]]:
    """Parameters as `read_scales` takes them; floating point numbers are exact in JSON."""
    return {
        name: {
            "scale": np.asarray(params.scale, np.float64).tolist(),
            "zero_point": np.asarray(params.zero_point).tolist(),
        }
        for name, params in chosen.items()
    }


def read_scales(source: ScaleSource | None, known: Iterable[str]) -> dict[str, QuantParams]:
    """The parameters of each value that `source`, a JSON file or its contents, has.

    Args:
        known: names of the values that the model has.

    Raises:
        UserError: no such file, a value that does not exist, or numbers that are no scale or zero point.
    """
    if source is None:
        return {}
    table = source if isinstance(source, Mapping) else _load(Path(source))
    names = sorted(known)
    for name in table:
        if name not in names:
            raise UserError(f"--scales: the model has no value '{name}'.", suggestion(name, names))
    return {name: _params(name, row) for name, row in table.items()}


def _load(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"--scales: {path} cannot be read as JSON: {error}.", _FORM) from error
    if not isinstance(table, dict):
        raise UserError(f"--scales: {path} is no JSON object.", _FORM)
    return table


def _params(name: str, row: Any) -> QuantParams:
    try:
        scale = np.asarray(row["scale"], np.float64)
        zero_point = np.asarray(row.get("zero_point", 0), np.float64)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"--scales: '{name}' is {row!r}.", _FORM) from error
    whole = np.all(zero_point == np.round(zero_point)) and np.all(np.abs(zero_point + 0.5) <= 127.5)
    value = name.rpartition(".")[2]
    if scale.ndim > 1 + (value in _WEIGHTS) or not (
        np.all(np.isfinite(scale)) and np.all(scale > 0) and scale.size
    ):
        raise UserError(f"--scales: the scale of '{name}' is {row['scale']!r}.", "Give positive numbers.")
    if not whole or zero_point.shape not in ((), scale.shape):
        raise UserError(
            f"--scales: the zero point of '{name}' is {row['zero_point']!r}.",
            "Give an integer from -128 to 127, or one for each scale.",
        )
    if scale.ndim and value not in (*BY_COLUMN, *_WEIGHTS):
        raise UserError(f"--scales: '{name}' has {scale.size} scales.", "Give it one.")
    zero = zero_point.astype(np.int32)
    return QuantParams(float(scale) if scale.ndim == 0 else scale, int(zero) if zero.ndim == 0 else zero)

"""The steps that a recipe can name.

Each is one file with a function of the step's name:

    def prune(module, task, *, <parameters>, progress=None) -> nn.Module

It leaves `module` as it is. Its signature is what the recipe may set (parameters.py).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from tvmtiny.compress.parameters import unknown

STEPS: dict[str, str] = {
    "cluster": "tvmtiny.compress.cluster",
    "distil": "tvmtiny.compress.distil",
    "low_rank": "tvmtiny.compress.low_rank",
    "prune": "tvmtiny.compress.prune",
    "qat": "tvmtiny.compress.qat",
    "quantize": "tvmtiny.compress.quantize",
}
"""Module of each step."""

_ALWAYS = ("residual", "rounding", "bias_correction", "range_method", "smooth", "fold_qk", "layer_weights")
DECIDES: dict[str, tuple[str, ...]] = {
    "qat": (*_ALWAYS, "scales", "int16"),
    "quantize": (*_ALWAYS, "weights"),
}
"""Arguments of tvmtiny.compile that a step decides on, so that [compile] cannot."""

GIVEN = ("module", "task", "progress")
"""What the run gives to a step; the other parameters are the recipe's."""


def step_function(kind: str, where: str) -> Callable[..., Any]:
    """The function of a step; raises UserError for a kind that does not exist, with the nearest that does."""
    if kind not in STEPS:
        raise unknown(kind, list(STEPS), f"{where}: kind")
    function: Callable[..., Any] = getattr(importlib.import_module(STEPS[kind]), kind)
    return function

"""Quantization after training: how weights are stored and rounded, chosen with the task's data.

The module stays as it is; what was chosen travels as its compile options, and the compiler does it.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from annotated_types import Ge
from torch import nn

from tvmtiny.compress.calibrated import Judge, Measured, smoother, statistics_of
from tvmtiny.compress.export import to_fused
from tvmtiny.compress.options import compile_options, with_options
from tvmtiny.compress.progress import Progress
from tvmtiny.compress.task import Task
from tvmtiny.errors import UserError
from tvmtiny.kernels import kernel_calls
from tvmtiny.kernels.weights import GROUPS
from tvmtiny.passes import quantize as to_integers
from tvmtiny.passes.graph import Graph, as_array
from tvmtiny.passes.quantize import QuantizedModel
from tvmtiny.passes.weight_types import WeightTypes, weight_types


def quantize(
    module: nn.Module,
    task: Task,
    *,
    weights: Literal["int8", "int4", "mixed"] = "int8",
    rounding: Literal["auto", "nearest", "gptq"] = "auto",
    bias_correction: bool = False,
    smooth: bool = False,
    residual: Literal["int8", "int16"] = "int8",
    range_method: Literal["auto", "minmax", "percentile", "entropy"] = "auto",
    most_lost: Annotated[float, Ge(0)] = 0.005,
    least_db: float = 30.0,
    weight_bytes: Annotated[int, Ge(0)] | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """A copy of `module` with the compile options that were chosen.

    Args:
        weights: of dense layers in flash. "mixed" gives int4 to the layers that lose least by it.
        rounding, bias_correction, smooth, residual, range_method: as for `tvmtiny.compile`.
        least_db: for "mixed": the least signal to noise of any output, on the same data; metrics alone may not notice.
        most_lost: for "mixed": how much less than with int8 the task's first metric may be on its selection data.
        weight_bytes: for "mixed": stop at this size of the weights of dense layers; None: go on within `most_lost`.

    Raises:
        UserError: the model cannot be quantized, or not within `most_lost` to `weight_bytes`.
    """
    options: dict[str, Any] = {
        "rounding": rounding, "bias_correction": bias_correction, "residual": residual,
        "range_method": range_method, "fold_qk": "never", "smooth": smooth,
    }  # fmt: skip
    found = copy.deepcopy(module)
    if weights != "mixed":
        return with_options(found, **options, weights=weights)
    fused = to_fused(module, task)
    chosen = weight_types(fused, "int8", compile_options(module).get("layer_weights"))
    progress = progress or Progress()
    if (
        progress.dry and weight_bytes is None
    ):  # the module is not trained, and no size ends the search: all of them
        return with_options(found, **options, layer_weights=dict.fromkeys(chosen, "int4"))
    statistics = statistics_of(fused, task)

    def integers(types: WeightTypes) -> QuantizedModel:
        ready = smoother(fused, statistics, task, types, range_method) if smooth else (fused, statistics)
        return to_integers.quantize(
            *ready,
            range_method,
            residual,
            types,
            rounding=rounding,
            bias_correction=bias_correction,
        )

    judge = Judge(module, fused, task, task.selection)
    budget = Budget(most_lost, least_db, weight_bytes)
    if progress.dry:  # the model is not trained: only sizes matter
        budget = Budget(math.inf, -math.inf, weight_bytes)
    choice = mixed(integers, chosen, judge, budget, progress)
    return with_options(found, **options, layer_weights=choice)


@dataclasses.dataclass(frozen=True)
class Budget:
    """What int4 may cost, and when there is enough of it: `most_lost`, `least_db`, `weight_bytes` of `quantize`."""

    most_lost: float
    least_db: float
    weight_bytes: int | None = None

    def is_met(self, size: int) -> bool:
        """Whether weights of `size` bytes are small enough."""
        return self.weight_bytes is not None and size <= self.weight_bytes


@dataclasses.dataclass(frozen=True)
class Sensitivity:
    """What int4 weights of one layer alone cost and save: dB at the outputs, bytes."""

    layer: str
    snr_db: float
    saved_bytes: int

    @property
    def price(self) -> float:
        """Noise a byte that is saved."""
        return float(10 ** (-self.snr_db / 10)) / max(1, self.saved_bytes)


def sensitivities(
    integers: Callable[[WeightTypes], QuantizedModel],
    types: WeightTypes,
    before: Mapping[str, int],
    judge: Judge,
) -> list[Sensitivity]:
    """Every layer of int8 weights with int4 weights instead, the others as in `types`; the cheapest first.

    Args:
        before: `layer_bytes` with `types`.
    """
    rows = []
    for layer, kind in types.items():
        if kind == "int8":
            quantized = integers({**types, layer: "int4"})
            saved = before[layer] - layer_bytes(quantized)[layer]
            rows.append(Sensitivity(layer, judge.measure(quantized).snr_db, saved))
    return sorted(rows, key=lambda row: row.price)


def mixed(
    integers: Callable[[WeightTypes], QuantizedModel],
    types: WeightTypes,
    judge: Judge,
    budget: Budget,
    progress: Progress,
) -> WeightTypes:
    """`types` with int4 for one layer after another, the cheapest first, each kept that stays within the budget.

    Raises:
        UserError: the weights stay larger than the budget's.
    """
    start = integers(types)
    least, before = _metric(judge.measure(start)) - budget.most_lost, layer_bytes(start)
    found, rows, size = dict(types), sensitivities(integers, types, before, judge), sum(before.values())
    for done, row in enumerate(rows):
        if budget.is_met(size):
            break
        measured = judge.measure(integers({**found, row.layer: "int4"}))
        value = _metric(measured)
        progress.report(f"int4 for {row.layer}", done + 1, len(rows), metric=value, snr_db=measured.snr_db)
        if value >= least and measured.snr_db >= budget.least_db:
            found[row.layer] = "int4"
            size -= row.saved_bytes
    if budget.weight_bytes is not None and not budget.is_met(size):
        limits = f"when int4 costs no more than {budget.most_lost} and {budget.least_db} dB remain"
        if math.isinf(budget.most_lost):  # a dry run
            limits = "with int4 for every layer that can have it"
        raise UserError(
            f"The weights take {size:,} bytes {limits}; {budget.weight_bytes:,} are allowed.",
            "Allow a larger loss with most_lost and least_db, or prune first.",
        )
    return found


def _metric(measured: Measured) -> float:
    """The first metric, of which budgets speak."""
    return next(iter(measured.metrics.values()))


def layer_bytes(quantized: QuantizedModel) -> dict[str, int]:
    """Bytes of the weights and group scales of each layer."""
    graph, found = Graph(quantized.module["main"]), {}
    for layer, _, operands in kernel_calls(quantized.module):
        tensors = operands.tensors
        arrays = [
            as_array(graph.producer(tensors[name])) for name in (*GROUPS, *GROUPS.values()) if name in tensors
        ]
        found[layer] = sum(array.nbytes for array in arrays if array is not None)
    return found

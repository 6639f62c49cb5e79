"""What calibration finds out about a model: the values that its tensors have, and a smoother model by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import tvm

from tvmtiny.frontend.data import Batch, InputSpec
from tvmtiny.options import ModelOptions
from tvmtiny.passes.weight_types import matrices
from tvmtiny.quant.calibrate import FloatModel, Statistics, Trace, run_all
from tvmtiny.quant.given import PROBES, given_parameters, input_params, random_batch
from tvmtiny.quant.scales import ScaleSource, read_scales


@dataclass(frozen=True)
class Calibration:
    """The fused float module, its values on each sample, and what is known of its tensors."""

    float_model: FloatModel
    traces: list[Trace]
    statistics: Statistics


def calibrate(
    imported: tvm.IRModule,
    fused: tvm.IRModule,
    specs: Sequence[InputSpec],
    tokens: int,
    batch: Batch,
    scales: ScaleSource | None,
    *,
    by_scales: bool,
    periods: Mapping[str, int],
) -> Calibration:
    """Run the fused module over samples.

    Args:
        imported: the module before it was fused, with the scales that its author gave it.
        scales: further ones, of the user.
        by_scales: whether scales say all, and the samples, which are random then, nothing.
        periods: of `Statistics`.
    """
    float_model, traces = traced(fused, batch)
    inputs = input_params(imported)
    probes = random_batch(specs, inputs, tokens, PROBES)
    known = [*traces[0].values, *matrices(fused)]
    given = given_parameters(imported, float_model, probes) | read_scales(scales, known)
    statistics = Statistics([] if by_scales else traces, given, inputs, periods)
    return Calibration(float_model, traces, statistics)


def smoothed(
    fused: tvm.IRModule, found: Calibration, batch: Batch, options: ModelOptions
) -> tuple[tvm.IRModule, Calibration]:
    """The fused module with smoother tensors (`passes.smooth`), and what calibration finds then."""
    result = options.smoothed(fused, found.statistics)
    float_model, traces = traced(result, batch)
    statistics = Statistics(traces, inputs=found.statistics.inputs, periods=found.statistics.periods)
    return result, Calibration(float_model, traces, statistics)


def traced(fused: tvm.IRModule, batch: Batch) -> tuple[FloatModel, list[Trace]]:
    """The float model of a fused module, and what its tensors hold over samples."""
    float_model = FloatModel(fused)
    return float_model, list(run_all(float_model, batch.arrays, batch.n_tokens))

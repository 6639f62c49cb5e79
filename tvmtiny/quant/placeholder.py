"""Placeholder ranges: what stands in for calibration data where only sizes matter.

The scales that they lead to mean nothing. But shapes, lifetimes and the sizes of constants do not depend on scales;
those of compressed constants do so a little, as int4 weights are then not rounded by the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm

from tvmtiny.frontend.data import InputSpec
from tvmtiny.quant.calibrate import FloatModel, Statistics, Trace, run_all

Array = npt.NDArray[Any]

SEED = 2026
SAMPLES = 2


def placeholder_statistics(fused: tvm.IRModule, specs: Sequence[InputSpec], tokens: int) -> Statistics:
    """Ranges of a fused float module that runs on random inputs with all of its tokens.

    It runs, rather than that each tensor gets a made-up range, so that ranges agree with one another (a sum is not
    smaller than its terms) and differ from one another (equal tables would be stored once). A value that is not finite
    for such inputs counts as 0.
    """
    random = np.random.default_rng(SEED)
    arrays = {spec.name: _values(spec, random) for spec in specs}
    traces = run_all(FloatModel(fused), arrays, np.full(SAMPLES, tokens))
    return Statistics(_finite(trace) for trace in traces)


def _values(spec: InputSpec, random: np.random.Generator) -> Array:
    shape = (SAMPLES, *spec.shape)
    if spec.kind == "tokens":
        return random.integers(0, max(spec.limit, 1), shape)
    return random.normal(size=shape).astype(np.float32)


def _finite(trace: Trace) -> Trace:
    values = {
        name: np.nan_to_num(value, nan=0.0, posinf=0.0, neginf=0.0) for name, value in trace.values.items()
    }
    return Trace(trace.outputs, values)

"""Division of rows by their Euclidean length, as sentence embeddings end: an RMSNorm with a constant factor.

x / |x| = x / sqrt(mean(x * x)) / sqrt(E) for rows of E values. Exporters write the length with `abs`, `power` and
`clip`, with `sqrt` and `maximum`, or with `rsqrt`; what they write is evaluated, not matched.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import ir, relax

from tvmtiny.passes.graph import Emit, Graph, as_array, constant, function_pass, rebuild, shape_of
from tvmtiny.passes.numeric import evaluate
from tvmtiny.passes.operators import call
from tvmtiny.passes.views import as_matrix, reshaped
from tvmtiny.quant.qparams import RMS_NORM_MAX_EXTENT

TOLERANCE = 1e-5
"""How far a component of a row of length 1 may be off: float32 rounding, and what is added against zero rows."""

LEAST_SQUARE = 1e-24
"""Added to the mean square, so that a row of zeros stays one: torch divides by at least 1e-12."""


def FuseUnitLength() -> tvm.transform.Pass:  # noqa: N802
    """Anchored at the quotient, or at the product with the reciprocal length."""
    return function_pass("FuseUnitLength", lambda function: rebuild(function, _rewrite))


def divides_by_length(gamma: npt.NDArray[Any], beta: npt.NDArray[Any]) -> bool:
    """Whether an RMSNorm with these constants gives rows of length 1."""
    return bool(np.all(beta == 0) and np.all(gamma == _factor(len(gamma))))


def _factor(extent: int) -> np.float32:
    return np.float32(extent**-0.5)


def _rewrite(graph: Graph, var: relax.Var, value: Any, emit: Emit) -> Any | None:
    if not isinstance(value, relax.Call) or not graph.is_call(value, "divide", "multiply"):
        return None
    shape = shape_of(value)
    for x in value.args[: 1 if graph.is_call(value, "divide") else 2]:
        if as_array(x) is None and shape_of(x) == shape and _has_unit_length(graph, value, x):
            gamma = np.full(shape[-1], _factor(shape[-1]))
            args = [as_matrix(graph, x, emit), constant(gamma), constant(np.zeros_like(gamma))]
            return reshaped(call("rms_norm", args, epsilon=LEAST_SQUARE), value, emit)
    return None


def _has_unit_length(graph: Graph, value: relax.Call, x: Any) -> bool:
    """Whether `value` is x with every row divided by its length."""
    shape = shape_of(x)
    if len(shape) < 2 or not 2 <= shape[-1] <= RMS_NORM_MAX_EXTENT or not isinstance(x, ir.Var):
        return False
    random = np.random.default_rng(0)
    for size in (1e-2, 1.0, 1e2):
        rows = (random.normal(size=shape) * size).astype(np.float32)
        known: dict[Any, npt.NDArray[Any] | None] = {x: rows}
        found = evaluate(graph, value, known)
        wanted = rows / np.linalg.norm(rows.astype(np.float64), axis=-1, keepdims=True)
        if found is None or not np.allclose(found, wanted, rtol=0, atol=TOLERANCE):
            return False
    return True

"""The integer model beside the float model on data of the user: accuracy, and which layers lose how much, and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm

from tvmtiny.errors import UserError
from tvmtiny.frontend.data import Batch, InputSpec
from tvmtiny.frontend.names import suggestion
from tvmtiny.passes import views
from tvmtiny.passes.graph import Graph
from tvmtiny.passes.int16_layers import candidates
from tvmtiny.passes.operators import kind
from tvmtiny.passes.quantize import QuantizedModel
from tvmtiny.passes.residual_stream import POOLS, residual_stream
from tvmtiny.quant.calibrate import FloatModel, Trace, run_all
from tvmtiny.quant.qparams import QuantParams
from tvmtiny.quant.reference import IntegerModel, integer_inputs
from tvmtiny.quant.report import Quality

Array = npt.NDArray[Any]

FAIR_DB = 25.0
"""Below this a layer's error is above 6 % of its values (root mean square): worth a remedy."""

LOST_DB = 1.0
"""A layer that loses less than this hands on what it read."""

ROUNDED_DB = 40.0
"""What rounding to int8 leaves of a tensor that fills its range: the loss of a layer without quantized operands."""

CLIPPED = 1e-3
"""A larger share of values outside the calibrated range is no accident."""

ENOUGH_SAMPLES = 64
"""Calibration samples from which on more of the same kind change little."""

LAYERS_NAMED = 3


@dataclasses.dataclass(frozen=True)
class Setup:
    """How a model was quantized: what there is to change.

    Attributes:
        range_method: as given to the compiler.
        samples: of calibration.
        int16: layers whose results are int8 and could be int16, each with those that have to be int16 with it.
        stream: how many of them are the residual stream.
    """

    range_method: str
    samples: int
    int16: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    stream: int = 0


def setup(fused: tvm.IRModule, int16: Sequence[str], range_method: str, samples: int) -> Setup:
    """The setup of a fused model whose layers `int16` have int16 results."""
    graph = Graph(fused["main"])
    possible: dict[str, tuple[str, ...]] = {}
    for var in candidates(graph):
        value = graph.bound(var)
        source = views.trace(graph, value.args[0]).root.name if kind(value) in POOLS else ""
        if var.name not in int16:
            possible[var.name] = (source, var.name) if source in possible else (var.name,)
    stream = sum(var.name in possible for var in residual_stream(graph))
    return Setup(range_method, samples, possible, stream)


def verify(
    quantized: QuantizedModel,
    float_model: FloatModel,
    specs: Sequence[InputSpec],
    batch: Batch,
    names: Mapping[str, tuple[str, ...]],
    how: Setup,
) -> dict[str, Any]:
    """Run both models over samples and compare them.

    Args:
        specs: the model's data inputs.
        batch: the samples, with `labels` or without.
        names: of classes by output.

    Returns:
        as `Quality.report`, with `accuracy` of both (None without labels), `lost_db` and `clipped` of each layer,
        `inputs` with `clipped` of each input of features, and `advice`: rows of `layers` and `message`.

    Raises:
        UserError: there are labels, and they or the first output are none of a classifier.
    """
    quality, clipped, model = Quality(quantized.outputs), _Clipped(), IntegerModel(quantized.module)
    labels = (
        None if batch.labels is None else class_numbers(batch.labels, names.get(quantized.outputs[0], ()))
    )
    classes: list[tuple[int, int]] = []
    for index, trace in enumerate(run_all(float_model, batch.arrays, batch.n_tokens)):
        inputs = integer_inputs(quantized, specs, {key: array[index] for key, array in batch.arrays.items()})
        results = model.run(inputs, int(batch.n_tokens[index]))
        quality.add(trace, results, quantized.tensors)
        for name, params in quantized.inputs.items():
            clipped.add(name, trace.values[f"{name}.input"].reshape(-1, len(params.scale)), params, np.int8)
        for name, values in results.items():
            if name in quantized.tensors and f"{name}.out" in trace.values:
                clipped.add(name, trace.values[f"{name}.out"], quantized.tensors[name], values.dtype)
        if labels is not None:
            classes.append(_classes(quantized.outputs[0], trace, results))
    found = quality.report()
    found["accuracy"] = None if labels is None else _accuracy(np.asarray(classes), labels)
    found["inputs"] = [{"name": name, "clipped": clipped.share(name)} for name in quantized.inputs]
    sources = _sources(quantized)
    found["layers"] = _layers(found["layers"], sources, clipped)
    found["advice"] = advice(found["inputs"], found["layers"], sources, how)
    return found


def class_numbers(labels: Array, names: tuple[str, ...]) -> Array:
    """Labels, which may be names, as numbers of classes.

    Raises:
        UserError: a name that is none of `names`, or labels that are neither names nor integers, one a sample.
    """
    if labels.ndim != 1 or labels.dtype.kind not in "iuU":
        raise UserError(
            f"The labels of --verify are {labels.dtype} of shape {labels.shape}.",
            "Give the number or the name of one class a sample.",
        )
    if labels.dtype.kind in "iu":
        return labels
    for label in labels:
        if label not in names:
            raise UserError(
                f"The label '{label}' of --verify is no class of the model.",
                f"{suggestion(str(label), list(names))} Names of classes are given with --labels.",
            )
    return np.array([names.index(str(label)) for label in labels])


def _classes(output: str, trace: Trace, results: dict[str, Array]) -> tuple[int, int]:
    """The largest element of the first output in the float and in the integer model."""
    real, integer = trace.outputs[0].reshape(-1), results[output].reshape(-1)
    if real.size != trace.outputs[0].shape[-1] or real.size < 2:
        raise UserError(
            f"There are labels, but the output '{output}' is not one row of scores of classes.",
            "Leave `labels` out of the data: agreement and cosine are reported without.",
        )
    return int(real.argmax()), int(integer.argmax())


def _accuracy(classes: Array, labels: Array) -> dict[str, float]:
    return {
        "float": float(np.mean(classes[:, 0] == labels)),
        "integer": float(np.mean(classes[:, 1] == labels)),
    }


class _Clipped:
    """Counts the values of the float model that lie outside of what the integer tensors can hold."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._totals: dict[str, int] = {}

    def add(self, name: str, real: Array, params: QuantParams, dtype: npt.DTypeLike) -> None:
        limits = np.iinfo(dtype)
        integer = real.astype(np.float64) / params.scale + params.zero_point
        outside = (integer < limits.min - 0.5) | (integer > limits.max + 0.5)
        self._counts[name] = self._counts.get(name, 0) + int(outside.sum())
        self._totals[name] = self._totals.get(name, 0) + outside.size

    def share(self, name: str) -> float:
        """Of the values of a tensor, 0 to 1."""
        return round(self._counts.get(name, 0) / max(1, self._totals.get(name, 0)), 6)


def _sources(quantized: QuantizedModel) -> dict[str, list[str]]:
    """The layers whose results each operator reads; through copies, which are not compared."""
    graph = Graph(quantized.module["main"])
    sources: dict[str, list[str]] = {}
    for var, value in graph:
        read: list[str] = []
        for arg in getattr(value, "args", ()):
            name = getattr(graph.storage(arg), "name", "")  # constants and fixed lengths have none
            read += [name] if name in quantized.tensors else sources.get(name, [])
        sources[var.name] = read
    return sources


def _layers(
    rows: list[dict[str, Any]], sources: dict[str, list[str]], clipped: _Clipped
) -> list[dict[str, Any]]:
    ratios = {row["name"]: row["snr_db"] for row in rows}
    found = []
    for row in rows:
        before = min(
            (ratios[name] for name in sources.get(row["name"], []) if name in ratios), default=ROUNDED_DB
        )
        lost = round(max(0.0, before - row["snr_db"]), 2)
        found.append({**row, "lost_db": lost, "clipped": clipped.share(row["name"])})
    return found


def advice(
    inputs: list[dict[str, Any]],
    layers: list[dict[str, Any]],
    sources: Mapping[str, Sequence[str]],
    how: Setup,
) -> list[dict[str, Any]]:
    """What to change where much is lost; empty where nothing is. Rows of `layers` (names, inputs too) and `message`."""
    clipped = _worst([row for row in (*inputs, *layers) if row["clipped"] > CLIPPED], "clipped")
    noisy = _worst([row for row in layers if row["snr_db"] < FAIR_DB], "lost_db")
    found = [_tip(clipped, _of_clipped(clipped, how))] if clipped else []
    wider = _wider(layers, sources, how)
    if wider:
        found.append(_tip(noisy, _of_width(wider, how)))
    if noisy and not clipped:
        found.append(_tip(noisy, _of_ranges(how)))
    if (noisy or clipped) and how.samples < ENOUGH_SAMPLES:
        few = f"Calibration has {how.samples} samples: give {ENOUGH_SAMPLES} or more."
        found.append(_tip(noisy or clipped, few))
    return found


def _worst(rows: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: row[key], reverse=True)[:LAYERS_NAMED]


def _tip(rows: list[dict[str, Any]], message: str) -> dict[str, Any]:
    return {"layers": [row["name"] for row in rows], "message": message}


def _wider(layers: list[dict[str, Any]], sources: Mapping[str, Sequence[str]], how: Setup) -> list[str]:
    """The layers to give to --int16: what the layers that lose something themselves read or write."""
    losing = [row["name"] for row in layers if row["snr_db"] < FAIR_DB and row["lost_db"] >= LOST_DB]
    near = {name for losing_name in losing for name in (losing_name, *sources.get(losing_name, ()))}
    chosen = {needed for name in near for needed in how.int16.get(name, ())}
    return [name for name in how.int16 if name in chosen]


def _of_width(names: list[str], how: Setup) -> str:
    message = f"--int16 {','.join(names)} keeps what they read or write in int16"
    return message + (
        f"; --residual int16 does so for the {how.stream} tensors of the residual stream."
        if how.stream
        else "."
    )


def _of_clipped(rows: list[dict[str, Any]], how: Setup) -> str:
    share = max(row["clipped"] for row in rows)
    message = f"Up to {100 * share:.2g} % of their values lie outside the calibrated range: calibrate with such samples"
    return message + (
        "." if how.range_method == "minmax" else ", or try --range-method minmax, which clips least."
    )


def _of_ranges(how: Setup) -> str:
    if how.range_method == "auto":
        return "Rare large values may widen their ranges: try --range-method percentile, or entropy, which clip them."
    return "Try --range-method auto, which takes the range with the least rounding error for each tensor."

"""A fused module over a task's samples: what its tensors hold, and its outputs as float and as integers."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import tvm
from torch import nn

from tvmtiny.calibration import traced
from tvmtiny.compress.batched import BatchedModel
from tvmtiny.compress.task import Arrays, Split, Task
from tvmtiny.features.attach import periods_of
from tvmtiny.frontend.data import Batch, check_arrays, input_specs
from tvmtiny.passes.quantize import QuantizedModel
from tvmtiny.passes.smooth import smooth
from tvmtiny.passes.weight_types import WeightTypes
from tvmtiny.quant.calibrate import Statistics
from tvmtiny.quant.noise import present, signal_to_noise_db
from tvmtiny.quant.reference import integer_inputs

Array = npt.NDArray[Any]


def statistics_of(fused: tvm.IRModule, task: Task) -> Statistics:
    """What the tensors of the float module hold over the calibration inputs of a task, as the compiler finds it."""
    periods = periods_of(task.files.get("features"), input_specs(fused)[0])
    return Statistics(traced(fused, batch(fused, task.calibration))[1], periods=periods)


def smoother(
    fused: tvm.IRModule, statistics: Statistics, task: Task, types: WeightTypes, method: str
) -> tuple[tvm.IRModule, Statistics]:
    """A fused module with smoother tensors, as `compile --smooth` makes it, and what calibration finds of it."""
    found = smooth(fused, statistics, types, method)
    return found, statistics_of(found, task)


def batch(fused: tvm.IRModule, inputs: Arrays) -> Batch:
    """Inputs of a task as a fused module takes them; raises UserError for those that it does not."""
    specs, mask, tokens = input_specs(fused)
    return check_arrays(dict(inputs), specs, mask, tokens)


def integer_outputs(quantized: QuantizedModel, fused: tvm.IRModule, inputs: Arrays) -> list[Array]:
    """The results of an integer module in real numbers, (N, rows, columns) each, in order."""
    samples, specs = batch(fused, inputs), input_specs(fused)[0]
    rows = [
        integer_inputs(quantized, specs, {name: array[i] for name, array in samples.arrays.items()})
        for i in range(len(samples))
    ]
    stacked = {
        name: torch.from_numpy(np.stack([row[name] for row in rows]).astype(np.int64)) for name in rows[0]
    }
    results = BatchedModel(quantized.module).run(stacked, torch.from_numpy(samples.n_tokens.astype(np.int64)))
    params = [quantized.tensors[name] for name in quantized.outputs]
    return [
        (results[name].numpy() - np.asarray(p.zero_point)) * np.asarray(p.scale)
        for name, p in zip(quantized.outputs, params, strict=True)
    ]


@dataclasses.dataclass(frozen=True)
class Measured:
    """An integer model on a split: the task's metrics, and signal to noise in dB, of the worst output."""

    metrics: dict[str, float]
    snr_db: float


class Judge:
    """Measures integer models of one module on one split."""

    def __init__(self, module: nn.Module, fused: tvm.IRModule, task: Task, split: Split) -> None:
        self._fused, self._task, self._split = fused, task, split
        self._wanted = task.predict(module, split.inputs)
        lengths, tokens = batch(fused, split.inputs).n_tokens, input_specs(fused)[2]
        self._rows = {name: present(x.shape[1:], lengths, tokens) for name, x in self._wanted.items()}

    def measure(self, quantized: QuantizedModel) -> Measured:
        """Metrics, and how near to the float outputs the integer ones are."""
        found = integer_outputs(quantized, self._fused, self._split.inputs)
        outputs = {
            name: rows.reshape(self._wanted[name].shape).astype(np.float32)
            for name, rows in zip(self._task.outputs, found, strict=True)
        }
        worst = min(
            signal_to_noise_db(self._wanted[name], outputs[name], self._rows[name]) for name in outputs
        )
        return Measured(self._task.metrics(outputs, self._split.targets), worst)

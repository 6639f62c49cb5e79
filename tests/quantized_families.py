"""Model families as quantized modules, for the tests of quantization-aware training; needs torch."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tvm
from family_models import FAMILIES, SENSOR, Family, onnx_file
from step_models import CHANNELS, Stream

from tvmtiny.compress.calibrated import statistics_of
from tvmtiny.compress.fused_module import fuse
from tvmtiny.compress.quantized_module import QuantizedModule
from tvmtiny.compress.task import Split, Task
from tvmtiny.passes.quantize import quantize
from tvmtiny.passes.weight_types import weight_types

MODELS = {
    **FAMILIES,
    "stream": Family(Stream, SENSOR, features=(12, CHANNELS)),
    "strided": Family(lambda: Stream(stride=2), SENSOR, features=(24, CHANNELS)),
}


@functools.cache
def family_onnx(name: str) -> bytes:
    """A family's ONNX file."""
    with tempfile.TemporaryDirectory() as directory:
        family = MODELS[name]
        return onnx_file(family, family.module(), Path(directory) / "model.onnx").read_bytes()


@functools.cache
def fused_family(name: str) -> tvm.IRModule:
    """The fused module of a family's ONNX file."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model.onnx"
        path.write_bytes(family_onnx(name))
        return fuse(path)


def family_task(name: str) -> Task:
    """A task around the inputs of a family: what matters here is how it is called."""
    family = MODELS[name]
    split = Split(family.samples(), {"labels": np.zeros(40)})
    return Task(
        model=family.module, outputs=family.outputs, batches=lambda: iter(()), steps=0,
        loss=lambda outputs, targets: next(iter(outputs.values())).sum(), metrics=lambda outputs, targets: {},
        selection=split, test=split, calibration=family.samples(),
    )  # fmt: skip


@functools.cache
def quantized_family(name: str, weights: str = "int4") -> tuple[QuantizedModule, Task]:
    """A family after a step of training, so that nothing is as calibration left it; the same one at each call."""
    fused, task = fused_family(name), family_task(name)
    statistics = statistics_of(fused, task)
    types = weight_types(fused, weights)
    start = quantize(fused, statistics, "minmax", weights=types, rounding="nearest")
    module = QuantizedModule(fused, list(task.calibration), start, types).train()
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    outputs = task.forward(module, tensors(task.calibration))
    sum((x**2).mean() for x in outputs.values()).backward()
    optimizer.step()
    return module.eval(), task


def tensors(arrays: Any) -> dict[str, Any]:
    return {name: torch.from_numpy(values) for name, values in arrays.items()}

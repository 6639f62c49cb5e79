"""A torch module as an ONNX file of static shapes, compared with ONNX Runtime, and what the compiler says of it."""

from __future__ import annotations

import dataclasses
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import tvm
from torch import nn

from tvmtiny.compress.fused_module import fuse
from tvmtiny.compress.quantized_module import QuantizedModule
from tvmtiny.compress.task import Arrays, Task
from tvmtiny.errors import UserError
from tvmtiny.options import ModelOptions
from tvmtiny.report.inspection import Fit, Inspection, inspect
from tvmtiny.target import load_target

OPSET = 18
TOLERANCE = 1e-4
"""Largest difference of an output of torch and of ONNX Runtime, relative to the largest value where that is above 1."""
COMPARED = 32
"""Calibration samples over which they are compared."""
_ESTIMATED = tuple(field.name for field in dataclasses.fields(ModelOptions))


def to_onnx(module: nn.Module, task: Task) -> onnx.ModelProto:
    """The module for one sample.

    Raises:
        UserError: torch cannot export it.
    """
    example = tuple(torch.from_numpy(np.asarray(x[:1])) for x in task.calibration.values())
    try:
        with _quiet():
            program = torch.onnx.export(
                module.eval(),
                example,
                input_names=list(task.calibration),
                output_names=list(task.outputs),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # the exporter passes on whatever any of its parts raises
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"torch cannot export the model to ONNX: {line}", "Use operators that it exports."
        ) from error
    proto = program.model_proto
    strip_origin(proto)
    onnx.checker.check_model(proto, full_check=True)
    return proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on what it supports beyond this model."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def strip_origin(proto: onnx.ModelProto) -> None:
    """Remove stack traces and file names, which differ from machine to machine."""
    graph = proto.graph
    for item in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    proto.ClearField("metadata_props")
    graph.name = "model"


def to_fused(module: nn.Module, task: Task) -> tvm.IRModule:
    """The fused float module of the exported one: its layers have the names that `layer_weights` takes."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model.onnx"
        onnx.save(to_onnx(module, task), str(path))
        return fuse(path)


def exported_form(module: nn.Module) -> nn.Module:
    """What is exported of a module: of one that computes integers, the float module."""
    return module.float_form() if isinstance(module, QuantizedModule) else module


def check_export(proto: onnx.ModelProto, module: nn.Module, task: Task) -> float:
    """The largest difference of any output between ONNX Runtime and torch, over calibration samples.

    Raises:
        UserError: it is above TOLERANCE.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs: Arrays = {name: x[:COMPARED] for name, x in task.calibration.items()}
    expected = task.predict(exported_form(module), inputs)
    rows = range(len(next(iter(inputs.values()))))
    found = [session.run(list(task.outputs), {k: x[i : i + 1] for k, x in inputs.items()}) for i in rows]
    worst = 0.0
    for place, name in enumerate(task.outputs):
        values = np.concatenate([row[place] for row in found])
        error = float(np.abs(values - expected[name]).max())
        if not error <= TOLERANCE * max(1.0, float(np.abs(expected[name]).max())):
            raise UserError(
                f"The exported model's '{name}' differs from torch by {error:.2e}.",
                "The module depends on something that export froze, such as a batch or a branch on values.",
            )
        worst = max(worst, error)
    return worst


def estimate(proto: onnx.ModelProto, options: dict[str, Any]) -> tuple[Inspection, Fit]:
    """What `tvmtiny inspect` says of an exported model on the target of `options`.

    Raises:
        UserError: the model cannot be compiled, with the first reason.
    """
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model.onnx"
        onnx.save(proto, str(path))
        given = ModelOptions(**{name: options[name] for name in _ESTIMATED if name in options})
        found = inspect(str(path), [load_target(options["target"])], given)
    if found.fits:
        return found, found.fits[0]
    if found.unsupported:
        row = found.unsupported[0]
        raise UserError(f"The compiler does not support {row.operator} at node '{row.node}'.", row.remedy)
    raise UserError(found.problems[0].message, found.problems[0].remedy)

"""A module as the compiler sees it: exported to ONNX, imported and fused."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tvm
from torch import nn

from tvmtiny.compress.task import Task
from tvmtiny.frontend import import_model
from tvmtiny.frontend.data import Batch, InputSpec, check_arrays, input_specs
from tvmtiny.passes.pipeline import fusion_passes

OPSET = 18


def export_onnx(module: nn.Module, task: Task, path: Path) -> None:
    """Write `module` for a batch of one, with the names of the task's inputs and outputs."""
    module.eval()
    example = tuple(torch.from_numpy(np.asarray(x[:1])) for x in task.selection.inputs.values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(
            module, example, input_names=list(task.selection.inputs), output_names=list(task.outputs),
            opset_version=OPSET, dynamo=True, verbose=False,
        )  # fmt: skip
    program.save(str(path))


def fused_module(module: nn.Module, task: Task, fold_qk: str = "never") -> tvm.IRModule:
    """The fused float module of `module`; its layers have the names that compiling the exported file gives them."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model.onnx"
        export_onnx(module, task, path)
        imported = import_model(path, None, None)
    return tvm.transform.Sequential(fusion_passes(fold_qk))(imported)


def calibration_batch(
    fused: tvm.IRModule, task: Task, inputs: Any = None
) -> tuple[list[InputSpec], str | None, int, Batch]:
    """Inputs of a fused module, its mask, S, and the samples (the task's calibration when None) as it takes them."""
    specs, length_input, tokens = input_specs(fused)
    batch = check_arrays(task.calibration if inputs is None else inputs, specs, length_input, tokens)
    return specs, length_input, tokens, batch

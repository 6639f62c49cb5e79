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

from tvmtiny.compress.fused_module import fuse
from tvmtiny.compress.task import Task

OPSET = 18


def export_onnx(module: nn.Module, task: Task, path: Path) -> None:
    """Write `module` for a batch of one, with the names of the task's inputs and outputs."""
    module.eval()
    example = tuple(torch.from_numpy(np.asarray(x[:1])) for x in task.calibration.values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(
            module, example, input_names=list(task.calibration), output_names=list(task.outputs),
            opset_version=OPSET, dynamo=True, verbose=False,
        )  # fmt: skip
    program.save(str(path))


def exported_fused(module: nn.Module, task: Task) -> tvm.IRModule:
    """The fused float module of `module`; its layers have the names that compiling the exported file gives them."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model.onnx"
        export_onnx(module, task, path)
        return fuse(path)

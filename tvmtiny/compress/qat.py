"""Quantization-aware training: fine-tuning on the integers that the generated code computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from tvmtiny.compress.calibrated import smoother, statistics_of
from tvmtiny.compress.export import to_fused
from tvmtiny.compress.options import compile_options, with_options
from tvmtiny.compress.progress import Progress
from tvmtiny.compress.quantized_module import QuantizedModule
from tvmtiny.compress.task import Task, Tensors
from tvmtiny.compress.training import Training, fit
from tvmtiny.passes.quantize import quantize
from tvmtiny.passes.weight_types import weight_types


@dataclass(frozen=True)
class FineTuning(Training):
    """A short training, as weights are where they should be but for their rounding."""

    epochs: Annotated[int, Ge(1)] = 3
    learning_rate: Annotated[float, Gt(0)] = 1e-4
    weight_decay: Annotated[float, Ge(0)] = 0.0


def qat(
    module: nn.Module,
    task: Task,
    *,
    weights: Literal["int8", "int4"] = "int4",
    residual: Literal["int8", "int16"] | None = None,
    range_method: Literal["auto", "minmax", "percentile", "entropy"] = "auto",
    start: Literal["nearest", "gptq"] = "gptq",
    learn_steps: bool = True,
    distil: Annotated[float, Interval(ge=0, le=1)] = 1.0,
    train: FineTuning = FineTuning(),
    progress: Progress | None = None,
) -> nn.Module:
    """Train `module` to be good as integers.

    The result computes the integers of the generated C, and gives them as real numbers; exported, it is a float module
    whose compile options (`options.compile_options`) carry the step sizes and the types of its weights, so that
    compiling it gives the C of these integers.

    Args:
        weights: type of the weights; layers whose type `module` already has among its compile options keep it.
        residual: type of the residual stream; None: that among the compile options of `module`, else int8.
        range_method: how the first step sizes are chosen from the task's calibration inputs.
        start: the rounding of weights that training begins with.
        learn_steps: whether step sizes of weights are learned; else they follow from the weights, by the compiler's
            rules. Those of activations always are.
        distil: share of the loss that is the distance from the outputs of `module`; the rest is the task's own.
        train: how; what is left out has the defaults of `FineTuning`.

    Raises:
        UserError: the model has an operator that cannot be trained so, or the loss is not finite.
    """
    progress = progress or Progress()
    fused = to_fused(module, task)
    known = compile_options(module)
    types = weight_types(fused, weights, known.get("layer_weights"))
    residual = residual or known.get("residual", "int8")
    statistics = statistics_of(fused, task)
    if known.get("smooth"):
        fused, statistics = smoother(fused, statistics, task, types, range_method)
    begin = quantize(fused, statistics, range_method, residual, types, rounding=start)
    found = QuantizedModule(fused, list(task.calibration), begin, types, residual, learn_steps)
    if start == "gptq":
        found.round_weights(begin)
    fit(found, task, train, progress=progress, loss=lambda m, x, y: _loss(m, module, task, x, y, distil))
    return with_options(found, **{**known, **found.options(to_fused(found, task))})


def _loss(
    found: nn.Module, teacher: nn.Module, task: Task, inputs: Tensors, targets: Tensors, distil: float
) -> Tensor:
    outputs = task.forward(found, inputs)
    own = task.loss(outputs, targets) if distil < 1 else torch.zeros(())
    if distil == 0:
        return own
    with torch.no_grad():
        wanted = task.forward(teacher.eval(), inputs)
    present = found.present(tuple(inputs.values()))
    distances = [_distance(outputs[name], wanted[name], present) for name in task.outputs]
    return (1 - distil) * own + distil * torch.stack(distances).mean()


def _distance(own: Tensor, wanted: Tensor, present: Tensor | None) -> Tensor:
    """Mean square error over the variance of what is wanted, of outputs with a row a token over the present tokens."""
    if present is not None and wanted.ndim == 3 and wanted.shape[1] == present.shape[1]:
        own, wanted = own[present], wanted[present]
    variance = wanted.var() if wanted.numel() > 1 else wanted.new_zeros(())
    varies = variance > 1e-6 * wanted.square().mean()
    return F.mse_loss(own, wanted) / torch.where(varies, variance, 1.0)

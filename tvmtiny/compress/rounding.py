"""What gradients of quantization-aware training see: float operators over the values that integers stand for.

Rounding counts as the identity within the range of a tensor (straight-through, Bengio et al., arXiv:1308.3432). Step
sizes have the gradient of Esser et al., "Learned step size quantization" (ICLR 2020, arXiv:1902.08153), equation 3, and
its scale, section 2.2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tvmtiny.compress.batched import BatchedModel
from tvmtiny.passes.quantize import QuantizedModel
from tvmtiny.quant import int4
from tvmtiny.quant.qparams import QuantParams

MAGNITUDES = ("branch", "sum")
"""Values of which only the largest magnitude counts; so it is with int16 results."""


class Rounding:
    """Observer of one forward: puts what the integers stand for in the place of each value."""

    def __init__(
        self,
        quantized: QuantizedModel,
        model: BatchedModel,
        results: Mapping[str, Tensor],
        steps: Mapping[str, Tensor],
        wide: set[str],
        keep: Tensor | None,
    ) -> None:
        """For one batch.

        Args:
            results: of `model`, which runs `quantized`.
            steps: those that are learned, by value `<layer>.<value>` and matrix `<layer>.<operand>`.
            wide: values that are int16.
            keep: bool (B, S), the tokens that are there.
        """
        self._quantized, self._model, self._results = quantized, model, results
        self._steps, self._wide, self._keep = steps, wide, keep
        self._largest: dict[str, float] = {}

    def magnitudes(self, names: Sequence[str]) -> Tensor:
        """The largest magnitude that each value had."""
        return torch.tensor([self._largest.get(name, 0.0) for name in names], dtype=torch.float64)

    def value(self, name: str, key: str, x: Tensor) -> Tensor:
        """The value as its integers stand for it."""
        full = f"{name}.{key}"
        if self._keep is not None and x.shape[1] == self._keep.shape[1]:
            x = x.masked_fill(~self._keep[:, :, None], 0)  # nothing is learned from absent tokens
        self._largest[full] = float(x.detach().abs().max())
        if key == "out":
            params = self._quantized.tensors[name]
            return self._rounded(x, full, params, self._results[name].reshape(x.shape))
        inner = self._quantized.chosen.get(full)
        return x if inner is None or key in MAGNITUDES else self._rounded(x, full, inner, None)

    def _rounded(self, x: Tensor, full: str, params: QuantParams, integers: Tensor | None) -> Tensor:
        bits, zero_point = 16 if full in self._wide else 8, int(np.asarray(params.zero_point).reshape(-1)[0])
        low, high = -(1 << (bits - 1)) - zero_point, (1 << (bits - 1)) - 1 - zero_point
        scale = _repeat(torch.tensor(params.scale, dtype=torch.float64).reshape(-1), x.shape[-1])
        rounded = (
            torch.round(x.detach().double() / scale).clamp(low, high)
            if integers is None
            else integers.double() - zero_point
        )
        learned = self._steps.get(full)
        count = x.numel() if learned is None else x.numel() // len(learned)
        return Round.apply(
            x, None if learned is None else _repeat(learned, x.shape[-1]), scale, (low, high), count, rounded
        )

    def weight(self, name: str, operand: str, w: Tensor) -> Tensor:
        """The weight as its integers stand for it."""
        matrix = self._quantized.matrices.get(f"{name}.{operand}")
        if matrix is None:
            found = table_values(self._model, name, operand, w.detach())
            return w if found is None else w + (found - w).detach()
        learned = self._steps.get(f"{name}.{operand}")
        if learned is None:
            return w + (torch.from_numpy(matrix.real).to(w.dtype) - w).detach()
        columns = torch.from_numpy(np.asarray(matrix.columns / np.max(matrix.columns), np.float64)).to(
            w.dtype
        )
        depth, is_int4 = w.shape[1], matrix.groups is not None
        size = int4.GROUP if is_int4 else depth
        scale, wanted = (
            part.repeat_interleave(size, dim=1)[:, :depth]
            for part in (torch.from_numpy(matrix.steps), learned)
        )
        limits = (int4.LOWEST, int4.HIGHEST) if is_int4 else (-128, 127)
        rounded = torch.round(torch.from_numpy(matrix.real) * columns / scale)
        return Round.apply(w * columns, wanted, scale, limits, min(size, depth), rounded) / columns


def table_values(model: BatchedModel, name: str, operand: str, w: Tensor) -> Tensor | None:
    """What the integers of a table `w` stand for, in the unit (of each row) with the least error; None without any."""
    integers = model.constant(name, operand, w.shape[-1])
    if integers is None or integers.shape != w.shape:
        return None
    v = integers.double()
    axis = {} if model.constant(name, "row_factors", 0) is None else {"dim": -1, "keepdim": True}
    unit = (v * w).sum(**axis) / (v * v).sum(**axis).clamp(min=1)
    return (v * unit).to(w.dtype)


class Round(torch.autograd.Function):
    """Integers forward; backward the identity within their range, and the gradient of a learned step size."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        learned: Tensor | None,
        scale: Tensor,
        limits: tuple[int, int],
        count: int,
        rounded: Tensor,
    ) -> Tensor:
        """What integers stand for, in the place of x.

        Args:
            x: real, (..., N).
            learned: the step of each element, in a shape that broadcasts to x; None where steps are not learned.
            scale: the step that the integers have, which may be coarser.
            limits: of integers. count: values that share a step. rounded: the integers, less their zero point.
        """
        ctx.save_for_backward(x.double() / scale, rounded)
        ctx.form = (limits, count, None if learned is None else learned.shape)
        return (rounded * scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x and of learned steps."""
        exact, rounded = ctx.saved_tensors
        (low, high), count, shape = ctx.form
        inside = (exact >= low - 0.5) & (exact <= high + 0.5)
        step = None
        if shape is not None:
            error = torch.where(inside, rounded - exact, rounded)
            step = (gradient * error).sum_to_size(shape) / math.sqrt(count * max(high, -low - 1))
        return gradient * inside, step, None, None, None, None


def _repeat(values: Tensor, columns: int) -> Tensor:
    """One value a column from one a head or one a tensor."""
    return values.repeat_interleave(columns // len(values))

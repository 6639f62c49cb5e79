"""What follows a sum in int32: the residual, then a LayerNorm, a factor a column or one rounding to int8.

Logits are int16, and so is what `passes.int16_layers` chose.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tvm.script import tirx as T

from tvmtiny.kernels import tile
from tvmtiny.kernels.base import Array, Operands
from tvmtiny.quant import integer

IDENTITY = (1 << 30, 2)
"""(multiplier, shift) with multiply_high(t << shift, multiplier) == t."""


@dataclasses.dataclass(frozen=True)
class Epilogue:
    """Integer parameters of the epilogue of a dense, attention, feed-forward or embedding operator.

    Attributes:
        residual: whether a tensor is added, as (x - residual_zero_point) << residual_shift, saturated to `bits`.
        wide_residual: that tensor is int16, with zero point 0, instead of int8.
        norm: whether a LayerNorm follows, with root_extent and epsilon.
        uncentred: whether the LayerNorm does not subtract the mean (RMSNorm).
        scaled: whether a factor and an offset a column follow, with shift; otherwise multiplier, shift and zero_point
            requantize the sum.
        wide: int16 output instead of int8.
    """

    residual: bool = False
    wide_residual: bool = False
    residual_zero_point: int = 0
    residual_shift: int = 0
    bits: int = 32
    norm: bool = False
    uncentred: bool = False
    scaled: bool = False
    root_extent: int = 0
    epsilon: int = 1
    multiplier: int = IDENTITY[0]
    shift: int = IDENTITY[1]
    zero_point: int = 0
    wide: bool = False

    @property
    def dtype(self) -> str:
        """Element type of the output."""
        return "int16" if self.wide else "int8"

    @property
    def residual_dtype(self) -> str:
        """Element type of the tensor that is added."""
        return "int16" if self.wide_residual else "int8"

    def attrs(self) -> dict[str, int]:
        """As attributes of a Relax call."""
        return {f"out_{field.name}": int(getattr(self, field.name)) for field in dataclasses.fields(self)}

    @classmethod
    def of(cls, attrs: dict[str, Any]) -> Epilogue:
        """Back from the attributes of a Relax call."""
        values: dict[str, Any] = {f.name: int(attrs[f"out_{f.name}"]) for f in dataclasses.fields(cls)}
        flags = {
            field.name: bool(values[field.name])
            for field in dataclasses.fields(cls)
            if field.default is False
        }
        return cls(**{**values, **flags})


@T.inline
def finish(t, residual, gamma, beta, out, row, rows, cols, e):
    """Finish rows `row`.. of `out` from the sums t[0:rows]."""
    if e.wide_residual:
        tile.add_residual_s16_s32(t, residual, row, rows, cols, e.residual_shift, e.bits)
    elif e.residual:
        tile.add_residual_s32(t, residual, row, rows, cols, e.residual_zero_point, e.residual_shift, e.bits)
    if e.norm and e.uncentred:
        tile.rms_norm_s8(t, gamma, beta, out, row, rows, cols, e.root_extent, e.epsilon)
    elif e.norm:
        tile.layer_norm_s8(t, gamma, beta, out, row, rows, cols, e.root_extent, e.epsilon)
    elif e.scaled:
        tile.scale_s8(t, gamma, beta, out, row, rows, cols, e.shift)
    elif e.wide:
        tile.requantize_s32_s16(t, out, row, rows, cols, e.multiplier, e.shift, e.zero_point)
    else:
        tile.requantize_s32_s8(t, out, row, rows, cols, e.multiplier, e.shift, e.zero_point)


def finish_reference(t: Array, operands: Operands, e: Epilogue) -> Array:
    """The same in NumPy; t (n, E), result (n, E)."""
    if e.residual:
        x = operands["residual"][: len(t)]
        t = integer.add_residual_s32(t, x, e.residual_zero_point, e.residual_shift, e.bits)
    if e.norm:
        norm = integer.rms_norm_s8 if e.uncentred else integer.layer_norm_s8
        return norm(t, operands["gamma"], operands["beta"], e.epsilon)
    if e.scaled:
        return integer.scale_s8(t, operands["gamma"], operands["beta"], e.shift)
    if e.wide:
        return integer.requantize_s32_s16(t, e.multiplier, e.shift, e.zero_point)
    return integer.requantize_s32_s8(t, e.multiplier, e.shift, e.zero_point)

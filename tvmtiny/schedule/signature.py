"""What two calls of a kernel have in common when one schedule serves both: shapes and form, not integer parameters."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import tvm

from tvmtiny.kernels import Kernel, Operands

_FORM: tuple[str, ...] = (
    *("heads", "epilogue", "before", "after"),
    *("out_residual", "out_wide_residual", "out_norm", "out_uncentred", "out_scaled", "out_wide"),
    *("kv_heads", "kernel", "stride", "tied"),
)
"""Attributes that decide which code a kernel has; the others are numbers of its arithmetic."""

LIMIT = 2.0
"""Octaves by which an extent may differ where a schedule is borrowed: what is good for 32 tokens says little of 500."""


@dataclasses.dataclass(frozen=True)
class Signature:
    """A kernel with its shapes.

    Attributes:
        kernel: of tvmtiny/kernels/.
        shapes: of operands that are present, by name, in the kernel's order.
        form: attributes that decide its code.
        dynamic: whether the number of tokens is known at run time only.
    """

    kernel: str
    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    form: tuple[tuple[str, int], ...]
    dynamic: bool

    @classmethod
    def of(cls, kernel: Kernel, operands: Operands) -> Signature:
        """That of a call, or of operands with their arrays."""
        shapes = tuple((name, operands.shape(name)) for name in kernel.arguments if name in operands)
        form = tuple((name, int(operands.attrs[name])) for name in _FORM if name in operands.attrs)
        return cls(kernel.name, shapes, form, isinstance(operands.n, tvm.ir.Var))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Signature:
        """The inverse of `to_json`. Raises KeyError, TypeError or AttributeError when `data` is none."""
        shapes = tuple((name, tuple(map(_whole, shape))) for name, shape in data["shapes"].items())
        form = tuple((name, _whole(value)) for name, value in data["form"].items())
        return cls(str(data["kernel"]), shapes, form, bool(data["dynamic"]))

    def to_json(self) -> dict[str, Any]:
        """As a record holds it."""
        return {
            "kernel": self.kernel,
            "shapes": {name: list(shape) for name, shape in self.shapes},
            "form": dict(self.form),
            "dynamic": self.dynamic,
        }

    @property
    def text(self) -> str:
        """For people: the kernel with the shapes of its matrices."""
        matrices = (f"{name} {'x'.join(map(str, shape))}" for name, shape in self.shapes if len(shape) > 1)
        return f"{self.kernel}: {', '.join(matrices)}"

    @property
    def brief(self) -> str:
        """For tables and legends: the kernel with the shapes of its first two matrices."""
        matrices = ["x".join(map(str, shape)) for _, shape in self.shapes if len(shape) > 1]
        return f"{self.kernel} {' '.join(matrices[:2])}"

    def distance(self, other: Signature) -> float | None:
        """Octaves between the shapes and forms, summed; None for another kernel or other operands.

        Extents below 1 count as 1. An attribute of the form that differs, or that one of them lacks, counts as at least
        an octave.
        """
        octaves = self._octaves(other)
        return None if octaves is None else sum(octaves)

    def resembles(self, other: Signature) -> bool:
        """Whether a schedule may be borrowed: no extent or number of the form differs by over LIMIT octaves."""
        octaves = self._octaves(other)
        return octaves is not None and max(octaves, default=0) <= LIMIT

    def _octaves(self, other: Signature) -> list[float] | None:
        """Between each extent and that of the other, then between attributes of the form that differ."""
        if self.kernel != other.kernel or self._ranks != other._ranks:
            return None
        extents = [
            _octaves(one, two)
            for (_, mine), (_, theirs) in zip(self.shapes, other.shapes, strict=True)
            for one, two in zip(mine, theirs, strict=True)
        ]
        own, others = dict(self.form), dict(other.form)
        differing = [name for name in own | others if own.get(name) != others.get(name)]
        return extents + [max(1.0, _octaves(own.get(name, 0), others.get(name, 0))) for name in differing]

    @property
    def _ranks(self) -> list[tuple[str, int]]:
        """The operands with how many extents they have."""
        return [(name, len(shape)) for name, shape in self.shapes]


def _octaves(one: int, two: int) -> float:
    return abs(math.log2(max(1, one) / max(1, two)))


def _whole(value: Any) -> int:
    """A number of a record; raises TypeError when it is none."""
    if not isinstance(value, int):
        raise TypeError(f"{value!r} is no whole number")
    return value

"""Run the integer module of a step in NumPy, with its state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import ir

from tvmtiny.kernels import kernel_of, kernels, operands_of
from tvmtiny.kernels.base import Operands
from tvmtiny.passes.graph import Graph, as_array, shape_of

Array = npt.NDArray[Any]


class SteppedReference:
    """The integer module of `passes.step`, executed by the NumPy meaning of each kernel: one sequence at a time.

    Args:
        fills: names of the tensors that live from step to step, and what each row holds before the first token.
    """

    def __init__(self, module: tvm.IRModule, fills: Mapping[str, Sequence[int] | None]) -> None:
        kernels()  # registers the operators that the module uses
        self._graph = Graph(module["main"])
        self._steps = [
            (var, kernel_of(value), operands_of(value))
            for var, value in self._graph
            if kernel_of(value) is not None
        ]
        self._fills = fills
        self.reset()

    def reset(self) -> None:
        """Begin a sequence."""
        self.position = 0
        self._state = {
            param: np.full(shape_of(param), np.asarray(self._fills[param.name] or 0, np.int8))
            for param in self._graph.params
            if param.name in self._fills
        }

    def run(self, inputs: Mapping[str, Array], n: int) -> dict[str, Array]:
        """Every operator's result by variable name for the next n tokens."""
        values: dict[Any, Array] = dict(self._state)
        for param in self._graph.params:
            if param.name in inputs:
                values[param] = inputs[param.name]
        results = {}
        for var, kernel, operands in self._steps:
            assert kernel is not None
            arrays = {name: self._value(values, expr) for name, expr in operands.tensors.items()}
            rows = n if isinstance(operands.n, ir.Var) else int(operands.n)
            values[var] = results[var.name] = kernel.reference(Operands(arrays, None, operands.attrs), rows)
        self.position += n
        return results

    def _value(self, values: dict[Any, Array], expr: Any) -> Any:
        if not hasattr(expr.ty, "shape"):
            return self.position
        storage = self._graph.storage(expr)
        if storage in values:
            return values[storage].reshape(shape_of(expr))
        return np.asarray(as_array(self._graph.producer(expr)))

"""Run an integer module in NumPy: the bytes that every other execution must give."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm

from tvmtiny.frontend.data import InputSpec
from tvmtiny.kernels import kernel_of, operands_of
from tvmtiny.kernels.base import Operands
from tvmtiny.passes.graph import Graph, as_array, shape_of
from tvmtiny.passes.quantize import QuantizedModel
from tvmtiny.passes.recognize_length import LENGTH_PARAMETER
from tvmtiny.quant.qparams import quantize_features

Array = npt.NDArray[Any]


class IntegerModel:
    """The integer module of `passes.quantize`, executed by the NumPy meaning of each kernel."""

    def __init__(self, module: tvm.IRModule) -> None:
        self._graph = Graph(module["main"])
        self._steps = [
            (var, kernel_of(value), operands_of(value))
            for var, value in self._graph
            if kernel_of(value) is not None
        ]

    def run(self, inputs: dict[str, Array], n: int) -> dict[str, Array]:
        """Every operator's result by variable name, in order; the model's outputs are among them."""
        return {name: result for name, _, result in self._results(inputs, n)}

    def operands(self, inputs: dict[str, Array], n: int) -> dict[str, tuple[dict[str, Array], set[str]]]:
        """By the name of its result, what every operator is given, and which of it was computed: is no constant."""
        calls = {var.name: operands.tensors for var, _, operands in self._steps}
        return {
            name: (
                arrays,
                {key for key in arrays if as_array(self._graph.producer(calls[name][key])) is None},
            )
            for name, arrays, _ in self._results(inputs, n)
        }

    def _results(self, inputs: dict[str, Array], n: int) -> Iterator[tuple[str, dict[str, Array], Array]]:
        """Name, operands and result of every operator, in order."""
        values: dict[Any, Array] = {
            param: inputs[param.name] for param in self._graph.params if param.name != LENGTH_PARAMETER
        }
        for var, kernel, operands in self._steps:
            assert kernel is not None
            arrays = {name: _value(self._graph, values, expr) for name, expr in operands.tensors.items()}
            values[var] = kernel.reference(Operands(arrays, None, operands.attrs), n)
            yield var.name, arrays, values[var]


def integer_inputs(
    quantized: QuantizedModel, specs: Sequence[InputSpec], arrays: dict[str, Array]
) -> dict[str, Array]:
    """One sample in the arena's types: ids as uint16, features as int8 a row a token."""
    inputs = {}
    for spec in specs:
        if spec.kind == "tokens":
            inputs[spec.name] = arrays[spec.name].astype(np.uint16)
            continue
        params = quantized.inputs[spec.name]
        rows = arrays[spec.name].reshape(-1, len(params.scale))
        inputs[spec.name] = quantize_features(rows, params.scale, params.zero_point)
    return inputs


def without_absent_rows(output: Array, n: int, max_tokens: int) -> Array:
    """An output as C leaves it: a row a token has zeros for the tokens from n on."""
    if len(output) == max_tokens > 1:
        output = output.copy()
        output[n:] = 0
    return output


def _value(graph: Graph, values: dict[Any, Array], expr: Any) -> Array:
    storage = graph.storage(expr)
    if storage in values:
        return values[storage].reshape(shape_of(expr))
    array = as_array(graph.producer(expr))
    assert array is not None
    return np.asarray(array)

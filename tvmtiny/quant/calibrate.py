"""Run the float module on calibration data and keep what every intermediate value was."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import relax

from tvmtiny.errors import UserError
from tvmtiny.passes.decompose import observe
from tvmtiny.passes.graph import Graph
from tvmtiny.passes.operators import token_rows
from tvmtiny.passes.recognize_length import LENGTH_INPUT_ATTRIBUTE, LENGTH_PARAMETER
from tvmtiny.quant.qparams import QuantParams

Array = npt.NDArray[Any]

INPUT = ".input"
"""Behind the name of an input: the value that it holds."""

ROW_LIMIT = 16384
"""Rows (tokens) of a tensor that are kept; more say nothing new about its range."""


@dataclasses.dataclass(frozen=True)
class Trace:
    """What one run of the float module gave: the results and every intermediate value, present tokens only."""

    outputs: tuple[Array, ...]
    values: dict[str, Array]


class FloatModel:
    """The fused float module on the host CPU, with all intermediate values as outputs."""

    def __init__(self, fused: tvm.IRModule) -> None:
        module, self.names = observe(fused)
        main = fused["main"]
        self._tokens = token_rows(Graph(main))
        self._results = len(Graph(main).results)
        self._parameters = [(param.name, str(param.ty.dtype)) for param in main.params]
        self._vm = relax.VirtualMachine(_executable(module), tvm.cpu())

    def run(self, inputs: dict[str, Array], n: int) -> Trace:
        """One sequence: inputs by name without batch axis, n present tokens."""
        arguments = [
            tvm.runtime.tensor(
                np.asarray(n, np.int64) if name == LENGTH_PARAMETER else inputs[name][None].astype(dtype)
            )
            for name, dtype in self._parameters
        ]
        found = [value.numpy() for value in self._vm["main"](*arguments)]
        results, values = found[: self._results], found[self._results :]
        kept = {
            f"{name}.input": array[:n] if array.shape[0] == self._tokens else array
            for name, array in inputs.items()
        }
        kept |= {
            name: value[:n] if value.shape[0] == self._tokens else value
            for name, value in zip(self.names, values, strict=True)
        }
        return Trace(tuple(result[0] for result in results), kept)


def _executable(module: tvm.IRModule) -> tvm.runtime.Executable:
    """For the host, in little time: more optimization does not make operators that are functions of their own faster.

    Checks of arguments in these functions would be two thirds of the code; the virtual machine checks those of `main`.
    """
    with tvm.transform.PassContext(config={"tirx.disable_assert": True}):
        return tvm.compile(module, target=tvm.target.Target({"kind": "llvm", "opt-level": 1}))


def has_length(main: relax.Function) -> bool:
    """Whether the model takes a number of tokens."""
    return main.attrs is not None and LENGTH_INPUT_ATTRIBUTE in main.attrs


class Statistics:
    """What is known of every tensor: its rows over the calibration samples, or parameters that the model came with."""

    def __init__(
        self,
        traces: Iterable[Trace],
        given: Mapping[str, QuantParams] | None = None,
        inputs: Mapping[str, QuantParams] | None = None,
        periods: Mapping[str, int] | None = None,
    ) -> None:
        """Collect.

        Args:
            traces: of the float module; none where all parameters are given.
            given: of `quant.given.given_parameters`. inputs: of `quant.given.input_params`.
            periods: of inputs whose columns hold the same again and again, after how many columns.
        """
        self.given = dict(given or {})
        self.inputs = dict(inputs or {})
        self.periods = dict(periods or {})
        self.inputs |= {
            name.removesuffix(INPUT): params for name, params in self.given.items() if name.endswith(INPUT)
        }
        rows: dict[str, list[Array]] = {}
        for trace in traces:
            for name, value in trace.values.items():
                rows.setdefault(name, []).append(_finite(name, value))
        self._rows = {name: _sample(np.concatenate(parts)) for name, parts in rows.items()}

    def __getitem__(self, name: str) -> Array:
        """Rows of a tensor, `<layer>.<value>`; raises UserError when there are none."""
        if name not in self._rows:
            layer, _, value = name.rpartition(".")
            raise UserError(
                f"The model has no scale for the tensor '{value}' of '{layer}', and there is no calibration data.",
                "Give representative inputs with --calibration DATA.npz, or quantize this tensor in the model, too.",
            )
        return self._rows[name]

    def knows(self, name: str) -> bool:
        """Whether a tensor has rows or given parameters."""
        return name in self._rows or name in self.given

    def get(self, name: str) -> Array | None:
        """Rows of a tensor, or None."""
        return self._rows.get(name)

    def magnitude(self, name: str) -> float:
        """The largest magnitude (real) that a tensor has, or that its given parameters can hold."""
        if name in self.given:
            params = self.given[name]
            return float(params.scale) * max(128 + int(params.zero_point), 127 - int(params.zero_point))
        return float(np.abs(self[name]).max())

    def __contains__(self, name: str) -> bool:
        return name in self._rows


def _finite(name: str, value: Array) -> Array:
    if not np.all(np.isfinite(value)):
        raise UserError(
            f"The value '{name}' of the float model is not finite on calibration data.",
            "Check the trained weights and the calibration data: they overflow float32.",
        )
    return value


def _sample(rows: Array) -> Array:
    """At most ROW_LIMIT rows, evenly spread."""
    if len(rows) <= ROW_LIMIT:
        return rows
    return rows[np.linspace(0, len(rows) - 1, ROW_LIMIT).astype(int)]


def run_all(
    model: FloatModel,
    arrays: dict[str, Array],
    lengths: Array,
    on_sample: Callable[[int], None] | None = None,
) -> Iterator[Trace]:
    """Run every sample of a batch: arrays (N, ...) by input name, lengths (N,)."""
    for index, n in enumerate(lengths):
        yield model.run({name: array[index] for name, array in arrays.items()}, int(n))
        if on_sample is not None:
            on_sample(index + 1)

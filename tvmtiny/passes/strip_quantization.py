"""A model that its author has quantized becomes the float model that it stands for, with its scales kept beside it.

Importers write such models with `quantize` and `dequantize` around float operators: ONNX in QDQ format, TensorFlow Lite
through TVM's importer, torch's PT2E. Fusion wants the plain float graph. So quantized constants become the real numbers
that they are, each pair of quantize and dequantize becomes its operand, and what the pair knew of the tensor goes into
an attribute of the function. `quant.given` finds these tensors again after fusion.

Between the two an exporter may move integers about (reshape, transpose, gather, clamp): the same is then done to the
real numbers.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import ir, relax

from tvmtiny.errors import UserError
from tvmtiny.passes.graph import Emit, Graph, as_array, constant, function_pass, op_name, rebuild, shape_of
from tvmtiny.passes.numeric import VIEWS, evaluate, literal

Array = npt.NDArray[Any]

GIVEN_ATTRIBUTE = "tvmtiny.given"
"""Function attribute: variable -> [scale, zero point] in int8, of each tensor whose author has quantized it."""

_INTEGERS = ("int4", "uint4", "int8", "uint8", "int16", "uint16", "int32")
_MOVES = (*VIEWS, "concat", "split", "clip", "nn.pad", "nn.relu", "max", "min", "maximum", "minimum")
"""What may happen to quantized integers: moving them, and what keeps their order."""

_REMEDY = (
    "Quantize with a static scale a tensor, int8 or uint8, in QDQ format (ONNX Runtime: quantize_static with "
    "quant_format=QuantFormat.QDQ), or import the float model and give --calibration."
)


def StripQuantization() -> tvm.transform.Pass:  # noqa: N802
    """The pass; modules without quantize and dequantize stay as they are. Raises UserError at what has no int8 form."""
    return function_pass("StripQuantization", _strip)


@dataclasses.dataclass(frozen=True)
class _Grid:
    """real = (value - zero_point) * scale for integers of a type; arrays along `axis` have a scale a channel."""

    scale: Array
    zero_point: Array
    axis: int
    dtype: str

    def real(self, values: Array) -> Array:
        """float32 values, as the operator dequantize gives them."""
        scale, zero = (self._shaped(part, values.ndim) for part in (self.scale, self.zero_point))
        return ((values.astype(np.int64) - zero.astype(np.int64)) * scale.astype(np.float64)).astype(
            np.float32
        )

    def integers(self, values: Array) -> Array:
        """The integers of real values, as the operator quantize gives them."""
        scale, zero = (self._shaped(part, values.ndim) for part in (self.scale, self.zero_point))
        low, high = self.limits
        return np.clip(np.round(values / scale) + zero, low, high).astype(np.int64)

    @property
    def limits(self) -> tuple[int, int]:
        """Least and largest integer of the type."""
        bits, signed = int(self.dtype.lstrip("uint")), not self.dtype.startswith("u")
        return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)

    def _shaped(self, part: Array, rank: int) -> Array:
        if part.size == 1:
            return part.reshape(())
        return part.reshape([-1 if axis == self.axis % rank else 1 for axis in range(rank)])

    def int8(self) -> tuple[float, int]:
        """Scale and zero point of the same grid in int8: uint8 less 128 is int8, value by value."""
        shift = 128 if self.dtype == "uint8" else 0
        return float(self.scale.reshape(())), int(self.zero_point.reshape(())) - shift


def _strip(function: relax.Function) -> relax.Function:
    graph = Graph(function)
    if not any(graph.is_call(value, "quantize", "dequantize") for _, value in graph):
        return function
    stripper = _Stripper(graph)
    params = [stripper.params.get(param, param) for param in graph.params]
    stripped = rebuild(function, stripper.rewrite, params)
    _require_real(stripped)
    return stripped.with_attr(GIVEN_ATTRIBUTE, stripper.given) if stripper.given else stripped


class _Stripper:
    """Rewrites binding by binding; `grids` has what each integer variable of the old function stands for."""

    def __init__(self, graph: Graph) -> None:
        self.given: dict[str, list[float | int]] = {}
        self.grids: dict[Any, _Grid] = {}
        self.params: dict[Any, relax.Var] = {}
        for param in graph.params:
            grid = _grid_of_readers(graph, param) if _is_quantized(param) else None
            if grid is not None:
                self.grids[param] = grid
                self.params[param] = relax.Var(param.name, relax.TensorType(list(shape_of(param)), "float32"))

    def rewrite(self, graph: Graph, var: relax.Var, value: Any, emit: Emit) -> Any | None:
        if isinstance(value, relax.Call) and op_name(value) == "quantize":
            return self._quantize(graph, var, value, emit)
        if isinstance(value, relax.Call) and op_name(value) == "dequantize":
            return self._dequantize(graph, var, value, emit)
        if isinstance(value, ir.Var) and value in self.grids:
            self.grids[var] = self.grids[value]
        if isinstance(value, relax.TupleGetItem) and value.tuple_value in self.grids:
            self.grids[var] = self.grids[value.tuple_value]
        if isinstance(value, relax.Call) and any(arg in self.grids for arg in _operands(value)):
            return self._move(graph, var, value, emit)
        if isinstance(value, relax.Call) and _is_quantized(var) and op_name(value) in VIEWS:
            grid = _grid_of_readers(graph, var)
            return None if grid is None else self._move(graph, var, value, emit, grid)
        return None

    def _quantize(self, graph: Graph, var: relax.Var, call: relax.Call, emit: Emit) -> Any:
        grid = self.grids[var] = _grid(graph, var, call)
        array = as_array(graph.producer(call.args[0]))
        if array is not None:
            return constant(grid.real(grid.integers(array)))
        return self._named(call.args[0], grid, var, emit)

    def _dequantize(self, graph: Graph, var: relax.Var, call: relax.Call, emit: Emit) -> Any:
        grid, values = _grid(graph, var, call), call.args[0]
        array = as_array(graph.producer(values))
        if array is not None:
            return constant(grid.real(array))
        own = self.grids.get(values)
        if own is None:
            raise UserError(
                f"Node '{var.name}' dequantizes integers that no constant, input or quantize gives.", _REMEDY
            )
        if not (np.array_equal(own.scale, grid.scale) and np.array_equal(own.zero_point, grid.zero_point)):
            raise UserError(f"Node '{var.name}' dequantizes with another scale than its input has.", _REMEDY)
        if graph.is_call(values, "quantize"):
            return values  # named there
        return self._named(self.params.get(values, values), grid, var, emit)

    def _named(self, expr: Any, grid: _Grid, var: relax.Var, emit: Emit) -> Any:
        """The expression under a variable of its own, which `given` knows by name."""
        if grid.scale.size != 1 or grid.dtype not in ("int8", "uint8"):
            kind = f"a scale for each of {grid.scale.size} channels" if grid.scale.size > 1 else grid.dtype
            raise UserError(f"Node '{var.name}' quantizes a computed tensor to {kind}.", _REMEDY)
        scale, zero_point = grid.int8()
        alias = emit(expr)
        if np.isfinite(scale) and scale > 0:  # a mask of -inf gets no scale, and needs none
            self.given[alias.name] = [scale, zero_point]
        return alias

    def _move(
        self, graph: Graph, var: relax.Var, call: relax.Call, emit: Emit, grid: _Grid | None = None
    ) -> Any:
        """The same operator on real numbers."""
        name = op_name(call)
        grid = grid or next(self.grids[arg] for arg in _operands(call) if arg in self.grids)
        if name not in _MOVES or not _is_quantized(var):
            raise UserError(f"Node '{var.name}' computes {name} of quantized integers.", _REMEDY)
        self.grids[var] = grid
        if name == "clip":
            return _clamped(self._real(graph, call.args[0], grid), call, grid, emit)
        if name == "nn.relu":  # of integers: their zero is another number
            return relax.op.maximum(self._real(graph, call.args[0], grid), constant(grid.real(np.asarray(0))))
        if name == "nn.pad":
            padding = float(grid.real(np.asarray(int(call.attrs.pad_value))).reshape(()))
            widths = [int(width) for width in call.attrs.pad_width]
            return relax.op.nn.pad(self._real(graph, call.args[0], grid), widths, pad_value=padding)
        args = [
            relax.Tuple([self._real(graph, field, grid) for field in arg.fields])
            if isinstance(arg, relax.Tuple)
            else self._real(graph, arg, grid)
            for arg in call.args
        ]
        return relax.Call(call.op, args, call.attrs)

    def _real(self, graph: Graph, expr: Any, grid: _Grid) -> Any:
        """An operand of an operator on integers of one grid, as real numbers; indices and shapes stay."""
        array = as_array(graph.producer(expr))
        if array is not None and str(array.dtype) == grid.dtype:
            return constant(grid.real(array))
        own = self.grids.get(expr)
        if own is not None and not (own.scale == grid.scale and own.zero_point == grid.zero_point):
            raise UserError(f"An operator joins integers of two scales at '{expr.name}'.", _REMEDY)
        return self.params.get(expr, expr)


def _clamped(x: Any, call: relax.Call, grid: _Grid, emit: Emit) -> Any:
    """A clamp of integers that stand for `x`; a bound that the type has anyway is none: a ReLU is recognised."""
    low, high = call.args[1:]
    least, most = grid.limits
    bounds = {name: literal(bound) for name, bound in (("low", low), ("high", high))}
    if bounds["low"] is not None and bounds["low"] > least:
        x = emit(relax.op.maximum(x, constant(grid.real(np.asarray(int(bounds["low"]))))))
    if bounds["high"] is not None and bounds["high"] < most:
        x = emit(relax.op.minimum(x, constant(grid.real(np.asarray(int(bounds["high"]))))))
    return x


def _operands(call: relax.Call) -> list[Any]:
    return [field for arg in call.args for field in (arg.fields if isinstance(arg, relax.Tuple) else [arg])]


def _is_quantized(var: Any) -> bool:
    types = var.ty.fields if isinstance(var.ty, relax.TupleType) else [var.ty]
    return all(isinstance(ty, relax.TensorType) and str(ty.dtype) in ("int8", "uint8") for ty in types)


def _grid(graph: Graph, var: relax.Var, call: relax.Call) -> _Grid:
    """The parameters of a quantize or dequantize."""
    scale, zero_point = (evaluate(graph, arg, {}) for arg in call.args[1:3])
    dtype = str(var.ty.dtype) if op_name(call) == "quantize" else str(call.args[0].ty.dtype)
    if scale is None or zero_point is None:
        raise UserError(f"The scale of node '{var.name}' is computed at run time.", _REMEDY)
    if dtype not in _INTEGERS or str(np.asarray(scale).dtype) != "float32":
        raise UserError(f"Node '{var.name}' quantizes to {dtype}.", _REMEDY)
    return _Grid(np.asarray(scale), np.asarray(zero_point), int(call.attrs.axis), dtype)


def _grid_of_readers(graph: Graph, var: Any) -> _Grid | None:
    """What an integer input or constant stands for: its first dequantize says so, perhaps behind moves."""
    pending = [var]
    while pending:
        for user in graph.users(pending.pop(0)):
            value = graph.bound(user)
            if graph.is_call(user, "dequantize"):
                return _grid(graph, user, value)
            if isinstance(value, relax.Call) and op_name(value) in _MOVES:
                pending.append(user)
    return None


def _require_real(function: relax.Function) -> None:
    graph = Graph(function)
    for var, value in graph:
        if isinstance(var.ty, relax.TensorType) and str(var.ty.dtype) in ("int8", "uint8"):
            name = op_name(value) if isinstance(value, relax.Call) else type(value).__name__
            raise UserError(f"Node '{var.name}' computes {name} with 8-bit integers.", _REMEDY)

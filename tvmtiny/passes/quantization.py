"""What quantizing an operator needs of the module around it: operands, ranges, epilogues."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import ir, relax, tirx

from tvmtiny.errors import UserError
from tvmtiny.kernels import emit_call
from tvmtiny.kernels.epilogue import Epilogue
from tvmtiny.kernels.weights import GROUPS
from tvmtiny.passes.fuse_feed_forward import readers
from tvmtiny.passes.fuse_unit_length import divides_by_length
from tvmtiny.passes.graph import Builder, Graph, array_of, as_array, constant, op_name, shape_of
from tvmtiny.passes.int16_layers import int16_layers
from tvmtiny.passes.numeric import VIEWS
from tvmtiny.passes.operators import (
    RMS_NORM,
    SCALE,
    WEIGHTED,
    attributes,
    id_tables,
    kind,
    parts,
    token_rows,
)
from tvmtiny.passes.recognize_length import LENGTH_PARAMETER
from tvmtiny.passes.residual_stream import adds
from tvmtiny.passes.token_axes import TokenAxes
from tvmtiny.passes.views import View, affine, is_identity, trace
from tvmtiny.passes.weight_types import WeightTypes, weight_types
from tvmtiny.quant import int4, qparams, ranges
from tvmtiny.quant.calibrate import Statistics, has_length
from tvmtiny.quant.integer import root_extent
from tvmtiny.quant.qparams import IntegerWeights, QuantParams

Array = npt.NDArray[Any]

MAX_VOCABULARY = 1 << 16
"""Ids are uint16 in the arena."""


KEPT, SYMMETRIC = "kept", "symmetric"
"""What became of a scale that the model came with: SYMMETRIC is one without its zero point, over the same range."""


@dataclasses.dataclass(frozen=True)
class Value:
    """A tensor of the integer module."""

    expr: Any
    params: QuantParams

    @property
    def bits(self) -> int:
        """Width of an element, 8 or 16."""
        return 16 if str(self.expr.ty.dtype) == "int16" else 8


class Quantization:
    """One module on its way to integers: what is known of its tensors, and the steps that operators share."""

    def __init__(
        self,
        fused: tvm.IRModule,
        statistics: Statistics,
        method: str,
        residual: str = "int8",
        weights: WeightTypes | None = None,
        int16: Sequence[str] = (),
        rounding: str = "auto",
        bias_correction: bool = False,
    ) -> None:
        self.main = fused["main"]
        self.graph = Graph(self.main)
        self.statistics = statistics
        self.method = method
        self.wide = int16_layers(self.graph, residual, int16)
        self.weights = weights or weight_types(fused)
        self.rounding = rounding
        self.bias_correction = bias_correction
        self.builder = Builder()
        self.values: dict[Any, Value] = {}
        self.copies: dict[tuple[Any, tuple[int, ...], bytes], Any] = {}
        self.rounded: dict[Any, Value] = {}
        self.symmetric_names: set[str] = set()
        self.token_axes: dict[Any, TokenAxes] = {}
        self.inputs: dict[str, QuantParams] = {}
        self.scales: dict[str, str] = {}
        self.chosen: dict[str, QuantParams] = {}
        self.matrices: dict[str, IntegerWeights] = {}
        self.has_length = has_length(self.main)
        self.max_tokens = token_rows(self.graph)
        self.n = (
            tirx.Var(LENGTH_PARAMETER, "int32") if self.has_length else tirx.IntImm("int32", self.max_tokens)
        )
        self.results = [trace(self.graph, result).root for result in self.graph.results]
        params = [self.input(param) for param in self.main.params if param.name != LENGTH_PARAMETER]
        self.params = {param.name: param for param in params}

    def length(self, var: relax.Var, call: relax.Call) -> Any:
        """How many rows of its first operand a fused operator works on: the present tokens, where rows are tokens."""
        if self.has_length and -2 in self.token_axes[var].tokens:
            return self.n
        return tirx.IntImm("int32", shape_of(call.args[0])[0])

    def integer_weights(
        self, name: str, operand: str, weight: Array, bias: Array, x: QuantParams, observed: Array | None
    ) -> IntegerWeights:
        """A real matrix (N, K) of the layer `name` in the type that it is to have; observed: real inputs (R, K)."""
        kind_of_weights, key = self.weights[name], f"{name}.{operand}"
        by_data = self.rounding == "gptq" or (self.rounding == "auto" and kind_of_weights == "int4")
        given = self._given_steps(key, len(weight), weight.shape[1], kind_of_weights)
        found = qparams.WEIGHTS[kind_of_weights](weight, bias, x, observed if by_data else None, given)
        if self.bias_correction and observed is not None:
            found = found.corrected(weight, observed)
        self.matrices[key] = found
        return found

    def _given_steps(self, key: str, rows: int, depth: int, kind_of_weights: str) -> Array | None:
        """The step sizes of weights that were given, (rows, groups of a row); raises UserError for others."""
        given = self.statistics.given.get(key)
        if given is None:
            return None
        shape = (rows, int4.groups_of(depth) if kind_of_weights == "int4" else 1)
        if np.shape(given.scale) != shape or np.any(given.zero_point):
            raise UserError(
                f"'{key}' has scales of shape {np.shape(given.scale)}, or zero points.",
                f"Its {kind_of_weights} weights need {shape[0]} lists of {shape[1]} scales and no zero points.",
            )
        self.scales[key] = KEPT
        return np.asarray(given.scale)

    def observed(self, expr: Any) -> Array | None:
        """Rows of an operand in calibration; None where an operator reads it in another order or shape."""
        view = trace(self.graph, expr)
        key = f"{view.root.name}.{'input' if view.root in self.main.params else 'out'}"
        if key not in self.statistics or not is_identity(view):
            return None
        rows = self.statistics[key]
        return rows if rows.ndim == 2 and rows.shape[1] == shape_of(expr)[-1] else None

    # operands

    def input(self, param: relax.Var) -> relax.Var:
        """The parameter of the integer module: ids (S,) uint16, or features (rows, F) int8 scaled a column."""
        reader, shape = self._first_reader(param)
        for ids, table in id_tables(reader):
            if trace(self.graph, ids).root.same_as(param):
                self._check_vocabulary(param, shape_of(table)[0])
                return relax.Var(param.name, relax.TensorType([shape[-1]], "uint16"))
        self.inputs[param.name] = self._feature_params(param, shape[-1])
        self.chosen[f"{param.name}.input"] = self.inputs[param.name]
        return relax.Var(param.name, relax.TensorType(list(shape), "int8"))

    def _feature_params(self, param: relax.Var, columns: int) -> QuantParams:
        given = self.statistics.inputs.get(param.name)
        if given is not None:
            params = qparams.given_columns(_repeated(given, columns, f"{param.name}.input"), columns)
            if params is not None and (self._only_projected(param) or qparams.is_uniform(params)):
                self.scales[f"{param.name}.input"] = KEPT
                return params
        period = math.gcd(columns, self.statistics.periods.get(param.name, columns))
        values = self.statistics[f"{param.name}.input"].reshape(-1, period)
        low, high = (np.tile(end, columns // period) for end in (values.min(axis=0), values.max(axis=0)))
        if not self._only_projected(param):
            low, high = np.full_like(low, low.min()), np.full_like(high, high.max())
        return qparams.columns(low, high)

    def _check_vocabulary(self, param: relax.Var, rows: int) -> None:
        if rows > MAX_VOCABULARY:
            raise UserError(
                f"The input '{param.name}' has a vocabulary of {rows} ids; at most {MAX_VOCABULARY} are supported.",
                "Train with a smaller vocabulary: its table would not fit into a microcontroller's flash.",
            )

    def _only_projected(self, param: relax.Var) -> bool:
        """Whether `param` only ever meets weights, into which a scale a column can go; a sum needs one scale."""
        for _, value in self.graph:
            for index, arg in enumerate(value.args if kind(value) else []):
                view = trace(self.graph, arg) if hasattr(arg, "ty") else None
                reads = view is not None and view.root.same_as(param)
                whole = index == 0 and kind(value) in WEIGHTED
                if view is not None and reads and not (whole and is_identity(view)):
                    return False
        return not any(
            param.same_as(root)
            for _, value in self.graph
            if isinstance(value, relax.Call) and not kind(value) and op_name(value) not in VIEWS
            for arg in value.args
            for field in (arg.fields if isinstance(arg, relax.Tuple) else [arg])
            for root in ([trace(self.graph, field).root] if isinstance(field, ir.Var) else [])
        )

    def _first_reader(self, param: relax.Var) -> tuple[Any, tuple[int, ...]]:
        """An operator that reads `param`, and rows and columns: as it reads them, if it reads each element once."""
        own = (int(np.prod(shape_of(param)[:-1], dtype=np.int64)), shape_of(param)[-1])
        for _, value in self.graph:
            for arg in value.args if kind(value) else []:
                if hasattr(arg, "ty") and trace(self.graph, arg).root.same_as(param):
                    shape = shape_of(arg)
                    return value, shape if np.prod(shape) == np.prod(own) else own
        for user in self.graph.users(param):
            if isinstance(self.graph.bound(user), relax.Call):
                return self.graph.bound(user), own
        raise UserError(f"The input '{param.name}' is not used by the model.", "Export the model without it.")

    def operand(self, expr: Any, *, int16: bool = False) -> Value:
        """The integer tensor of an operand of the float module, in the operand's shape and order.

        Args:
            int16: whether its reader takes int16 as well; else it gets an int8 copy of what is int16.
        """
        view = trace(self.graph, expr)
        value = self._root(view.root, int16=int16 and is_identity(view))
        if is_identity(view):
            return Value(self.shaped(value.expr, shape_of(expr)), value.params)
        return Value(self.shaped(self._copy(view, value), shape_of(expr)), value.params)

    def _root(self, root: Any, *, int16: bool = False) -> Value:
        if root in self.values:
            return self._int8(root) if self.is_wide(root) and not int16 else self.values[root]
        params = self.inputs.get(root.name, QuantParams(1.0))
        if np.ndim(params.scale) > 0 and not self._only_projected(root):
            params = QuantParams(float(params.scale[0]), int(params.zero_point[0]))
        return Value(self.params[root.name], params)

    def _int8(self, root: Any) -> Value:
        """The int8 copy of an int16 tensor: rounded once, for all readers that take int8."""
        if root not in self.rounded:
            value = self.values[root]
            shift = qparams.norm_shift(qparams.SUM_BITS, value.bits)
            epilogue = Epilogue(
                residual=True, wide_residual=True, residual_shift=shift, bits=qparams.SUM_BITS
            )
            epilogue, out = self._rounding(
                root.name, epilogue, float(value.params.scale) / 2**shift, self.range_of(root.name, "out")
            )
            length = self.length(root, self.graph.bound(root))
            call = emit_call("layer_norm", {"residual": value.expr}, length, **epilogue.attrs())
            self.rounded[root] = Value(self.builder.emit(call, name_hint=f"{root.name}_int8"), out)
        return self.rounded[root]

    def tensor(self, expr: Any) -> Value:
        """As `operand`; constants become int8, too."""
        array = as_array(self.graph.producer(expr))
        if array is None:
            return self.operand(expr)
        values, params = qparams.quantized_constant(array, offset=False)
        return Value(constant(values), params)

    def broadcast(self, expr: Any, shape: tuple[int, ...], *, swap: bool = False) -> Value:
        """A tensor repeated to `shape`; with `swap` its last two axes change places then."""
        array = as_array(self.graph.producer(expr))
        if array is not None:
            full = np.broadcast_to(array, shape)
            return self.tensor(constant(np.ascontiguousarray(np.swapaxes(full, -1, -2) if swap else full)))
        view = trace(self.graph, expr)
        index = np.broadcast_to(view.index, shape)
        index = np.swapaxes(index, -1, -2) if swap else index
        ones = np.ones(index.shape)
        view = View(view.root, index, ones, 0 * ones)
        value = self._root(view.root)
        return value if is_identity(view) else Value(self._copy(view, value), value.params)

    def symmetric(self, value: Value) -> Value:
        """The same tensor with zero point 0."""
        if int(value.params.zero_point) == 0:
            return value
        largest = float(value.params.scale) * max(
            abs(-128 - int(value.params.zero_point)), abs(127 - int(value.params.zero_point))
        )
        params = qparams.symmetric(-largest, largest)
        table = qparams.table(lambda x: x, value.params, params)
        size = int(np.prod(shape_of(value.expr)))
        tensors = {"x": self.shaped(value.expr, (1, size)), "table": constant(table)}
        return Value(self.builder.emit(emit_call("lookup", tensors, self.n)), params)

    def result(self, expr: Any) -> tuple[str, Value]:
        """A result of the model in rows and columns, and the name of the variable that holds its bytes."""
        view = trace(self.graph, expr)
        value = self._root(view.root)
        if is_identity(view):
            return view.root.name, value
        copied = self._copy(view, value, self.graph.producer_variable(expr).name)
        *rows, cols = shape_of(expr)
        return copied.name, Value(
            self.shaped(copied, (int(np.prod(rows, dtype=np.int64)), cols)), value.params
        )

    def shaped(self, expr: Any, shape: tuple[int, ...]) -> Any:
        """An integer tensor under another shape; constants are reshaped at once."""
        if shape_of(expr) == shape:
            return expr
        array = as_array(expr)
        if array is not None:
            return constant(array.reshape(shape))
        return self.builder.emit(relax.op.reshape(expr, shape))

    def _copy(self, view: View, value: Value, name: str = "") -> Any:
        """The elements that a view shows, in its order: made once for all its readers."""
        key = (view.root, view.index.shape, view.index.tobytes())
        if key not in self.copies:
            flat = self.shaped(value.expr, (int(np.prod(shape_of(value.expr))),))
            form = affine(view.index)
            if form is not None:
                extents, strides, base = form
                attrs = {f"d{axis}": extent for axis, extent in enumerate(extents)}
                attrs |= {f"x{axis}": stride for axis, stride in enumerate(strides)}
                call = emit_call("copy", {"x": flat}, self.n, base=base, **attrs)
            else:
                places = constant(view.index.reshape(-1).astype(np.uint16))
                call = emit_call("copy", {"x": flat, "index": places}, self.n)
            self.copies[key] = self.builder.emit(call, name_hint=name or f"{view.root.name}_view")
        return self.copies[key]

    def range_of(self, name: str, key: str, *, symmetric: bool = False) -> QuantParams:
        """Parameters for the observed value `<name>.<key>` of an operator: those that the model came with, if any."""
        symmetric = symmetric or (key == "out" and name in self.symmetric_names)
        params = self._given(f"{name}.{key}", symmetric=symmetric)
        if params is None:
            low, high = ranges.choose(self.statistics[f"{name}.{key}"], self.method, symmetric=symmetric)
            params = qparams.symmetric(low, high) if symmetric else qparams.asymmetric(low, high)
        self.chosen[f"{name}.{key}"] = params
        return params

    def magnitude(self, name: str, key: str) -> float:
        """The largest magnitude (real) of the value `<name>.<key>`."""
        largest = self.statistics.magnitude(f"{name}.{key}")
        self.chosen[f"{name}.{key}"] = qparams.holding(largest)
        return largest

    def _given(self, key: str, *, symmetric: bool) -> QuantParams | None:
        """The parameters of a value that the model came with, with zero point 0 where that is asked for."""
        given = self.statistics.given.get(key)
        if given is None:
            return None
        self.scales[key] = SYMMETRIC if symmetric and int(given.zero_point) else KEPT
        return qparams.made_symmetric(given) if symmetric else given

    def is_clamp(self, name: str, activation: str) -> bool:
        """Whether an activation changes nothing within the range of its result, and all that is known is that."""
        return activation == "relu6" and not self.statistics.knows(f"{name}.pre")

    def norm_range(self, name: str, gamma: Array, beta: Array) -> QuantParams:
        """Of a normalization. Rows of length 1 are symmetric: products of their integers are similarities."""
        return self.range_of(name, "out", symmetric=divides_by_length(gamma, beta))

    def head_scales(self, name: str, key: str, heads: int, factors: Array | float = 1.0) -> Array:
        """A symmetric scale for each head of a (tokens, H * P) tensor, its columns multiplied by `factors`."""
        given = self._given(f"{name}.{key}", symmetric=True)
        if given is not None and np.all(np.asarray(factors) == 1):
            scales = _repeated(given, heads, f"{name}.{key}").scale
        else:
            rows = self.statistics[f"{name}.{key}"] * factors
            parts = (
                ranges.choose(part, self.method, symmetric=True) for part in np.split(rows, heads, axis=1)
            )
            scales = np.array([float(qparams.symmetric(*part).scale) for part in parts])
        self.chosen[f"{name}.{key}"] = QuantParams(scales)
        return scales

    # epilogues

    def epilogue(
        self, var: relax.Var, call: relax.Call, accumulator: Array, bound: Array
    ) -> tuple[Epilogue, float, dict[str, Any], QuantParams]:
        """The epilogue after a sum: its parameters, the sum's scale, its operands, the result's parameters."""
        _, residual, _ = parts(call)
        bits = self.sum_bits(call)
        operands: dict[str, Any] = {}
        if residual is None:
            total = qparams.branch_sum(accumulator, bound, bits)
            epilogue = Epilogue(bits=bits)
        else:
            value = self._residual(residual)
            largest = self._largest_sum(var)
            total = qparams.residual_sum(
                value.params, largest, bits, accumulator, float(bound.max()), var.name, value.bits
            )
            operands["residual"] = value.expr
            epilogue = Epilogue(
                residual=True,
                wide_residual=value.bits == 16,
                residual_zero_point=int(value.params.zero_point),
                residual_shift=total.residual_shift,
                bits=bits,
            )
        epilogue, extra, out = self.finish(var, call, epilogue, total.scale)
        return epilogue, total.scale, {**operands, **extra}, out

    def finish(
        self, var: relax.Var, call: relax.Call, epilogue: Epilogue, scale: float
    ) -> tuple[Epilogue, dict[str, Any], QuantParams]:
        """What follows a sum in units of `scale`: a LayerNorm or one rounding."""
        _, _, norm = parts(call)
        if norm is not None:
            gamma, beta = (array_of(part) for part in norm)
            out = self.norm_range(var.name, gamma, beta)
            if attributes(call)["norm"] == SCALE:
                g, b, shift, out = qparams.scale_constants(gamma, beta, scale, out, var.name)
                epilogue = dataclasses.replace(epilogue, scaled=True, shift=shift)
                return epilogue, {"gamma": constant(g), "beta": constant(b)}, out
            uncentred = attributes(call)["norm"] == RMS_NORM
            g, b, epsilon = qparams.norm_constants(
                gamma, beta, attributes(call)["epsilon"], scale, out, uncentred
            )
            epilogue = dataclasses.replace(
                epilogue, norm=True, uncentred=uncentred, root_extent=root_extent(len(gamma)), epsilon=epsilon
            )
            return epilogue, {"gamma": constant(g), "beta": constant(b)}, out
        wide = self.is_wide(var) or (self.is_last(var) and kind(call) == "dense")
        if wide:
            floor = max(self._floors(var), default=0.0)
            out = qparams.wide(self.magnitude(var.name, "out"), floor)
        else:
            out = self.range_of(var.name, "out")
        epilogue, out = self._rounding(var.name, dataclasses.replace(epilogue, wide=wide), scale, out)
        return epilogue, {}, out

    @staticmethod
    def _rounding(
        name: str, epilogue: Epilogue, scale: float, out: QuantParams
    ) -> tuple[Epilogue, QuantParams]:
        """The one rounding of a sum in units of `scale` to a result that is not much finer than it."""
        out = dataclasses.replace(out, scale=max(out.scale, scale / qparams.MAX_REAL_MULTIPLIER))
        multiplier, shift = qparams.fixed_point(scale / out.scale)
        qparams.check_shift(2.0 ** (epilogue.bits - 1) if epilogue.residual else 2.0**24, shift, name)
        epilogue = dataclasses.replace(
            epilogue, multiplier=int(multiplier[0]), shift=shift, zero_point=int(out.zero_point)
        )
        return epilogue, out

    def is_wide(self, var: relax.Var) -> bool:
        """Whether the result of a layer is one of those that are int16."""
        return any(var.same_as(member) for member in self.wide)

    def _largest_sum(self, var: relax.Var) -> float:
        """The largest magnitude (real) that a sum with a residual takes in calibration, its branch included."""
        return max(self.magnitude(var.name, key) for key in ("branch", "sum"))

    def _floors(self, var: relax.Var) -> list[float]:
        """The finest scale that each sum to which `var` is added takes of it."""
        sums = [reader for reader in readers(self.graph, var) if adds(self.graph, reader, var)]
        return [
            qparams.wide_residual_floor(self._largest_sum(reader), self.sum_bits(self.graph.bound(reader)))
            for reader in sums
        ]

    @staticmethod
    def sum_bits(call: relax.Call) -> int:
        """Width of the sum in front of the epilogue of an operator."""
        _, _, norm = parts(call)
        if norm is None or attributes(call)["norm"] == SCALE:
            return qparams.SUM_BITS
        return qparams.norm_bits(shape_of(norm[0])[0])

    def is_last(self, var: relax.Var) -> bool:
        """Whether a variable is a result of the model that no operator reads: logits, which may be int16."""
        return any(var.same_as(result) for result in self.results) and not any(
            kind(self.graph.bound(user)) for user in readers(self.graph, var)
        )

    def _residual(self, expr: Any) -> Value:
        array = as_array(expr)
        if array is None:
            return self.operand(expr, int16=True)
        values, params = qparams.quantized_constant(array, offset=True)
        return Value(constant(values), params)


def _repeated(params: QuantParams, count: int, name: str) -> QuantParams:
    """Parameters of a tensor as those of its `count` parts; those that have parts, a multiple of them, stay."""
    size = max(np.size(params.scale), np.size(params.zero_point))
    if size % count and size != 1:
        raise UserError(f"'{name}' has {size} scales.", f"It has {count} parts: give one scale, or {count}.")
    shape = (max(size, count),)
    return QuantParams(
        np.broadcast_to(np.asarray(params.scale, np.float64), shape),
        np.broadcast_to(params.zero_point, shape),
    )


def dense_tensors(
    dense: qparams.DenseParams, weight: str = "weight", bias: str = "bias", multiplier: str = "multiplier"
) -> dict[str, Any]:
    """The operands of a kernel that a dense layer makes, by the names that the kernel gives them."""
    return {
        weight: constant(dense.weight),
        GROUPS[weight]: None if dense.groups is None else constant(dense.groups),
        bias: constant(dense.bias),
        multiplier: constant(dense.multiplier),
    }

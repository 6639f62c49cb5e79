"""What quantizing an operator needs of the module around it: operands, ranges, epilogues."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import relax, tirx

from tvmtiny.errors import UserError
from tvmtiny.kernels.epilogue import Epilogue
from tvmtiny.passes.fuse_feed_forward import readers
from tvmtiny.passes.graph import Graph, array_of, as_array, constant, shape_of
from tvmtiny.passes.operators import attributes, kind, parts, token_rows
from tvmtiny.passes.recognize_length import LENGTH_PARAMETER
from tvmtiny.passes.views import trace
from tvmtiny.quant import qparams, ranges
from tvmtiny.quant.calibrate import Statistics, has_length
from tvmtiny.quant.integer import root_extent
from tvmtiny.quant.qparams import QuantParams

Array = npt.NDArray[Any]

LOGIT_HEADROOM = 2.0
"""Logits may exceed their calibrated magnitude by this factor before int16 saturates."""

MAX_VOCABULARY = 1 << 16
"""Ids are uint16 in the arena."""


@dataclasses.dataclass(frozen=True)
class Value:
    """A tensor of the integer module."""

    expr: Any
    params: QuantParams


class Quantization:
    """One module on its way to integers: what is known of its tensors, and the steps that operators share."""

    def __init__(self, fused: tvm.IRModule, statistics: Statistics, method: str) -> None:
        self.main = fused["main"]
        self.graph = Graph(self.main)
        self.statistics = statistics
        self.method = method
        self.values: dict[Any, Value] = {}
        self.inputs: dict[str, QuantParams] = {}
        self.has_length = has_length(self.main)
        self.max_tokens = token_rows(self.graph)
        self.n = (
            tirx.Var(LENGTH_PARAMETER, "int32") if self.has_length else tirx.IntImm("int32", self.max_tokens)
        )
        self.results = [trace(self.graph, result).root for result in self.graph.results]
        params = [self.input(param) for param in self.main.params if param.name != LENGTH_PARAMETER]
        self.params = {param.name: param for param in params}

    # operands

    def input(self, param: relax.Var) -> relax.Var:
        """The parameter of the integer module: ids (S,) uint16, or features (rows, F) int8 scaled a column."""
        reader, shape = self._first_reader(param)
        if kind(reader) == "embed":
            self._check_vocabulary(param, shape_of(reader.args[1])[0])
            return relax.Var(param.name, relax.TensorType([shape[-1]], "uint16"))
        values = self.statistics[f"{param.name}.input"].reshape(-1, shape[-1])
        low, high = values.min(axis=0), values.max(axis=0)
        if not self._only_projected(param):
            low, high = np.full_like(low, low.min()), np.full_like(high, high.max())
        self.inputs[param.name] = qparams.columns(low, high)
        return relax.Var(param.name, relax.TensorType(list(shape), "int8"))

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
                reads = hasattr(arg, "ty") and trace(self.graph, arg).root.same_as(param)
                if reads and (index > 0 or kind(value) not in ("dense", "attention", "ffn")):
                    return False
        return True

    def _first_reader(self, param: relax.Var) -> tuple[Any, tuple[int, ...]]:
        """A fused operator that reads `param`, and the shape in which it does."""
        for _, value in self.graph:
            for arg in value.args if kind(value) else []:
                if hasattr(arg, "ty") and trace(self.graph, arg).root.same_as(param):
                    return value, shape_of(arg)
        raise UserError(f"The input '{param.name}' is not used by the model.", "Export the model without it.")

    def operand(self, expr: Any) -> Value:
        """The integer tensor of an operand of the float module, seen through views."""
        if expr in self.values:
            return self.values[expr]
        root = trace(self.graph, expr).root
        if root in self.values:
            return self.values[root]
        params = self.inputs.get(root.name, QuantParams(1.0))
        if np.ndim(params.scale) > 0 and not self._only_projected(root):
            params = QuantParams(float(params.scale[0]), int(params.zero_point[0]))
        return Value(self.params[root.name], params)

    def range_of(self, name: str, key: str, *, symmetric: bool = False) -> QuantParams:
        """Parameters for the observed value `<name>.<key>` of an operator."""
        low, high = ranges.choose(self.statistics[f"{name}.{key}"], self.method, symmetric=symmetric)
        return qparams.symmetric(low, high) if symmetric else qparams.asymmetric(low, high)

    def head_scales(self, name: str, key: str, heads: int) -> Array:
        """A symmetric scale for each head of a (tokens, H * P) tensor."""
        rows = self.statistics[f"{name}.{key}"]
        return np.array(
            [
                float(qparams.symmetric(*ranges.choose(part, self.method, symmetric=True)).scale)
                for part in np.split(rows, heads, axis=1)
            ]
        )

    # epilogues

    def epilogue(
        self, var: relax.Var, call: relax.Call, accumulator: Array, bound: Array
    ) -> tuple[Epilogue, float, dict[str, Any], QuantParams]:
        """The epilogue after a sum: its parameters, the sum's scale, its operands, the result's parameters."""
        _, residual, norm = parts(call)
        extent = len(accumulator)
        bits = qparams.norm_bits(extent) if norm is not None else qparams.SUM_BITS
        operands: dict[str, Any] = {}
        if residual is None:
            total = qparams.branch_sum(accumulator, bound, bits)
            epilogue = Epilogue(bits=bits)
        else:
            value = self._residual(residual)
            largest = max(float(np.abs(self.statistics[f"{var.name}.{k}"]).max()) for k in ("branch", "sum"))
            total = qparams.residual_sum(
                value.params, largest, bits, accumulator, float(bound.max()), var.name
            )
            operands["residual"] = value.expr
            epilogue = Epilogue(
                residual=True,
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
            out = self.range_of(var.name, "out")
            gamma, beta = (array_of(part) for part in norm)
            g, b, epsilon = qparams.norm_constants(gamma, beta, attributes(call)["epsilon"], scale, out)
            epilogue = dataclasses.replace(
                epilogue, norm=True, root_extent=root_extent(len(gamma)), epsilon=epsilon
            )
            return epilogue, {"gamma": constant(g), "beta": constant(b)}, out
        wide = self.is_last(var) and kind(call) == "dense"
        if wide:
            largest = float(np.abs(self.statistics[f"{var.name}.out"]).max())
            out = QuantParams(largest * LOGIT_HEADROOM / 32767 or 1.0, 0)
        else:
            out = self.range_of(var.name, "out")
        out = dataclasses.replace(out, scale=max(out.scale, scale / qparams.MAX_REAL_MULTIPLIER))
        multiplier, shift = qparams.fixed_point(scale / out.scale)
        qparams.check_shift(2.0 ** (epilogue.bits - 1) if epilogue.residual else 2.0**24, shift, var.name)
        epilogue = dataclasses.replace(
            epilogue,
            multiplier=int(multiplier[0]),
            shift=shift,
            zero_point=int(out.zero_point),
            wide=wide,
        )
        return epilogue, {}, out

    def is_last(self, var: relax.Var) -> bool:
        """Whether a variable is a result of the model that no operator reads: logits, which may be int16."""
        return any(var.same_as(result) for result in self.results) and not any(
            kind(self.graph.bound(user)) for user in readers(self.graph, var)
        )

    def _residual(self, expr: Any) -> Value:
        array = as_array(expr)
        if array is None:
            return self.operand(expr)
        params = qparams.symmetric(float(array.min()), float(array.max()))
        return Value(constant(qparams.quantize(array, params)), params)

"""Fused float operators become integer operators: the parameters of each from the calibrated ranges."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import relax, tirx

from tvmtiny.errors import UserError
from tvmtiny.kernels import emit_call
from tvmtiny.kernels.epilogue import Epilogue
from tvmtiny.passes.fuse_dense import ACTIVATIONS
from tvmtiny.passes.graph import Graph, as_array, constant, shape_of
from tvmtiny.passes.operators import attributes, kind, parts
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
class QuantizedModel:
    """An integer module and how its tensors map to real numbers.

    Attributes:
        module: `main` takes the inputs in the arena's types, and the number of tokens when the model has a length.
        inputs: parameters of the feature inputs by name; ids have none.
        output: parameters of the result; output_name: its variable.
        tensors: parameters of every operator's result by variable name, for reports.
        max_tokens: S.
    """

    module: tvm.IRModule
    inputs: dict[str, QuantParams]
    output: QuantParams
    output_name: str
    tensors: dict[str, QuantParams]
    max_tokens: int
    has_length: bool


def quantize(fused: tvm.IRModule, statistics: Statistics, method: str = "auto") -> QuantizedModel:
    """Quantize a fused module.

    Args:
        statistics: from `quant.calibrate`, over this same module.
        method: one of `quant.ranges.METHODS`.
    """
    return _Quantizer(fused, statistics, method).run()


@dataclasses.dataclass(frozen=True)
class _Value:
    """A tensor of the integer module."""

    expr: Any
    params: QuantParams


class _Quantizer:
    def __init__(self, fused: tvm.IRModule, statistics: Statistics, method: str) -> None:
        self.main = fused["main"]
        self.graph = Graph(self.main)
        self.statistics = statistics
        self.method = method
        self.builder = relax.BlockBuilder()
        self.values: dict[Any, _Value] = {}
        self.tensors: dict[str, QuantParams] = {}
        self.inputs: dict[str, QuantParams] = {}
        self.has_length = has_length(self.main)
        self.max_tokens = max(
            shape_of(var)[0] for var, value in self.graph if kind(value) and len(shape_of(var)) == 2
        )
        self.n = (
            tirx.Var(LENGTH_PARAMETER, "int32") if self.has_length else tirx.IntImm("int32", self.max_tokens)
        )
        self.result = trace(self.graph, self.graph.result).root

    def run(self) -> QuantizedModel:
        params = [self._input(param) for param in self.main.params if param.name != LENGTH_PARAMETER]
        self.params = {param.name: param for param in params}
        handlers = {
            "embed": self._embed,
            "dense": self._dense,
            "attention": self._attention,
            "ffn": self._ffn,
            "layer_norm": self._layer_norm,
            "mean": self._mean,
            "first": self._first,
        }
        with self.builder.function("main", [*params, *([self.n] if self.has_length else [])]):
            with self.builder.dataflow():
                for var, value in self.graph:
                    if kind(value):
                        expr, out = handlers[kind(value)](var, value)
                        self.values[var] = _Value(self.builder.emit(expr, name_hint=var.name), out)
                        self.tensors[var.name] = out
                output = self.builder.emit_output(self.values[self.result].expr)
            self.builder.emit_func_output(output)
        return QuantizedModel(
            self.builder.get(),
            self.inputs,
            self.values[self.result].params,
            self.result.name,
            self.tensors,
            self.max_tokens,
            self.has_length,
        )

    # operands

    def _input(self, param: relax.Var) -> relax.Var:
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

    def _operand(self, expr: Any) -> _Value:
        if expr in self.values:
            return self.values[expr]
        root = trace(self.graph, expr).root
        if root in self.values:
            return self.values[root]
        params = self.inputs.get(root.name, QuantParams(1.0))
        if np.size(params.scale) > 1 and not self._only_projected(root):
            params = QuantParams(float(params.scale[0]), int(params.zero_point[0]))
        return _Value(self.params[root.name], params)

    def _range(self, name: str, key: str, *, symmetric: bool = False) -> QuantParams:
        low, high = ranges.choose(self.statistics[f"{name}.{key}"], self.method, symmetric=symmetric)
        return qparams.symmetric(low, high) if symmetric else qparams.asymmetric(low, high)

    def _head_scales(self, name: str, key: str, heads: int) -> Array:
        """A symmetric scale for each head of a (tokens, H * P) tensor."""
        rows = self.statistics[f"{name}.{key}"]
        return np.array(
            [
                float(qparams.symmetric(*ranges.choose(part, self.method, symmetric=True)).scale)
                for part in np.split(rows, heads, axis=1)
            ]
        )

    # epilogues

    def _epilogue(
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
            total = qparams.residual_sum(value.params, largest, bits, accumulator, float(bound.max()), var.name)
            operands["residual"] = value.expr
            epilogue = Epilogue(
                residual=True,
                residual_zero_point=int(value.params.zero_point),
                residual_shift=total.residual_shift,
                bits=bits,
            )
        epilogue, extra, out = self._finish(var, call, epilogue, total.scale)
        return epilogue, total.scale, {**operands, **extra}, out

    def _finish(
        self, var: relax.Var, call: relax.Call, epilogue: Epilogue, scale: float
    ) -> tuple[Epilogue, dict[str, Any], QuantParams]:
        """What follows a sum in units of `scale`: a LayerNorm or one rounding."""
        _, _, norm = parts(call)
        if norm is not None:
            out = self._range(var.name, "out")
            gamma, beta = (as_array(part) for part in norm)
            assert gamma is not None and beta is not None
            g, b, epsilon = qparams.norm_constants(gamma, beta, attributes(call)["epsilon"], scale, out)
            epilogue = dataclasses.replace(
                epilogue, norm=True, root_extent=root_extent(len(gamma)), epsilon=epsilon
            )
            return epilogue, {"gamma": constant(g), "beta": constant(b)}, out
        wide = self._is_result(var) and kind(call) == "dense"
        if wide:
            largest = float(np.abs(self.statistics[f"{var.name}.out"]).max())
            out = QuantParams(largest * LOGIT_HEADROOM / 32767 or 1.0, 0)
        else:
            out = self._range(var.name, "out")
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

    def _is_result(self, var: relax.Var) -> bool:
        return bool(var.same_as(self.result))

    def _residual(self, expr: Any) -> _Value:
        array = as_array(expr)
        if array is None:
            return self._operand(expr)
        params = qparams.symmetric(float(array.min()), float(array.max()))
        return _Value(constant(qparams.quantize(array, params)), params)

    # operators

    def _embed(self, var: relax.Var, call: relax.Call) -> tuple[Any, QuantParams]:
        (ids, tokens, positions), _, _ = parts(call)
        arrays = [as_array(tokens), as_array(positions)]
        needed = [float(np.abs(array).max()) / 127 for array in arrays]
        unit = (max(needed) or 1.0) / 128
        factors = [max(1, int(np.ceil(scale / unit - 1e-9))) for scale in needed]
        tables = [
            constant(qparams.quantize(array, QuantParams(unit * factor)))
            for array, factor in zip(arrays, factors, strict=True)
        ]
        epilogue, operands, out = self._finish(var, call, Epilogue(), unit)
        tensors = {"ids": self._operand(ids).expr, "tokens": tables[0], "positions": tables[1], **operands}
        attrs = {"token_factor": factors[0], "position_factor": factors[1], **epilogue.attrs()}
        return emit_call("embed", tensors, self.n, **attrs), out

    def _dense(self, var: relax.Var, call: relax.Call) -> tuple[Any, QuantParams]:
        (x, weight, bias), residual, norm = parts(call)
        activation = attributes(call)["activation"]
        value = self._operand(x)
        w, b = as_array(weight), as_array(bias)
        assert w is not None and b is not None
        w, b = w.astype(np.float64), b.astype(np.float64)
        with_sum = residual is not None or norm is not None or (self._is_result(var) and activation == "none")
        if not with_sum:
            return self._plain_dense(var, value, w, b, activation)
        if activation != "none":
            raise UserError(
                f"The dense layer '{var.name}' has activation {activation} before a residual or a LayerNorm.",
                "Put the activation after the sum or inside a feed-forward block.",
            )
        return self._summed_dense(var, call, value, w, b)

    def _plain_dense(
        self, var: relax.Var, value: _Value, w: Array, b: Array, activation: str
    ) -> tuple[Any, QuantParams]:
        dense, zero_point, table, out = self._activated(var.name, "out", value.params, w, b, activation)
        tensors = {"x": value.expr, **_dense_tensors(dense), "table": table}
        return emit_call("dense", tensors, self.n, epilogue=0, shift=dense.shift, zero_point=zero_point), out

    def _activated(
        self, name: str, key: str, x: QuantParams, w: Array, b: Array, activation: str
    ) -> tuple[qparams.DenseParams, int, Any, QuantParams]:
        """A dense layer with its activation, a clamp for ReLU and a table for any other.

        Returns:
            the layer, the zero point it requantizes to, the table or None, and the parameters of the result.
        """
        unit = qparams.accumulator_scales(w, b, x)
        out = self._range(name, key)
        direct = activation == "none" or (activation == "relu" and out.zero_point == -128)
        before = out if direct else self._range(name, "pre")
        before = dataclasses.replace(before, scale=qparams.floor_scale(before.scale, unit))
        if direct:
            out = before
        table = None if direct else constant(qparams.table(ACTIVATIONS[activation], before, out))
        return qparams.dense(w, b, x, before.scale, name), int(before.zero_point), table, out

    def _summed_dense(
        self, var: relax.Var, call: relax.Call, value: _Value, w: Array, b: Array
    ) -> tuple[Any, QuantParams]:
        unit, bound = _units(w, b, value.params)
        epilogue, scale, operands, out = self._epilogue(var, call, unit, bound)
        dense = qparams.dense(w, b, value.params, scale, var.name, limit=np.inf)
        tensors = {"x": value.expr, **_dense_tensors(dense), **operands}
        return emit_call("dense", tensors, self.n, epilogue=1, shift=dense.shift, **epilogue.attrs()), out

    def _ffn(self, var: relax.Var, call: relax.Call) -> tuple[Any, QuantParams]:
        (x, *weights), _, _ = parts(call)
        value = self._operand(x)
        w1, b1, w2, b2 = (np.asarray(as_array(array), np.float64) for array in weights)
        first, zero_point, table, hidden = self._activated(
            var.name, "hidden", value.params, w1, b1, attributes(call)["activation"]
        )
        unit, bound = _units(w2, b2, hidden)
        epilogue, scale, operands, out = self._epilogue(var, call, unit, bound)
        second = qparams.dense(w2, b2, hidden, scale, var.name, limit=np.inf)
        tensors = {
            "x": value.expr, "table": table, **_dense_tensors(first, "w1", "b1", "m1"),
            **_dense_tensors(second, "w2", "b2", "m2"), **operands,
        }  # fmt: skip
        attrs = {"shift1": first.shift, "shift2": second.shift, "hidden_zero_point": zero_point}
        return emit_call("ffn", tensors, self.n, **attrs, **epilogue.attrs()), out

    def _attention(self, var: relax.Var, call: relax.Call) -> tuple[Any, QuantParams]:
        (x, *weights, _), _, _ = parts(call)
        value, heads = self._operand(x), attributes(call)["heads"]
        arrays = [np.asarray(as_array(array), np.float64) for array in weights]
        tensors: dict[str, Any] = {"x": value.expr}
        attrs: dict[str, int] = {"heads": heads}
        scales = {}
        for index, part in enumerate("qkv"):
            w, b = arrays[2 * index], arrays[2 * index + 1]
            scales[part] = self._projection_scales(var.name, part, heads, qparams.accumulator_scales(w, b, value.params))
            width = len(w) // heads
            dense = qparams.dense(w, b, value.params, np.repeat(scales[part], width), f"{var.name}.{part}")
            tensors |= _dense_tensors(dense, f"w{part}", f"b{part}", f"m{part}")
            attrs[f"{part}_shift"] = dense.shift
        width = len(arrays[0]) // heads
        attrs |= self._softmax(tensors, scales, attributes(call)["scale"], width, var.name)
        context = np.maximum(self._head_scales(var.name, "context", heads), scales["v"] / 32)
        tensors["ratio"], attrs["value_shift"] = _ratio(scales["v"] / context, 255)
        qparams.check_shift(255 * 128 * self.max_tokens, attrs["value_shift"], f"{var.name}.context")
        wo, bo = arrays[6], arrays[7]
        params = QuantParams(np.repeat(context, width), 0)
        unit, bound = _units(wo, bo, params)
        epilogue, scale, operands, out = self._epilogue(var, call, unit, bound)
        dense = qparams.dense(wo, bo, params, scale, f"{var.name}.o", limit=np.inf)
        attrs["o_shift"] = dense.shift
        tensors |= {**_dense_tensors(dense, "wo", "bo", "mo"), **operands}
        return emit_call("attention", tensors, self.n, **attrs, **epilogue.attrs()), out

    def _projection_scales(self, name: str, part: str, heads: int, unit: Array) -> Array:
        scales = self._head_scales(name, part, heads)
        floors = [qparams.floor_scale(float(s), u) for s, u in zip(scales, np.split(unit, heads), strict=True)]
        return np.array(floors)

    def _softmax(
        self, tensors: dict[str, Any], scales: dict[str, Array], factor: float, width: int, name: str
    ) -> dict[str, int]:
        step = qparams.EXP_RANGE / 255
        real = np.abs(factor) * scales["q"] * scales["k"] / step
        multiplier, shift = qparams.fixed_point(real, limit=np.inf)
        qparams.check_shift(2 * 128 * 128 * width, shift, f"{name}.scores")
        if factor < 0:
            raise UserError(f"The attention '{name}' scales its scores by {factor}.", "Use a positive factor.")
        tensors["exp_table"] = constant(qparams.exponential_table())
        tensors["score_multiplier"] = constant(multiplier)
        return {"score_shift": shift}

    def _layer_norm(self, var: relax.Var, call: relax.Call) -> tuple[Any, QuantParams]:
        x, gamma, beta = call.args
        value = self._operand(x)
        bits = qparams.norm_bits(shape_of(gamma)[0])
        out = self._range(var.name, "out")
        shift = bits - 10
        g, b, epsilon = qparams.norm_constants(
            as_array(gamma), as_array(beta), attributes(call)["epsilon"], float(value.params.scale) / 2**shift, out
        )
        epilogue = Epilogue(
            residual=True,
            residual_zero_point=int(value.params.zero_point),
            residual_shift=shift,
            bits=bits,
            norm=True,
            root_extent=root_extent(len(g)),
            epsilon=epsilon,
        )
        tensors = {"residual": value.expr, "gamma": constant(g), "beta": constant(b)}
        return emit_call("layer_norm", tensors, self.n, **epilogue.attrs()), out

    def _mean(self, var: relax.Var, call: relax.Call) -> tuple[Any, QuantParams]:
        value = self._operand(call.args[0])
        out = self._range(var.name, "out")
        out = dataclasses.replace(out, scale=max(out.scale, float(value.params.scale) / 32))
        numerator, shift = qparams.ratio(float(value.params.scale) / out.scale, 1)
        qparams.check_shift(255 * self.max_tokens, shift, var.name)
        attrs = {
            "zero_point_in": int(value.params.zero_point),
            "ratio": int(numerator[0]),
            "shift": shift,
            "zero_point": int(out.zero_point),
        }
        return emit_call("mean", {"x": value.expr}, self.n, **attrs), out

    def _first(self, var: relax.Var, call: relax.Call) -> tuple[Any, QuantParams]:
        value = self._operand(call.args[0])
        return emit_call("first", {"x": value.expr}, self.n), value.params


def _dense_tensors(
    dense: qparams.DenseParams, weight: str = "weight", bias: str = "bias", multiplier: str = "multiplier"
) -> dict[str, Any]:
    return {
        weight: constant(dense.weight),
        bias: constant(dense.bias),
        multiplier: constant(dense.multiplier),
    }


def _ratio(real: Array, divisor: int) -> tuple[Any, int]:
    numerators, shift = qparams.ratio(real, divisor)
    return constant(numerators), shift


def _units(w: Array, b: Array, x: QuantParams) -> tuple[Array, Array]:
    """The unit of each accumulator of a dense layer and the largest magnitude it can take."""
    unit = qparams.accumulator_scales(w, b, x)
    zero = np.max(np.abs(x.zero_point))
    bound = (np.abs(w * x.scale) / unit[:, None] + 0.5).sum(axis=1) * (128 + zero) + np.abs(b) / unit
    return unit, bound

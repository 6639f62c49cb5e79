"""A torch module that computes what the generated C computes, byte for byte, and can be trained.

Its parameters are the float weights of a fused module and the step sizes of activations. Each forward hands them to
the compiler's own quantizer and runs the integer module that comes out (`batched`): results are exact by construction.
Gradients flow through the float operators (`fused`) in which each named value is replaced by what the integers stand
for: rounding counts as the identity within the range of a tensor (straight-through, Bengio et al., arXiv:1308.3432),
and step sizes are learned (Esser et al., "Learned step size quantization", ICLR 2020, arXiv:1902.08153). Steps of
weights are not parameters: they follow from the weights in every forward, by the compiler's rules.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import tvm
from torch import Tensor, nn

from tvmtiny.compress.batched import BatchedModel
from tvmtiny.compress.fused import FusedGraph
from tvmtiny.compress.fused_module import FusedModule
from tvmtiny.kernels.weights import GROUPS
from tvmtiny.passes.graph import Graph
from tvmtiny.passes.quantize import QuantizedModel, quantize
from tvmtiny.passes.weight_types import WeightTypes
from tvmtiny.quant.calibrate import INPUT, Statistics
from tvmtiny.quant.qparams import QuantParams, holding, quantize_features
from tvmtiny.quant.scales import to_scales

MAGNITUDES = ("branch", "sum")
"""Values of which only the largest magnitude counts; so it is with int16 results."""


class QuantizedModule(FusedModule):
    """Integers forward, float operators backward.

    Attributes:
        steps: logarithms of the step sizes of activations, one a tensor or one a head.
        magnitudes: the largest magnitudes of sums and int16 results, which grow with what training sees.
    """

    def __init__(
        self,
        fused: tvm.IRModule,
        inputs: Sequence[str],
        chosen: Mapping[str, QuantParams],
        weights: WeightTypes,
        residual: str = "int8",
    ) -> None:
        """Take over a fused module.

        Args:
            inputs: names of what the forward takes, in order.
            chosen: of `QuantizedModel`: where step sizes and magnitudes start.
            weights, residual: as for `passes.quantize.quantize`.

        Raises:
            UserError: the model has an operator that cannot be trained.
        """
        super().__init__(fused, inputs)
        self._options: dict[str, Any] = {"residual": residual, "weights": weights}
        self._made: tuple[Any, QuantizedModel, BatchedModel] | None = None
        first = self._quantize(chosen)
        self._wide = _int16_results(first)
        learned, self._zero_points, magnitudes = self._parted(first.chosen)
        self.steps = nn.ParameterDict({_key(name): nn.Parameter(step) for name, step in learned.items()})
        self._input_params = {name: params for name, params in first.chosen.items() if name.endswith(INPUT)}
        self._magnitude_names = list(magnitudes)
        self.register_buffer("magnitudes", torch.tensor(list(magnitudes.values()), dtype=torch.float64))

    def _parted(
        self, chosen: Mapping[str, QuantParams]
    ) -> tuple[dict[str, Tensor], dict[str, int], dict[str, float]]:
        """Logarithms of step sizes, zero points and magnitudes by value."""
        steps: dict[str, Tensor] = {}
        zero_points: dict[str, int] = {}
        magnitudes: dict[str, float] = {}
        for name, params in chosen.items():
            value = name.rpartition(".")[2]
            if value in MAGNITUDES or name in self._wide:
                magnitudes[name] = 128 * float(params.scale)
            elif not name.endswith(INPUT):
                steps[name] = torch.log(torch.tensor(params.scale, dtype=torch.float64)).reshape(-1)
                zero_points[name] = int(params.zero_point)
        return steps, zero_points, magnitudes

    @property
    def graph(self) -> FusedGraph:
        """The operators."""
        return self._graph

    def round_weights(self, quantized: QuantizedModel) -> None:
        """Start from the weights of an integer model of the same layers, whose rounding another method has chosen."""
        model = BatchedModel(quantized.module)
        with torch.no_grad():
            for name, first in self._graph.same.items():
                layer, operand = name.split("/")
                alone = list(self._graph.same.values()).count(first) == 1
                w = self.constants[first]
                if alone and operand in GROUPS:
                    w.copy_(dequantized(self._graph, quantized, model, layer, operand, w))

    # the parameters as the compiler takes them

    def chosen(self) -> dict[str, QuantParams]:
        """Scale and zero point of every value."""
        found = dict(self._input_params)
        for name, zero_point in self._zero_points.items():
            scale = torch.exp(self.steps[_key(name)].detach()).numpy()
            found[name] = QuantParams(float(scale[0]) if len(scale) == 1 else scale, zero_point)
        largest = dict(zip(self._magnitude_names, self.magnitudes.tolist(), strict=True))
        return found | {name: holding(value) for name, value in largest.items()}

    def quantized(self) -> QuantizedModel:
        """The integer module of the present parameters: what `tvmtiny compile` makes of `options` and the export."""
        return self._integers()[0]

    def options(self, other: tvm.IRModule) -> dict[str, Any]:
        """What `tvmtiny.compile` has to be given besides the exported model.

        Args:
            other: the fused module of that export, whose layers may have other names.

        Raises:
            UserError: it is not the same model.
        """
        names = FusedGraph(other).names_of(FusedGraph(self.fused))
        return {
            "scales": to_scales({_renamed(name, names): params for name, params in self.chosen().items()}),
            "layer_weights": {names[name]: kind for name, kind in self._options["weights"].items()},
            "residual": self._options["residual"],
            "int16": (),
            "rounding": "nearest",
            "bias_correction": False,
            "smooth": False,  # what is exported is as smooth as what was trained
            "fold_qk": "never",
        }

    def _integers(self) -> tuple[QuantizedModel, BatchedModel]:
        version = tuple(p._version for p in (*self.parameters(), self.magnitudes))
        if self._made is None or self._made[0] != version:
            quantized = self._quantize(self.chosen())
            self._made = version, quantized, BatchedModel(quantized.module)
        return self._made[1:]

    def _quantize(self, chosen: Mapping[str, QuantParams]) -> QuantizedModel:
        return quantize(self.fused, Statistics([], chosen), **self._options, rounding="nearest")

    # running

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Inputs in order, (B, ...), with up to S tokens; results in order, as real numbers.

        What is exported is the float module.
        """
        if torch.compiler.is_exporting():
            return super().forward(*inputs)
        named, tokens = self._named(inputs)
        keep = self._keep(named)
        quantized, model = self._integers()
        with torch.no_grad():
            integers = self._integer_inputs(quantized, named)
            results = model.run(integers, self._lengths(named, keep))
        see = _Rounding(self, quantized, model, results, keep)
        found = self._graph.run(self.constants, _real_inputs(named, integers, quantized), keep, see)
        if self.training:
            self.magnitudes.copy_(torch.maximum(self.magnitudes, see.magnitudes(self._magnitude_names)))
        return self._results(found, tokens)

    def integers(self, *inputs: Tensor) -> dict[str, Tensor]:
        """The results as the C has them, by output name: int64 (B, rows, columns)."""
        named, _ = self._named(inputs)
        quantized, model = self._integers()
        lengths = self._lengths(named, self._keep(named))
        results = model.run(self._integer_inputs(quantized, named), lengths)
        return {name: results[name] for name in quantized.outputs}

    def float_form(self) -> FusedModule:
        """The float module that is exported: the same weights, nothing rounded."""
        found = FusedModule(self.fused, self._inputs)
        found.constants = self.constants
        return found.eval()

    def _lengths(self, named: dict[str, Tensor], keep: Tensor | None) -> Tensor:
        count = len(next(iter(named.values())))
        return torch.full((count,), self._tokens) if keep is None else keep.long().sum(1)

    def _integer_inputs(self, quantized: QuantizedModel, named: dict[str, Tensor]) -> dict[str, Tensor]:
        found = {}
        for spec in self._specs:
            x = named[spec.name]
            if spec.kind == "features":
                params = quantized.inputs[spec.name]
                rows = x.detach().numpy().reshape(len(x), -1, len(params.scale))
                x = torch.from_numpy(quantize_features(rows, params.scale, params.zero_point))
            found[spec.name] = x.long()
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_made": None}


def _real_inputs(
    named: dict[str, Tensor], integers: dict[str, Tensor], quantized: QuantizedModel
) -> dict[str, Tensor]:
    """Inputs by name; features as what their integers stand for."""
    found = dict(named)
    for name, params in quantized.inputs.items():
        real = (integers[name] - torch.tensor(params.zero_point)) * torch.tensor(params.scale)
        found[name] = real.float().reshape(named[name].shape)
    return found


class _Rounding:
    """Observer of one forward: puts what the integers stand for in the place of each value."""

    def __init__(
        self,
        owner: QuantizedModule,
        quantized: QuantizedModel,
        model: BatchedModel,
        results: dict[str, Tensor],
        keep: Tensor | None,
    ) -> None:
        self._owner, self._quantized, self._model, self._results = owner, quantized, model, results
        self._keep = keep
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
        learned = self._owner.steps.get(_key(full))
        scale = torch.tensor(params.scale, dtype=torch.float64).reshape(-1)
        if learned is not None:
            learned = _repeat(torch.exp(learned), x.shape[-1])
        zero_point = int(np.asarray(params.zero_point).reshape(-1)[0])
        bits = 16 if full in self._owner._wide else 8
        return _Round.apply(x, learned, _repeat(scale, x.shape[-1]), zero_point, bits, integers)

    def weight(self, name: str, operand: str, w: Tensor) -> Tensor:
        """The weight as its integers stand for it."""
        found = dequantized(self._owner.graph, self._quantized, self._model, name, operand, w.detach())
        return w if found is None else w + (found - w).detach()


def dequantized(
    graph: FusedGraph, quantized: QuantizedModel, model: BatchedModel, name: str, operand: str, w: Tensor
) -> Tensor | None:
    """What the integers of a matrix or table `w` stand for, in the unit with the least error; None without integers."""
    integers = model.constant(name, operand, w.shape[-1])
    if integers is None or integers.shape != w.shape:
        return None
    columns = torch.tensor(1.0, dtype=torch.float64)  # scales of the input's columns, which integers contain
    source = quantized.inputs.get(graph.input_of(name))
    if operand == "wo":
        columns = torch.tensor(quantized.chosen[f"{name}.context"].scale, dtype=torch.float64)
    elif source is not None and operand in GROUPS:
        columns = torch.tensor(source.scale, dtype=torch.float64)
    columns = _repeat(columns.reshape(-1), w.shape[-1])
    v, real = integers.double(), w.double() * columns
    axis = {"dim": -1, "keepdim": True} if operand in GROUPS else {}
    unit = (v * real).sum(**axis) / (v * v).sum(**axis).clamp(min=1)
    return (v * unit / columns).to(w.dtype)


class _Round(torch.autograd.Function):
    """Integers forward; backward the identity within their range, and the learned step size's gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        learned: Tensor | None,
        scale: Tensor,
        zero_point: int,
        bits: int,
        integers: Tensor | None,
    ) -> Tensor:
        """x (..., N); learned and scale (N,) or (1,). Rounds x itself where there are no integers."""
        low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
        exact = x.double() / scale + zero_point
        rounded = (
            torch.round(exact).clamp(low, high) if integers is None else integers.double()
        ) - zero_point
        ctx.save_for_backward(exact, rounded)
        ctx.form = (low, high, zero_point, learned is not None)
        return (rounded * scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        exact, rounded = ctx.saved_tensors
        low, high, zero_point, is_learned = ctx.form
        inside = (exact >= low - 0.5) & (exact <= high + 0.5)
        step = None
        if is_learned:
            error = torch.where(inside, rounded - (exact - zero_point), rounded)
            step = (gradient * error).reshape(-1, gradient.shape[-1]).sum(0)
            step = step / math.sqrt(gradient.numel() * high)
        return gradient * inside, step, None, None, None, None


def _repeat(values: Tensor, columns: int) -> Tensor:
    """One value a column from one a head or one a tensor."""
    return values.repeat_interleave(columns // len(values))


def _key(name: str) -> str:
    """A value's name as that of a parameter, which has no dots."""
    return name.replace(".", "/")


def _renamed(name: str, names: Mapping[str, str]) -> str:
    layer, _, value = name.rpartition(".")
    return f"{names.get(layer, layer)}.{value}"


def _int16_results(quantized: QuantizedModel) -> set[str]:
    """The values `<layer>.out` that are int16."""
    graph = Graph(quantized.module["main"])
    return {
        f"{var.name}.out"
        for var, _ in graph
        if var.name in quantized.tensors and str(var.ty.dtype) == "int16"
    }

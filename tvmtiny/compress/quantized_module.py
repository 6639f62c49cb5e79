"""A torch module that computes what the generated C computes, byte for byte, and can be trained.

Its parameters are the float weights of a fused module and the step sizes of activations and weights. Each forward hands
them to the compiler's own quantizer and runs the integer module that comes out (`batched`): results are exact by
construction. Gradients flow through the float operators (`fused`) in which each named value is replaced by what the
integers stand for (`rounding`).

Steps of embedding tables, and of matrices that are a table too, follow from the weights in every forward, by the
compiler's rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import tvm
from torch import Tensor, nn

from tvmtiny.compress.batched import BatchedModel
from tvmtiny.compress.fused import FusedGraph
from tvmtiny.compress.fused_module import FusedModule
from tvmtiny.compress.rounding import MAGNITUDES, Rounding
from tvmtiny.passes.graph import Graph
from tvmtiny.passes.quantize import QuantizedModel, quantize
from tvmtiny.passes.weight_types import WeightTypes
from tvmtiny.quant.calibrate import INPUT, Statistics
from tvmtiny.quant.qparams import QuantParams, holding, quantize_features
from tvmtiny.quant.scales import to_scales


class QuantizedModule(FusedModule):
    """Integers forward, float operators backward.

    Attributes:
        steps: logarithms of the step sizes of activations, one a tensor or one a head.
        weight_steps: logarithms of those of matrices (`IntegerWeights.steps`), flat; empty where they are not learned.
        magnitudes: the largest magnitudes of sums and int16 results, which grow with what training sees.
    """

    def __init__(
        self,
        fused: tvm.IRModule,
        inputs: Sequence[str],
        start: QuantizedModel,
        weights: WeightTypes,
        residual: str = "int8",
        learn_steps: bool = True,
    ) -> None:
        """Take over a fused module.

        Args:
            inputs: names of what the forward takes, in order.
            start: an integer module of it: where step sizes and magnitudes start.
            weights, residual: as for `passes.quantize.quantize`.
            learn_steps: whether step sizes of weights are learned; else they follow from the weights.

        Raises:
            UserError: the model has an operator that cannot be trained.
        """
        super().__init__(fused, inputs)
        self._options: dict[str, Any] = {"residual": residual, "weights": weights}
        self._made: tuple[Any, QuantizedModel, BatchedModel] | None = None
        self._wide = _int16_results(start)
        learned, self._zero_points, magnitudes = self._parted(start.chosen)
        self.steps = nn.ParameterDict({_key(name): nn.Parameter(step) for name, step in learned.items()})
        self._input_params = {name: params for name, params in start.chosen.items() if name.endswith(INPUT)}
        self._shapes = {}
        self.weight_steps = nn.ParameterDict()
        for name in self._learnable(start) if learn_steps else ():
            steps = torch.log(torch.from_numpy(start.matrices[name].steps))
            self._shapes[name] = steps.shape
            self.weight_steps[_key(name)] = nn.Parameter(steps.reshape(-1))
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

    def _learnable(self, start: QuantizedModel) -> list[str]:
        """The matrices, `<layer>.<operand>` that have step sizes of their own: one name of each that layers share."""
        # Steps of int8 and of int4 differ in size, though in shape only where rows have several groups.
        users: dict[str, list[str]] = {}
        for name, first in self._graph.same.items():
            users.setdefault(first, []).append(_value(name))
        found = []
        for names in users.values():
            made = [start.matrices[name] for name in names if name in start.matrices]
            alike = {(weights.groups is None, weights.steps.shape) for weights in made}
            if len(alike) == 1 and len(made) == len(names):
                found.append(names[0])
        return found

    def round_weights(self, quantized: QuantizedModel) -> None:
        """Start from the weights of an integer model of the same layers, whose rounding another method has chosen."""
        with torch.no_grad():
            for name, first in self._graph.same.items():
                alone = list(self._graph.same.values()).count(first) == 1
                if alone and _value(name) in quantized.matrices:
                    w = self.constants[first]
                    w.copy_(torch.from_numpy(quantized.matrices[_value(name)].real))

    # the parameters as the compiler takes them

    def chosen(self) -> dict[str, QuantParams]:
        """Scale and zero point of every value."""
        found = dict(self._input_params)
        for name, zero_point in self._zero_points.items():
            scale = torch.exp(self.steps[_key(name)].detach()).numpy()
            found[name] = QuantParams(float(scale[0]) if len(scale) == 1 else scale, zero_point)
        largest = dict(zip(self._magnitude_names, self.magnitudes.tolist(), strict=True))
        weights = {name: QuantParams(steps.detach().numpy()) for name, steps in self._matrix_steps().items()}
        return found | weights | {name: holding(value) for name, value in largest.items()}

    def _matrix_steps(self) -> dict[str, Tensor]:
        """Step sizes of matrices by each name that they have."""
        found = {
            name: torch.exp(self.weight_steps[_key(name)]).reshape(shape)
            for name, shape in self._shapes.items()
        }
        same = {_value(name): _value(first) for name, first in self._graph.same.items()}
        return {name: found[first] for name, first in same.items() if first in found}

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
        steps = {name: torch.exp(self.steps[_key(name)]) for name in self._zero_points} | self._matrix_steps()
        see = Rounding(quantized, model, results, steps, self._wide, keep)
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


def _key(name: str) -> str:
    """A value's name as that of a parameter, which has no dots."""
    return name.replace(".", "/")


def _value(name: str) -> str:
    """The name `<layer>/<argument>` of a constant as that of a value."""
    return name.replace("/", ".")


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

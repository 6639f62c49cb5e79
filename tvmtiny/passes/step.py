"""An integer module for whole sequences becomes one that takes the next tokens and keeps what it needs of earlier ones.

The operators keep their weights and parameters, so that a step gives the rows of the whole sequence, byte for byte.
What an operator keeps, and whether it can run so at all, its kernel says (`Kernel.stepping`). The state becomes
parameters of `main` that operators change in place, and the number of earlier tokens the last parameter.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import tvm
from tvm import relax, tirx

from tvmtiny.errors import UserError
from tvmtiny.kernels import emit_call, kernel_of, operands_of
from tvmtiny.kernels.base import Kernel, Operands, State, Stepping
from tvmtiny.passes.graph import Graph, op_name, shape_of
from tvmtiny.passes.quantize import QuantizedModel
from tvmtiny.passes.recognize_length import LENGTH_PARAMETER

STATE_PARAMETERS = "tvmtiny.state"
"""Function attribute of `main`: names of its parameters that operators change in place."""

POSITION_PARAMETER = "position"

_LONGEST_PERIOD = 1 << 28

_REMEDY = (
    "Stepping is for models in which no token depends on later ones: causal attention (is_causal=True, or a window "
    "that ends at the token itself), dense layers, normalizations, causal convolutions, a result for each token. "
    "Compile without --step for whole sequences."
)


@dataclasses.dataclass(frozen=True)
class SteppedModel:
    """The integer module of a step, and what surrounds it.

    Attributes:
        module: `main(inputs, state, [n_tokens], position)`; its tensors have the rows of `tokens` tokens.
        tokens: most tokens of a step. total: tokens of the whole sequence that the model was exported for.
        any_number: whether a step takes 1 to `tokens`, or exactly so many.
        positions: most tokens of a sequence; 0 where there is no end.
        period: a position of at least twice this may go back by it, where there is no end; at least `tokens`.
        state: tensors that live from step to step, by parameter.
        feeding: operators, from the first on, that bring the state up to date; the rest makes results.
    """

    module: tvm.IRModule
    tokens: int
    total: int
    any_number: bool
    positions: int
    period: int
    state: dict[str, State]
    feeding: int

    def of(self, quantized: QuantizedModel) -> QuantizedModel:
        """The model of whole sequences with this module in its place."""
        return dataclasses.replace(
            quantized, module=self.module, max_tokens=self.tokens, has_length=self.any_number
        )


def step(quantized: QuantizedModel, tokens: int) -> SteppedModel:
    """The module of a step of at most `tokens` tokens.

    Raises:
        UserError: the model mixes tokens otherwise than causally, or has a mask input.
    """
    graph = Graph(quantized.module["main"])
    if quantized.has_length:
        raise UserError(
            "A model that runs in steps takes no mask: every token that it gets is there.",
            "Export it without the mask input.",
        )
    total = {shape_of(result)[0] for result in graph.results}
    if len(total) != 1 or not 1 <= tokens <= min(total):
        raise UserError(
            f"--step {tokens}: the model's results have {', '.join(map(str, sorted(total)))} rows, a row a token.",
            "Give 1 to that many tokens, of a model that has one result a token.",
        )
    return _Steps(graph, tokens, total.pop()).build()


class _Steps:
    """The module in the making: `tokens` of `total` tokens at a time."""

    def __init__(self, graph: Graph, tokens: int, total: int) -> None:
        self.graph, self.tokens, self.total = graph, tokens, total
        self.calls = [(var, kernel_of(value), value) for var, value in graph if kernel_of(value) is not None]
        self.stepping = {var: self._stepping(var, kernel, value) for var, kernel, value in self.calls}
        by_token = all(shape_of(param)[0] == total for param in graph.params)
        self.any_number = tokens > 1 and by_token
        self.n = tirx.Var(LENGTH_PARAMETER, "int32")
        self.position = tirx.Var(POSITION_PARAMETER, "int32")

    @staticmethod
    def _stepping(var: relax.Var, kernel: Kernel | None, value: Any) -> Stepping:
        assert kernel is not None
        found = kernel.stepping(operands_of(value), 0)
        if isinstance(found, str):
            raise UserError(
                f"The layer '{var.name}' ({kernel.name}) {found}, so it cannot run in steps.", _REMEDY
            )
        return found

    def build(self) -> SteppedModel:
        state = {
            f"{var.name}_{name}": kept
            for var, stepping in self.stepping.items()
            for name, kept in stepping.state.items()
        }
        params = {param: self._parameter(param) for param in self.graph.params}
        kept = {name: relax.Var(name, relax.TensorType(list(s.shape), "int8")) for name, s in state.items()}
        scalars = [*([self.n] if self.any_number else []), self.position]
        builder = relax.BlockBuilder()
        mapping: dict[Any, Any] = dict(params)
        with builder.function("main", [*params.values(), *kept.values(), *scalars]):
            with builder.dataflow():
                for var, value in self.graph:
                    if isinstance(value, relax.Tuple):
                        continue  # the results, put together below
                    if value in mapping:
                        mapping[var] = mapping[value]
                        continue
                    expr = self._call(var, value, mapping, kept)
                    mapping[var] = builder.emit(expr, name_hint=var.name)
                results = [mapping[result] for result in self.graph.results]
                output = builder.emit_output(results[0] if len(results) == 1 else relax.Tuple(results))
            builder.emit_func_output(output)
        module = builder.get()
        module["main"] = module["main"].with_attr(STATE_PARAMETERS, list(state))
        return SteppedModel(
            module, self.tokens, self.total, self.any_number, *self._positions(), state, self._feeding()
        )

    def _parameter(self, param: relax.Var) -> relax.Var:
        return relax.Var(param.name, relax.TensorType(list(self._shape(param)), str(param.ty.dtype)))

    def _shape(self, expr: Any) -> tuple[int, ...]:
        """The shape of a tensor in a step: its first axis that is longer than 1 is that of the tokens."""
        shape = list(shape_of(expr))
        axis = next((i for i, extent in enumerate(shape) if extent > 1), 0)
        shape[axis], rest = divmod(shape[axis] * self.tokens, self.total)
        assert rest == 0, f"{shape_of(expr)} has no rows of {self.total} tokens"
        return tuple(shape)

    def _call(self, var: relax.Var, value: Any, mapping: dict[Any, Any], kept: dict[str, relax.Var]) -> Any:
        """The expression of a binding, over the new variables."""
        kernel = kernel_of(value)
        if kernel is None:
            assert op_name(value) == "reshape", value
            return relax.op.reshape(mapping[value.args[0]], self._shape(value))
        operands, stepping = operands_of(value), self.stepping[var]
        tensors = {name: mapping.get(expr, expr) for name, expr in operands.tensors.items()}
        tensors |= {name: kept[f"{var.name}_{name}"] for name in stepping.state}
        if stepping.positioned:
            tensors["start"] = self.position
        n = self.n if self.any_number else tirx.IntImm("int32", self._rows(operands))
        return emit_call(stepping.kernel or kernel.name, tensors, n, **operands.attrs)

    def _rows(self, operands: Operands) -> int:
        """Rows that an operator works on in a full step."""
        return int(operands.n) * self.tokens // self.total

    def _positions(self) -> tuple[int, int]:
        """Most tokens of a sequence, or 0, and the period of the position then."""
        ends = [s.positions for s in self.stepping.values() if s.positions]
        if ends:
            return min(ends), 0
        period = math.lcm(*(s.period for s in self.stepping.values()))
        period *= -(-self.tokens // period)  # going back once is enough after any step
        if period > _LONGEST_PERIOD:
            raise UserError(
                f"Windows of {', '.join(str(s.period) for s in self.stepping.values() if s.positioned)} tokens "
                "have no common multiple that a position can count.",
                "Give the layers windows of one length, or lengths that divide each other.",
            )
        return 0, period

    def _feeding(self) -> int:
        last = [i for i, (var, _, _) in enumerate(self.calls) if self.stepping[var].state]
        if not last:
            raise UserError(
                "No layer of this model keeps anything from token to token.",
                "Compile it without --step: a run of one token is a step already.",
            )
        return last[-1] + 1

"""Run an integer module on a batch in torch: twin of `quant.reference.IntegerModel`, whose bytes it gives.

Rows of absent tokens are zeros in every result, as in the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import tvm
from torch import Tensor

from tvmtiny.compress import integer
from tvmtiny.errors import UserError
from tvmtiny.kernels import kernel_of, operands_of, weights
from tvmtiny.kernels.base import Operands
from tvmtiny.kernels.copy import AXES
from tvmtiny.kernels.embed import POSITION_BITS
from tvmtiny.kernels.epilogue import Epilogue
from tvmtiny.passes.graph import Graph, as_array, shape_of
from tvmtiny.passes.recognize_length import LENGTH_PARAMETER


class Constants:
    """The constant operands of an operator as int64 tensors, made once for all batches.

    Attributes:
        tensors: by operand.
    """

    def __init__(self, arrays: dict[str, Any], attrs: dict[str, Any]) -> None:
        self.tensors = {name: torch.from_numpy(array.astype(np.int64)) for name, array in arrays.items()}
        self._operands = Operands(arrays, None, attrs)
        self._weights: dict[tuple[str, int], Tensor] = {}

    def weight(self, name: str, depth: int) -> Tensor:
        """The integers (N, depth) that a product multiplies."""
        if (name, depth) not in self._weights:
            values = weights.weight_values(self._operands, name, depth)
            self._weights[name, depth] = torch.from_numpy(values.astype(np.int64))
        return self._weights[name, depth]


class Step:
    """One operator on a batch: its attributes and its operands, all of them int64 tensors.

    Attributes:
        attrs: integer parameters.
        lengths: tokens of each sample that are there, (B,).
        present: bool (B, rows), which rows of the result are there.
    """

    def __init__(
        self, operands: Operands, constants: Constants, values: dict[str, Tensor], lengths: Tensor
    ) -> None:
        self.attrs = operands.attrs
        self.lengths = lengths
        self.present = torch.ones(0)
        self.weight = constants.weight
        self._tensors = constants.tensors | values

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]


class BatchedModel:
    """The integer module of `passes.quantize` on batches.

    Raises:
        UserError: it has an operator that is not known here.
    """

    def __init__(self, module: tvm.IRModule) -> None:
        self._graph = Graph(module["main"])
        self._steps: list[tuple[Any, str, Operands, Constants]] = []
        for var, value in self._graph:
            kernel = kernel_of(value)
            if kernel is None:
                continue
            if kernel.name not in _RUN:
                raise UserError(
                    f"The operator '{var.name}' ({kernel.name}) cannot be trained as integers.",
                    f"Quantization-aware training knows {', '.join(_RUN)}; quantize this model after training.",
                )
            operands = operands_of(value)
            self._steps.append((var, kernel.name, operands, self._constants(operands)))

    def _constants(self, operands: Operands) -> Constants:
        arrays = {name: as_array(self._graph.producer(expr)) for name, expr in operands.tensors.items()}
        shaped = {
            name: array.reshape(shape_of(operands.tensors[name]))
            for name, array in arrays.items()
            if array is not None
        }
        return Constants(shaped, operands.attrs)

    def run(self, inputs: dict[str, Tensor], lengths: Tensor) -> dict[str, Tensor]:
        """Every operator's result by variable name, int64 (B, ...).

        Args:
            inputs: integers in the arena's types, (B, ...). lengths: tokens that are present, (B,).
        """
        values = {param: inputs[param.name] for param in self._graph.params if param.name != LENGTH_PARAMETER}
        results = {}
        for var, name, operands, constants in self._steps:
            given = {
                key: values[self._graph.storage(expr)].reshape(len(lengths), *shape_of(expr))
                for key, expr in operands.tensors.items()
                if key not in constants.tensors
            }
            step = Step(operands, constants, given, lengths)
            step.present = torch.arange(shape_of(var)[0]) < lengths[:, None]
            found = _RUN[name](step)
            if found.ndim == 3:
                found = found.masked_fill(~step.present[:, :, None], 0)
            values[var] = results[var.name] = found
        return results

    def constant(self, name: str, operand: str, depth: int) -> Tensor | None:
        """A table or the integer weights (N, depth) of the operator `name`; None where it has no such operand."""
        for var, _, _, constants in self._steps:
            if var.name == name and operand in constants.tensors:
                return (
                    constants.weight(operand, depth)
                    if operand in weights.GROUPS
                    else constants.tensors[operand]
                )
        return None


def _finish(t: Tensor, s: Step) -> Tensor:
    """`kernels.epilogue.finish_reference`."""
    e = Epilogue.of(s.attrs)
    if e.residual:
        t = integer.add_residual(t, s["residual"], e.residual_zero_point, e.residual_shift, e.bits)
    if e.norm:
        return integer.norm_s8(t, s["gamma"], s["beta"], e.epsilon, uncentred=e.uncentred)
    if e.scaled:
        return integer.scale_s8(t, s["gamma"], s["beta"], e.shift)
    return integer.requantize(t, e.multiplier, e.shift, e.zero_point, 16 if e.wide else 8)


def _dense_s32(s: Step, x: Tensor, weight: str, bias: str, multiplier: str, shift: str) -> Tensor:
    acc = integer.dense_acc(x, s.weight(weight, x.shape[-1]), s[bias])
    return integer.multiply_high(acc << s.attrs[shift], s[multiplier])


def _dense(s: Step) -> Tensor:
    x = s["x"]
    if s.attrs["epilogue"]:
        return _finish(_dense_s32(s, x, "weight", "bias", "multiplier", "shift"), s)
    acc = integer.dense_acc(x, s.weight("weight", x.shape[-1]), s["bias"])
    y = integer.requantize(acc, s["multiplier"], s.attrs["shift"], s.attrs["zero_point"])
    return s["table"][y + 128] if "table" in s else y


def _ffn(s: Step) -> Tensor:
    x = s["x"]
    acc = integer.dense_acc(x, s.weight("w1", x.shape[-1]), s["b1"])
    hidden = integer.requantize(acc, s["m1"], s.attrs["shift1"], s.attrs["hidden_zero_point"])
    if "table" in s:
        hidden = s["table"][hidden + 128]
    return _finish(_dense_s32(s, hidden, "w2", "b2", "m2", "shift2"), s)


def _attention(s: Step) -> Tensor:
    if "wk" not in s:
        raise UserError(
            "Attention with Q K^T in one matrix cannot be trained as integers.",
            "Quantize this model after training.",
        )
    x, heads = s["x"], s.attrs["heads"]
    groups = s.attrs.get("kv_heads", heads)
    q, k, v = (_projected(s, x, part, heads if part == "q" else groups) for part in "qkv")
    seen = s.present[:, None, :] & _window(s.attrs, x.shape[1])
    contexts = []
    for head in range(heads):
        group = head * groups // heads
        p = integer.exponentials(
            integer.product(q[head], k[group].transpose(1, 2)), seen, int(s["score_multiplier"][head]),
            s.attrs["score_shift"], s["exp_table"],
        )  # fmt: skip
        contexts.append(integer.values_s8(p, v[group], int(s["ratio"][head]), s.attrs["value_shift"], 0))
    return _finish(_dense_s32(s, torch.cat(contexts, dim=-1), "wo", "bo", "mo", "o_shift"), s)


def _projected(s: Step, x: Tensor, part: str, heads: int) -> tuple[Tensor, ...]:
    """Q, K or V of each head, (B, S, P)."""
    if "rotary" in s and part in "qk":
        t = _dense_s32(s, x, f"w{part}", f"b{part}", f"m{part}", f"{part}_shift")
        return integer.rotary_s8(t.reshape(*x.shape[:2], heads, -1), s["rotary"]).unbind(dim=2)
    return _dense_s8(s, x, part, 0).chunk(heads, dim=-1)


def _dense_s8(s: Step, x: Tensor, part: str, zero_point: int) -> Tensor:
    """The dense layer with the operands w<part>, b<part>, m<part>."""
    acc = integer.dense_acc(x, s.weight(f"w{part}", x.shape[-1]), s[f"b{part}"])
    return integer.requantize(acc, s[f"m{part}"], s.attrs[f"{part}_shift"], zero_point)


def _window(attrs: dict[str, Any], tokens: int) -> Tensor:
    """bool (S, S): the tokens to which each may attend."""
    if "before" not in attrs:
        return torch.ones(tokens, tokens, dtype=torch.bool)
    distance = torch.arange(tokens) - torch.arange(tokens)[:, None]
    return (distance >= -attrs["before"]) & (distance <= attrs["after"])


def _glu(s: Step) -> Tensor:
    a = s.attrs
    gate, up = (_dense_s8(s, s["x"], part, a[f"{part}_zero"]) for part in "gu")
    hidden = integer.gate_s8(gate, up, s["table"], a["multiplier"], a["hidden_shift"], a["hidden_zero"])
    return _finish(_dense_s32(s, hidden, "wd", "bd", "md", "d_shift"), s)


def _convolution(s: Step) -> Tensor:
    a, x = s.attrs, s["x"]
    rows = torch.cat([s["pad"].expand(len(x), a["before"], -1), x], dim=1)
    patches = rows.unfold(1, a["kernel"], a["stride"]).transpose(2, 3).flatten(2)  # tap by tap
    acc = integer.dense_acc(patches, s.weight("weight", patches.shape[-1]), s["bias"])
    y = integer.requantize(acc, s["multiplier"], a["shift"], a["zero_point"])
    return s["table"][y + 128] if "table" in s else y


def _embed(s: Step) -> Tensor:
    ids, a = s["ids"], s.attrs
    if "row_factors" in s:
        t = s["tokens"][ids] * s["row_factors"][ids][:, :, None]
        if "positions" in s:
            t = integer.add_residual(t, s["positions"][: ids.shape[1]], 0, a["position_shift"], POSITION_BITS)
    else:
        t = s["tokens"][ids] * a["token_factor"]
        if "positions" in s:
            t = t + s["positions"][: ids.shape[1]] * a["position_factor"]
    if "segments" in s:
        t = t + s["segments"][s["segment_ids"]] * a["segment_factor"]
    return _finish(t, s)


def _layer_norm(s: Step) -> Tensor:
    return _finish(torch.zeros_like(s["residual"]), s)


def _mean(s: Step) -> Tensor:
    x, a = s["x"], s.attrs
    count = s.lengths.clamp(max=x.shape[1])
    kept = (x - a.get("zero_point_in", 0)).masked_fill(
        (torch.arange(x.shape[1]) >= count[:, None])[:, :, None], 0
    )
    multiplier = (a["ratio"] // count)[:, None, None]
    t = integer.multiply_high(kept.sum(1, keepdim=True) << a["shift"], multiplier)
    return _finish(t, s) if a["epilogue"] else integer.saturate(t + a["zero_point"], 8)


def _first(s: Step) -> Tensor:
    row = s["x"][:, :1]
    return _finish(row, s) if s.attrs["epilogue"] else row


def _lookup(s: Step) -> Tensor:
    return s["table"][s["x"] + 128]


def _copy(s: Step) -> Tensor:
    if "index" in s:
        return s["x"][:, s["index"]]
    index = torch.full([int(s.attrs[f"d{axis}"]) for axis in range(AXES)], int(s.attrs["base"]))
    for axis in range(AXES):
        steps = torch.arange(index.shape[axis]) * int(s.attrs[f"x{axis}"])
        index = index + steps.reshape([-1 if i == axis else 1 for i in range(AXES)])
    return s["x"][:, index.reshape(-1)]


_RUN: dict[str, Callable[[Step], Tensor]] = {
    "embed": _embed,
    "dense": _dense,
    "attention": _attention,
    "ffn": _ffn,
    "glu": _glu,
    "convolution": _convolution,
    "layer_norm": _layer_norm,
    "mean": _mean,
    "first": _first,
    "lookup": _lookup,
    "copy": _copy,
}
"""Integer operator -> how it runs on a batch."""

"""A compiled model's float half as a torch module: what the compiler fused out of an ONNX file, to be trained on."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tvm
from torch import Tensor, nn

from tvmtiny.compress.fused import FusedGraph, as_exported
from tvmtiny.compress.fused_operators import Plain
from tvmtiny.errors import UserError
from tvmtiny.frontend import import_model
from tvmtiny.frontend.data import InputSpec, input_specs
from tvmtiny.passes.pipeline import fusion_passes


def fuse(model: Path | str) -> tvm.IRModule:
    """The fused float module of a model file, as compiling it without folding Q K^T makes it."""
    return tvm.transform.Sequential(fusion_passes("never"))(import_model(Path(model), None, None))


class FusedModule(nn.Module):
    """A fused module, on batches. Exported, it becomes that fused module again.

    Attributes:
        constants: weights, tables, biases and normalizations by `<layer>/<argument>`.
    """

    def __init__(self, fused: tvm.IRModule, inputs: Sequence[str]) -> None:
        """Take over a fused module.

        Args:
            inputs: names of what the forward takes, in order.

        Raises:
            UserError: the model has an operator that is not known here.
        """
        super().__init__()
        self._fused = as_exported(pickle.loads(pickle.dumps(fused)))  # its constants are written to
        self._graph = FusedGraph(self._fused)
        self._inputs = tuple(inputs)
        self._specs, self._mask, self._tokens = input_specs(self._fused)
        self.constants = nn.ParameterDict(
            {name: nn.Parameter(torch.from_numpy(a.copy())) for name, a in self._graph.constants.items()}
        )

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Inputs in order, (B, ...), with up to S tokens; results in order."""
        named, tokens = self._named(inputs)
        return self._results(self._graph.run(self.constants, named, self._keep(named), Plain()), tokens)

    def present(self, inputs: Sequence[Tensor]) -> Tensor | None:
        """bool (B, tokens): the tokens of inputs in order that are there; None where all are."""
        named, tokens = self._named(inputs)
        keep = self._keep(named)
        return None if keep is None else keep[:, :tokens]

    @property
    def fused(self) -> tvm.IRModule:
        """The fused module with the present constants."""
        for name, expr in self._graph.expressions.items():
            values = self.constants[self._graph.same[name]].detach().numpy()
            expr.value.copyfrom(np.ascontiguousarray(values))
        return self._fused

    def _named(self, inputs: Sequence[Tensor]) -> tuple[dict[str, Tensor], int]:
        """Inputs by name with S tokens, and how many they had."""
        named = dict(zip(self._inputs, inputs, strict=True))
        spec = self._specs[0]
        tokens = named[spec.name].shape[1] if self._mask is not None else self._tokens
        return {name: self._padded(name, x) for name, x in named.items()}, tokens

    def _padded(self, name: str, x: Tensor) -> Tensor:
        """An input with S tokens: batches may be cut to their longest sequence."""
        spec = self._spec(name)
        wanted = self._tokens if spec is None else spec.shape[0]
        missing = wanted - x.shape[1] if x.ndim > 1 else 0
        if missing < 0 or (missing and self._mask is None):
            raise UserError(
                f"The input '{name}' has {x.shape[1]} tokens, the model {wanted}.", "Give it as many."
            )
        if not missing:
            return x
        padding = spec.padding[0] if spec is not None and spec.padding else 0
        return torch.cat([x, torch.full((len(x), missing, *x.shape[2:]), padding, dtype=x.dtype)], dim=1)

    def _spec(self, name: str) -> InputSpec | None:
        return next((spec for spec in self._specs if spec.name == name), None)

    def _keep(self, named: dict[str, Tensor]) -> Tensor | None:
        """bool (B, S): the tokens that are there; None where all are."""
        if self._mask is None:
            return None
        if self._mask in named:
            return named[self._mask].bool()
        spec = next(spec for spec in self._specs if spec.padding)
        if len(spec.padding) != 1:
            raise UserError(
                f"The model pads '{spec.name}' with several ids.", "Give it a mask as an input of its own."
            )
        return named[spec.name] != spec.padding[0]

    def _results(self, found: list[Tensor], tokens: int) -> Tensor | tuple[Tensor, ...]:
        """Results as a module returns them; those with a row a token have as many as the inputs had."""
        cut = [x[:, :tokens] if x.ndim == 3 and x.shape[1] == self._tokens else x for x in found]
        return cut[0] if len(cut) == 1 else tuple(cut)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_graph": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._graph = FusedGraph(self._fused)

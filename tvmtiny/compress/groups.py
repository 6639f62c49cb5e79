"""Units of a network that can go together: attention heads, feed-forward neurons, channels of the residual stream.

Which rows and columns of which layers belong to a unit is read off the autograd graph by Torch-Pruning's
DependencyGraph (Fang et al. 2023, arXiv:2301.12900), so it does not matter how the modules are written.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal

import torch
import torch_pruning
from torch import nn

from tvmtiny.compress.task import Arrays
from tvmtiny.errors import UserError

Kind = Literal["heads", "feed_forward", "width"]

_ROOTS = {
    nn.Linear: torch_pruning.prune_linear_out_channels,
    nn.Embedding: torch_pruning.prune_embedding_out_channels,
}
_HEADS = ("heads", "num_heads", "n_heads", "n_head", "nhead", "num_attention_heads", "num_key_value_heads")
"""Names under which attention modules keep their number of heads."""


@dataclass(frozen=True)
class Group:
    """Layers that lose the same channels.

    Attributes:
        kind: what its channels are.
        name: of the attention module, or of the first layer.
        root: the first layer.
        writers, readers: linear layers whose rows, and whose columns, are the channels.
        channels: how many. unit: how many of them go together: the width of a head, else 1.
    """

    kind: Kind
    name: str
    root: nn.Module
    writers: tuple[nn.Linear, ...]
    readers: tuple[nn.Linear, ...]
    channels: int
    unit: int

    @property
    def units(self) -> int:
        """Number of units."""
        return self.channels // self.unit


def traced(network: nn.Module, example: Arrays) -> Structure:
    """The structure of a network, whose parameters may be frozen: the graph is read off their gradients' functions.

    Raises:
        UserError: its graph cannot be traced.
    """
    with trainable(network):
        return Structure(network, example)


@contextmanager
def trainable(network: nn.Module) -> Iterator[None]:
    """All parameters have gradients; those that had none are left without, also where they are others by then."""
    frozen = [
        (owner, name)
        for owner in network.modules()
        for name, parameter in owner.named_parameters(recurse=False)
        if not parameter.requires_grad
    ]
    network.requires_grad_(True)
    try:
        yield
    finally:
        for owner, name in frozen:
            getattr(owner, name).requires_grad_(False)


class Structure:
    """The groups of a network whose parameters have gradients; see `traced`."""

    def __init__(self, network: nn.Module, example: Arrays) -> None:
        self._network = network
        self._names = {module: name for name, module in network.named_modules()}
        inputs = tuple(torch.from_numpy(values[:2]) for values in example.values())
        with warnings.catch_warnings():
            # Parameters outside of layers lose channels of their last axis, as is meant.
            warnings.simplefilter("ignore")
            try:
                graph = torch_pruning.DependencyGraph()
                self._graph = graph.build_dependency(network.eval(), example_inputs=inputs)
            except Exception as error:  # whatever running and tracing a user's module meets
                raise UserError(
                    f"The dependencies between layers cannot be traced: {error}.",
                    "Use plain layers of torch.",
                ) from error

    def groups(self) -> list[Group]:
        """Every group that can lose channels, in the order of the modules."""
        found: dict[frozenset[int], Group | None] = {}
        for module in self._names:
            if type(module) in _ROOTS:
                members = self._members(module)
                key = frozenset(id(layer) for layer, _ in members)
                if key not in found:
                    found[key] = self._group(module, members)
        return [group for group in found.values() if group is not None]

    def remove(self, group: Group, channels: Sequence[int]) -> None:
        """Take channels from all layers of a group, and heads from what counts them."""
        if not channels:
            return
        self._graph.get_pruning_group(group.root, _ROOTS[type(group.root)], list(channels)).prune()
        if group.kind == "heads":
            owner = self._network.get_submodule(group.name)
            left = (group.channels - len(channels)) // group.unit
            for name, value in vars(owner).items():
                if name in _HEADS or ("head" in name and value == group.channels):
                    setattr(owner, name, value * left // group.units)

    def _members(self, root: nn.Module) -> list[tuple[Any, Any]]:
        """(layer or parameter, how it is pruned), the root first."""
        width = root.out_features if isinstance(root, nn.Linear) else root.weight.shape[1]
        group = self._graph.get_pruning_group(root, _ROOTS[type(root)], list(range(width)))
        rows = [(dependency.target.module, dependency.handler) for dependency, _ in group]
        return [
            row for row in rows if isinstance(row[0], nn.Parameter) or any(True for _ in row[0].parameters())
        ]

    def _group(self, root: nn.Module, members: list[tuple[Any, Any]]) -> Group | None:
        """The group of a root, or None where it is of no kind that is known."""
        linear = [(layer, handler) for layer, handler in members if isinstance(layer, nn.Linear)]
        writers = tuple(m for m, handler in linear if self._graph.is_out_channel_pruning_fn(handler))
        readers = tuple(m for m, handler in linear if self._graph.is_in_channel_pruning_fn(handler))
        channels = root.out_features if isinstance(root, nn.Linear) else int(root.weight.shape[1])
        if not readers or any(layer.in_features != channels for layer in readers):
            return None
        if len(linear) < len(members):
            return Group("width", self._names[root], root, writers, readers, channels, 1)
        owner, heads = self._attention(writers)
        if heads and channels % heads == 0:
            return Group("heads", owner, root, writers, readers, channels, channels // heads)
        if len(writers) <= 2:  # two of a gated layer
            return Group("feed_forward", self._names[root], root, writers, readers, channels, 1)
        return None

    def _attention(self, writers: Sequence[nn.Linear]) -> tuple[str, int]:
        """Name and heads of the module that queries, keys and values belong to; 0 heads where it is no such module."""
        paths = [self._names[layer].split(".")[:-1] for layer in writers]
        common = takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))
        owner = ".".join(parts[0] for parts in common)
        known = vars(self._network.get_submodule(owner))
        counts = {known[name] for name in _HEADS if isinstance(known.get(name), int)}
        return (owner, counts.pop()) if len(writers) >= 3 and len(counts) == 1 else (owner, 0)

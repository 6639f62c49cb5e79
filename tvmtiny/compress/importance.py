"""How much each unit of a group matters: the least important ones are pruned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from tvmtiny.compress.checks import batches_of, present_tokens
from tvmtiny.compress.groups import Group
from tvmtiny.compress.task import Task

Method = Literal["magnitude", "taylor", "activation"]


def importance(
    network: nn.Module, task: Task, groups: Sequence[Group], method: Method, batches: int, mask: str = ""
) -> list[Tensor]:
    """A figure for each unit of each group; only those of one group can be compared.

    Args:
        method: "magnitude": norm of the weights that write and read a unit. "taylor": how much the loss changes, to
            first order, when the unit is taken out, as Michel et al. (2019, arXiv:1905.10650) and Molchanov et al.
            (2019, arXiv:1906.10771) have it. "activation": mean size of the unit times the norm of the weights that
            read it (Sun et al. 2024, arXiv:2306.11695).
        batches: of the task, for the latter two.
        mask: for "activation": the input that is 1 where a token is present; "" where all are.
    """
    if method == "magnitude":
        return [_by_unit(group, _magnitudes(group)).sqrt() for group in groups]
    network.eval()
    if method == "activation":
        return _activations(network, task, groups, batches, mask)
    totals = [torch.zeros(group.units) for group in groups]
    for inputs, targets in batches_of(task, batches):
        network.zero_grad()
        task.loss(task.forward(network, inputs), targets).backward()
        for at, group in enumerate(groups):
            totals[at] += _gradients(group)
    network.zero_grad()
    return totals


@torch.no_grad()
def _activations(
    network: nn.Module, task: Task, groups: Sequence[Group], batches: int, mask: str
) -> list[Tensor]:
    totals = [torch.zeros(group.units) for group in groups]
    seen: dict[nn.Module, Tensor] = {}
    layers = {layer for group in groups for layer in group.readers}
    handles = [
        layer.register_forward_hook(lambda m, x, _y: seen.__setitem__(m, x[0].detach())) for layer in layers
    ]
    for inputs, _targets in batches_of(task, batches):
        task.forward(network, inputs)
        there = present_tokens(inputs, mask)
        for at, group in enumerate(groups):
            totals[at] += _by_unit(group, _activity(group, seen, there))
    for handle in handles:
        handle.remove()
    return totals


def _by_unit(group: Group, channels: Tensor) -> Tensor:
    return channels.reshape(group.units, group.unit).sum(1)


def _magnitudes(group: Group) -> Tensor:
    rows = (
        torch.stack([layer.weight.detach().square().sum(1) for layer in group.writers])
        if group.writers
        else None
    )
    columns = torch.stack([layer.weight.detach().square().sum(0) for layer in group.readers]).sum(0)
    return columns if rows is None else columns + rows.sum(0)


def _gradients(group: Group) -> Tensor:
    """Size of the derivative by a factor on the unit, which is that by its readers' columns times these."""
    parts = [
        (layer.weight.detach() * layer.weight.grad).sum(0)
        for layer in group.readers
        if layer.weight.grad is not None
    ]
    return _by_unit(group, torch.stack(parts).sum(0)).abs() if parts else torch.zeros(group.units)


def _activity(group: Group, seen: dict[nn.Module, Tensor], there: Tensor | None) -> Tensor:
    parts = [
        _rows(seen[layer], there).abs().mean(0) * layer.weight.detach().norm(dim=0)
        for layer in group.readers
        if layer in seen
    ]
    return torch.stack(parts).sum(0) if parts else torch.zeros(group.channels)


def _rows(x: Tensor, there: Tensor | None) -> Tensor:
    """What a layer reads, (rows, K): of (B, S, K) the present tokens."""
    per_token = there is not None and x.ndim == 3 and x.shape[:2] == there.shape
    return x[there] if per_token else x.flatten(0, -2)

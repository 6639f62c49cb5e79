"""Whole layers that a network can do without."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tvmtiny.compress.checks import batches_of
from tvmtiny.compress.task import Task, Tensors
from tvmtiny.errors import UserError


def drop_layers(network: nn.Module, task: Task, count: int, batches: int) -> None:
    """Remove layers in place, one after another, each time the one without which the loss is lowest.

    A layer is an entry of a ModuleList of equal modules whose result has the shape of its first argument.

    Raises:
        UserError: fewer layers than would be left.
    """
    rows = list(batches_of(task, batches)) if count else []  # the same for all, so that losses compare
    for _ in range(count):
        places = [(stack, at) for stack in _stacks(network) for at in range(len(stack))]
        losses = {place: _loss_without(network, task, place[0][place[1]], rows) for place in places}
        known = {place: loss for place, loss in losses.items() if loss is not None}
        if not known:
            raise UserError(
                f"layers = {count}: no further layer can be removed.",
                "One of each stack of layers has to stay.",
            )
        stack, at = min(known, key=lambda place: known[place])
        del stack[at]


def _stacks(network: nn.Module) -> list[nn.ModuleList]:
    return [
        module
        for module in network.modules()
        if isinstance(module, nn.ModuleList) and len(module) > 1 and len({type(part) for part in module}) == 1
    ]


@torch.no_grad()
def _loss_without(
    network: nn.Module, task: Task, layer: nn.Module, rows: list[tuple[Tensors, Tensors]]
) -> float | None:
    """Mean loss when a layer gives its argument; None where that has another shape."""
    network.eval()
    with _skipped(layer) as fits:
        losses = [float(task.loss(task.forward(network, inputs), targets)) for inputs, targets in rows]
    return sum(losses) / len(losses) if fits and all(fits) else None


@contextmanager
def _skipped(layer: nn.Module) -> Iterator[list[bool]]:
    """Yields, for each run, whether the argument could stand for the result."""
    fits: list[bool] = []

    def skip(_module: nn.Module, arguments: tuple[Any, ...], result: Any) -> Any:
        first = result if isinstance(result, Tensor) else result[0]
        same = bool(arguments) and isinstance(first, Tensor) and first.shape == arguments[0].shape
        fits.append(same)
        if not same:
            return result
        return arguments[0] if isinstance(result, Tensor) else (arguments[0], *result[1:])

    handle = layer.register_forward_hook(skip)
    try:
        yield fits
    finally:
        handle.remove()

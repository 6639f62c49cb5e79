"""Low rank: a dense layer becomes two narrow ones, where these need fewer multiply-accumulates and less flash.

What is kept is what matters to the layer's results on the task's data, not to its weights alone: the weights are
whitened by the covariance of the inputs before their singular value decomposition, as in SVD-LLM (Wang et al. 2025,
arXiv:2403.07378).

Left as they are: the projections of an attention, which the compiler makes one operator of, with queries, keys and
values of the same tokens (from factors it would make dozens); and word tables, whose product with a matrix it computes.
"""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Interval, Le
from torch import Tensor, nn

from tvmtiny.compress.checks import batches_of
from tvmtiny.compress.groups import traced
from tvmtiny.compress.plain import plain
from tvmtiny.compress.progress import Progress
from tvmtiny.compress.task import Task
from tvmtiny.compress.training import Training, fit
from tvmtiny.errors import UserError
from tvmtiny.report.estimate import core_figures

CHANNEL_BYTES = 8
"""Bias and multiplier of a channel of a dense layer in flash, besides its int8 weights."""
_SEARCH = tuple(1 - 0.5 ** (at / 2) for at in range(2, 21))
"""Shares of energy that the search tries, from 0.5 to 0.999."""


@dataclass(frozen=True)
class _Factors:
    """The decomposition of a layer: `left` [N, R] times `right` [R, K], and the energy of each of the R parts."""

    left: Tensor
    right: Tensor
    energy: Tensor

    def rank(self, share: float, multiple: int) -> int:
        """The least rank, a multiple, that keeps a share of the energy."""
        kept = self.energy.cumsum(0) / self.energy.sum().clamp(min=1e-30)
        least = int((kept < share).sum()) + 1
        return multiple * -(-least // multiple)


def low_rank(
    module: nn.Module,
    task: Task,
    *,
    energy: Annotated[float, Interval(gt=0, le=1)] = 0.95,
    budget: Annotated[float, Interval(ge=0, le=1)] | None = None,
    layers: tuple[str, ...] = ("*",),
    without: tuple[str, ...] = (),
    multiple: Annotated[int, Ge(1)] = 4,
    saving: Annotated[float, Ge(0), Le(1)] = 0.1,
    batches: Annotated[int, Ge(1)] = 16,
    train: Training | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """A copy of `module` whose layers are factored where that saves.

    Args:
        energy: share of the mean square of a layer's results that is kept.
        budget: by how much the task's first metric may fall on the selection split, 0 to 1: the least energy that
            keeps to it is searched for, in place of `energy`, before any training.
        layers, without: patterns of the names of linear layers to factor, and of those to leave.
        multiple: what ranks are rounded up to.
        saving: least share of a layer's bytes that has to be saved, the code of another operator counted.
        batches: of the task, over which the inputs are observed.
        train: the training afterwards; None: none.

    Raises:
        UserError: a pattern that matches no such layer.
    """
    progress = progress or Progress()
    source = plain(copy.deepcopy(module))
    names = _chosen(source, task, layers, without)
    factors = _decompose(source, task, names, batches)
    share = energy
    if budget is not None and not progress.dry:
        share = _search(source, task, factors, multiple, saving, budget, progress)
    network = _factored(source, factors, share, multiple, saving)
    count = sum(isinstance(network.get_submodule(name), nn.Sequential) for name in factors)
    progress.report(f"factored {count} of {len(factors)} layers")
    if train is not None:
        fit(network, task, train, progress=progress)
    return network.eval()


def _chosen(module: nn.Module, task: Task, layers: tuple[str, ...], without: tuple[str, ...]) -> list[str]:
    """Names of the layers that patterns choose and no attention has."""
    known = [name for name, part in module.named_modules() if isinstance(part, nn.Linear)]
    for pattern in (*layers, *without):
        if not fnmatch.filter(known, pattern):
            raise UserError(
                f"low_rank: no linear layer is called '{pattern}'.", f"There are {', '.join(known)}."
            )
    groups = [group for group in traced(module, task.calibration).groups() if group.kind == "heads"]
    attention = {layer for group in groups for layer in (*group.writers, *group.readers)}
    kept = [name for name in known if module.get_submodule(name) not in attention]
    kept = [name for name in kept if any(fnmatch.fnmatch(name, pattern) for pattern in layers)]
    return [name for name in kept if not any(fnmatch.fnmatch(name, pattern) for pattern in without)]


@torch.no_grad()
def _decompose(module: nn.Module, task: Task, names: list[str], batches: int) -> dict[str, _Factors]:
    """Factors of layers, in order of what each part adds to the layer's results."""
    moments: dict[str, Tensor] = {}

    def keep(name: str) -> object:
        def hook(_layer: nn.Module, arguments: tuple[Tensor, ...], _result: Tensor) -> None:
            moments[name] = moments.get(name, 0) + _moment(arguments[0])

        return hook

    handles = [module.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    module.eval()
    for inputs, _targets in batches_of(task, batches):
        task.forward(module, inputs)
    for handle in handles:
        handle.remove()
    return {name: _factors(module.get_submodule(name), moments[name]) for name in names if name in moments}


def _moment(x: Tensor) -> Tensor:
    """Sum of x x^T over all rows, [K, K]."""
    rows = x.flatten(0, -2).double()
    return rows.T @ rows


def _factors(layer: nn.Linear, moment: Tensor) -> _Factors:
    # A little of the identity, for inputs that never leave a subspace.
    ridge = 1e-6 * moment.diagonal().mean() + 1e-12
    root = torch.linalg.cholesky(moment + ridge * torch.eye(len(moment), dtype=moment.dtype))
    u, s, v = torch.linalg.svd(layer.weight.detach().double() @ root, full_matrices=False)
    right = torch.linalg.solve_triangular(root, v, upper=False, left=False)
    return _Factors((u * s).float(), right.float(), s.square())


def _factored(
    module: nn.Module, factors: Mapping[str, _Factors], share: float, multiple: int, saving: float
) -> nn.Module:
    network = copy.deepcopy(module)
    for name, found in factors.items():
        layer = network.get_submodule(name)
        rank = found.rank(share, multiple)
        if _saves(layer, rank, saving):
            network.set_submodule(name, _pair(layer, found, rank))
    return network


def _saves(layer: nn.Linear, rank: int, saving: float) -> bool:
    """Whether two layers need less flash than one, and fewer multiply-accumulates."""
    one = layer.in_features * layer.out_features
    two = rank * (layer.in_features + layer.out_features)
    code = max(figures.code_bytes_per_operator for figures in core_figures().values())
    return two < one and two + CHANNEL_BYTES * rank + code <= (1 - saving) * one


def _pair(layer: nn.Linear, factors: _Factors, rank: int) -> nn.Sequential:
    narrow = nn.Linear(layer.in_features, rank, bias=False)
    widen = nn.Linear(rank, layer.out_features, bias=layer.bias is not None)
    narrow.weight.data, widen.weight.data = (
        factors.right[:rank].contiguous(),
        factors.left[:, :rank].contiguous(),
    )
    if layer.bias is not None:
        widen.bias.data = layer.bias.detach().clone()
    return nn.Sequential(narrow, widen)


def _search(
    module: nn.Module,
    task: Task,
    factors: Mapping[str, _Factors],
    multiple: int,
    saving: float,
    budget: float,
    progress: Progress,
) -> float:
    """The least share of energy, of _SEARCH, with which the first metric falls by no more than the budget."""
    first = next(iter(task.measure(module, task.selection).values()))
    low, high = 0, len(_SEARCH)  # at `high`, all energy: nothing is lost
    while low < high:
        middle = (low + high) // 2
        network = _factored(module, factors, _SEARCH[middle], multiple, saving)
        value = next(iter(task.measure(network, task.selection).values()))
        progress.report(f"energy {_SEARCH[middle]:.4f}", metric=value)
        low, high = (low, middle) if value >= first - budget else (middle + 1, high)
    return _SEARCH[low] if low < len(_SEARCH) else 1.0

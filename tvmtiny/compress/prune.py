"""Structured pruning: heads, feed-forward neurons, channels and layers go, and the matrices become smaller.

What is left are ordinary layers of fewer rows and columns, in numbers that the kernels like. Pruned little by little
with training in between, as the cubic schedule of Zhu and Gupta (2017, arXiv:1710.01878) has it, a network loses less.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Annotated

import torch
from annotated_types import Ge, Interval
from torch import Tensor, nn

from tvmtiny.compress.depth import drop_layers
from tvmtiny.compress.groups import Group, Kind, traced, trainable
from tvmtiny.compress.importance import Method, importance
from tvmtiny.compress.plain import plain
from tvmtiny.compress.progress import Progress
from tvmtiny.compress.task import Task
from tvmtiny.compress.training import Training, fit, set_seed
from tvmtiny.errors import UserError

Share = Annotated[float, Interval(ge=0, lt=1)]


def prune(
    module: nn.Module,
    task: Task,
    *,
    heads: Share = 0.0,
    feed_forward: Share = 0.0,
    width: Share = 0.0,
    layers: Annotated[int, Ge(0)] = 0,
    method: Method = "taylor",
    multiple: Annotated[int, Ge(1)] = 4,
    rounds: Annotated[int, Ge(1)] = 1,
    batches: Annotated[int, Ge(1)] = 8,
    mask: str = "",
    train: Training | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """A smaller copy of `module`.

    Args:
        heads, feed_forward, width: shares to remove, 0 to 1, of the heads of each attention, of the neurons of each
            feed-forward layer, and of the channels of the residual stream and of word vectors.
        layers: how many to remove, before anything else.
        method: how importance is measured.
        multiple: what numbers of neurons and channels are rounded to.
        rounds: in how many goes; `train` follows each.
        batches: of the task, on which importance is measured.
        mask: for "activation": the input that is 1 where a token is present; others count for nothing.
        train: the training after each round; None: none.

    Raises:
        UserError: nothing to remove, a share of what the module does not have, or a module that fixes its own sizes.
    """
    progress = progress or Progress()
    shares: dict[Kind, float] = {"heads": heads, "feed_forward": feed_forward, "width": width}
    if not layers and not any(shares.values()):
        raise UserError("prune: nothing is to be removed.", "Give heads, feed_forward, width or layers.")
    if mask and method != "activation":
        raise UserError(f"prune: mask has no effect with method = '{method}'.", "Leave it out.")
    network = plain(copy.deepcopy(module))
    drop_layers(network, task, layers, batches)
    first: dict[tuple[Kind, str], int] = {}
    for number in range(1, rounds + 1):
        done = 1 - (1 - number / rounds) ** 3
        part = {kind: done * share for kind, share in shares.items()}
        # The training of the round before draws random numbers, unless it is taken from its checkpoint.
        set_seed(f"{progress.seed}/{progress.step}/importance/{number}")
        with trainable(network):  # importance needs gradients
            _remove(
                network,
                task,
                part,
                first,
                multiple,
                lambda groups: importance(network, task, groups, method, batches, mask),
            )
        _check_runs(network, task)
        if train is not None:
            progress.report("pruned", number, rounds)
            fit(network, task, train, progress=progress)
    return network.eval()


def _remove(
    network: nn.Module,
    task: Task,
    shares: dict[Kind, float],
    first: dict[tuple[Kind, str], int],
    multiple: int,
    rank: Callable[[list[Group]], list[Tensor]],
) -> None:
    """Take the least important units, down to the shares of what was there `first`, which the first call notes."""
    structure = traced(network, task.calibration)
    groups = [group for group in structure.groups() if shares[group.kind]]
    for kind, share in shares.items():
        if share and not any(group.kind == kind for group in groups):
            raise UserError(
                f"prune: no {kind} were found in {type(network).__name__}.",
                "Attention is found by linear layers for queries, keys and values in a module with an attribute "
                "`heads` or `num_heads`.",
            )
    for group, values in zip(groups, rank(groups), strict=True):
        before = first.setdefault((group.kind, group.name), group.units)
        keep = _kept(before, shares[group.kind], 1 if group.kind == "heads" else multiple)
        worst = values.argsort(stable=True)[: max(0, group.units - keep)]
        structure.remove(group, _channels(group, worst.tolist()))


def _kept(units: int, share: float, multiple: int) -> int:
    """How many stay: a multiple, at least one, and no more than there are."""
    return min(units, multiple * max(1, round(units * (1 - share) / multiple)))


def _channels(group: Group, units: list[int]) -> list[int]:
    return sorted(unit * group.unit + at for unit in units for at in range(group.unit))


@torch.no_grad()
def _check_runs(network: nn.Module, task: Task) -> None:
    try:
        task.predict(network, {name: values[:2] for name, values in task.calibration.items()})
    except RuntimeError as error:
        raise UserError(
            f"The pruned module does not run: {str(error).splitlines()[0]}",
            "Its forward fixes a size that has become smaller. Take sizes from the tensors, as in "
            "`heads.transpose(1, 2).flatten(2)`.",
        ) from error

"""Cluster: few distinct weights in each matrix, so that flash can hold indices or Huffman codes of them.

After Han, Mao and Dally, "Deep Compression" (ICLR 2016, arXiv:1510.00149), section 3: k-means finds a codebook for each
matrix, and training then moves its entries, each by the sum of the gradients of the weights that share it.

The codebook is of the integers that flash holds, not of real numbers. The compiler takes a scale for each output
channel of a layer, and one for an embedding table, so a weight here is scale x integer with an integer from the
codebook, and scales are fitted along with it. Every row holds 127 or -127: its largest weight then tells the scale, and
as 127 is a prime no coarser grid fits, so that the compiler finds just these integers in an ordinary float module.
"""

from __future__ import annotations

import copy
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tvmtiny.compress.checks import attempt, batches_of, present_tokens
from tvmtiny.compress.distil import distance
from tvmtiny.compress.progress import Progress
from tvmtiny.compress.task import Task, Tensors
from tvmtiny.compress.training import Training, fit
from tvmtiny.errors import UserError

LARGEST = 127
"""Of the integers of a codebook, as of those of the compiler."""

LEAST_WEIGHTS = 512
"""Smaller matrices stay as they are: a codebook and the call of a decoder would take what they save."""

ROUNDS = 30
"""Of assigning weights, moving entries and fitting scales: the error changes by less than a thousandth in the last."""


def cluster(
    module: nn.Module,
    task: Task,
    *,
    clusters: Annotated[int, Interval(ge=4, le=128)] = 32,
    epochs: Annotated[int, Ge(0)] = 3,
    learning_rate: Annotated[float, Gt(0)] = 1e-3,
    distil: Annotated[float, Interval(ge=0, le=1)] = 0.0,
    outputs: Literal["classes", "values"] = "classes",
    mask: str = "",
    progress: Progress | None = None,
) -> nn.Module:
    """A copy of `module` with at most `clusters` distinct integers in each weight matrix and embedding table.

    Compile it with `compress_weights`. Biases, normalizations and matrices of fewer than LEAST_WEIGHTS weights stay as
    they are; so do parameters that are not called `weight`, such as a table of positions that is no nn.Embedding.

    Args:
        clusters: entries of a codebook. 16, 32 and 64 make indices of 4, 5 and 6 bits.
        epochs: of training with the assignment of weights to entries fixed; 0 for k-means alone.
        learning_rate: of that training.
        distil: share of its loss that is the distance from the outputs of `module`; the rest is the task's own.
        outputs, mask: of that distance, as those of the step `distil`.

    Raises:
        UserError: the module has no such matrix, or its weights or loss are not finite.
    """
    trained, result, before = copy.deepcopy(module), copy.deepcopy(module), copy.deepcopy(module).eval()
    matrices = _matrices(trained)
    if not matrices:
        raise UserError(
            f"The module has no matrix of at least {LEAST_WEIGHTS} weights to cluster.",
            "Leave the step `cluster` out.",
        )
    for owners in matrices:
        _parametrize(owners, clusters)
    if epochs:

        def loss(trained: nn.Module, inputs: Tensors, targets: Tensors) -> Tensor:
            found = task.forward(trained, inputs)
            parts = []  # a loss that does not count is not computed: it may have no value
            if distil < 1:
                parts.append((1 - distil) * task.loss(found, targets))
            if distil:
                with torch.no_grad():
                    said = task.forward(before, inputs)
                present = present_tokens(inputs, mask, targets)
                parts.append(distil * distance(found, said, present, outputs))
            return torch.stack(parts).sum()

        progress = progress or Progress()
        if progress.dry:  # what does not go together is found without training
            attempt("the loss of the first batch", lambda: loss(trained, *next(batches_of(task))))
        training = Training(epochs, learning_rate, weight_decay=0.0)
        fit(trained, task, training, progress=progress, loss=loss)
    for owner, name in (owner for owners in matrices for owner in owners):
        parametrize.remove_parametrizations(owner, name)
    result.load_state_dict(trained.state_dict())
    return result.eval()


Owner = tuple[nn.Module, str]
"""A module and the name of a parameter of its own."""


def _matrices(module: nn.Module) -> list[list[Owner]]:
    """The owners of every weight matrix and embedding table; several where it is tied."""
    found: dict[int, list[Owner]] = {}
    for owner in module.modules():
        for name, parameter in owner.named_parameters(recurse=False):
            if name.endswith("weight") and parameter.ndim > 1 and parameter.numel() >= LEAST_WEIGHTS:
                found.setdefault(id(parameter), []).append((owner, name))
    return list(found.values())


def _parametrize(owners: list[Owner], clusters: int) -> None:
    """Put a codebook in the place of a weight."""
    (owner, name), *others = owners
    weight: Tensor = getattr(owner, name).detach()
    if not torch.isfinite(weight).all():
        raise UserError("A weight is not a finite number.", "Look at the training before the step `cluster`.")
    # A table that is the weights of a layer, too, has the layer's scales.
    by_row = not all(isinstance(owner, nn.Embedding) for owner, _ in owners)
    parametrize.register_parametrization(owner, name, Codebook(weight, clusters, by_row=by_row), unsafe=True)
    for other, its in others:
        parametrize.register_parametrization(other, its, _Tied(owner, name), unsafe=True)


class Codebook(nn.Module):
    """A weight as scale x integer, the integers from a codebook, as torch's parametrization of it.

    Its parameters are the entries of the codebook in units of LARGEST, of which the outer ones are fixed (and 0, where
    weights were pruned), and the largest magnitude of each row, or of all rows.
    """

    index: Tensor
    fixed: Tensor

    def __init__(self, weight: Tensor, clusters: int, *, by_row: bool) -> None:
        super().__init__()
        rows = weight.flatten(1) if by_row else weight.reshape(1, -1)
        entries, fixed = _first_entries(rows, clusters)
        entries, index, scales = _k_means(rows, entries, fixed)
        self.shape = weight.shape
        self.register_buffer("index", index)
        self.register_buffer("fixed", fixed)
        self._start = (entries / LARGEST, scales * LARGEST)

    def right_inverse(self, _weight: Tensor) -> tuple[Tensor, Tensor]:
        """Entries and largest magnitudes as k-means found them."""
        return self._start

    def forward(self, entries: Tensor, magnitudes: Tensor) -> Tensor:
        """The weight; integers are rounded, with the gradient of what they were rounded from."""
        entries = torch.where(self.fixed, entries.detach(), entries)
        integers = (entries * LARGEST).clamp(-LARGEST, LARGEST)
        integers = integers + (integers.round() - integers).detach()
        # Training may bring a magnitude below 0, which would negate the entries of one row.
        return (integers[self.index] * (magnitudes.abs()[:, None] / LARGEST)).reshape(self.shape)


class _Tied(nn.Module):
    """The weight of another module, as a parametrization of its own parameter."""

    def __init__(self, owner: nn.Module, name: str) -> None:
        super().__init__()
        self._of = [(owner, name)]  # in a list: no submodule

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Nothing is left to train."""
        return weight.new_zeros(0)

    def forward(self, _nothing: Tensor) -> Tensor:
        """The other's weight."""
        ((owner, name),) = self._of
        found: Tensor = getattr(owner, name)
        return found


def _first_entries(rows: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """Equidistant entries, the best start for large weights (Han et al., section 3.2), and which of them are fixed.

    Where more weights are 0 than an entry's share, one entry is 0: they were pruned.
    """
    entries = torch.linspace(-LARGEST, LARGEST, clusters)
    fixed = torch.zeros(clusters, dtype=torch.bool)
    fixed[0] = fixed[-1] = True
    if int((rows == 0).sum()) * clusters > rows.numel():
        middle = int(entries.abs().argmin())
        entries[middle], fixed[middle] = 0.0, True
    return entries, fixed


def _k_means(rows: Tensor, entries: Tensor, fixed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Entries, index of the entry of each weight, and scale of each row: the least squared error of the weights.

    The largest weight of a row has one of the outer entries.
    """
    entries, start = entries.clone(), entries
    peak = rows.abs().argmax(dim=1, keepdim=True)
    outer = torch.where(rows.gather(1, peak) < 0, 0, len(entries) - 1)
    scales = rows.abs().amax(dim=1) / LARGEST
    index = torch.zeros(rows.shape, dtype=torch.long)
    for _ in range(ROUNDS):
        values = rows / scales.clamp(min=torch.finfo(rows.dtype).tiny)[:, None]
        index = torch.bucketize(values, (entries[1:] + entries[:-1]) / 2).scatter(1, peak, outer)
        share = (scales**2)[:, None].expand_as(rows)  # errors count in units of the weights
        total = torch.zeros_like(entries).index_add(0, index.flatten(), (share * values).flatten())
        count = torch.zeros_like(entries).index_add(0, index.flatten(), share.flatten())
        entries = torch.where(fixed | (count == 0), entries, total / count.clamp(min=1e-30))
        entries = torch.where(fixed, start, entries).clamp(-LARGEST, LARGEST)
        chosen = entries[index]
        scales = (rows * chosen).sum(dim=1) / (chosen**2).sum(dim=1)
    return entries, index, scales

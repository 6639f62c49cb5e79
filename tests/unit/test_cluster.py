"""Clustering: what the compiler makes of a clustered module, k-means against its definition, and bad input."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import CLASSES, VOCABULARY, S

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from tvmtiny.compiler import compile as compile_model  # noqa: E402
from tvmtiny.compress.cluster import LARGEST, Codebook, cluster  # noqa: E402
from tvmtiny.compress.progress import Progress  # noqa: E402
from tvmtiny.compress.task import Split, Task  # noqa: E402
from tvmtiny.errors import UserError  # noqa: E402

WIDTH = 64


class Model(nn.Module):
    """Embedding, mean, two dense layers; the smaller ones stay real."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.up = nn.Linear(WIDTH, 2 * WIDTH)
        self.head = nn.Linear(2 * WIDTH, CLASSES)

    def forward(self, ids: Any) -> Any:
        return self.head(torch.relu(self.up(self.tokens(ids).mean(dim=1))))


def _task() -> Task:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, VOCABULARY, (64, S))
    labels = ids[:, 0] % CLASSES
    split = Split({"ids": ids}, {"labels": labels})

    def batches() -> Iterator[Any]:
        for rows in np.split(np.arange(64), 4):
            yield {"ids": torch.from_numpy(ids[rows])}, {"labels": torch.from_numpy(labels[rows])}

    return Task(
        model=Model,
        outputs=("logits",),
        batches=batches,
        steps=4,
        loss=lambda outputs, targets: nn.functional.cross_entropy(outputs["logits"], targets["labels"]),
        metrics=lambda outputs, targets: {
            "accuracy": float(np.mean(outputs["logits"].argmax(1) == targets["labels"]))
        },
        selection=split,
        test=split,
        calibration={"ids": ids[:8]},
    )


def _distinct(weight: Any, *, by_row: bool = True) -> int:
    """Distinct integers of a weight whose largest of a row is LARGEST."""
    rows = weight.detach().numpy().astype(np.float64)
    scale = np.abs(rows).max(axis=1 if by_row else None, keepdims=True) / LARGEST
    integers = rows / scale
    assert np.abs(integers - np.round(integers)).max() < 1e-3
    return len(np.unique(np.round(integers)))


@pytest.mark.parametrize("epochs", [0, 2])
def test_matrices_have_few_integers_and_the_module_stays(epochs: int) -> None:
    torch.manual_seed(0)
    module, task = Model(), _task()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    clustered = cluster(module, task, clusters=16, epochs=epochs, learning_rate=1e-2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert list(clustered.state_dict()) == list(before)
    assert _distinct(clustered.tokens.weight, by_row=False) <= 16
    assert _distinct(clustered.up.weight) <= 16
    assert _distinct(clustered.head.weight) <= 16
    moved = not torch.equal(clustered.up.bias, module.up.bias)
    assert moved == bool(epochs)


def test_training_lowers_the_loss_and_keeps_the_assignment() -> None:
    torch.manual_seed(0)
    module, task = Model(), _task()
    losses = []
    for epochs in (0, 20):
        found = cluster(module, task, clusters=8, epochs=epochs, learning_rate=1e-2)
        inputs, targets = next(iter(task.batches()))
        losses.append(float(task.loss(task.forward(found, inputs), targets).detach()))
        assert _distinct(found.up.weight) <= 8
    assert losses[1] < 0.7 * losses[0]


def test_training_can_aim_at_the_outputs_from_before() -> None:
    torch.manual_seed(0)
    module, task = Model(), _task()
    wanted = task.predict(module, task.selection.inputs)["logits"]
    apart = []
    for share in (0.0, 1.0):
        found = cluster(module, task, clusters=8, epochs=10, learning_rate=1e-2, distil=share)
        apart.append(np.square(task.predict(found, task.selection.inputs)["logits"] - wanted).mean())
    assert apart[1] < 0.1 * apart[0]


def test_a_loss_that_does_not_count_needs_no_value() -> None:
    task = dataclasses.replace(_task(), loss=lambda _outputs, _targets: torch.tensor(float("nan")))
    found = cluster(Model(), task, clusters=8, epochs=1, distil=1.0)
    assert all(torch.isfinite(value).all() for value in found.parameters())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"mask": "masks"}, "'masks' is none of ids, labels"),
        ({"mask": "labels"}, r"mask = 'labels' has the shape \[16\]"),
    ],
)
def test_mistakes_are_found_before_anything_is_trained(arguments: dict[str, str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        cluster(Model(), _task(), distil=1.0, progress=Progress(dry=True), **arguments)


def test_the_compiler_finds_the_codebook(tmp_path: Path) -> None:
    torch.manual_seed(0)
    clustered = cluster(Model(), _task(), clusters=16, epochs=1)
    ids = torch.zeros((1, S), dtype=torch.long)
    program = torch.export.export(clustered, (ids,))
    artifact = compile_model(
        program,
        target="host",
        calibration={"ids": _task().calibration["ids"]},
        compress_weights="packed",
        output=tmp_path / "few",
    )
    storage = artifact.metadata["storage"]
    plain = VOCABULARY * WIDTH + 2 * WIDTH * WIDTH + 2 * WIDTH * CLASSES
    assert storage["plain_bytes"] == plain
    assert plain / 2 < storage["stored_bytes"] <= plain / 2 + 3 * 16  # four bits a weight, and codebooks


def test_tied_weights_stay_tied() -> None:
    module = Model()
    module.decoder = nn.Linear(WIDTH, VOCABULARY)
    module.decoder.weight = module.tokens.weight
    clustered = cluster(module, _task(), clusters=32, epochs=1)
    assert clustered.decoder.weight is clustered.tokens.weight
    assert _distinct(clustered.tokens.weight) <= 32


@settings(max_examples=20)
@given(st.integers(4, 32), st.booleans(), st.integers(0, 2**31 - 1))
def test_weights_have_the_nearest_entry(clusters: int, by_row: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(12, 30, generator=generator)
    book = Codebook(weight, clusters, by_row=by_row)
    entries, magnitudes = book.right_inverse(weight)
    units = (weight / magnitudes[:, None] if by_row else weight.reshape(1, -1) / magnitudes).flatten()
    chosen = entries[book.index].flatten()
    nearest = (units[:, None] - entries).abs().min(dim=1).values
    wrong = ((units - chosen).abs() > nearest + 0.02).sum()
    assert wrong <= len(magnitudes)  # the largest of each row, which tells the scale
    assert entries.abs().max() == 1


def test_pruned_weights_stay_zero() -> None:
    weight = torch.randn(16, 64, generator=torch.Generator().manual_seed(1))
    weight[:, ::2] = 0
    book = Codebook(weight, 16, by_row=True)
    assert (book(*book.right_inverse(weight))[:, ::2] == 0).all()


def test_error_falls_with_more_clusters() -> None:
    weight = torch.randn(64, 64, generator=torch.Generator().manual_seed(2))
    errors = []
    for clusters in (4, 16, 64):
        book = Codebook(weight, clusters, by_row=True)
        errors.append(float(((book(*book.right_inverse(weight)) - weight) ** 2).mean()))
    assert errors[0] > 4 * errors[1] > 16 * errors[2]


def test_bad_input_is_an_error() -> None:
    with pytest.raises(UserError, match="no matrix"):
        cluster(nn.Linear(4, 4), _task())
    module = Model()
    with torch.no_grad():
        module.up.weight[0, 0] = float("nan")
    with pytest.raises(UserError, match="not a finite number"):
        cluster(module, _task())

"""Pruning: what has no effect goes first and without a trace, dimensions shrink, and the rest compiles."""

from __future__ import annotations

import copy
import dataclasses
import re
from itertools import islice
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import recipe_task  # noqa: E402  torch may be missing
import torch_models  # noqa: E402
from torch import nn  # noqa: E402

from tvmtiny.compress.export import estimate, to_onnx  # noqa: E402
from tvmtiny.compress.groups import traced  # noqa: E402
from tvmtiny.compress.importance import importance  # noqa: E402
from tvmtiny.compress.plain import plain  # noqa: E402
from tvmtiny.compress.progress import Progress  # noqa: E402
from tvmtiny.compress.prune import prune  # noqa: E402
from tvmtiny.compress.task import Task  # noqa: E402
from tvmtiny.compress.training import Training, fit, set_seed  # noqa: E402
from tvmtiny.errors import UserError  # noqa: E402


@pytest.fixture
def task() -> Task:
    return recipe_task.task(0)


def model(task: Task) -> nn.Module:
    set_seed("model")
    return task.model().eval()


class Bert(nn.Module):
    """Hugging Face's BERT as the task calls it."""

    def __init__(self) -> None:
        super().__init__()
        transformers = pytest.importorskip("transformers")
        config = transformers.BertConfig(
            vocab_size=recipe_task.VOCABULARY,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=32,
            max_position_embeddings=recipe_task.TOKENS,
            attn_implementation="eager",
        )
        self.bert = transformers.BertForSequenceClassification(config)

    def forward(self, ids: Any, mask: Any) -> Any:
        return self.bert(input_ids=ids, attention_mask=mask).logits


def silence(readers: list[nn.Linear], channels: list[int]) -> None:
    """Take all effect from channels that layers read."""
    with torch.no_grad():
        for layer in readers:
            layer.weight[:, channels] = 0


CASES = {
    "own": (model, r"attention\.output", r"contract"),
    "bert": (lambda _task: Bert().eval(), r"attention\.output\.dense", r"layer\.\d\.output\.dense"),
    "torch": (
        lambda _task: torch_models.Pooled(torch_models.TorchEncoder(False, "gelu")).eval(),
        r"self_attn\.output",
        r"linear2",
    ),
}


@pytest.mark.parametrize("method", ["taylor", "activation"])
@pytest.mark.parametrize("case", CASES)
def test_what_has_no_effect_goes_without_a_trace(task: Task, case: str, method: str) -> None:
    build, attention, hidden = CASES[case]
    if case == "torch":  # its sizes are those of tests/models.py
        inputs = {
            "ids": np.random.default_rng(0).integers(0, 50, (64, 12)),
            "mask": np.ones((64, 12), np.int64),
        }
        targets = {"labels": torch.arange(64) % 5}
        tensors = {name: torch.from_numpy(values) for name, values in inputs.items()}
        task = dataclasses.replace(task, batches=lambda: iter([(tensors, targets)]), calibration=inputs)
    network = plain(build(task))
    layers = {name: part for name, part in network.named_modules() if isinstance(part, nn.Linear)}
    # The first two of four heads of width 4 (or the first of two of width 8), and every second neuron.
    silence([part for name, part in layers.items() if re.search(attention, name)], list(range(8)))
    silence([part for name, part in layers.items() if re.search(hidden, name)], list(range(0, 32, 2)))
    if case == "bert":  # its pooler is a hidden layer too
        silence([layers["bert.classifier"]], list(range(0, 16, 2)))
    before = task.predict(network, task.calibration)["logits"]
    pruned = prune(network, task, heads=0.5, feed_forward=0.5, method=method)
    np.testing.assert_allclose(task.predict(pruned, task.calibration)["logits"], before, atol=1e-5)
    widths = {part.in_features for name, part in pruned.named_modules() if re.search(attention + "$", name)}
    assert widths == {8}
    assert {part.in_features for name, part in pruned.named_modules() if re.search(hidden + "$", name)} == {
        16
    }


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("absent", [False, True])
def test_plain_layers_compute_what_torch_computes(norm_first: bool, absent: bool) -> None:
    network = torch_models.TorchEncoder(norm_first, "gelu").eval()
    x, mask = torch.randn(3, torch_models.S, torch_models.E), torch.ones(3, torch_models.S)
    if absent:
        mask[:, -3:] = 0
    expected = network(x, mask)
    found = plain(copy.deepcopy(network))(x, mask)
    kept = mask.bool()
    torch.testing.assert_close(found[kept], expected[kept], atol=1e-5, rtol=1e-5)


def test_every_dimension_shrinks_and_the_argument_stays(task: Task) -> None:
    network = model(task)
    network.words.weight.requires_grad_(False)
    before = copy.deepcopy(network.state_dict())
    pruned = prune(network, task, heads=0.5, feed_forward=0.4, width=0.3, layers=1, method="magnitude")
    (layer,) = pruned.layers
    assert layer.attention.heads == 2
    assert tuple(layer.attention.query.weight.shape) == (
        8,
        12,
    )  # 2 heads of 4; 16 channels less 30 % are 11, so 12
    assert tuple(layer.expand.weight.shape) == (20, 12)  # 32 neurons less 40 % are 19, so 20
    assert tuple(pruned.words.weight.shape) == (12, 12)
    assert tuple(pruned.positions.shape) == (8, 12)
    assert (pruned.words.weight.requires_grad, pruned.positions.requires_grad) == (False, True)
    assert network.layers[0].attention.heads == 4
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_absent_tokens_do_not_matter(task: Task) -> None:
    network = model(task)
    groups = [group for group in traced(network, task.calibration).groups() if group.kind == "feed_forward"]
    inputs, targets = next(task.batches())
    absent = inputs["mask"] == 0
    ranks = []
    for word in (0, 5):
        row = {**inputs, "ids": inputs["ids"].masked_fill(absent, word)}, targets
        one = dataclasses.replace(task, batches=lambda row=row: iter([row]))
        ranks.append([importance(network, one, groups, "activation", 1, mask) for mask in ("mask", "")])
    (first, first_all), (second, second_all) = ranks
    assert all(torch.allclose(a, b) for a, b in zip(first, second, strict=True))
    assert not all(torch.allclose(a, b) for a, b in zip(first_all, second_all, strict=True))


def test_the_compiler_still_fuses_what_is_left(task: Task) -> None:
    pruned = prune(model(task), task, heads=0.5, feed_forward=0.5, width=0.25)
    found, _ = estimate(to_onnx(pruned, task), {"target": "stm32l4r5"})
    assert [row.kernel for row in found.operators] == [
        "embed", "attention", "ffn", "attention", "ffn", "mean", "dense",
    ]  # fmt: skip


def test_the_layer_goes_that_is_missed_least(task: Task) -> None:
    network = recipe_task.Encoder(16, 4, 32, 3).eval()
    losses = []
    for at in range(3):
        shorter = copy.deepcopy(network)
        del shorter.layers[at]
        with torch.no_grad():
            rows = [task.loss(task.forward(shorter, x), y) for x, y in islice(task.batches(), 8)]
        losses.append(float(sum(rows)))
    pruned = prune(network, task, layers=1)
    kept = [layer for at, layer in enumerate(network.layers) if at != int(np.argmin(losses))]
    for found, wanted in zip(pruned.layers, kept, strict=True):
        assert torch.equal(found.expand.weight, wanted.expand.weight)


def test_in_rounds_with_training_a_half_costs_little(task: Task) -> None:
    network = model(task)
    training = Training(epochs=10, learning_rate=5e-3)
    fit(network, task, training, progress=Progress())
    before = task.measure(network, task.test)["accuracy"]
    seen: list[int] = []
    progress = Progress(listener=lambda event: seen.append(event.done) if event.text == "pruned" else None)
    pruned = prune(
        network, task, heads=0.5, feed_forward=0.5, rounds=3, train=Training(epochs=2), progress=progress
    )
    assert seen == [1, 2, 3]
    assert before > 0.95
    assert task.measure(pruned, task.test)["accuracy"] > before - 0.02
    assert pruned.layers[0].attention.heads == 2


class FixedSize(recipe_task.Attention):
    """Takes the width of its heads' outputs from its input."""

    def forward(self, x: Any, keep: Any) -> Any:
        q, k, v = (
            part(x).reshape(len(x), -1, 4, 4).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        scores = (q @ k.transpose(2, 3)).masked_fill(~keep, float("-inf"))
        return self.output((scores.softmax(-1) @ v).transpose(1, 2).reshape(x.shape))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "nothing is to be removed"),
        ({"layers": 2}, "layers = 2: no further layer can be removed"),
    ],
)
def test_refusals(task: Task, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        prune(model(task), task, **arguments)


def test_modules_without_heads_or_of_fixed_sizes_are_refused(task: Task) -> None:
    network = model(task)
    for layer in network.layers:
        layer.attention = FixedSize(16, 4)
    with pytest.raises(UserError, match="pruned module does not run"):
        prune(network, task, heads=0.5)
    linear = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    features = dataclasses.replace(task, calibration={"x": np.zeros((8, 8), np.float32)})
    with pytest.raises(UserError, match="no heads were found"):
        prune(linear, features, heads=0.5)

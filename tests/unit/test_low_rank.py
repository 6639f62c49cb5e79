"""Low rank: the best approximation of a layer's results on the data, and only where it saves."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import recipe_task  # noqa: E402  torch may be missing
from torch import nn  # noqa: E402

from tvmtiny.compress.low_rank import low_rank  # noqa: E402
from tvmtiny.compress.progress import Progress  # noqa: E402
from tvmtiny.compress.task import Task  # noqa: E402
from tvmtiny.compress.training import Training, fit, set_seed  # noqa: E402
from tvmtiny.errors import UserError  # noqa: E402

NAME = "layers.0.expand"


@pytest.fixture(scope="module")
def task() -> Task:
    return recipe_task.task(0, width=64, hidden=128, layers=1)


@pytest.fixture(scope="module")
def network(task: Task) -> nn.Module:
    set_seed("model")
    found = task.model()
    fit(found, task, Training(epochs=4, learning_rate=3e-3), progress=Progress())
    return found


def inputs_of(network: nn.Module, task: Task) -> np.ndarray:
    """All rows that the layer sees in an epoch."""
    rows = []
    handle = network.get_submodule(NAME).register_forward_hook(
        lambda _m, x, _y: rows.append(x[0].flatten(0, -2))
    )
    with torch.no_grad():
        for inputs, _ in task.batches():
            task.forward(network, inputs)
    handle.remove()
    return torch.cat(rows).double().numpy()


def matrix(layer: nn.Module) -> np.ndarray:
    if isinstance(layer, nn.Sequential):
        return (layer[1].weight @ layer[0].weight).detach().double().numpy()
    return layer.weight.detach().double().numpy()


@pytest.mark.parametrize("energy", [0.5, 0.8])
def test_no_other_matrix_of_the_rank_is_nearer_on_the_data(
    task: Task, network: nn.Module, energy: float
) -> None:
    factored = low_rank(network, task, energy=energy, layers=(NAME,), multiple=1)
    pair = factored.get_submodule(NAME)
    rank = pair[0].out_features
    x, w = inputs_of(network, task), matrix(network.get_submodule(NAME))
    found = np.square(x @ (matrix(pair) - w).T).sum()
    singular = (
        np.linalg.svd(x @ w.T, compute_uv=False) ** 2
    )  # Eckart and Young: what any matrix of the rank loses
    assert found == pytest.approx(singular[rank:].sum(), rel=1e-3)
    assert singular[:rank].sum() >= energy * singular.sum() > singular[: rank - 1].sum()


def test_attention_and_small_layers_stay(task: Task, network: nn.Module) -> None:
    factored = low_rank(network, task, energy=0.3)
    pairs = [name for name, part in factored.named_modules() if isinstance(part, nn.Sequential)]
    assert pairs == [NAME, "layers.0.contract"]
    none = low_rank(network, task, energy=1.0)
    assert not any(isinstance(part, nn.Sequential) for part in none.modules())


def test_ranks_are_multiples_and_the_result_is_near(task: Task, network: nn.Module) -> None:
    factored = low_rank(network, task, energy=0.99, multiple=4, layers=(NAME,))
    assert factored.get_submodule(NAME)[0].out_features % 4 == 0
    before, after = (task.predict(net, task.calibration)["logits"] for net in (network, factored))
    assert np.abs(after - before).max() < 0.1 * np.abs(before).max()
    assert isinstance(network.get_submodule(NAME), nn.Linear)


def test_the_search_keeps_to_the_budget(task: Task, network: nn.Module) -> None:
    before = task.measure(network, task.selection)["accuracy"]
    tried: list[float] = []
    progress = Progress(listener=lambda event: tried.extend(event.values.values()))
    factored = low_rank(network, task, budget=0.02, progress=progress)
    assert len(tried) >= 3
    assert task.measure(factored, task.selection)["accuracy"] >= before - 0.02


def test_an_unknown_layer_is_refused(task: Task, network: nn.Module) -> None:
    with pytest.raises(UserError, match="no linear layer is called 'expnd'"):
        low_rank(network, task, layers=("expnd",))

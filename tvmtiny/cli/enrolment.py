"""`tvmtiny run --enrol`: labelled examples first, then every sample gets the label of the nearest one.

The model runs on the device; the store and its search are the Python twin of tvmt_fewshot.h, whose bytes are the same.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from tvmtiny.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from tvmtiny.artifact import Artifact
    from tvmtiny.cli.predictions import Truth

UNKNOWN = "(unknown)"


@dataclasses.dataclass(frozen=True)
class Rule:
    """How to choose: `by_mean` takes class means instead of examples; least similarity -1 to 1."""

    by_mean: bool = False
    least_similarity: float = -1.0


@dataclasses.dataclass(frozen=True)
class Examples:
    """What to enrol: a label for each of the model's outputs."""

    labels: Sequence[str]
    outputs: Sequence[dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Match:
    """One sample: `similarity` (-1 to 1) of the nearest, `margin` to the nearest of another label."""

    label: str
    similarity: float
    margin: float
    expected: str | None = None
    text: str | None = None

    @property
    def correct(self) -> bool | None:
        """Whether the label is the expected one, None where that is not known."""
        return None if self.expected is None else self.label == self.expected

    def numbers(self) -> dict[str, str]:
        """What the table shows beside the label."""
        return {"similarity": f"{self.similarity:.3f}", "margin": f"{self.margin:.3f}"}


def read_text_examples(path: Path) -> tuple[list[str], list[str]]:
    """Labels and texts of a file with LABEL<TAB>TEXT a line. Raises UserError that quotes a line of another form."""
    from tvmtiny.frontend.text_file import read_lines

    labels, texts = [], []
    for line in read_lines(path):
        label, separator, text = line.partition("\t")
        if line.strip() and not (separator and label and text):
            raise UserError(
                f"{path}: the line {line!r} is not LABEL<TAB>TEXT.", "Give a label to each example."
            )
        if line.strip():
            labels.append(label)
            texts.append(text)
    if not texts:
        raise UserError(f"{path} has no examples.", "Write LABEL<TAB>TEXT a line.")
    return labels, texts


def check(artifact: Artifact) -> None:
    """Raise UserError where the model's first output is no single row."""
    from tvmtiny.fewshot import MOST

    shape = artifact.outputs[0].shape
    rows = 1
    for extent in shape[:-1]:
        rows *= extent
    if rows != 1 or not 1 < shape[-1] <= MOST:
        sizes = " x ".join(str(extent) for extent in shape)
        raise UserError(
            f"The first output of {artifact.name} is {sizes}: no embedding of one sample.",
            f"Export a model that pools its tokens to one row of 2 to {MOST} values.",
        )


def matches(
    artifact: Artifact,
    examples: Examples,
    outputs: Sequence[dict[str, np.ndarray]],
    truth: Truth,
    rule: Rule,
) -> list[Match]:
    """Enrol the outputs of examples under their labels and classify other outputs.

    Raises:
        UserError: an embedding is zero, or there are too many examples.
    """
    from tvmtiny.fewshot import ONE, Store

    info = artifact.outputs[0]
    zero_point = int(info.zero_point[0]) if info.zero_point else 0
    names = list(dict.fromkeys(examples.labels))
    store = Store(len(examples.labels), info.shape[-1])
    for label, output in zip(examples.labels, examples.outputs, strict=True):
        store.enrol(names.index(label), output[info.name], zero_point)
    least = round(rule.least_similarity * ONE)
    answers = [
        store.classify(output[info.name], zero_point, by_mean=rule.by_mean, least_similarity=least)
        for output in outputs
    ]
    return [
        Match(
            label=names[answer.label] if answer.label >= 0 else UNKNOWN,
            similarity=round(answer.similarity / ONE, 5),
            margin=round(answer.margin / ONE, 5),
            expected=truth.labels[index] if truth.labels else None,
            text=truth.texts[index] if truth.texts else None,
        )
        for index, answer in enumerate(answers)
    ]

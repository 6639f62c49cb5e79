"""Outputs of a classifier as classes and confidences, with the utterances and true classes where known."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvmtiny.cli import console
from tvmtiny.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from tvmtiny.artifact import Artifact, TensorInfo
    from tvmtiny.cli.enrolment import Match

# A run of hundreds of samples must not scroll the figures away; --json lists all.
ROWS_SHOWN = 30


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One sample: `confidence` is the softmax probability of `label`; `expected` and `text` where known."""

    label: str
    confidence: float
    expected: str | None = None
    text: str | None = None

    @property
    def correct(self) -> bool | None:
        """Whether the class is the expected one, None where that is not known."""
        return None if self.expected is None else self.label == self.expected

    def numbers(self) -> dict[str, str]:
        """What the table shows beside the label."""
        return {"confidence": f"{100 * self.confidence:.1f} %"}


@dataclasses.dataclass(frozen=True)
class Truth:
    """What a person knows of the samples: their texts and their true classes, one of each a sample."""

    texts: list[str] | None = None
    labels: list[str] | None = None


def is_classifier(artifact: Artifact) -> bool:
    """Whether the first output is one row of class scores: of int16. An embedding is int8."""
    shape = artifact.outputs[0].shape
    return math.prod(shape[:-1]) == 1 and shape[-1] > 1 and artifact.outputs[0].dtype == "int16"


def _class_name(artifact: Artifact, index: int) -> str:
    return artifact.labels[index] if index < len(artifact.labels) else str(index)


def _scores(info: TensorInfo, values: np.ndarray) -> np.ndarray:
    """Softmax of the dequantized scores."""
    import numpy as np

    logits = info.real(values)
    exponentials = np.exp(logits - logits.max())
    return exponentials / exponentials.sum()


def predict(artifact: Artifact, outputs: Sequence[dict[str, np.ndarray]], truth: Truth) -> list[Prediction]:
    """Return the class of each sample's first output."""
    info = artifact.outputs[0]
    rows = []
    for index, output in enumerate(outputs):
        scores = _scores(info, output[info.name].reshape(-1))
        best = int(scores.argmax())
        rows.append(
            Prediction(
                label=_class_name(artifact, best),
                confidence=float(scores[best]),
                expected=truth.labels[index] if truth.labels else None,
                text=truth.texts[index] if truth.texts else None,
            )
        )
    return rows


def accuracy(rows: Sequence[Prediction | Match]) -> float | None:
    """Share of samples whose class is the expected one, None where these are not known."""
    known = [row.correct for row in rows if row.correct is not None]
    return sum(known) / len(known) if known else None


def read_truth(artifact: Artifact, data: Path, texts: Path | None, count: int) -> Truth:
    """Collect what is known of `count` samples: `labels` in the NPZ file, lines of the text file.

    Raises UserError when there are not as many of either as samples.
    """
    from tvmtiny.frontend.text_file import read_lines

    labels = _labels_of(artifact, data)
    if labels is not None and len(labels) != count:
        raise UserError(
            f"{data} has {len(labels)} labels for {count} samples.",
            "Give one label a sample, or leave `labels` out.",
        )
    if texts is None:
        return Truth(labels=labels)
    lines = [line for line in read_lines(texts) if line.strip()]
    if len(lines) != count:
        raise UserError(
            f"{texts} has {len(lines)} lines for {count} samples of {data}.",
            "Give one text a sample, in the same order.",
        )
    pairs = [line.partition("\t") for line in lines]
    if not all(separator for _, separator, _ in pairs):
        return Truth(texts=lines, labels=labels)
    return Truth(
        texts=[text for _, _, text in pairs],
        labels=[label for label, _, _ in pairs] if labels is None else labels,
    )


def _labels_of(artifact: Artifact, data: Path) -> list[str] | None:
    """The array `labels` of an NPZ file: names, or numbers of classes."""
    import numpy as np

    with np.load(data) as arrays:
        if "labels" not in arrays:
            return None
        values = arrays["labels"].reshape(-1)
    if values.dtype.kind in "iu":
        return [_class_name(artifact, int(value)) for value in values]
    return [str(value) for value in values]


def table(rows: Sequence[Prediction | Match], title: str) -> Any:
    """Return the table of texts (or sample numbers), labels and how sure they are."""
    from rich.markup import escape

    judged = any(row.expected is not None for row in rows)
    columns = ("text" if rows and rows[0].text is not None else "sample", "predicted")
    numbers = rows[0].numbers() if rows else {}
    result = console.table(
        title, *columns, *numbers, *(("expected",) if judged else ()), right=tuple(numbers)
    )
    for index, row in enumerate(rows[:ROWS_SHOWN]):
        cells = [escape(row.text) if row.text is not None else str(index)]
        colour = {True: "green", False: "red", None: "bold"}[row.correct]
        cells += [f"[{colour}]{escape(row.label)}[/]", *row.numbers().values()]
        result.add_row(*cells, *([escape(row.expected or "")] if judged else ()))
    return result

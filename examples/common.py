"""What the tasks of the examples share: encoders, and the loss and the metric of one row of logits.

Needs torch (the extra `tvmtiny[train]`); compiling a shipped model needs none of this. Names follow the field: S
tokens, E embedding, H heads, P = E / H head dimension, F feed-forward.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from tvmtiny.compress.task import Arrays, Tensors


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

    def placed(self, x: Tensor) -> Tensor:
        """Queries or keys [B, H, S, P] with what they are to tell of their positions: nothing here."""
        return x

    def forward(self, x: Tensor, keep: Tensor | None) -> Tensor:
        """x [B, S, E]; keep bool [B, 1, 1, S], True where a key is present; returns [B, S, E]."""
        query, key = self.placed(self._split(self.query(x))), self.placed(self._split(self.key(x)))
        value = self._split(self.value(x))
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


class RowClassifier(nn.Module):
    """Classes of rows of real numbers: linear, positions, encoder layers, mean over the rows that are there, linear.

    What is derived from it normalises its input into rows.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        mean: np.ndarray,
        deviation: np.ndarray,
        columns: int,
        classes: int,
        shape: EncoderShape,
        dropout: float,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(mean))
        self.register_buffer("deviation", torch.from_numpy(deviation))
        self.embed = nn.Linear(columns, shape.embedding)
        self.positions = nn.Parameter(torch.empty(shape.tokens, shape.embedding))
        self.layers = nn.ModuleList(EncoderLayer(shape, dropout) for _ in range(shape.layers))
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(shape.embedding, classes)
        nn.init.normal_(self.positions, std=0.1)

    def classify(self, rows: Tensor, mask: Tensor | None = None) -> Tensor:
        """rows [B, S, columns], normalised; mask [B, S], 1 for rows that are there; returns logits [B, classes]."""
        x = self.embed(rows) + self.positions
        keep = None if mask is None else (mask > 0)[:, None, None, :]
        for layer in self.layers:
            x = layer(x, keep)
        if mask is None:
            pooled = x.mean(1)
        else:
            weight = mask[:, :, None]
            pooled = (x * weight).sum(1) / weight.sum(1)
        logits: Tensor = self.classifier(self.dropout(pooled))
        return logits


def classification_loss(smoothing: float) -> Callable[[Tensors, Tensors], Tensor]:
    """Cross entropy of `logits`; `smoothing`: of the labels."""
    return lambda outputs, targets: nn.functional.cross_entropy(
        outputs["logits"], targets["labels"], label_smoothing=smoothing
    )


def accuracy(outputs: Arrays, targets: Arrays) -> dict[str, float]:
    """The share of samples whose largest logit is that of their label."""
    return {"accuracy": float((outputs["logits"].argmax(1) == targets["labels"]).mean())}

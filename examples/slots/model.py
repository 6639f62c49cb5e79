"""The network of utterances and the batches that it is trained on; the intent example has it without tags."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from common import EncoderLayer, EncoderShape, SelfAttention  # noqa: E402  the line above makes it importable
from corpus import SPECIAL, UNKNOWN, Corpus  # noqa: E402

from tvmtiny.compress.task import Tensors  # noqa: E402

SLOWEST = 100.0
"""Positions that the slowest pair of columns takes for a radian: utterances have 32 tokens at most."""


class RotaryAttention(SelfAttention):
    """Self-attention that sees how far tokens are apart: queries and keys are turned by their positions.

    Source: J. Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", arXiv:2104.09864.
    """

    angles: Tensor

    def __init__(self, embedding: int, heads: int, tokens: int) -> None:
        super().__init__(embedding, heads)
        pairs = embedding // heads // 2
        speeds = SLOWEST ** -(torch.arange(pairs) / pairs)
        angles = torch.arange(tokens)[:, None] * speeds
        self.register_buffer("angles", torch.cat([angles, angles], dim=1), persistent=False)

    def placed(self, x: Tensor) -> Tensor:
        """[B, H, S, P], each half of a head's columns turned with the other."""
        angles = self.angles[: x.shape[2]]
        first, second = x.chunk(2, dim=-1)
        return x * angles.cos() + torch.cat([-second, first], dim=-1) * angles.sin()


class SlotModel(nn.Module):
    """Embeddings and LayerNorm, encoder layers, an intent of the mean token, a tag of each token if there are tags.

    Args:
        rotary: whether attention turns queries and keys by positions, or a table of positions is added to the words.
    """

    def __init__(
        self,
        shape: EncoderShape,
        vocabulary: int,
        intents: int,
        tags: int,
        dropout: float,
        *,
        rotary: bool = False,
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, shape.embedding)
        self.positions = None if rotary else nn.Parameter(torch.empty(shape.tokens, shape.embedding))
        self.norm = nn.LayerNorm(shape.embedding)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(EncoderLayer(shape, dropout) for _ in range(shape.layers))
        self.intent = nn.Linear(shape.embedding, intents)
        self.tags = nn.Linear(shape.embedding, tags) if tags else None
        nn.init.normal_(self.words.weight, std=0.1)
        if self.positions is None:
            for layer in self.layers:
                layer.attention = RotaryAttention(shape.embedding, shape.heads, shape.tokens)
        else:
            nn.init.normal_(self.positions, std=0.1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """input_ids, attention_mask int64 [B, S]; returns intents [B, 7] and tags [B, S, 79], as logits."""
        keep = attention_mask.bool()[:, None, None, :]
        x = self.words(input_ids)
        if self.positions is not None:
            x = x + self.positions[: input_ids.shape[1]]
        x = self.dropout(self.norm(x))
        for layer in self.layers:
            x = layer(x, keep)
        x = self.dropout(x)
        present = attention_mask.to(x.dtype)[:, :, None]
        intent = self.intent((x * present).sum(1) / present.sum(1))
        return (intent,) if self.tags is None else (intent, self.tags(x))


def by_length(lengths: Tensor, batch: int) -> list[Tensor]:
    """Rows of each batch: shuffled, and of about equal length, for less padding."""
    pools = torch.randperm(len(lengths)).split(16 * batch)
    found = [rows for pool in pools for rows in pool[lengths[pool].argsort(stable=True)].split(batch)]
    return [found[at] for at in torch.randperm(len(found))]


def batches(
    corpus: Corpus, batch: int, word_dropout: float, mixing: float
) -> Iterator[tuple[Tensors, Tensors]]:
    """One shuffled epoch, cut to the longest row of each batch.

    `mixing` of the rows have their slots filled with others of the same label; some pieces become the unknown one.
    """
    rows = corpus.epoch(mixing)
    for chosen in by_length(torch.from_numpy(rows[0]["attention_mask"]).sum(1), batch):
        inputs, targets = ({k: torch.from_numpy(v)[chosen] for k, v in part.items()} for part in rows)
        longest = int(inputs["attention_mask"].sum(1).max())
        inputs = {k: v[:, :longest] for k, v in inputs.items()}
        targets["slots"] = targets["slots"][:, :longest]
        ids = inputs["input_ids"]
        drop = (torch.rand(ids.shape) < word_dropout) & (ids >= len(SPECIAL))
        yield inputs | {"input_ids": ids.masked_fill(drop, SPECIAL.index(UNKNOWN))}, targets

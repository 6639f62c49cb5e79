"""The models of tests that need torch; import this module through `pytest.importorskip("torch")`."""

from __future__ import annotations

from typing import Any

import torch
from models import CLASSES, VOCABULARY, E, F, H, S
from torch import nn


def example() -> tuple[torch.Tensor, torch.Tensor]:
    """ids and mask, (1, S) each."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, VOCABULARY, (1, S), generator=generator)
    return ids, (torch.arange(S) < S - 2).long()[None]


class Pooled(nn.Module):
    """Embeddings, an encoder given as `body(x, mask)`, mean over present tokens, classifier."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, E)
        self.positions = nn.Embedding(S, E)
        self.body = body
        self.head = nn.Linear(E, CLASSES)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1])[None])
        x = self.body(x, mask)
        weight = mask.unsqueeze(-1).to(x.dtype)
        return self.head((x * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1e-9))


class TorchEncoder(nn.Module):
    """torch's own encoder with a key padding mask."""

    def __init__(self, norm_first: bool, activation: str) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            E, H, F, batch_first=True, norm_first=norm_first, activation=activation
        )
        final = nn.LayerNorm(E) if norm_first else None
        self.encoder = nn.TransformerEncoder(layer, 2, norm=final, enable_nested_tensor=False)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.encoder(x, src_key_padding_mask=mask == 0)


class HandWritten(nn.Module):
    """One layer around scaled_dot_product_attention; `fused` makes Q, K and V in one layer."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.qkv = nn.ModuleList([nn.Linear(E, 3 * E)] if fused else [nn.Linear(E, E) for _ in range(3)])
        self.out, self.up, self.down = nn.Linear(E, E), nn.Linear(E, F), nn.Linear(F, E)
        self.norms = nn.ModuleList([nn.LayerNorm(E), nn.LayerNorm(E)])

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        projected = torch.cat([layer(x) for layer in self.qkv], dim=-1) if len(self.qkv) == 1 else None
        parts = projected.chunk(3, dim=-1) if projected is not None else [layer(x) for layer in self.qkv]
        q, k, v = (part.view(1, S, H, E // H).transpose(1, 2) for part in parts)
        keep = mask[:, None, None, :].bool()
        y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=keep)
        x = self.norms[0](x + self.out(y.transpose(1, 2).reshape(1, S, E)))
        return self.norms[1](x + self.down(nn.functional.silu(self.up(x))))


def bert() -> nn.Module:
    """A Hugging Face classifier of one layer."""
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=E,
        num_hidden_layers=1,
        num_attention_heads=H,
        intermediate_size=F,
        max_position_embeddings=S,
        num_labels=CLASSES,
    )
    return BertForSequenceClassification(config)


TORCH_MODELS: dict[str, Any] = {
    "bert": bert,
    "post_norm": lambda: Pooled(TorchEncoder(norm_first=False, activation="gelu")),
    "pre_norm": lambda: Pooled(TorchEncoder(norm_first=True, activation="relu")),
    "sdpa_fused": lambda: Pooled(HandWritten(fused=True)),
    "sdpa_separate": lambda: Pooled(HandWritten(fused=False)),
}


def build(name: str) -> nn.Module:
    """A model by name, in evaluation mode, with weights of a fixed seed."""
    torch.manual_seed(0)
    return TORCH_MODELS[name]().eval()

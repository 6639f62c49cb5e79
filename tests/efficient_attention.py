"""Encoders with efficient attention, as their papers write it; import through `pytest.importorskip("torch")`.

Linear attention: Katharopoulos et al., "Transformers are RNNs" (2020). Linformer: Wang et al. (2020). Performer with
positive random features: Choromanski et al., "Rethinking Attention with Performers" (2021).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

S, E, H, CHANNELS, CLASSES = 16, 32, 2, 8, 5
P = E // H


class Attention(nn.Module):
    """Projections and heads; `attend` maps q, k, v (1, H, S, P) to (1, H, S, P)."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(E, E) for _ in range(4))

    def heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(1, -1, H, P).transpose(1, 2)

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mixed = self.attend(*(self.heads(layer(x)) for layer in (self.q, self.k, self.v)))
        return self.out(mixed.transpose(1, 2).reshape(1, S, E))


def normalized(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """phi(q) (phi(k)^T v) over the row sums."""
    return (q @ (k.transpose(-1, -2) @ v)) / (q @ k.sum(2, keepdim=True).transpose(-1, -2))


class Linear(Attention):
    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return normalized(functional.elu(q) + 1, functional.elu(k) + 1, v)


class Performer(Attention):
    def __init__(self, features: int = 12) -> None:
        super().__init__()
        self.features = nn.Parameter(torch.randn(H, P, features))

    def phi(self, x: torch.Tensor) -> torch.Tensor:
        x = x * P**-0.25
        squares = (x * x).sum(-1, keepdim=True) / 2
        return torch.exp(x @ self.features - squares) * self.features.shape[-1] ** -0.5 + 1e-3

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return normalized(self.phi(q), self.phi(k), v)


class Linformer(Attention):
    def __init__(self, length: int = 6) -> None:
        super().__init__()
        self.of_keys, self.of_values = (nn.Parameter(torch.randn(length, S) / 4) for _ in range(2))

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        k, v = self.of_keys @ k, self.of_values @ v
        return torch.softmax(q @ k.transpose(-1, -2) * P**-0.5, dim=-1) @ v


class Hashed(Attention):
    """Reformer's attention within buckets (Kitaev et al., 2020): queries are keys, a bucket is the largest projection.

    Two tokens share a bucket where the product of their one-hot rows is 1, so that nothing is sorted.
    """

    def __init__(self, buckets: int = 4) -> None:
        super().__init__()
        self.rotations = nn.Parameter(torch.randn(H, P, buckets // 2))

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        turned = q @ self.rotations
        hashes = torch.cat([turned, -turned], dim=-1)
        bucket = (hashes >= hashes.amax(-1, keepdim=True)).float()
        weights = torch.softmax(q @ q.transpose(-1, -2) * P**-0.5, dim=-1) * (
            bucket @ bucket.transpose(-1, -2)
        )
        return (weights @ v) / weights.sum(-1, keepdim=True)


class TokenMixing(nn.Module):
    """A dense layer over tokens, as in MLP-Mixer (Tolstikhin et al., 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(S, 24), nn.Linear(24, S)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(functional.gelu(self.up(x.transpose(1, 2)))).transpose(1, 2)


class Encoder(nn.Module):
    """One post-LayerNorm layer on features (1, S, CHANNELS), mean pooling, a classifier."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.patches, self.attention = nn.Linear(CHANNELS, E), attention
        self.norms = nn.ModuleList([nn.LayerNorm(E), nn.LayerNorm(E)])
        self.up, self.down, self.head = nn.Linear(E, 64), nn.Linear(64, E), nn.Linear(E, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x)
        x = self.norms[0](x + self.attention(x))
        x = self.norms[1](x + self.down(functional.gelu(self.up(x))))
        return self.head(x.mean(1))


ATTENTIONS: dict[str, Callable[[], nn.Module]] = {
    "linear": Linear,
    "performer": Performer,
    "linformer": Linformer,
    "token_mixing": TokenMixing,
    "hashed": Hashed,
}


def build(name: str) -> Encoder:
    torch.manual_seed(0)
    return Encoder(ATTENTIONS[name]()).eval()

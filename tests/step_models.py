"""Models that run step by step; import it behind `pytest.importorskip("torch")`.

Weights are random with a fixed seed. A decoder takes ids and gives logits over the same ids, a stream takes frames and
gives scores for each.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tvmtiny.artifact import Artifact
from tvmtiny.compiler import compile as compile_model
from tvmtiny.runner import Sample

V, CHANNELS, CLASSES = 40, 5, 4


@dataclasses.dataclass(frozen=True)
class Shape:
    """S tokens, E embedding, H heads of Q, K heads of K and V, F hidden columns, layers."""

    S: int = 12
    E: int = 16
    H: int = 4
    K: int = 2
    F: int = 24
    layers: int = 2


class Attention(nn.Module):
    """Causal attention to the last `window` tokens, by scaled_dot_product_attention.

    Args:
        rotary: "", "halves" (Hugging Face's Llama) or "neighbours" (Meta's): what of a head is turned together.
    """

    def __init__(self, d: Shape, window: int, rotary: str) -> None:
        super().__init__()
        self.d, self.width, self.rotary = d, d.E // d.H, rotary
        kv = d.K * self.width
        self.q, self.k, self.v = nn.Linear(d.E, d.E), nn.Linear(d.E, kv), nn.Linear(d.E, kv)
        self.out = nn.Linear(d.E, d.E)
        back = torch.arange(d.S)[:, None] - torch.arange(d.S)
        self.register_buffer("near", (back >= 0) & (back < window))
        angle = torch.arange(d.S)[:, None] / 100 ** (torch.arange(0, self.width, 2) / self.width)
        self.register_buffer("angle", angle)

    def turned(self, x: torch.Tensor) -> torch.Tensor:
        cos, sin = self.angle.cos(), self.angle.sin()
        if self.rotary == "halves":
            a, b = x.chunk(2, dim=-1)
            return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            layer(x).view(1, self.d.S, -1, self.width).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        if self.rotary:
            q, k = self.turned(q), self.turned(k)
        k, v = (part.repeat_interleave(self.d.H // self.d.K, dim=1) for part in (k, v))
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=self.near)
        return self.out(y.transpose(1, 2).reshape(1, self.d.S, self.d.E))


class Gated(nn.Module):
    """SwiGLU."""

    def __init__(self, d: Shape) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(d.E, d.F, bias=False), nn.Linear(d.E, d.F, bias=False)
        self.down = nn.Linear(d.F, d.E, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(functional.silu(self.gate(x)) * self.up(x))


class Layers(nn.Module):
    """Pre-norm layers and a last norm."""

    def __init__(self, d: Shape, window: int, rotary: str, gated: bool) -> None:
        super().__init__()
        norm = nn.RMSNorm if gated else nn.LayerNorm
        self.attention = nn.ModuleList([Attention(d, window, rotary) for _ in range(d.layers)])
        plain = [nn.Sequential(nn.Linear(d.E, d.F), nn.GELU(), nn.Linear(d.F, d.E)) for _ in range(d.layers)]
        self.ffn = nn.ModuleList([Gated(d) for _ in range(d.layers)] if gated else plain)
        self.norms = nn.ModuleList([norm(d.E) for _ in range(2 * d.layers + 1)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i, (attention, ffn) in enumerate(zip(self.attention, self.ffn, strict=True)):
            x = x + attention(self.norms[2 * i](x))
            x = x + ffn(self.norms[2 * i + 1](x))
        return self.norms[-1](x)


class Decoder(nn.Module):
    """Ids to logits over the next id; with rotary positions as Llama, else as GPT-2; tied embeddings."""

    def __init__(self, rotary: str, shape: Shape | None = None) -> None:
        super().__init__()
        d = shape or Shape()
        self.tokens = nn.Embedding(V, d.E)
        self.positions = None if rotary else nn.Parameter(torch.randn(d.S, d.E))
        self.layers, self.head = Layers(d, d.S, rotary, bool(rotary)), nn.Linear(d.E, V, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.tokens(ids)
        return self.head(self.layers(x if self.positions is None else x + self.positions))


class Counted(Decoder):
    """Positions are counted from the ids, as RoBERTa does: the id 1 is padding and has none."""

    def __init__(self) -> None:
        super().__init__("halves")
        self.counted = nn.Embedding(Shape().S + 2, Shape().E)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        present = ids.ne(1).long()
        positions = torch.cumsum(present, dim=1) * present + 1
        return self.head(self.layers(self.tokens(ids) + self.counted(positions)))


class Stream(nn.Module):
    """Frames to scores for each (or for every second) frame: causal convolutions, attention to the last tokens."""

    def __init__(self, stride: int = 1, window: int = 4, tokens: int = 12) -> None:
        super().__init__()
        d = Shape(S=tokens)
        self.stride = stride
        self.first, self.norm = nn.Conv1d(CHANNELS, d.E, 3, stride=stride), nn.BatchNorm1d(d.E)
        self.second, self.layers = nn.Conv1d(d.E, d.E, 4, padding=3), Layers(d, window, "", False)
        self.head = nn.Linear(d.E, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.pad(x.transpose(1, 2), (3 - self.stride, 0))
        x = functional.relu(self.norm(self.first(x)))
        x = functional.gelu(self.second(x)[..., : x.shape[-1]])
        return self.head(self.layers(x.transpose(1, 2)))


MODELS: dict[str, Any] = {
    "llama": lambda: Decoder("halves"),
    "neighbours": lambda: Decoder("neighbours"),
    "gpt": lambda: Decoder(""),
    "counted": Counted,
    "stream": Stream,
    "strided": lambda: Stream(stride=2),
}


def module(name: str) -> nn.Module:
    """A model by name, in evaluation mode."""
    torch.manual_seed(0)
    return MODELS[name]().eval()


def inputs(name: str, count: int = 16, seed: int = 0) -> dict[str, np.ndarray]:
    """Whole sequences (count, ...) by input."""
    rng = np.random.default_rng(seed)
    if name in ("stream", "strided"):
        frames = 24 if name == "strided" else 12
        scale = np.geomspace(0.5, 20, CHANNELS)
        return {"x": (rng.normal(size=(count, frames, CHANNELS)) * scale).astype(np.float32)}
    return {"ids": rng.integers(2 if name == "counted" else 0, V, (count, 12))}


def exported(name: str) -> Any:
    """The model by torch.export."""
    values = {key: torch.from_numpy(array[:1]) for key, array in inputs(name).items()}
    return torch.export.export(module(name), tuple(values.values()))


def onnx_file(name: str, path: Path) -> Path:
    """The model by torch.onnx.export."""
    values = {key: torch.from_numpy(array[:1]) for key, array in inputs(name).items()}
    torch.onnx.export(
        module(name), tuple(values.values()), path, input_names=list(values), dynamo=True, verbose=False
    )
    return path


def compiled(
    name: str, directory: Path, *, target: str = "qemu-m4", step: int = 1, **options: Any
) -> Artifact:
    """The model compiled to steps of `step` tokens."""
    return compile_model(
        exported(name), target=target, calibration=inputs(name), step=step, output=directory / name, **options
    )


def sequences(made: Artifact, name: str, directory: Path, count: int = 3) -> list[Sample]:
    """Whole sequences that calibration has not seen, in the arena's types."""
    from tvmtiny.frontend.data import load_samples

    path = directory / "sequences.npz"
    np.savez(path, **inputs(name, count, seed=5))  # type: ignore[arg-type]
    return load_samples(made, path)

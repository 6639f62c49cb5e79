"""torch's own encoder layers in plain layers: their attention keeps Q, K and V in one matrix that cannot shrink."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from tvmtiny.errors import UserError


class PlainAttention(nn.Module):
    """Self-attention with a linear layer each for queries, keys, values and output.

    Attributes:
        heads: how many.
        batch_first: as nn.TransformerEncoder asks of its layers' attention.
    """

    batch_first = True

    def __init__(self, source: nn.MultiheadAttention) -> None:
        super().__init__()
        if (
            not source.batch_first
            or source.bias_k is not None
            or source.add_zero_attn
            or source.in_proj_weight is None
        ):
            raise UserError(
                "An nn.MultiheadAttention has batch_first=False, bias_k, add_zero_attn, kdim or vdim.",
                "Write its layer with linear layers for queries, keys and values.",
            )
        self.heads = source.num_heads
        weights = source.in_proj_weight.chunk(3)
        biases = (None,) * 3 if source.in_proj_bias is None else source.in_proj_bias.chunk(3)
        self.query, self.key, self.value = (_linear(w, b) for w, b in zip(weights, biases, strict=True))
        self.output = _linear(source.out_proj.weight, source.out_proj.bias)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x [B, S, E]; mask is added to the scores [B, H, S, S]; returns [B, S, E]."""
        query, key, value = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])
        if mask is not None:
            scores = scores + mask
        return self.output((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))


class PlainEncoderLayer(nn.Module):
    """What nn.TransformerEncoderLayer computes, with the same arguments."""

    def __init__(self, source: nn.TransformerEncoderLayer) -> None:
        super().__init__()
        self.self_attn = PlainAttention(source.self_attn)
        self.linear1, self.linear2 = source.linear1, source.linear2
        self.norm1, self.norm2 = source.norm1, source.norm2
        self.dropout, self.dropout1, self.dropout2 = source.dropout, source.dropout1, source.dropout2
        self.norm_first = source.norm_first
        self.activation: Callable[[Tensor], Tensor] = source.activation

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """src [B, S, E]; returns [B, S, E]."""
        mask = _added(src_mask, src_key_padding_mask, src.dtype)
        if self.norm_first:
            src = src + self.dropout1(self.self_attn(self.norm1(src), mask))
            return src + self._feed_forward(self.norm2(src))
        src = self.norm1(src + self.dropout1(self.self_attn(src, mask)))
        return self.norm2(src + self._feed_forward(src))

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.dropout2(self.linear2(self.dropout(self.activation(self.linear1(x)))))


def plain(network: nn.Module) -> nn.Module:
    """`network` with each nn.TransformerEncoderLayer replaced by a PlainEncoderLayer, in place."""
    if isinstance(network, nn.TransformerEncoderLayer):
        return PlainEncoderLayer(network)
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.TransformerEncoderLayer):
                setattr(module, name, PlainEncoderLayer(child))
        if isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False  # its fast path reads the matrix that is gone
    return network


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer


def _added(mask: Tensor | None, absent: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """What torch's two masks add to scores [B, H, S, S]."""
    parts = [_float(mask, dtype)] if mask is not None else []
    if absent is not None:
        parts.append(_float(absent, dtype)[:, None, None, :])
    return sum(parts[1:], parts[0]) if parts else None


def _float(mask: Tensor, dtype: torch.dtype) -> Tensor:
    return (
        torch.zeros_like(mask, dtype=dtype).masked_fill(mask, float("-inf"))
        if mask.dtype == torch.bool
        else mask
    )

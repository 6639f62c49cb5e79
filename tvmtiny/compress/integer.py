"""The integer arithmetic of `tvmtiny.quant.integer` on batches in torch: the same integers, fast enough to train with.

Integers are int64, matrices (B, rows, columns). Products of matrices are computed in float64, which is exact below
2**53; no accumulator exceeds 2**31. Where the twin in `quant.integer` asserts a bound, `quant.qparams` has proved it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tvmtiny.quant.integer import NORM_OUTPUT_BITS, ROTARY_BITS, root_extent


def multiply_high(value: Tensor, multiplier: Tensor | int) -> Tensor:
    """(value * multiplier + 2**31) >> 32."""
    return (value * multiplier + (1 << 31)) >> 32


def saturate(value: Tensor, bits: int) -> Tensor:
    """Clamp to the range of a signed integer of `bits` bits."""
    return value.clamp(-(1 << (bits - 1)), (1 << (bits - 1)) - 1)


def requantize(acc: Tensor, multiplier: Tensor | int, shift: int, zero_point: int, bits: int = 8) -> Tensor:
    """`integer.requantize_s8`, and `requantize_s32_s16` with bits = 16."""
    return saturate(multiply_high(acc << shift, multiplier) + zero_point, bits)


def product(a: Tensor, b: Tensor) -> Tensor:
    """The integers a @ b."""
    return (a.double() @ b.double()).long()


def dense_acc(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Accumulators of x (..., M, K) and weight (N, K): (..., M, N)."""
    return product(x, weight.T) + bias


def add_residual(t: Tensor, x: Tensor, zero_point: int, left_shift: int, bits: int) -> Tensor:
    """`integer.add_residual_s32`."""
    return saturate(t + ((x - zero_point) << left_shift), bits)


def norm_s8(t: Tensor, gamma: Tensor, beta: Tensor, epsilon: int, *, uncentred: bool) -> Tensor:
    """`integer.rms_norm_s8` where `uncentred`, else `layer_norm_s8`, over the last axis."""
    extent = t.shape[-1]
    u = t if uncentred else extent * t - t.sum(-1, keepdim=True)
    mantissa, exponent = reciprocal_sqrt((u * u).sum(-1, keepdim=True) + epsilon)
    scaled = root_extent(extent) * mantissa
    lead = 63 - bit_length(scaled)
    multiplier = (scaled << lead) >> 32
    left = 64 - lead - exponent
    normalized = multiply_high((u << left.clamp(min=0)) >> (-left).clamp(min=0), multiplier)
    return saturate((multiply_high(normalized, gamma) + beta) >> NORM_OUTPUT_BITS, 8)


def scale_s8(t: Tensor, gamma: Tensor, beta: Tensor, shift: int) -> Tensor:
    """`integer.scale_s8`."""
    return saturate((multiply_high(t << shift, gamma) + beta) >> NORM_OUTPUT_BITS, 8)


def bit_length(value: Tensor) -> Tensor:
    """Of positive integers below 2**63."""
    length = torch.frexp(value.double())[1].long()  # one too large where float64 rounds up to a power of 2
    return length - ((value >> (length - 1).clamp(max=63)) == 0).long()


def reciprocal_sqrt(value: Tensor) -> tuple[Tensor, Tensor]:
    """`integer.reciprocal_sqrt` of each element: mantissa and exponent."""
    lead = (64 - bit_length(value)) & ~1
    up = (lead - 32).clamp(min=0)
    m = (value << up) >> (32 - lead).clamp(min=0)
    y = 2348810240 - ((m * 1275068416) >> 32)
    for _ in range(4):
        square = (y * y) >> 32
        y = (y * (805306368 - ((m * square) >> 32))) >> 29
    return y, 30 + (64 - lead) // 2


def exponentials(scores: Tensor, seen: Tensor, multiplier: int, shift: int, table: Tensor) -> Tensor:
    """`integer.softmax_u8` of each row over the keys that it has seen; 0 for the others.

    Args:
        scores: (B, M, N). seen: bool, broadcast to it; a row that has seen nothing gets zeros.
    """
    largest = scores.masked_fill(~seen, -(1 << 40)).amax(-1, keepdim=True)
    distance = torch.where(seen, largest - scores, 0)
    index = multiply_high(distance << shift, multiplier).clamp(max=255)
    return torch.where(seen, table[index], 0)


def values_s8(p: Tensor, v: Tensor, ratio: int, shift: int, zero_point: int) -> Tensor:
    """`integer.values_s8` of exponentials (B, M, n) and values (B, n, P)."""
    multiplier = ratio // p.sum(-1, keepdim=True).clamp(min=1)
    return requantize(product(p, v), multiplier, shift, zero_point)


def rotary_s8(t: Tensor, table: Tensor) -> Tensor:
    """`integer.rotary_s8` of each head: t (B, S, H, P), table (S, P)."""
    a, b = saturate(t, 16).chunk(2, dim=-1)
    cos, sin = table[:, None, :].chunk(2, dim=-1)
    turned = torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)
    return saturate((turned + (1 << (ROTARY_BITS - 1))) >> ROTARY_BITS, 8)


def gate_s8(gate: Tensor, up: Tensor, table: Tensor, multiplier: int, shift: int, zero_point: int) -> Tensor:
    """`integer.gate_s8`."""
    return requantize(table[gate + 128] * up, multiplier, shift, zero_point)

"""Cases for the micro-kernels that decoders brought: rotary positions, gates, tables with a scale a row."""

from __future__ import annotations

import numpy as np

from microkernel_driver.cases import Buffer, Case, noise, strided
from tvmtiny.quant import integer, qparams

Rng = np.random.Generator


def _int8s(rng: Rng, shape: tuple[int, ...], extreme: bool) -> np.ndarray:
    ends = np.array([-128, -127, 127], np.int8)
    return rng.choice(ends, shape) if extreme else rng.integers(-128, 128, shape, dtype=np.int8)


def _written(rng: Rng, values: np.ndarray, stride: int) -> Buffer:
    """Rows of an output, with noise before and between them."""
    rows, cols = values.shape
    before = noise(rng, values.dtype, (rows - 1) * stride + cols if rows else 0)
    after = before.copy()
    for i in range(rows):
        after[i * stride : i * stride + cols] = values[i]
    return Buffer(before, after, skew=int(rng.integers(0, 4)) if values.dtype == np.int8 else 0)


def rotary_s8(rng: Rng, rows: int, cols: int, depth: int, extreme: bool) -> Case:
    cols += cols % 2
    limit = 2**31 - 1 if extreme else 2**14
    t = rng.integers(-limit, limit + 1, (rows, cols)).astype(np.int32)
    table = qparams.rotary_table(rng.choice([0.0, np.pi / 4, np.pi / 2, np.pi, 1.0, 77.0], (rows, cols // 2)))
    strides = cols + int(rng.integers(0, 4)), cols + int(rng.integers(0, 4))
    out = _written(rng, integer.rotary_s8(t, table), strides[1])
    return Case("rotary_s8", (Buffer(strided(rng, t, strides[0])), Buffer(table), out, rows, cols, *strides))


def gate_s8(rng: Rng, rows: int, cols: int, depth: int, extreme: bool) -> Case:
    gate, up = _int8s(rng, (rows, cols), extreme), _int8s(rng, (rows, cols), extreme)
    ends = np.array([-32768, -32767, 32767], np.int16)
    table = rng.choice(ends, 256) if extreme else rng.integers(-32768, 32768, 256).astype(np.int16)
    strides = cols + int(rng.integers(0, 4)), cols + int(rng.integers(0, 4))
    words = int(rng.integers(0, 2**31)), int(rng.integers(0, 9)), int(rng.choice([-128, 0, 127]))
    before = strided(rng, gate, strides[0])
    after = before.copy()
    for i, row in enumerate(integer.gate_s8(gate, up, table, *words)):
        after[i * strides[0] : i * strides[0] + cols] = row
    inputs = (Buffer(before, after), Buffer(strided(rng, up, strides[1]), skew=int(rng.integers(0, 4))))
    return Case("gate_s8", (*inputs, Buffer(table), rows, cols, *strides, *words))


def embed_scaled_s32(rng: Rng, rows: int, cols: int, depth: int, extreme: bool) -> Case:
    vocabulary, stride = int(rng.integers(1, 50)), cols + int(rng.integers(0, 4))
    table, ids = _int8s(rng, (vocabulary, cols), extreme), rng.integers(0, vocabulary, rows, dtype=np.uint16)
    factors = rng.integers(1, 65536, vocabulary).astype(np.uint16)
    out = _written(rng, integer.embed_scaled_s32(ids, table, factors), stride)
    inputs = (Buffer(ids), Buffer(table, skew=int(rng.integers(0, 4))), Buffer(factors), out)
    return Case("embed_scaled_s32", (*inputs, rows, cols, stride))

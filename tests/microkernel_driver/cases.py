"""Cases for the micro-kernels: arguments as bytes for driver.c, and the bytes that they must become.

The expected bytes come from tvmtiny.quant.integer and cover the whole case, so that a kernel that writes
between the rows of its output, or changes an input, fails as well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tvmtiny.schedule.microkernels import header

CASES_BYTES = 32768
KERNELS = (
    "dense_s8",
    "dense_s32",
    "lookup_s8",
    "add_residual_s32",
    "requantize_s32_s8",
    "requantize_s32_s16",
    "layer_norm_s8",
    "scores_s32",
    "softmax_u8",
    "values_s8",
    "embed_s32",
    "mean_s8",
    "quantize_q16_s8",
    "arith",
    "reciprocal_sqrt",
    "product_s8",
    "dense_s8_pairs",
    "dense_table_s8_pairs",
    "dense_s32_pairs",
    "dense_s8_keys",
    "dense_s8_channels",
    "scores_s32_pairs",
    "values_s8_pairs",
    "attend_s8",
    "attend_s8_pairs",
    "dense_table_s8",
    "add_residual_s16_s32",
    "mean_s16_s32",
    "dense_w4_s8",
    "dense_w4_s32",
    "add_embedding_s32",
    "scale_s8",
    "rms_norm_s8",
    "depthwise_s8",
    "rotary_s8",
    "gate_s8",
    "embed_scaled_s32",
    "unpack_s8",
    "unpack_rows_s8",
    "huffman_s8",
    "huffman_rows_s8",
)
_ALIGN = 16
_HEADER_WORDS = 4


def kernels_of(family: str) -> tuple[str, ...]:
    """The kernels that a family has, its own or another's; primitives have no header of their own."""
    primitives = {"arith", "reciprocal_sqrt"}
    return tuple(name for name in KERNELS if name in primitives or header(f"tvmt_{name}", family).is_file())


class Buffer:
    """An array in memory, before and after the kernel.

    Args:
        content: what the kernel finds; also the memory between rows.
        expected: what it must leave; the content itself for inputs.
        skew: bytes by which the start misses 16-byte alignment.
    """

    def __init__(self, content: np.ndarray, expected: np.ndarray | None = None, skew: int = 0) -> None:
        self.content = np.ascontiguousarray(content)
        self.expected = self.content if expected is None else np.ascontiguousarray(expected)
        assert self.content.nbytes == self.expected.nbytes
        self.skew = skew


Argument = Buffer | int


@dataclasses.dataclass(frozen=True)
class Case:
    """One call of a kernel; the same Buffer may be given for two arguments."""

    kernel: str
    arguments: tuple[Argument, ...]
    note: str = ""

    def encode(self) -> tuple[bytes, bytes]:
        """Bytes of the case before and after the call."""
        buffers: list[Buffer] = []
        for argument in self.arguments:
            if isinstance(argument, Buffer) and not any(argument is other for other in buffers):
                buffers.append(argument)
        at = 4 * (_HEADER_WORDS + 2 * len(buffers) + len(self.arguments))
        places: list[int] = []
        for buffer in buffers:
            at = (
                -(-(at + 8) // _ALIGN) * _ALIGN + buffer.skew
            )  # a gap: AddressSanitizer marks 8 bytes at once
            places.append(at)
            at += buffer.content.nbytes
        total = -(-(at + 8) // _ALIGN) * _ALIGN
        offsets = {id(buffer): place for buffer, place in zip(buffers, places, strict=True)}
        words = [KERNELS.index(self.kernel), total // 4, len(buffers), len(self.arguments)]
        for buffer in buffers:
            words += [offsets[id(buffer)], buffer.content.nbytes]
        words += [offsets[id(a)] if isinstance(a, Buffer) else a for a in self.arguments]
        head = np.array([word & 0xFFFFFFFF for word in words], "<u4").tobytes()
        before = bytearray(head.ljust(total, b"\x5a"))
        after = bytearray(before)
        for buffer, place in zip(buffers, places, strict=True):
            before[place : place + buffer.content.nbytes] = buffer.content.tobytes()
            after[place : place + buffer.content.nbytes] = buffer.expected.tobytes()
        return bytes(before), bytes(after)


def pack(cases: Iterable[Case]) -> list[tuple[bytes, bytes, Sequence[Case]]]:
    """Group cases into arenas of CASES_BYTES: (before, after, cases) each."""
    arenas: list[tuple[bytes, bytes, Sequence[Case]]] = []
    group: list[tuple[bytes, bytes, Case]] = []

    def flush() -> None:
        if group:
            count = np.array([len(group)], "<u4").tobytes().ljust(_ALIGN, b"\xc3")
            before = count + b"".join(row[0] for row in group)
            after = count + b"".join(row[1] for row in group)
            arenas.append((_padded(before), _padded(after), [row[2] for row in group]))
            group.clear()

    used = _ALIGN
    for case in cases:
        before, after = case.encode()
        if used + len(before) > CASES_BYTES:
            flush()
            used = _ALIGN
        used += len(before)
        group.append((before, after, case))
    flush()
    return arenas


def _padded(data: bytes) -> bytes:
    assert len(data) <= CASES_BYTES, "a case does not fit the arena"
    return data.ljust(CASES_BYTES, b"\xc3")


def first_difference(arena: tuple[bytes, bytes, Sequence[Case]], result: bytes) -> str:
    """Which case and byte of an arena's result is wrong; empty if none."""
    _, after, cases = arena
    if result == after:
        return ""
    at = _ALIGN
    for case in cases:
        size = len(case.encode()[0])
        got, want = result[at : at + size], after[at : at + size]
        if got != want:
            where = next(i for i in range(size) if got[i] != want[i])
            return f"{case.kernel} {case.note}: byte {where} is {got[where]}, not {want[where]}"
        at += size
    return "bytes after the last case changed"


def strided(rng: np.random.Generator, values: np.ndarray, stride: int) -> np.ndarray:
    """Rows of `values` at `stride` elements, with noise between; the last row ends at its last element."""
    rows, cols = values.shape
    flat = noise(rng, values.dtype, max(0, (rows - 1) * stride + cols) if rows else 0)
    for index in range(rows):
        flat[index * stride : index * stride + cols] = values[index]
    return flat


def noise(rng: np.random.Generator, dtype: Any, count: int) -> np.ndarray:
    """`count` elements of random bytes."""
    return np.frombuffer(rng.bytes(count * np.dtype(dtype).itemsize), dtype).copy()

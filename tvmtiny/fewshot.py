"""Few-shot classification by embeddings: the Python twin of microtvm_projects/common/tvmt_fewshot.h, to the byte.

A `Store` holds labelled examples as directions; `classify` finds the nearest example or the nearest class mean, by
cosine. `to_bytes` and `from_bytes` exchange sealed stores with a device, so that a host may enrol for it.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmtiny.errors import UserError
from tvmtiny.quant.integer import reciprocal_sqrt

ONE = 1 << 15
"""Similarity of equal directions."""

UNKNOWN = -1
"""Label of an answer that is none."""

MOST = 1024
"""Largest dimension and largest capacity."""

LABELS = 1 << 15
"""Labels are below this."""

_MAGIC, _VERSION = 0x53465654, 1
_HEAD, _CRC, _EXAMPLE = struct.Struct("<IHHHHI"), struct.Struct("<I"), struct.Struct("<IhH")


@dataclasses.dataclass(frozen=True)
class Direction:
    """An embedding without its length: int8 values, and 2**30 / their length rounded down."""

    values: npt.NDArray[np.int8]
    rate: int


@dataclasses.dataclass(frozen=True)
class Answer:
    """As `tvmt_fewshot_answer`: similarities and margin in units of 1 / ONE.

    Attributes:
        label: of the nearest, or UNKNOWN where that is not near enough.
        nearest: its label, near enough or not; UNKNOWN in an empty store.
        similarity: of the nearest.
        margin: to the nearest of another label; 2 * ONE where there is none.
    """

    label: int
    nearest: int
    similarity: int
    margin: int


def direction(embedding: npt.NDArray[np.integer[Any]], zero_point: int = 0) -> Direction:
    """The direction of an int8 or int16 embedding; values that do not fit int8 are shifted right, with rounding.

    Raises:
        UserError: the embedding is zero.
    """
    wide = embedding.reshape(-1).astype(np.int64) - zero_point
    shift = 0
    while _round(wide, shift).min() < -128 or _round(wide, shift).max() > 127:
        shift += 1
    values = _round(wide, shift).astype(np.int8)
    squares = int((values.astype(np.int64) ** 2).sum())
    if squares == 0:
        raise UserError("An embedding is zero and has no direction.", "Enrol and classify other inputs.")
    mantissa, exponent = reciprocal_sqrt(squares)
    return Direction(values, mantissa >> (exponent - 30))


class Store:
    """Labelled examples of one model's embeddings, in the order of their labels, those of one label as they came."""

    def __init__(self, capacity: int, dimension: int, model: int = 0) -> None:
        """An empty store for `capacity` examples of `dimension` values; `model`: the model's id, 32 bits."""
        for what, value in (("capacity", capacity), ("dimension", dimension)):
            if not 1 <= value <= MOST:
                raise UserError(f"A store of {what} {value}.", f"Take 1 to {MOST}.")
        self.capacity, self.dimension, self.model = capacity, dimension, model
        self.examples: list[tuple[int, Direction]] = []

    def enrol(self, label: int, embedding: npt.NDArray[np.integer[Any]], zero_point: int = 0) -> None:
        """Add an example. Raises UserError: the store is full, or the label or the embedding cannot be stored."""
        if not 0 <= label < LABELS:
            raise UserError(f"The label {label}.", f"Labels are 0 to {LABELS - 1}.")
        if len(self.examples) >= self.capacity:
            raise UserError(
                f"The store holds {self.capacity} examples already.", "Forget some, or make it larger."
            )
        bisect.insort(
            self.examples, (label, direction(embedding, zero_point)), key=lambda example: example[0]
        )

    def forget(self, label: int) -> int:
        """Remove all examples of a label; returns how many there were."""
        before = len(self.examples)
        self.examples = [example for example in self.examples if example[0] != label]
        return before - len(self.examples)

    def classify(
        self,
        embedding: npt.NDArray[np.integer[Any]],
        zero_point: int = 0,
        *,
        by_mean: bool = False,
        least_similarity: int = -ONE,
        least_margin: int = 0,
    ) -> Answer:
        """The label of an embedding; of equally near ones the least."""
        query = direction(embedding, zero_point)
        best, other, nearest = -ONE - 1, -ONE - 1, UNKNOWN
        for label, similarity in self._means(query) if by_mean else self._examples(query):
            if similarity > best:
                other = best if label != nearest else other
                best, nearest = similarity, label
            elif label != nearest:
                other = max(other, similarity)
        best = best if self.examples else -ONE
        margin = best - other if other >= -ONE else 2 * ONE
        near = best >= least_similarity and margin >= least_margin
        return Answer(nearest if near else UNKNOWN, nearest, best, margin)

    def _examples(self, query: Direction) -> Iterator[tuple[int, int]]:
        for label, example in self.examples:
            dot = int(example.values.astype(np.int64) @ query.values.astype(np.int64))
            yield label, int(_round(_round(dot * example.rate, 15) * query.rate, 30))

    def _means(self, query: Direction) -> Iterator[tuple[int, int]]:
        for label, group in itertools.groupby(self.examples, key=lambda example: example[0]):
            members = [example for _, example in group]
            units = sum(example.values.astype(np.int64) * example.rate for example in members)
            mean = _round(units, 15 + (len(members) - 1).bit_length())
            squares = int((mean**2).sum())
            if squares == 0:
                yield label, -ONE
                continue
            scaled = _round(int(mean @ query.values.astype(np.int64)) * query.rate, 15)
            mantissa, exponent = reciprocal_sqrt(squares)
            yield label, int(_round(int(scaled) * mantissa, exponent))

    def to_bytes(self) -> bytes:
        """The sealed store as the device keeps it in flash."""
        head = _HEAD.pack(_MAGIC, _VERSION, self.dimension, self.capacity, len(self.examples), self.model)
        padding = bytes(-self.dimension % 4)
        rest = b"".join(
            _EXAMPLE.pack(example.rate, label, 0) + example.values.tobytes() + padding
            for label, example in self.examples
        )
        return head + _CRC.pack(zlib.crc32(head + rest)) + rest

    @classmethod
    def from_bytes(cls, data: bytes) -> Store:
        """Read a sealed store. Raises UserError: it is none, of another version, or damaged."""
        start = _HEAD.size + _CRC.size
        fields = _HEAD.unpack_from(data) if len(data) >= start else (0,) * 6
        magic, version, dimension, capacity, count, model = fields
        size = _EXAMPLE.size + dimension + -dimension % 4
        if (
            (magic, version) != (_MAGIC, _VERSION)
            or not count <= capacity
            or len(data) < start + count * size
        ):
            raise UserError("This is no store of few-shot examples.", f"Give one of version {_VERSION}.")
        rest = data[start : start + count * size]
        if _CRC.unpack_from(data, _HEAD.size)[0] != zlib.crc32(data[: _HEAD.size] + rest):
            raise UserError(
                "The store of few-shot examples is damaged: its checksum is wrong.", "Enrol anew."
            )
        store = cls(capacity, dimension, model)
        for at in range(0, len(rest), size):
            rate, label, _ = _EXAMPLE.unpack_from(rest, at)
            values = np.frombuffer(rest, np.int8, dimension, at + _EXAMPLE.size)
            store.examples.append((label, Direction(values, rate)))
        return store


def _round(value: Any, shift: int) -> Any:
    """value / 2**shift to the nearest, halves up."""
    return value if shift == 0 else (value + (1 << (shift - 1))) >> shift

"""In which form flash holds an array of weights: the one that saves most, plain where none does.

What is compared is all that a form takes: data, its share of a code or codebook, and the device's code.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmtiny.storage import huffman, indices
from tvmtiny.storage.huffman import Code, histogram_of

Array = npt.NDArray[Any]

NONE, PACKED, HUFFMAN, AUTO = "none", "packed", "huffman", "auto"
FORMS = (NONE, PACKED, HUFFMAN, AUTO)
"""What flash may hold: weights as they are; indices into codebooks; Huffman codes; for each array the shorter."""

TILE, BOOT, ROWS = "tile", "boot", "rows"
PLACES = (TILE, BOOT, ROWS)
"""When weights are decoded: in each run, the matrices of an operator just before it; once, before the first run; or not
at all. Embedding tables are compressed in each case, and their rows decoded when they are wanted."""

CALL_BYTES = 64
"""Code of one more operator, its call included (gcc, -O2)."""

DECODER_BYTES = {"unpack": 240, "huffman": 600}
"""Code of the decoder that all operators of a kernel share."""


@dataclasses.dataclass(frozen=True)
class Storage:
    """How a model's weights are to lie in flash: one of FORMS and one of PLACES."""

    form: str = NONE
    place: str = TILE


AS_THEY_ARE = Storage()


@dataclasses.dataclass(frozen=True)
class Stored:
    """An array in a form that a kernel of `tvmtiny.kernels` decodes.

    Attributes:
        operands: the kernel's constants by name.
        attrs: its attributes.
        saved: bytes that this takes less than the array, the code of the device included.
    """

    kernel: str
    operands: dict[str, Array]
    attrs: dict[str, int]
    saved: float


def store_arrays(arrays: Sequence[Array], form: str) -> list[Stored | None]:
    """Distinct arrays of int8 or uint8, each decoded as a whole; None for those that stay as they are."""
    nothing: list[Stored | None] = [None] * len(arrays)
    packed = [_packed(array.reshape(1, -1)) for array in arrays] if form in (PACKED, AUTO) else nothing
    choices = [nothing, packed]
    if form in (HUFFMAN, AUTO):
        choices.append(_better_coded(arrays, nothing))
    if form == AUTO:
        choices.append(_better_coded(arrays, packed))  # a second decoder may eat up what this saves
    return max((_worthwhile(choice) for choice in choices), key=lambda found: _saved_in_all(arrays, found))


def store_table(table: Array, form: str) -> Stored | None:
    """A table (V, E) of int8 whose rows are decoded one at a time; None if it stays as it is.

    What is chosen for the other arrays of a model has no part in it.
    """
    choices: list[Stored | None] = []
    if form in (PACKED, AUTO):
        choices.append(_packed(table))
    if form in (HUFFMAN, AUTO):
        code = Code.of(histogram_of(table))
        choices.append(_in_code(table, code, code.bytes, rows=True))
    alone = [_worthwhile([choice])[0] for choice in choices]
    return max(alone, key=lambda found: _saved_in_all([table], [found]), default=None)


def _saved(stored: Stored | None) -> float:
    return 0.0 if stored is None else stored.saved


def _packed(rows: Array) -> Stored | None:
    if rows.dtype != np.int8 or len(np.unique(rows)) > 2**indices.MAX_BITS:
        return None
    data, codebook = indices.pack(rows)
    saved = rows.nbytes - data.nbytes - codebook.nbytes - CALL_BYTES
    attrs = {"count": rows.shape[1], "plain_bytes": rows.nbytes}
    return Stored("unpack", {"data": data, "codebook": codebook}, attrs, saved)


def _better_coded(arrays: Sequence[Array], others: Sequence[Stored | None]) -> list[Stored | None]:
    """Arrays in Huffman codes where these take less than both the arrays and their `others`; else the others."""
    histograms = [histogram_of(array) for array in arrays]
    better = list(range(len(arrays)))
    for _ in range(2):  # those that are worth nothing may have had a part in the choice of codes
        found = _coded(arrays, histograms, better)
        better = [i for i in better if found[i].saved > max(0.0, _saved(others[i]))]
    return [found[i] if i in better else other for i, other in enumerate(others)]


def _saved_in_all(arrays: Sequence[Array], found: Sequence[Stored | None]) -> int:
    """Bytes that flash saves with all of them: equal operands are there once, and so is the decoder of a kernel."""
    kept = [(array, stored) for array, stored in zip(arrays, found, strict=True) if stored is not None]
    operands = {
        (part.dtype.str, part.tobytes()): part.nbytes
        for _, stored in kept
        for part in stored.operands.values()
    }
    decoders = sum(DECODER_BYTES[kernel] for kernel in {stored.kernel for _, stored in kept})
    return sum(array.nbytes - CALL_BYTES for array, _ in kept) - sum(operands.values()) - decoders


def _coded(arrays: Sequence[Array], histograms: list[Array], chosen: list[int]) -> dict[int, Stored]:
    """The chosen arrays with the codes that they share."""
    groups = collections.defaultdict(list)
    for i, group in zip(chosen, huffman.shared([histograms[i] for i in chosen]), strict=True):
        groups[group].append(i)
    found = {}
    for members in groups.values():
        code = Code.of(np.sum([histograms[i] for i in members], axis=0))
        for i in members:
            found[i] = _in_code(arrays[i].reshape(1, -1), code, code.bytes / len(members), rows=False)
    return found


def _in_code(values: Array, code: Code, share: float, *, rows: bool) -> Stored:
    data, starts = code.encode(values.view(np.uint8))
    operands = {"data": data, "symbols": code.symbols, "lengths": code.lengths}
    operands |= {"starts": starts} if rows else {}
    taken = data.nbytes + (starts.nbytes if rows else 0) + share + CALL_BYTES
    attrs = {
        "count": values.shape[1],
        "plain_bytes": values.nbytes,
        "unsigned": int(values.dtype == np.uint8),
    }
    return Stored("huffman", operands, attrs, values.nbytes - taken)


def _worthwhile(found: list[Stored | None]) -> list[Stored | None]:
    """Those that save something, of kernels that save more than their decoder takes."""
    kept = [stored if _saved(stored) > 0 else None for stored in found]
    total: dict[str, float] = collections.defaultdict(float)
    for stored in kept:
        if stored is not None:
            total[stored.kernel] += stored.saved
    return [
        stored if stored is not None and total[stored.kernel] > DECODER_BYTES[stored.kernel] else None
        for stored in kept
    ]

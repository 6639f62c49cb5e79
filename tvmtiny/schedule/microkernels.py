"""Put the call of a C micro-kernel in the place of a tile operator's loops.

A micro-kernel `tvmt_<operator>` is a header in schedules/microkernels/<family>/ with the meaning of the tile operator
of the same name; a family that lacks one takes it from the next (FALLBACK), the last of which is `portable`. What it
is called with follows from the block itself: its regions give pointers, extents and strides, its annotation the
integer parameters.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tvm
import tvm_ffi
from tvm import ir, s_tir, tirx

from tvmtiny.kernels.tile import SCALARS, TILE
from tvmtiny.resources import data_dir

MICROKERNEL = "tvmtiny.microkernel"
"""Annotation of a block: the family whose micro-kernel takes its place."""

PREFIX = "tvmt_"
FALLBACK = {"mve": "dsp", "dual_issue": "dsp", "wide_weights": "dsp", "dsp": "portable"}
"""Family -> where the headers that it lacks come from."""


@dataclasses.dataclass(frozen=True)
class Region:
    """The part of a buffer that a block reads or writes."""

    region: ir.TensorRegion

    @property
    def pointer(self) -> Any:
        """Address of the first element."""
        return tirx.address_of(self.value)

    @property
    def value(self) -> Any:
        """The first element."""
        return tirx.BufferLoad(self.region.source, [r.min for r in self.region.region])

    @property
    def first(self) -> Any:
        """Index of the first row."""
        return self.region.region[0].min

    @property
    def rows(self) -> Any:
        """Extent of the first axis."""
        return self.region.region[0].extent

    @property
    def cols(self) -> Any:
        """Extent of the last axis."""
        return self.region.region[-1].extent

    def extent(self, axis: int) -> Any:
        """Extent of an axis."""
        return self.region.region[axis].extent

    @property
    def pair_stride(self) -> Any:
        """Elements from one pair of columns to the next."""
        return math.prod(int(extent) for extent in self.region.source.ty.shape[1:])

    @property
    def stride(self) -> Any:
        """Elements from one row to the next."""
        return self.region.source.ty.shape[-1]


Arguments = Callable[[list[Region], list[Region], list[Any]], list[Any]]


def _dense_s8(r: list[Region], w: list[Region], s: list[Any]) -> list[Any]:
    pointers = [part.pointer for part in (*r, *w)]
    return [*pointers, w[0].rows, w[0].cols, r[0].cols, r[0].stride, w[0].stride, 1, *s]


def _dense_s8_transposed(r: list[Region], w: list[Region], s: list[Any]) -> list[Any]:
    pointers = [part.pointer for part in (*r, *w)]
    return [*pointers, w[0].cols, w[0].rows, r[0].cols, r[0].stride, 1, w[0].stride, *s]


def _dense_s32(r: list[Region], w: list[Region], s: list[Any]) -> list[Any]:
    pointers = [part.pointer for part in (*r, *w)]
    return [*pointers, w[0].rows, w[0].cols, r[0].cols, r[0].stride, w[0].stride, *s]


def _dense_pairs(r: list[Region], w: list[Region], s: list[Any]) -> list[Any]:
    pointers = [part.pointer for part in (*r, *w)]
    return [*pointers, w[0].rows, w[0].cols, r[0].cols, r[0].stride, r[1].pair_stride, w[0].stride, *s]


def _dense_to_pairs(r: list[Region], w: list[Region], s: list[Any]) -> list[Any]:
    pointers = [part.pointer for part in (*r, *w)]
    return [*pointers, r[0].rows, r[2].rows, r[0].cols, r[0].stride, r[1].pair_stride, w[0].pair_stride, *s]


def _scores(r: list[Region], w: list[Region], k_stride: Any) -> list[Any]:
    pointers = [part.pointer for part in (*r, *w)]
    return [*pointers, w[0].rows, w[0].cols, r[0].cols, r[0].stride, k_stride, w[0].stride]


def _attend(r: list[Region], w: list[Region], s: list[Any], v_stride: Any) -> list[Any]:
    scores, table, multiplier, values, ratio = r
    score_shift, *others = s
    pointers = [scores.pointer, table.pointer, values.pointer, w[0].pointer]
    sizes = [w[0].rows, w[0].cols, scores.cols, scores.stride, v_stride, w[0].stride]
    return [*pointers, *sizes, multiplier.value, score_shift, ratio.value, *others]


def _requantize(r: list[Region], w: list[Region], s: list[Any]) -> list[Any]:
    return [r[0].pointer, w[0].pointer, w[0].rows, w[0].cols, r[0].stride, w[0].stride, *s]


def _normalized(r: list[Region], w: list[Region], s: list[Any]) -> list[Any]:
    pointers = [part.pointer for part in (*r, *w)]
    return [*pointers, w[0].rows, w[0].cols, r[0].stride, w[0].stride, *s]


def _add_residual(r: list[Region], w: list[Region], s: list[Any]) -> list[Any]:
    return [w[0].pointer, r[0].pointer, w[0].rows, w[0].cols, w[0].stride, r[0].stride, *s]


def _mean(r: list[Region], w: list[Region], s: list[Any]) -> list[Any]:
    return [r[0].pointer, w[0].pointer, r[0].rows, r[0].cols, r[0].stride, *s]


def _depthwise(r: list[Region], w: list[Region], s: list[Any]) -> list[Any]:
    x, weight = r[0], r[1]
    pointers = [part.pointer for part in (*r, *w)]
    strides = [s[0] * x.pair_stride, s[1] * x.stride, weight.pair_stride]
    return [*pointers, weight.rows, weight.extent(1), w[0].cols, *strides, *s[2:]]


ARGUMENTS: dict[str, tuple[str, Arguments]] = {
    "dense_s8": ("dense_s8", _dense_s8),
    "dense_s8_transposed": ("dense_s8", _dense_s8_transposed),
    "dense_s32": ("dense_s32", _dense_s32),
    "dense_w4_s8": ("dense_w4_s8", _dense_s8),
    "dense_w4_s8_transposed": ("dense_w4_s8", _dense_s8_transposed),
    "dense_w4_s32": ("dense_w4_s32", _dense_s32),
    "lookup_s8": (
        "lookup_s8",
        lambda r, w, s: [w[0].pointer, r[0].pointer, w[0].rows, w[0].cols, w[0].stride],
    ),
    "add_residual_s32": ("add_residual_s32", _add_residual),
    "add_residual_s16_s32": ("add_residual_s16_s32", _add_residual),
    "requantize_s32_s8": ("requantize_s32_s8", _requantize),
    "requantize_s32_s16": ("requantize_s32_s16", _requantize),
    "layer_norm_s8": ("layer_norm_s8", _normalized),
    "rms_norm_s8": ("rms_norm_s8", _normalized),
    "scale_s8": ("scale_s8", _normalized),
    "dense_table_s8": ("dense_table_s8", _dense_s32),
    "dense_s8_pairs": ("dense_s8_pairs", _dense_pairs),
    "dense_table_s8_pairs": ("dense_table_s8_pairs", _dense_pairs),
    "dense_s32_pairs": ("dense_s32_pairs", _dense_pairs),
    "dense_s8_keys": ("dense_s8_keys", _dense_to_pairs),
    "dense_s8_channels": ("dense_s8_channels", _dense_to_pairs),
    "scores_s32": ("scores_s32", lambda r, w, s: _scores(r, w, r[1].stride)),
    "scores_s32_pairs": ("scores_s32_pairs", lambda r, w, s: _scores(r, w, r[1].pair_stride)),
    "attend_s8": ("attend_s8", lambda r, w, s: _attend(r, w, s, r[3].stride)),
    "attend_s8_pairs": ("attend_s8_pairs", lambda r, w, s: _attend(r, w, s, r[3].pair_stride)),
    "product_s8": (
        "product_s8",
        lambda r, w, s: [
            r[0].pointer,
            r[1].pointer,
            w[0].pointer,
            w[1].pointer,
            w[0].extent(1),
            w[0].cols,
            r[0].cols,
            r[0].stride,
            r[1].stride,
            w[0].stride,
            *s,
        ],
    ),
    "embed_s32": (
        "embed_s32",
        lambda r, w, s: [
            r[0].pointer,
            r[1].pointer,
            tirx.address_of(tirx.BufferLoad(r[2].region.source, [0, 0])),
            w[0].pointer,
            w[0].rows,
            w[0].cols,
            r[2].first,
            w[0].stride,
            *s,
        ],
    ),
    "embed_scaled_s32": (
        "embed_scaled_s32",
        lambda r, w, s: [
            r[0].pointer,
            r[1].pointer,
            r[2].pointer,
            w[0].pointer,
            w[0].rows,
            w[0].cols,
            w[0].stride,
        ],
    ),
    "add_embedding_s32": (
        "add_embedding_s32",
        lambda r, w, s: [w[0].pointer, r[0].pointer, r[1].pointer, w[0].rows, w[0].cols, w[0].stride, *s],
    ),
    "depthwise_s8": ("depthwise_s8", _depthwise),
    "rotary_s8": (
        "rotary_s8",
        lambda r, w, s: [
            r[0].pointer,
            r[1].pointer,
            w[0].pointer,
            w[0].rows,
            w[0].cols,
            r[0].stride,
            w[0].stride,
        ],
    ),
    "gate_s8": (
        "gate_s8",
        lambda r, w, s: [
            w[0].pointer,
            r[0].pointer,
            r[1].pointer,
            w[0].rows,
            w[0].cols,
            w[0].stride,
            r[0].stride,
            *s,
        ],
    ),
    "mean_s8": ("mean_s8", _mean),
    "unpack_s8": ("unpack_s8", lambda r, w, s: [r[0].pointer, r[1].pointer, w[0].pointer, w[0].cols, *s]),
    "unpack_rows_s8": (
        "unpack_rows_s8",
        lambda r, w, s: [
            *(part.pointer for part in (*r, *w)),
            w[0].rows,
            w[0].cols,
            r[1].stride,
            *s,
        ],
    ),
    "huffman_s8": (
        "huffman_s8",
        lambda r, w, s: [*(part.pointer for part in (*r, *w)), r[0].cols, r[1].cols, w[0].cols],
    ),
    "huffman_rows_s8": (
        "huffman_rows_s8",
        lambda r, w, s: [
            *(part.pointer for part in (*r, *w)),
            w[0].rows,
            w[0].cols,
            r[2].cols,
            r[3].cols,
        ],
    ),
    "mean_s16_s32": ("mean_s16_s32", _mean),
}
"""Tile operator -> (micro-kernel, arguments from the block's reads, writes and integer parameters)."""


def UseMicrokernels() -> tvm.transform.Pass:  # noqa: N802
    """Replace the body of every block annotated with MICROKERNEL by the call of its C function."""

    @tirx.transform.prim_func_pass(opt_level=0, name="tvmtiny.UseMicrokernels")
    def run(function: tirx.PrimFunc, _module: tvm.IRModule, _context: object) -> tirx.PrimFunc:
        return tvm_ffi.structural_map(function, (s_tir.SBlock, _replace))

    return run


def _replace(block: s_tir.SBlock) -> s_tir.SBlock:
    if MICROKERNEL not in block.annotations:
        return block
    name, arguments = ARGUMENTS[str(block.annotations[TILE])]
    reads, writes = ([Region(part) for part in parts] for parts in (block.reads, block.writes))
    call = tirx.call_extern(
        "int32", PREFIX + name, *arguments(reads, writes, list(block.annotations[SCALARS]))
    )
    return s_tir.SBlock(block.iter_vars, block.reads, block.writes, block.name_hint, tirx.Evaluate(call))


def line_of(family: str) -> list[str]:
    """A family and those from which it takes what it lacks, in order."""
    return [family, *(line_of(FALLBACK[family]) if family in FALLBACK else [])]


def header(name: str, family: str) -> Path:
    """The file of a micro-kernel or of a header that one includes, of the first family in line that has it."""
    places = [data_dir("schedules") / "microkernels" / own / f"{name}.h" for own in line_of(family)]
    return next((path for path in places if path.is_file()), places[-1])


def headers(names: set[str], family: str) -> dict[str, str]:
    """File name -> text of the named headers and of everything that they include, in alphabetical order."""
    found: dict[str, str] = {}
    pending = sorted(names)
    while pending:
        name = pending.pop()
        if f"{name}.h" not in found:
            text = header(name, family).read_text("utf-8")
            found[f"{name}.h"] = text
            pending += re.findall(r'#include "(tvmt_\w+)\.h"', text)
    return dict(sorted(found.items()))

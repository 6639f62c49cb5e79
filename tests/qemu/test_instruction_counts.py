"""Instructions of micro-kernels and of a whole encoder, exact for one compiler, against the figures to keep.

Each limit is what `tvmtiny bench` showed with GCC 12.2, and 3 %.
"""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from tvmtiny.bench.catalog import load_catalog, select
from tvmtiny.bench.session import c_compiler, measure
from tvmtiny.schedule.rules import family
from tvmtiny.target import load_target

pytestmark = pytest.mark.qemu

COMPILER = "12.2"
MARGIN = 1.03
MEASURED = {
    "dense-32x64x64": 1.023,
    "dense-32x64x256": 0.939,
    "dense-64x512x128": 0.941,
    "dense-1x64x64": 1.464,
    "dense-s32-32x64x64": 1.008,
    "scores-4x128x128x16": 1.181,
    "values-4x128x16x128": 1.058,
    "dense-w4-32x64x256": 1.002,
    "gemv-w4-256x256": 1.729,
    "softmax-32x32": 9.93,
    "softmax-128x128": 8.68,
    "layer-norm-32x64": 11.79,
    "add-residual-32x64": 6.76,
    "add-residual-s16-32x64": 5.95,
    "requantize-32x64": 5.30,
    "requantize-s16-32x64": 5.30,
    "rms-norm-32x64": 11.61,
    "scale-32x64": 6.88,
    "lookup-32x256": 3.81,
}
"""Instructions a MAC, or an element, on Cortex-M4, and on M7 and M55 where DUAL_ISSUE and VECTORS do not say
otherwise."""
WIDE = {"int16-dense-32x64x64": 0.898, "int16-dense-64x512x128": 0.816}
"""With weights stored as int16; on Cortex-M4."""
DUAL_ISSUE = {
    "dense-32x64x64": 1.105,
    "dense-32x64x256": 1.006,
    "dense-64x512x128": 0.999,
    "dense-1x64x64": 1.65,
    "dense-s32-32x64x64": 1.089,
    "dense-w4-32x64x256": 1.158,
    "scores-4x128x128x16": 1.265,
    "values-4x128x16x128": 1.084,
}
"""On Cortex-M7: more instructions, of which two go in a cycle."""
VECTORS = {
    "dense-32x64x64": 0.196,
    "dense-32x64x256": 0.133,
    "dense-64x512x128": 0.150,
    "dense-1x64x64": 0.294,
    "dense-s32-32x64x64": 0.196,
    "scores-4x128x128x16": 0.258,
    "values-4x128x16x128": 0.218,
    "softmax-32x32": 3.50,
    "softmax-128x128": 3.12,
    "layer-norm-32x64": 6.15,
    "add-residual-32x64": 2.39,
    "add-residual-s16-32x64": 2.14,
    "requantize-32x64": 2.14,
    "requantize-s16-32x64": 1.89,
    "rms-norm-32x64": 5.99,
    "scale-32x64": 2.94,
    "mean-s16-32x64": 1.12,
    "lookup-32x256": 0.338,
}
"""On Cortex-M55: sixteen multiplications an instruction."""
OWN = {"dsp": WIDE, "dual_issue": DUAL_ISSUE, "mve": VECTORS}
ENCODERS = {
    ("qemu-m4", "enc32"): (3_774_000, 6_464, 12_288),
    ("qemu-m4", "int16-enc32"): (3_387_315, 6_464, 13_100),
    ("qemu-m4", "bert-tiny-32"): (12_720_000, 14_080, 12_288),
    ("qemu-m55", "enc32"): (778_873, 6_336, 8_192),
}
"""Instructions; bytes of the arena; bytes of code and tables."""
CYCLES = {
    "qemu-m4": {"dense-64x512x128": 1.166, "int16-dense-64x512x128": 1.131},
    "qemu-m7": {"dense-64x512x128": 0.592},
    "qemu-m55": {"dense-64x512x128": 0.192},
}
"""Estimated cycles a MAC."""


@functools.cache
def _compiler() -> str:
    return c_compiler().split()[-1]


@pytest.fixture(autouse=True)
def _same_compiler() -> None:
    if not _compiler().startswith(f"{COMPILER}."):
        pytest.skip(f"the limits hold for arm-none-eabi-gcc {COMPILER}, this is {_compiler()}")


@pytest.mark.parametrize("target", ["qemu-m4", "qemu-m7", "qemu-m55"])
def test_kernels_keep_their_instruction_counts(target: str, tmp_path: Path) -> None:
    limits = MEASURED | OWN[family(load_target(target))]
    rows = [
        measure(item, load_target(target), tmp_path, timeout_s=60)
        for item in select(load_catalog(), list(limits))
    ]
    assert len(rows) == len(limits)
    counts = {row.name: row.per_unit(row.instructions) or 0 for row in rows}
    assert {name: count for name, count in counts.items() if count > MARGIN * limits[name]} == {}
    cycles = {row.name: row.per_unit(row.estimated_cycles) or 0 for row in rows}
    assert {n: cycles[n] for n, limit in CYCLES[target].items() if cycles[n] > MARGIN * limit} == {}


@pytest.mark.parametrize(("target", "name"), ENCODERS)
def test_an_encoder_keeps_its_instructions_and_memory(target: str, name: str, tmp_path: Path) -> None:
    instructions, arena, code_and_tables = ENCODERS[target, name]
    (benchmark,) = (item for item in load_catalog() if item.name == name)
    row = measure(benchmark, load_target(target), tmp_path, timeout_s=60)
    assert row.instructions <= MARGIN * instructions
    assert row.arena_bytes is not None
    assert row.arena_bytes <= arena
    assert (row.code_bytes or 0) + (row.table_bytes or 0) <= code_and_tables

"""Instructions of micro-kernels and of a whole encoder, exact for one compiler, against the figures to keep.

Each limit is what `tvmtiny bench` showed with GCC 12.2, and 3 %.
"""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from tvmtiny.bench.catalog import load_catalog, select
from tvmtiny.bench.session import c_compiler, measure
from tvmtiny.target import load_target

pytestmark = pytest.mark.qemu

COMPILER = "12.2"
MARGIN = 1.03
MEASURED = {
    "dense-32x64x64": 0.913,
    "dense-32x64x256": 0.818,
    "dense-64x512x128": 0.826,
    "dense-1x64x64": 1.65,
    "dense-s32-32x64x64": 0.898,
    "dense-w4-32x64x256": 1.002,
    "gemv-w4-256x256": 1.729,
    "scores-4x128x128x16": 1.082,
    "values-4x128x16x128": 0.910,
    "softmax-32x32": 9.93,
    "softmax-128x128": 8.68,
    "layer-norm-32x64": 12.19,
    "add-residual-32x64": 6.76,
    "lookup-32x256": 3.81,
}
"""Instructions a MAC, or an element, on Cortex-M4, and on M7 where DUAL_ISSUE does not say otherwise."""
DUAL_ISSUE = {
    "dense-32x64x64": 1.105,
    "dense-32x64x256": 1.006,
    "dense-64x512x128": 0.999,
    "dense-s32-32x64x64": 1.089,
    "dense-w4-32x64x256": 1.158,
    "scores-4x128x128x16": 1.265,
    "values-4x128x16x128": 1.084,
}
"""On Cortex-M7: more instructions, of which two go in a cycle."""
ENC32_INSTRUCTIONS, ENC32_ARENA, ENC32_CODE_AND_TABLES = 3_376_990, 8_192, 12_288


@functools.cache
def _compiler() -> str:
    return c_compiler().split()[-1]


@pytest.fixture(autouse=True)
def _same_compiler() -> None:
    if not _compiler().startswith(f"{COMPILER}."):
        pytest.skip(f"the limits hold for arm-none-eabi-gcc {COMPILER}, this is {_compiler()}")


@pytest.mark.parametrize("target", ["qemu-m4", "qemu-m7"])
def test_kernels_keep_their_instruction_counts(target: str, tmp_path: Path) -> None:
    rows = [
        measure(item, load_target(target), tmp_path, timeout_s=60)
        for item in select(load_catalog(), list(MEASURED))
    ]
    assert len(rows) == len(MEASURED)
    counts = {row.name: row.per_unit(row.instructions) or 0 for row in rows}
    limits = MEASURED | (DUAL_ISSUE if load_target(target).dual_issue else {})
    assert {name: count for name, count in counts.items() if count > MARGIN * limits[name]} == {}


def test_an_encoder_keeps_its_instructions_and_memory(tmp_path: Path) -> None:
    row = measure(*select(load_catalog(), ["enc32"]), load_target("qemu-m4"), tmp_path, timeout_s=60)
    assert row.instructions <= MARGIN * ENC32_INSTRUCTIONS
    assert row.arena_bytes is not None
    assert row.arena_bytes <= ENC32_ARENA
    assert (row.code_bytes or 0) + (row.table_bytes or 0) <= ENC32_CODE_AND_TABLES

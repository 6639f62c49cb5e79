"""Every micro-kernel of every family gives the bytes of tvmtiny.quant.integer on every emulated core."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from microkernel_driver.build import WARNINGS, write_model
from microkernel_driver.cases import first_difference, kernels_of, pack
from microkernel_driver.generate import fixed_cases

from tvmtiny.report.assembly import disassemble
from tvmtiny.report.beats import vector_unit
from tvmtiny.runner import Sample, run
from tvmtiny.runner.build import build
from tvmtiny.runner.process import find_tool
from tvmtiny.schedule.variants import KNOBS, Variant
from tvmtiny.target import load_target

pytestmark = pytest.mark.qemu

# ARMv6-M code runs on the Cortex-M3 of mps2-an385: the M0's own machine has too little RAM.
MACHINES = ("qemu-m0-large", "qemu-m3", "qemu-m4", "qemu-m7", "qemu-m33", "qemu-m55")
PLACES = [(name, "portable") for name in MACHINES]
PLACES += [
    (name, family)
    for name in MACHINES
    if load_target(name).dsp
    for family in ("dsp", "dual_issue", "wide_weights", "mve")
]


@pytest.mark.parametrize(("machine", "family"), PLACES)
def test_kernels_give_the_reference_bytes(machine: str, family: str, tmp_path: Path) -> None:
    arenas = pack(case for kernel in kernels_of(family) for case in fixed_cases(kernel, family))
    samples = [Sample({"cases": np.frombuffer(before, np.uint8)}, 1) for before, _, _ in arenas]
    result = run(write_model(tmp_path, family), "qemu", samples, target=machine)
    assert set(result.status) == {0}
    for arena, outputs in zip(arenas, result.outputs, strict=True):
        assert not first_difference(arena, outputs["cases"].tobytes())


VARIANTS = {
    "qemu-m0-large": ("portable-inlined_1",),
    "qemu-m4": (
        "dsp-inlined_1-pair_steps_8-strip_steps_4",
        "dsp-pair_steps_32-strip_steps_16",
        "dsp-pair_steps_48-strip_steps_32",
        "wide_weights-pair_steps_8-single_loads_1",
        "wide_weights-inlined_1-pair_steps_32",
        "wide_weights-pair_steps_48-single_loads_1",
    ),
    "qemu-m7": (
        "dual_issue-strip_steps_4",
        "dual_issue-strip_steps_16",
        "dual_issue-inlined_1-staged_1",
        "dual_issue-staged_1-strip_steps_16",
        "dual_issue-strip_steps_32",
    ),
    "qemu-m55": ("mve-inlined_1",),
}


@pytest.mark.parametrize(("machine", "variant"), [(m, v) for m, names in VARIANTS.items() for v in names])
def test_every_setting_of_the_knobs_gives_the_reference_bytes(
    machine: str, variant: str, tmp_path: Path
) -> None:
    family = Variant.parse(variant).family
    arenas = pack(case for kernel in kernels_of(family) for case in fixed_cases(kernel, family))
    samples = [Sample({"cases": np.frombuffer(before, np.uint8)}, 1) for before, _, _ in arenas]
    result = run(write_model(tmp_path, variant), "qemu", samples, target=machine)
    assert set(result.status) == {0}
    for arena, outputs in zip(arenas, result.outputs, strict=True):
        assert not first_difference(arena, outputs["cases"].tobytes())


def test_every_setting_of_a_knob_is_tested() -> None:
    tested = {
        setting for names in VARIANTS.values() for name in names for setting in Variant.parse(name).settings
    }
    assert tested == {(name, value) for name, knob in KNOBS.items() for value in knob.choices[1:]}


@pytest.mark.parametrize(
    ("family", "target"),
    [
        ("portable", "qemu-m0"),
        ("dsp", "qemu-m4"),
        ("wide_weights", "qemu-m4"),
        ("dual_issue", "qemu-m7"),
        ("mve", "qemu-m55"),
    ],
)
@pytest.mark.parametrize("optimize", ["-O0", "-Os", "-O3"])
def test_inline_assembly_finds_its_registers_at_every_level_of_optimization(
    optimize: str, family: str, target: str, tmp_path: Path
) -> None:
    write_model(tmp_path, family)
    command = [
        find_tool("arm-none-eabi-gcc"),
        *load_target(target).flags,
        "-std=c11",
        optimize,
        *WARNINGS,
    ]
    subprocess.run([*command, "-Iinclude", "-c", "driver.c", "-o", "driver.o"], cwd=tmp_path, check=True)


def test_the_cycle_model_knows_every_vector_instruction_of_the_kernels(tmp_path: Path) -> None:
    target = load_target("qemu-m55")
    project = build(write_model(tmp_path, "mve"), target)
    vectors = [found for found in disassemble(project.elf, vectors=True).values() if found.vector]
    assert {"vmlava.s8", "vldrbt.u8", "vrmulh.s32", "vqmovnb.s16"} <= {found.name for found in vectors}
    assert {found.name for found in vectors if vector_unit(found) is None} == set()

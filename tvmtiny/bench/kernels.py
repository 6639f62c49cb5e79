"""Measures single micro-kernels: builds benchmarks/kernels.c with those of the target and counts what calls execute.

Counted is what a call executes, passing its arguments included, the loop of the benchmark excluded.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
import struct
from pathlib import Path

import numpy as np

from tvmtiny.artifact import Artifact, TensorInfo
from tvmtiny.bench.catalog import KernelBenchmark, Step
from tvmtiny.bench.results import Row, row
from tvmtiny.errors import EnvironmentProblem
from tvmtiny.report.blocks import Program, base_name
from tvmtiny.report.cycles import core_model
from tvmtiny.resources import data_dir
from tvmtiny.runner import Sample, run
from tvmtiny.schedule.microkernels import header, headers
from tvmtiny.schedule.rules import PAIRED_ROWS, family
from tvmtiny.target import Target

SOURCE = "kernels.c"
_WORK = struct.Struct("<32s4i2I2I3I")
"""`work` of kernels.c."""
_ALIGN = 16
_WIDENED_ROWS = 8
"""Rows of int16 that the workspace has room for; no family widens more at a time."""
_CALLER = "kernels_run"
_HARNESS = "measured_run"


def measure(benchmark: KernelBenchmark, target: Target, directory: Path, *, timeout_s: float) -> Row:
    """Run every step of a benchmark on the emulated core of a target.

    Args:
        directory: for the program; one that serves for all benchmarks of a target builds it less often.

    Raises:
        UserError: no machine has the target's core, or the operands do not fit its memory.
        EnvironmentProblem: a tool is missing or fails.
    """
    microkernels = family(target, benchmark.weights)
    counts = [_measure(step, target, microkernels, directory, timeout_s) for step in benchmark.steps]
    return row(
        benchmark,
        target,
        instructions=sum(instructions for instructions, _ in counts),
        estimated_cycles=sum(cycles for _, cycles in counts),
        macs=benchmark.macs or None,
        elements=benchmark.elements,
    )


def _measure(
    step: Step, target: Target, microkernels: str, directory: Path, timeout_s: float
) -> tuple[int, int]:
    """Instructions and estimated cycles of all calls of a step."""
    step = dataclasses.replace(step, kernel=_form(step.kernel, microkernels))
    work, arena_bytes = _layout(step)
    artifact = _program(directory, target, microkernels, arena_bytes)
    result = run(
        artifact,
        "qemu",
        [Sample({"work": work}, 1)],
        target=target,
        blocks=True,
        phases=[f"call_{step.kernel}"],
        build_dir=directory / f"build-{arena_bytes}",
        timeout_s=timeout_s,
    )
    if result.status[0] != 0:
        raise AssertionError(f"{SOURCE} refused {step} with status {result.status[0]}")
    if result.instructions is None:
        raise EnvironmentProblem(
            "This QEMU was built without plugins, so that it cannot count instructions.",
            "Debian's and Ubuntu's can: sudo apt-get install qemu-system-arm",
        )
    program = Program(result.run_elf, target, core_model(target.cpu))
    blocks = [
        block
        for block in result.blocks
        if block.phase == 1 and base_name(program.symbol(block).name) not in (_CALLER, _HARNESS)
    ]
    instructions = sum(block.instructions * block.entered for block in blocks)
    return instructions, sum(program.cycles(block) for block in blocks)


def _form(kernel: str, microkernels: str) -> str:
    """The form of a kernel that a compiled model calls."""
    paired = f"{kernel}_pairs"
    found = microkernels in PAIRED_ROWS and header(f"tvmt_{paired}", microkernels).is_file()
    return paired if found else kernel


def _layout(step: Step) -> tuple[np.ndarray, int]:
    """The `work` of a step, as bytes, and the size of the arena: a power of two, so that few programs are built.

    Operands of products are bytes, others words, a residual of at most int16; results are words. The weights of a dense
    layer are constants.
    """
    if step.depth:
        x, y = step.rows * step.depth, 0 if step.kernel.startswith("dense") else step.cols * step.depth
    else:
        x, y = 4 * step.rows * step.cols, 2 * step.rows * step.cols
    workspace = 2 * _WIDENED_ROWS * (step.depth + 4)
    offsets, end = [], _WORK.size
    for size in (x, y, 4 * step.rows * step.cols, workspace, 4 * step.rows):
        start = -(-end // _ALIGN) * _ALIGN
        offsets.append(start)
        end = start + size
    sizes = (step.rows, step.cols, step.depth, step.calls)
    x_at, y_at, *others = offsets
    packed = _WORK.pack(step.kernel.encode(), *sizes, x_at, -(-x // 4), y_at, -(-y // 4), *others)
    return np.frombuffer(packed, np.uint8), max(4096, 1 << (end - 1).bit_length())


def _program(directory: Path, target: Target, microkernels: str, arena_bytes: int) -> Artifact:
    """kernels.c and the micro-kernels of a family, as a model whose input is the work."""
    source = data_dir("benchmarks") / SOURCE
    include = directory / "include"
    include.mkdir(parents=True, exist_ok=True)
    names = set(re.findall(r'#include "(tvmt_\w+)\.h"', source.read_text("utf-8"))) - {"tvmt_model"}
    names = {name for name in names if header(name, microkernels).is_file()}
    for name, text in headers(names, microkernels).items():
        (include / name).write_text(text, encoding="utf-8")
    shutil.copy(data_dir("microtvm_projects/common") / "tvmt_model.h", include)
    shutil.copy(source, directory)
    tensor = TensorInfo("work", "features", "uint8", (_WORK.size,), 0, _WORK.size)
    return Artifact(
        directory=directory,
        name="kernels",
        target=target.name,
        inputs=(tensor,),
        outputs=(tensor,),
        max_tokens=1,
        has_length=False,
        arena_bytes=arena_bytes,
        arena_align=_ALIGN,
        sources=(SOURCE,),
        include_dirs=("include",),
        metadata={},
    )

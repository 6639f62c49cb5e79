"""From an integer module to C functions, constants and the plan of the arena: the second half of the compiler."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import tvm

from tvmtiny.codegen.directory import check_writable
from tvmtiny.codegen.planner import kilobytes
from tvmtiny.codegen.program import Program, build_program
from tvmtiny.errors import UserError
from tvmtiny.kernels import kernel_calls
from tvmtiny.passes.compress_tables import CompressTables
from tvmtiny.passes.compress_weights import CompressWeights
from tvmtiny.passes.lower import Lower, Rule
from tvmtiny.passes.quantize import QuantizedModel
from tvmtiny.schedule.records import RULES, TunedRule
from tvmtiny.schedule.rules import Schedule, blocking
from tvmtiny.storage.choice import AS_THEY_ARE, ROWS, Storage
from tvmtiny.target import MemoryRegion, Target

OnStage = Callable[[str, float], None]


class Stages:
    """Times each step and writes what stands after it."""

    def __init__(self, on_stage: OnStage | None = None, directory: Path | None = None) -> None:
        self._on_stage = on_stage
        self._directory = directory
        self._count = 0
        if directory is not None:
            try:
                directory.mkdir(parents=True, exist_ok=True)
                check_writable(directory)
            except OSError as error:
                raise UserError(
                    f"Cannot write dumps to {directory}: {error.strerror or error}.",
                    "Give --dump-dir a directory that can be written.",
                ) from error

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time the block."""
        start = time.perf_counter()
        yield
        if self._on_stage is not None:
            self._on_stage(name, time.perf_counter() - start)

    def dump(self, name: str, module: tvm.IRModule) -> tvm.IRModule:
        """Verify a module (TVM raises at what is wrong) and write it as TVMScript when a dump directory is given."""
        tvm.relax.analysis.well_formed(module)
        self._count += 1
        if self._directory is not None:
            (self._directory / f"{self._count}-{name}.py").write_text(module.script(), encoding="utf-8")
        return module


def build_tuned(
    quantized: QuantizedModel,
    board: Target,
    prefix: str,
    microkernels: str,
    stages: Stages,
    tuned: str,
    storage: Storage = AS_THEY_ARE,
) -> tuple[Program, TunedRule]:
    """`build` for a board with the records of an objective; without them where the arena fits only so.

    Raises:
        UserError: the arena does not fit the board with the rules' schedules either.
    """
    regions = arena_regions(board)
    rule, plain = tuned_rule(quantized, board, microkernels, tuned), TunedRule(board, RULES, microkernels)
    if rule.empty:
        return build(quantized, board, prefix, microkernels, stages, regions, storage=storage), plain
    try:
        return build(quantized, board, prefix, microkernels, stages, regions, rule, storage), rule
    except UserError:
        return build(quantized, board, prefix, microkernels, stages, regions, storage=storage), plain


def tuned_rule(quantized: QuantizedModel, board: Target, microkernels: str, tuned: str) -> TunedRule:
    """The schedules of a model by the records of an objective for the core of a board."""
    rule = TunedRule(board, tuned, microkernels)
    rule.settle(kernel_calls(quantized.module))
    return rule


def build(
    quantized: QuantizedModel,
    board: Target,
    prefix: str,
    microkernels: str,
    stages: Stages,
    regions: Sequence[MemoryRegion] = (),
    rule: Rule | None = None,
    storage: Storage = AS_THEY_ARE,
) -> Program:
    """From the integer module to C functions, constants and the plan of the arena.

    Args:
        microkernels: their family, by `schedule.rules.family`.
        regions: RAM for the arena; empty: no limit.
        rule: chooses schedules; the family's own when None.
        storage: how weights are to lie in flash.

    Raises:
        UserError: the arena fits into none of the regions.
    """
    compressed = storage != AS_THEY_ARE
    with stages("lower"):
        module = CompressTables(storage.form)(quantized.module) if compressed else quantized.module
        lowered = stages.dump("lowered", Lower(rule or blocking(microkernels))(module))
        if compressed and storage.place != ROWS:
            lowered = stages.dump("compressed", CompressWeights(storage)(lowered))
    with stages("schedule"):
        scheduled = stages.dump("scheduled", Schedule(microkernels)(lowered))
    with stages("generate"):
        return build_program(
            scheduled,
            prefix,
            board.tvm_target(),
            regions=regions,
            target=board.name,
            max_tokens=quantized.max_tokens if quantized.has_length else None,
            storage=storage,
        )


def arena_regions(board: Target) -> list[MemoryRegion]:
    """RAM for the arena: the stack is taken off the region that is preferred least."""
    regions = list(board.arena_regions)
    if regions:
        last = regions[-1]
        regions[-1] = dataclasses.replace(last, bytes=max(0, last.bytes - board.stack_bytes))
    return regions


def check_flash(program: Program, board: Target) -> None:
    """Raise UserError where the weights alone are more than the flash of a board."""
    used = program.weight_bytes
    if board.flash_bytes and used > board.flash_bytes:
        raise UserError(
            f"weights {kilobytes(used, up=True)} > {kilobytes(board.flash_bytes)} flash of {board.name}.",
            "Use a smaller vocabulary or a narrower model, or another target.",
        )

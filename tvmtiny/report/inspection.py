"""What a model consists of and which targets it fits, before it is compiled and without calibration data.

The real pipeline runs, up to the memory plan, with placeholder ranges. Cycles and code are estimates (estimate.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import tvm

from tvmtiny.codegen.planner import kilobytes, place
from tvmtiny.codegen.program import Program
from tvmtiny.errors import Unsupported, UnsupportedOperators, UserError
from tvmtiny.frontend import import_model
from tvmtiny.frontend.data import input_specs
from tvmtiny.frontend.supported import check_fused
from tvmtiny.kernels import kernel_calls
from tvmtiny.lowering import Stages, arena_regions, build, tuned_rule
from tvmtiny.options import ModelOptions
from tvmtiny.passes.graph import Graph, as_array
from tvmtiny.passes.operators import kind
from tvmtiny.passes.quantize import QuantizedModel
from tvmtiny.quant.placeholder import placeholder_statistics
from tvmtiny.report.estimate import CoreFigures, core_figures, decoder_bytes, work
from tvmtiny.schedule.rules import family
from tvmtiny.target import Target, list_targets

INPUTS = "inputs"
"""The row of what belongs to no operator: the scaling of feature inputs."""

_FLASH_REMEDY = "Use a smaller vocabulary or a narrower model, or another target."


@dataclasses.dataclass(frozen=True)
class Problem:
    """Why a model cannot be compiled, or does not fit, and what to do about it."""

    message: str
    remedy: str


@dataclasses.dataclass(frozen=True)
class Operator:
    """An operator after fusion.

    Attributes:
        name: of its result in the source model.
        kernel: of tvmtiny/kernels/; of a model that cannot be compiled, the name of the fused float operator.
        parameters: trained numbers that it uses.
        macs: multiply-accumulates with all tokens; None of a model that cannot be compiled.
        weight_bytes: its constants in flash; those that several operators share count for the first. None likewise.
    """

    name: str
    kernel: str
    parameters: int
    macs: int | None = None
    weight_bytes: int | None = None


@dataclasses.dataclass(frozen=True)
class Fit:
    """What a model needs of a target, in bytes. None where there is no figure for the core or no clock.

    Attributes:
        weight_bytes, arena_bytes: as a compile gives them.
        code_bytes, estimated_cycles, latency_ms: estimates; code includes tables.
        lacking: what does not fit, of "flash", "arena" and "latency", with the reason.
    """

    target: Target
    weight_bytes: int
    arena_bytes: int
    code_bytes: int | None
    estimated_cycles: int | None
    latency_ms: float | None
    lacking: dict[str, Problem]

    @property
    def flash_bytes(self) -> int:
        """Weights, code and tables."""
        return self.weight_bytes + (self.code_bytes or 0)

    @property
    def fits(self) -> bool:
        """Whether flash, arena and latency are within limits."""
        return not self.lacking


@dataclasses.dataclass(frozen=True)
class Inspection:
    """A model before it is compiled.

    Attributes:
        fits: a row a target; none where the model cannot be compiled, for the reasons in `unsupported` and `problems`.
        max_tokens: S, of a step or of the whole. has_length: whether a run may take fewer. Both None where the model
            cannot be compiled.
        in_steps: whether figures are those of a step.
    """

    operators: tuple[Operator, ...] = ()
    fits: tuple[Fit, ...] = ()
    unsupported: tuple[Unsupported, ...] = ()
    problems: tuple[Problem, ...] = ()
    max_tokens: int | None = None
    has_length: bool | None = None
    in_steps: bool = False


def targets_for(weights: str) -> list[Target]:
    """All targets that have micro-kernels for weights stored so."""
    found = []
    for target in list_targets():
        with contextlib.suppress(UserError):
            family(target, weights)
            found.append(target)
    return found


def inspect(
    model: Any,
    targets: Sequence[Target],
    options: ModelOptions | None = None,
    *,
    latency_budget_ms: float | None = None,
) -> Inspection:
    """Take a model apart and hold it against targets, in their order.

    Args:
        model: as for `tvmtiny.compile`.
        targets: at least one; the weights of `Inspection.operators` are as stored for the first.
        options: what would be compiled. Of a model in steps, figures are those of a step of so many tokens at the end
            of a sequence.
        latency_budget_ms: the longest that an inference may take.

    Raises:
        UserError: the model cannot be read, or its shapes are not known.
    """
    options = options or ModelOptions()
    families = {target.name: family(target, options.weights) for target in targets}
    try:
        module = import_model(model, options.shapes, options.max_tokens)
    except UnsupportedOperators as error:
        return Inspection(unsupported=error.rows)
    fused = None
    try:
        fused = options.fuse(module)
        check_fused(fused)
        specs, _, tokens = input_specs(fused)
        statistics = placeholder_statistics(fused, specs, tokens)
        _, quantized = options.in_steps(_placeholder(options).quantize(fused, statistics))
    except UserError as error:
        return _not_compiled(fused, error)
    programs = _programs(quantized, targets, families, options)
    figures = core_figures()
    fits = tuple(
        _fit(target, programs[target.name], quantized, figures.get(target.cpu), latency_budget_ms)
        for target in targets
    )
    return Inspection(
        operators=_operators(fused, quantized, programs[targets[0].name]),
        fits=fits,
        max_tokens=quantized.max_tokens,
        has_length=quantized.has_length,
        in_steps=options.step is not None,
    )


def _placeholder(options: ModelOptions) -> ModelOptions:
    """Without what takes time and changes no size."""
    return dataclasses.replace(options, range_method="minmax", rounding="nearest", bias_correction=False)


def _not_compiled(fused: tvm.IRModule | None, error: UserError) -> Inspection:
    """What there is to say of a model that was read and cannot be compiled."""
    operators = () if fused is None else _fused_operators(fused)
    if isinstance(error, UnsupportedOperators):
        return Inspection(operators, unsupported=error.rows)
    return Inspection(operators, problems=(Problem(error.message, error.remedy),))


def _fused_operators(fused: tvm.IRModule) -> tuple[Operator, ...]:
    parameters = _parameters(fused)
    return tuple(
        Operator(var.name, kind(value), parameters[var.name])
        for var, value in Graph(fused["main"])
        if kind(value)
    )


def _parameters(fused: tvm.IRModule) -> dict[str, int]:
    """Elements of the real constants that each binding of a fused module reads; a fixed length is an integer."""
    counts = {}
    for var, value in Graph(fused["main"]):
        arrays = [as_array(arg) for arg in getattr(value, "args", ())]
        counts[var.name] = sum(
            array.size for array in arrays if array is not None and array.dtype.kind == "f"
        )
    return counts


def _programs(
    quantized: QuantizedModel, targets: Sequence[Target], families: dict[str, str], options: ModelOptions
) -> dict[str, Program]:
    """The program of each target, with the schedules that a compile takes.

    By the rules, cores of one family of micro-kernels share a program; by records, boards with one core do.
    """
    boards = {families[target.name]: target for target in targets}
    cores = {target.cpu: target for target in targets}

    @functools.cache
    def by_rules(name: str) -> Program:
        return build(quantized, boards[name], "model", name, Stages(), storage=options.storage)

    @functools.cache
    def by_records(cpu: str, name: str) -> Program | None:
        rule = tuned_rule(quantized, cores[cpu], name, options.tuned)
        if not rule.changes(kernel_calls(quantized.module)):
            return None
        return build(quantized, cores[cpu], "model", name, Stages(), rule=rule, storage=options.storage)

    found = {}
    for target in targets:
        name = families[target.name]
        tuned = by_records(target.cpu, name)
        fits = tuned is not None and _arena(target, tuned, quantized) is None
        found[target.name] = tuned if tuned is not None and fits else by_rules(name)
    return found


def _operators(fused: tvm.IRModule, quantized: QuantizedModel, program: Program) -> tuple[Operator, ...]:
    parameters, sizes = _parameters(fused), {c.symbol: c.array.nbytes for c in program.constants}
    rows, known = [], iter(kernel_calls(quantized.module))
    for call in program.all_calls:
        own = sum(sizes.pop(symbol, 0) for symbol in call.constants)
        if call.decodes:
            rows.append(Operator(call.result, call.function.kernel, 0, 0, own))
            continue
        name, kernel, operands = next(known)
        macs = kernel.macs(operands, quantized.max_tokens)
        rows.append(Operator(name, kernel.name, parameters.get(name, 0), macs, own))
    scaling = program.weight_bytes - sum(row.weight_bytes or 0 for row in rows)
    return ((Operator(INPUTS, "", 0, 0, scaling),) if scaling else ()) + tuple(rows)


def _fit(
    target: Target,
    program: Program,
    quantized: QuantizedModel,
    figures: CoreFigures | None,
    latency_budget_ms: float | None,
) -> Fit:
    known = kernel_calls(quantized.module)
    cycles = (
        None
        if figures is None
        else sum(
            figures.cycles(work(kernel, operands, quantized.max_tokens)) for _, kernel, operands in known
        )
        + figures.decoding_cycles(program.calls)
    )
    latency = 1000 * cycles / target.clock_hz if cycles is not None and target.clock_hz else None
    code = None if figures is None else figures.code(len(known)) + decoder_bytes(program.all_calls)
    lacking = {
        "flash": _flash(target, program.weight_bytes, code or 0),
        "arena": _arena(target, program, quantized),
        "latency": _latency(target, latency, latency_budget_ms),
    }
    return Fit(
        target=target,
        weight_bytes=program.weight_bytes,
        arena_bytes=program.plan.arena_bytes,
        code_bytes=code,
        estimated_cycles=cycles,
        latency_ms=latency,
        lacking={what: problem for what, problem in lacking.items() if problem is not None},
    )


def _flash(target: Target, weight_bytes: int, code_bytes: int) -> Problem | None:
    used = weight_bytes + code_bytes
    if not target.flash_bytes or used <= target.flash_bytes:
        return None
    parts = f"weights {kilobytes(weight_bytes, up=True)}, code about {kilobytes(code_bytes, up=True)}"
    return Problem(
        f"flash {kilobytes(used, up=True)} ({parts}) > {kilobytes(target.flash_bytes)} of {target.name}.",
        _FLASH_REMEDY,
    )


def _arena(target: Target, program: Program, quantized: QuantizedModel) -> Problem | None:
    regions, plan = arena_regions(target), program.plan
    tokens = quantized.max_tokens if quantized.has_length else None
    try:
        if regions:
            place(plan.arena_bytes, plan.align, regions, target.name, tokens)
    except UserError as error:
        return Problem(f"{error.message}.", f"{error.remedy[0].upper()}{error.remedy[1:]}")
    return None


def _latency(target: Target, latency_ms: float | None, budget_ms: float | None) -> Problem | None:
    if latency_ms is None or budget_ms is None or latency_ms <= budget_ms:
        return None
    return Problem(
        f"latency about {latency_ms:.3g} ms > {budget_ms:g} ms on {target.name}.",
        "Use fewer tokens, a narrower model or fewer layers, or a faster target.",
    )

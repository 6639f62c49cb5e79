"""Where the instructions of one inference go: exact counts of an emulated run, by operator and by function.

Blocks of code are counted by phase, and a phase begins when an operator's function is entered. So what a micro-kernel
executes counts for the operator that called it. Cycles are estimates (cycles.py).
"""

from __future__ import annotations

import collections
import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy.typing as npt

from tvmtiny.artifact import Artifact
from tvmtiny.errors import EnvironmentProblem, UserError
from tvmtiny.report.arena import Buffer, buffers, live_bytes
from tvmtiny.report.blocks import Program, base_name
from tvmtiny.report.cycles import COMMON, CoreModel, core_model
from tvmtiny.runner import Block, RunResult, Sample, Sizes, Symbol, run
from tvmtiny.target import HOST, Target, load_target

RUN_FUNCTION = "run function"
INIT_FUNCTION = "init function"
"""Before the run, so of no instructions: it decodes weights, where the model was compiled so."""
_HARNESS = "measured_run"
_FRAGMENT = re.compile(r"\.(part|cold)\b")
_STALE = "Compile the model again with this version."


@dataclasses.dataclass(frozen=True)
class Operator:
    """One operator of the run, or the function that calls them all (`kernel` is then "").

    Attributes:
        name: of its result in the source model.
        kernel: of tvmtiny/kernels/.
        function: its C function.
        instructions: executed, exact.
        estimated_cycles: by the model of the target's core.
        macs: multiply-accumulates with the profiled number of tokens; None where they are not known.
        arena_bytes: the most bytes of the arena that are live while it runs.
        weight_bytes: its constants in flash; those that several operators share count for the first of them.
    """

    name: str
    kernel: str
    function: str
    instructions: int
    estimated_cycles: int
    macs: int | None
    arena_bytes: int
    weight_bytes: int
    first_step: int
    last_step: int


@dataclasses.dataclass(frozen=True)
class Function:
    """A C function: executed instructions, estimated cycles, calls, and the bytes of its code."""

    name: str
    instructions: int
    estimated_cycles: int
    calls: int
    code_bytes: int


@dataclasses.dataclass(frozen=True)
class Profile:
    """One inference of `artifact` with `n_tokens` tokens, and the `outputs` by name that it gave."""

    artifact: Artifact
    target: Target
    n_tokens: int
    model: CoreModel
    operators: tuple[Operator, ...]
    functions: tuple[Function, ...]
    instructions: int
    sizes: Sizes
    stack_bytes: int | None
    outputs: dict[str, npt.NDArray[Any]]

    @property
    def estimated_cycles(self) -> int:
        """Of the whole inference."""
        return sum(row.estimated_cycles for row in self.operators)

    @property
    def macs(self) -> int | None:
        """Of the whole inference, or None where an operator's are not known."""
        known = [row.macs for row in self.operators if row.macs is not None]
        return sum(known) if len(known) == len(self.operators) else None

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What the cycle estimate rests on."""
        waits = [f"{region.name} {region.wait_states}" for region in self.target.memory if region.wait_states]
        stated = f"Not counted: the wait states that {self.target.name} states ({', '.join(waits)})."
        source = f"{self.target.cpu}: {self.model.source}."
        return (source, *self.model.assumptions, *COMMON, *([stated] if waits else []))

    def latency_ms(self, cycles: int) -> float | None:
        """Milliseconds of some cycles at the target's clock; None where it has none."""
        return 1000 * cycles / self.target.clock_hz if self.target.clock_hz else None


def profile(
    artifact: Artifact, sample: Sample, *, build_dir: Path | None = None, timeout_s: float = 60
) -> Profile:
    """Run one inference on the emulated core of the model's target and say where its instructions go.

    Raises:
        UserError: the model was compiled for the host, by an older version, or for a core without a cycle model;
            or it refuses the sample.
        EnvironmentProblem: a tool is missing or fails, or this QEMU cannot count.
    """
    target = load_target(artifact.target)
    if target.cpu == HOST:
        raise UserError(
            f"{artifact.name} was compiled for the target {target.name!r}, on which nothing can be counted exactly.",
            "Compile it for a Cortex-M target, e.g. --target qemu-m4 (`tvmtiny targets` lists them).",
        )
    model = core_model(target.cpu)
    rows = _operator_rows(artifact)
    names = [f"{artifact.name}_{row['function']}" for row in rows]
    result = run(
        artifact,
        "qemu",
        [sample],
        target=target,
        blocks=True,
        phases=names,
        build_dir=build_dir,
        timeout_s=timeout_s,
    )
    _check(artifact, result)
    tally = _Tally(artifact, Program(result.run_elf, target, model))
    for block in result.blocks:
        tally.add(block)
    return Profile(
        artifact=artifact,
        target=target,
        n_tokens=sample.n_tokens,
        model=model,
        operators=_operators(artifact, rows, tally, sample.n_tokens),
        functions=tally.functions(),
        instructions=result.instructions or 0,
        sizes=result.sizes,
        stack_bytes=result.stack_bytes,
        outputs=result.outputs[0],
    )


@dataclasses.dataclass
class _Sums:
    instructions: int = 0
    cycles: int = 0
    calls: int = 0


class _Tally:
    """Sums over blocks, by phase and by function; phase 0 is the run function."""

    def __init__(self, artifact: Artifact, program: Program) -> None:
        self.program = program
        self.phases: dict[int, _Sums] = collections.defaultdict(_Sums)
        self._functions: dict[str, _Sums] = collections.defaultdict(_Sums)
        operators = {f"{artifact.name}_{row['function']}" for row in artifact.metadata["operators"]}
        # Between two operators: the run function and its caller, and the linker's jumps to operators far away.
        self._between = {f"{artifact.name}_run", _HARNESS, *(f"__{name}_veneer" for name in operators)}

    def add(self, block: Block) -> None:
        symbol = self.program.symbol(block)
        name = base_name(symbol.name)
        cycles = self.program.cycles(block)
        for sums in (self.phases[0 if name in self._between else block.phase], self._functions[name]):
            sums.instructions += block.instructions * block.entered
            sums.cycles += cycles
        if block.address == symbol.address and not _FRAGMENT.search(symbol.name):
            self._functions[name].calls += block.entered

    def functions(self) -> tuple[Function, ...]:
        """By instructions, most first."""
        code_bytes = collections.Counter[str]()
        for symbol in self.program.symbols:
            code_bytes[base_name(symbol.name)] += symbol.bytes
        rows = [
            Function(name, sums.instructions, sums.cycles, sums.calls, code_bytes[name])
            for name, sums in self._functions.items()
        ]
        return tuple(sorted(rows, key=lambda row: (-row.instructions, row.name)))


def _operator_rows(artifact: Artifact) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = artifact.metadata.get("operators", [])
    if not rows or any("steps" not in row for row in rows):
        raise UserError(f"{artifact.directory} was compiled by another version of tvmtiny.", _STALE)
    return rows


def _boot_rows(artifact: Artifact) -> list[dict[str, Any]]:
    """The decoders of the init function, which the run does not call."""
    rows: list[dict[str, Any]] = artifact.metadata.get("storage", {}).get("boot", [])
    return rows


def _check(artifact: Artifact, result: RunResult) -> None:
    if result.status[0] != 0:
        raise UserError(
            f"{artifact.name} refused the sample with status {result.status[0]}.",
            f"See enum {artifact.name}_status in {artifact.directory / artifact.name}.h for its meaning.",
        )
    if result.instructions is None:
        raise EnvironmentProblem(
            "This QEMU was built without plugins, so that it cannot count instructions.",
            "Debian's and Ubuntu's can: sudo apt-get install qemu-system-arm",
        )


def _operators(
    artifact: Artifact, rows: list[dict[str, Any]], tally: _Tally, n_tokens: int
) -> tuple[Operator, ...]:
    plan, boot = buffers(artifact), _boot_rows(artifact)
    weights = _weights(artifact, [*boot, *rows], tally.program.symbols)
    result = [
        _operator(RUN_FUNCTION, "", f"{artifact.name}_run", tally.phases[0], 0, weights[""], plan, (-1, -1))
    ]
    step = sum(row["steps"] for row in boot)  # the plan counts them first
    if boot:
        init, decoded = f"{artifact.name}_init", sum(weights[row["function"]] for row in boot)
        result.append(_operator(INIT_FUNCTION, "", init, _Sums(), 0, decoded, plan, (0, step - 1)))
    for number, row in enumerate(rows, start=1):
        steps = (step, step + row["steps"] - 1)
        step += row["steps"]
        function, macs = row["function"], _macs(artifact, row, n_tokens)
        name = f"{artifact.name}_{function}"
        result.append(
            _operator(
                row["name"], row["kernel"], name, tally.phases[number], macs, weights[function], plan, steps
            )
        )
    return tuple(result)


def _operator(
    name: str,
    kernel: str,
    function: str,
    sums: _Sums,
    macs: int | None,
    weight_bytes: int,
    plan: list[Buffer],
    steps: tuple[int, int],
) -> Operator:
    return Operator(
        name=name,
        kernel=kernel,
        function=function,
        instructions=sums.instructions,
        estimated_cycles=sums.cycles,
        macs=macs,
        arena_bytes=live_bytes(plan, *steps),
        weight_bytes=weight_bytes,
        first_step=steps[0],
        last_step=steps[1],
    )


def _macs(artifact: Artifact, row: dict[str, Any], n_tokens: int) -> int | None:
    if n_tokens == artifact.max_tokens:
        return int(row["macs"])
    coefficients = row["macs_by_tokens"]
    return None if coefficients is None else sum(c * n_tokens**power for power, c in enumerate(coefficients))


def _weights(
    artifact: Artifact, rows: list[dict[str, Any]], symbols: list[Symbol]
) -> collections.Counter[str]:
    """Bytes of constants by function of the operator that names them; "" for those that none does."""
    totals = collections.Counter[str]()
    functions = sorted((row["function"] for row in rows), key=len, reverse=True)
    for symbol in symbols:
        if symbol.section == ".tvmt_weights":
            name = symbol.name.removeprefix(f"{artifact.name}_")
            totals[next((f for f in functions if name.startswith(f"{f}_")), "")] += symbol.bytes
    return totals

"""Run a compiled model over a whole data set on one target, and say how good it is and what it takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmtiny.artifact import Artifact
from tvmtiny.errors import UserError
from tvmtiny.evaluate.data import RECORDINGS, TEXTS, Dataset
from tvmtiny.evaluate.memory import Flash, flash
from tvmtiny.evaluate.metrics import Metrics, output_shape
from tvmtiny.frontend.data import LENGTH_KEY
from tvmtiny.link.messages import Counter
from tvmtiny.report.blocks import Program
from tvmtiny.report.cycles import MODELS
from tvmtiny.report.latency import percentile
from tvmtiny.runner import RunResult, Sample, check_status, run
from tvmtiny.target import HOST, Target, load_target

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Spread:
    """How a figure is spread over the samples; percentiles by nearest rank."""

    p50: float
    p95: float
    mean: float | None = None
    maximum: float | None = None

    def scaled(self, factor: float) -> Spread:
        """Every figure times `factor`."""
        return Spread(*(None if v is None else factor * v for v in dataclasses.astuple(self)))  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A model on a target.

    Attributes:
        on: where it ran.
        metrics: by name, larger is better.
        samples: the inputs that the model saw; those that the device made of texts or recordings too.
        raw: its outputs by sample, as integers. outputs: the same as real numbers by name, samples first.
        tokens: present tokens of the samples.
        instructions: exact, of everything from the text, the recording or the inputs to the outputs; None where
            nothing counts them.
        cycles: of the samples at the 50th and 95th percentile: measured on a device, else estimated by the model of
            the core (`report/cycles.py`); None where there is neither.
        measured: whether a device counted the cycles.
        clock_hz: of the cycles; 0 where there is no notion of time.
        arena_bytes, state_bytes, stack_bytes: RAM; the state is that of a front end; None for an unknown stack.
        flash: None where no program for the target was built.
    """

    artifact: Artifact
    target: Target
    on: str
    metrics: dict[str, float]
    samples: Sequence[Sample]
    raw: Sequence[dict[str, Array]]
    outputs: dict[str, Array]
    tokens: Spread
    instructions: Spread | None
    cycles: Spread | None
    measured: bool
    clock_hz: int
    arena_bytes: int
    state_bytes: int
    stack_bytes: int | None
    flash: Flash | None

    @property
    def ram_bytes(self) -> int | None:
        """Arena, state and deepest stack."""
        if self.stack_bytes is None:
            return None
        return self.arena_bytes + self.state_bytes + self.stack_bytes

    @property
    def latency_ms(self) -> Spread | None:
        """Milliseconds of the cycles; None without a clock."""
        return self.cycles.scaled(1000 / self.clock_hz) if self.cycles and self.clock_hz else None

    @property
    def energy_uj(self) -> Spread | None:
        """Estimated microjoules of an inference: latency times the supply power that the target's file states."""
        target = self.target
        if self.latency_ms is None or target.power_ma is None or target.supply_v is None:
            return None
        return self.latency_ms.scaled(target.power_ma * target.supply_v)

    @property
    def n_tokens(self) -> Array:
        """Present tokens of each sample (N,)."""
        return np.array([sample.n_tokens for sample in self.samples])


def evaluate(
    artifact: Artifact,
    data: Dataset,
    metrics: Metrics,
    *,
    on: str = "qemu",
    target: Target | str | None = None,
    jobs: int = 0,
    timeout_s: float = 600,
) -> Evaluation:
    """Run a model over `data` and measure.

    Args:
        metrics: of `metrics_of`, or the user's own.
        on: "qemu", "host" or "serial:PORT".
        target: whose core and memory; the artifact's own if not given.
        jobs: emulators among which the samples are divided; 0: one for each processor.
        timeout_s: time limit in seconds of each.

    Raises:
        UserError: what does not fit: data, target, a model that runs in steps, one that refuses a sample.
        EnvironmentProblem: a tool is missing, or a program crashed or ran out of time.
    """
    if artifact.metadata.get("step") is not None:
        raise UserError(
            f"{artifact.name} runs in steps; whole sequences are evaluated.",
            "Compile it without --step: the outputs are the same, byte for byte.",
        )
    board = target if isinstance(target, Target) else load_target(target or artifact.target)
    result, samples = run_dataset(artifact, data, on, target=board, jobs=jobs, timeout_s=timeout_s)
    outputs = real_outputs(artifact, result.outputs)
    lengths = np.array([sample.n_tokens for sample in samples])
    counts = result.sample_instructions
    cycles, clock_hz = _cycles(artifact, data, board, result, timeout_s)
    about = artifact.metadata.get("features") or {}
    return Evaluation(
        artifact=artifact,
        target=board,
        on=on,
        metrics=metrics(outputs, {**data.targets, LENGTH_KEY: lengths}),
        samples=samples,
        raw=result.outputs,
        outputs=outputs,
        tokens=_spread(lengths.tolist()),
        instructions=_spread(counts) if counts else None,
        cycles=cycles,
        measured=_is_measured(result),
        clock_hz=clock_hz,
        arena_bytes=artifact.arena_bytes,
        state_bytes=int(about.get("state_bytes", 0)),
        stack_bytes=result.stack_bytes if on != "host" else None,
        flash=None
        if on == "host" or board.cpu == HOST
        else flash(artifact, board, _whole(artifact, data, result)),
    )


def run_dataset(
    artifact: Artifact, data: Dataset, on: str, **options: Any
) -> tuple[RunResult, Sequence[Sample]]:
    """Run every sample; returns the inputs that the model saw, too. Options and errors as of `runner.run`."""
    if data.kind == TEXTS:
        from tvmtiny.tokenizer.text_run import run_texts

        texts = run_texts(artifact, data.items, on, **options)
        return texts.result, texts.samples
    if data.kind == RECORDINGS:
        from tvmtiny.features.device_run import run_recordings

        done = run_recordings(artifact, data.items, on, **options)
        return done.result, done.samples
    result = run(artifact, on, data.items, **options)
    check_status(artifact, result.status)
    return result, data.items


def real_outputs(artifact: Artifact, rows: Sequence[dict[str, Array]]) -> dict[str, Array]:
    """Integer outputs by sample as real numbers by name, float32; shapes are those of `output_shape`."""
    found = {}
    for info in artifact.outputs:
        real = info.real(np.stack([row[info.name] for row in rows])).astype(np.float32)
        found[info.name] = real.reshape(len(rows), *output_shape(info))
    return found


def _whole(artifact: Artifact, data: Dataset, result: RunResult) -> Path | None:
    """The program that ran, where it is all that the model directory has."""
    extra = {TEXTS: "tokenizer", RECORDINGS: "features"}
    ran = extra.get(data.kind)
    return result.elf if all(bool(artifact.metadata.get(x)) == (x == ran) for x in extra.values()) else None


def _is_measured(result: RunResult) -> bool:
    return result.counter in {Counter.DWT, Counter.SYSTICK}


def _cycles(
    artifact: Artifact, data: Dataset, target: Target, result: RunResult, timeout_s: float
) -> tuple[Spread | None, int]:
    """Cycles at the 50th and 95th percentile, and their clock in hertz."""
    if _is_measured(result):
        return _spread([value for one in result.cycles for value in one]), result.clock_hz
    counts = result.sample_instructions
    if not counts or target.cpu not in MODELS:
        return None, 0
    order = sorted(range(len(counts)), key=counts.__getitem__)
    chosen = [percentile(range(len(order)), percent) for percent in (50, 95)]
    p50, p95 = (
        _estimated_cycles(artifact, data.only(order[at]), target, timeout_s=timeout_s) for at in chosen
    )
    return Spread(p50, p95), target.clock_hz


def _estimated_cycles(artifact: Artifact, one: Dataset, target: Target, **options: Any) -> int:
    """Of one sample, by the blocks of code that it executes."""
    result, _ = run_dataset(artifact, one, "qemu", target=target, blocks=True, **options)
    program = Program(result.run_elf, target, MODELS[target.cpu])
    return sum(program.cycles(block) for block in result.blocks)


def _spread(values: Sequence[int]) -> Spread:
    return Spread(percentile(values, 50), percentile(values, 95), float(np.mean(values)), float(max(values)))

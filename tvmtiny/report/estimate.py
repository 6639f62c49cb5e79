"""What a model will take on a core before any C is built: cycles and bytes of code, from figures of benchmark encoders.

The figures of each core are in benchmarks/cores.toml, which `python benchmarks/core_figures.py` prints. They come from
the same cycle model as `tvmtiny profile` (cycles.py): an estimate, not a measurement.
"""

from __future__ import annotations

import dataclasses
import tomllib
from typing import Any

import numpy as np
import tvm

from tvmtiny.kernels import kernel_of, operands_of
from tvmtiny.kernels.base import Kernel, Operands
from tvmtiny.passes.graph import Graph
from tvmtiny.resources import data_dir

ASSUMPTIONS = (
    "Cycles are a least-squares fit over encoders with random weights: so many a multiply-accumulate, an attention "
    "score and an element of a result. Those encoders ran in QEMU, their cycles are by tvmtiny's model of the core "
    "(tvmtiny profile --explain states it). No board was measured.",
    "Code and tables are so many bytes a model and an operator, fitted to the same encoders, built with gcc.",
    "Weights are exact, the arena is the memory planner's. Scales are placeholders: sizes do not depend on them.",
)


@dataclasses.dataclass(frozen=True)
class Work:
    """What an operator computes in a run.

    Attributes:
        macs: multiply-accumulates.
        scores: elements of the score matrices of attention, all heads.
        elements: of its result.
    """

    macs: int
    scores: int
    elements: int


@dataclasses.dataclass(frozen=True)
class CoreFigures:
    """Estimates for one core, as benchmarks/cores.toml holds them.

    Attributes:
        cycles_per_mac, cycles_per_score, cycles_per_element: of `Work`.
        cycles_error: largest relative difference between this and the profile of an encoder that it was fitted to.
        code_bytes, code_bytes_per_operator: instructions and tables of a model, and of each operator.
        code_error: as `cycles_error`.
    """

    cycles_per_mac: float
    cycles_per_score: float
    cycles_per_element: float
    cycles_error: float
    code_bytes: int
    code_bytes_per_operator: int
    code_error: float

    def cycles(self, work: Work) -> int:
        """Estimated cycles of an operator."""
        return round(
            self.cycles_per_mac * work.macs
            + self.cycles_per_score * work.scores
            + self.cycles_per_element * work.elements
        )

    def code(self, operators: int) -> int:
        """Estimated bytes of code and tables of a model."""
        return self.code_bytes + self.code_bytes_per_operator * operators


def core_figures() -> dict[str, CoreFigures]:
    """The figures of every core that has any, by the name that -mcpu takes."""
    rows = tomllib.loads((data_dir("benchmarks") / "cores.toml").read_text("utf-8"))
    return {cpu: CoreFigures(**row) for cpu, row in rows.items()}


def steps(module: tvm.IRModule) -> list[tuple[str, Kernel, Operands]]:
    """The operators of an integer module in the order in which they run: name, kernel and operands of each."""
    found = []
    for var, value in Graph(module["main"]):
        kernel = kernel_of(value)
        if kernel is not None:
            found.append((var.name, kernel, operands_of(value)))
    return found


def work(kernel: Kernel, operands: Operands, tokens: int) -> Work:
    """What an operator computes with all `tokens` tokens; of a model in steps, when all earlier tokens are kept."""
    heads = int(operands.attrs["heads"]) if kernel.name in ("attention", "attention_step") else 0
    keys = operands.shape("v_cache")[1] if kernel.name == "attention_step" else tokens
    result: Any = kernel.infer(operands)
    elements = int(np.prod([int(extent) for extent in result.shape]))
    return Work(kernel.macs(operands, tokens), heads * tokens * keys, elements)

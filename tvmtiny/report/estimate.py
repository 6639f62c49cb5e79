"""What a model will take on a core before any C is built: cycles and bytes of code, from figures of benchmark encoders.

The figures of each core are in benchmarks/cores.toml, which `python benchmarks/core_figures.py` prints. They come from
the same cycle model as `tvmtiny profile` (cycles.py): an estimate, not a measurement.
"""

from __future__ import annotations

import dataclasses
import functools
import tomllib
from collections.abc import Sequence
from typing import Any

import numpy as np

from tvmtiny.codegen.program import Call
from tvmtiny.kernels.base import Kernel, Operands
from tvmtiny.resources import data_dir
from tvmtiny.storage.choice import CALL_BYTES, DECODER_BYTES
from tvmtiny.storage.huffman import GROUP

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
        cycles_per_unpack_weight, cycles_per_huffman_weight: of a weight that is decoded from packed indices, or from
            Huffman codes.
    """

    cycles_per_mac: float
    cycles_per_score: float
    cycles_per_element: float
    cycles_error: float
    code_bytes: int
    code_bytes_per_operator: int
    code_error: float
    cycles_per_unpack_weight: float
    cycles_per_huffman_weight: float

    def cycles(self, work: Work) -> int:
        """Estimated cycles of an operator."""
        return round(
            self.cycles_per_mac * work.macs
            + self.cycles_per_score * work.scores
            + self.cycles_per_element * work.elements
        )

    def decoding_cycles(self, calls: Sequence[Call]) -> int:
        """Estimated cycles of the decoders of compressed weights in a run with all tokens."""
        each = {"unpack": self.cycles_per_unpack_weight, "huffman": self.cycles_per_huffman_weight}
        cycles = 0.0
        for call in calls:
            if call.decodes:
                kernel = call.function.kernel
                weights = sum(a.parameter.bytes for a in call.arguments if a.parameter.role == "output")
                by_row = any(a.parameter.name == "ids" for a in call.arguments)
                cycles += each[kernel] * weights * (ROWS_DECODED[kernel] if by_row else 1)
        return round(cycles)

    def code(self, operators: int) -> int:
        """Estimated bytes of code and tables of a model."""
        return self.code_bytes + self.code_bytes_per_operator * operators


ROWS_DECODED = {"unpack": 1.0, "huffman": (GROUP + 1) / 2}
"""Rows of a table that are decoded for one that is wanted, on average."""


def decoder_bytes(calls: Sequence[Call]) -> int:
    """Code of the decoders of compressed weights, and of their calls."""
    kernels = [call.function.kernel for call in calls if call.decodes]
    return sum(DECODER_BYTES[kernel] for kernel in set(kernels)) + CALL_BYTES * len(kernels)


@functools.cache
def core_figures() -> dict[str, CoreFigures]:
    """The figures of every core that has any, by the name that -mcpu takes."""
    rows = tomllib.loads((data_dir("benchmarks") / "cores.toml").read_text("utf-8"))
    return {cpu: CoreFigures(**row) for cpu, row in rows.items()}


def work(kernel: Kernel, operands: Operands, tokens: int) -> Work:
    """What an operator computes with all `tokens` tokens; of a model in steps, when all earlier tokens are kept."""
    heads = int(operands.attrs["heads"]) if kernel.name in ("attention", "attention_step") else 0
    keys = operands.shape("v_cache")[1] if kernel.name == "attention_step" else tokens
    result: Any = kernel.infer(operands)
    elements = int(np.prod([int(extent) for extent in result.shape]))
    return Work(kernel.macs(operands, tokens), heads * tokens * keys, elements)

"""Cycles of a core that executes vectors (MVE) in beats: one instruction a cycle, each on a unit of its own.

A vector instruction has four beats of 32 bits (Armv8-M Architecture Reference Manual, DDI 0553, "Beat-wise execution
and overlapping"). A core of two beats a cycle keeps the instruction's unit for two cycles, and may begin another one,
on another unit, in the second of them: also one that needs the result, whose first half is there.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from tvmtiny.report.assembly import DIVIDES, MULTIPLE, Instruction

_UNITS = ("memory", "multiply", "arithmetic")
_ARITHMETIC = re.compile(
    "v(q?r?h?(add|sub)|h?cadd|q?abs|q?neg|abd|abav|max|min|and|orr|eor|bic|orn|mvn|q?mov|[di]?w?dup"
    "|q?r?sh[lr]|sli|sri|cls|clz|rev|brsr|cmp|psel|cvt|rint)"
)
_LANES = {"8": 16, "16": 8, "32": 4, "64": 2}


def vector_unit(own: Instruction) -> str | None:
    """The unit of a vector instruction: "memory", "multiply" or "arithmetic"; None for one that the model lacks."""
    if own.is_load or own.is_store:
        return "memory"
    if own.is_multiply:
        return "multiply"
    return "arithmetic" if _ARITHMETIC.match(own.name) else None


@dataclasses.dataclass(frozen=True)
class BeatIssue:
    """One instruction a cycle, in order; vectors on three units.

    Attributes:
        taken: extra cycles of a branch that is taken, LE and LETP aside.
        load_latency: cycles from a load of a core register to its use.
        divide: cycles of UDIV and SDIV.
        vector_cycles: cycles for which a vector instruction keeps its unit.
        chained: cycles from a vector load or arithmetic instruction to a vector instruction that needs its result.
        product: the same from a vector multiplication.
        reduction, product_sum: cycles until a core register that a vector instruction, a multiplication, writes can be
            read.
    """

    source: str
    assumptions: tuple[str, ...]
    taken: int = 2
    mispredicted: int = 0
    load_latency: int = 2
    divide: int = 7
    vector_cycles: int = 2
    chained: int = 1
    product: int = 2
    reduction: int = 2
    product_sum: int = 3

    def cycles(self, block: Sequence[Instruction]) -> int:
        """Cycles from the first issue until everything is done."""
        ready: dict[str, int] = {}
        free = dict.fromkeys(_UNITS, 0)
        cycle = 0
        for own in block:
            units = self._units(own)
            waits = [free[unit] for unit in units] + [ready.get(register, 0) for register in own.reads]
            issued = max([cycle, *waits])
            cycle = issued + self._slots(own)
            for unit in units:
                free[unit] = issued + self._busy(own)
            for register in own.writes:
                ready[register] = issued + self._latency(own, register)
        return max([cycle, *free.values()])

    def _units(self, own: Instruction) -> list[str]:
        if own.vector:
            unit = vector_unit(own)
            # What the model does not know keeps every unit, so that it is never cheaper than what it knows.
            return list(_UNITS) if unit is None else [unit]
        return ["memory"] if own.is_load or own.is_store else []

    def _slots(self, own: Instruction) -> int:
        """Cycles in which no other instruction is issued."""
        if own.name in {"le", "letp"}:
            return 0
        if own.name in DIVIDES:
            return self.divide
        return max(1, own.words) if not own.vector else 1

    def _busy(self, own: Instruction) -> int:
        """Cycles for which an instruction keeps its unit."""
        if not own.vector:
            return max(1, own.words)
        scattered = vector_unit(own) == "memory" and any(name[0] == "q" for name in own.address_reads)
        if scattered:
            bits = re.search(r"\d+$", own.name)
            return _LANES.get(bits[0] if bits else "", 16)
        return self.vector_cycles

    def _latency(self, own: Instruction, register: str) -> int:
        if not own.vector:
            loaded = own.is_load and register in own.loaded and own.name not in MULTIPLE
            return self.load_latency if loaded else self._slots(own)
        multiplies = vector_unit(own) == "multiply"
        if register[0] == "q":
            gathered = self._busy(own) - self.vector_cycles
            return gathered + (self.product if multiplies else self.chained)
        if own.is_load or own.is_store:
            return 1
        return self.product_sum if multiplies else self.reduction

"""Cycle estimates: an in-order model of each core over blocks of executed instructions. Never a measurement.

QEMU has no model of time, so cycles are computed: a block costs what its instructions cost in order, times its exact
number of executions, and a refill of the pipeline is added for each time that its last branch was taken. Sources and
rules of each core are in `CoreModel.assumptions`; docs/profile.md says more. Memory answers without wait states.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Protocol

from tvmtiny.errors import UserError
from tvmtiny.report.assembly import (
    ACCUMULATES,
    DIVIDES,
    FLAGS,
    LONG_ACCUMULATES,
    LONG_MULTIPLIES,
    MULTIPLE,
    Instruction,
)
from tvmtiny.report.beats import BeatIssue

# What the Cortex-M7 has one unit for: extension, bit fields, saturation and arithmetic on packed halves and bytes.
_PACKED = re.compile(
    r"[su]xta?(b|h|b16)|[su]sat(16)?|pkh(bt|tb)|[su]bfx|sel|usada?8|qd?(add|sub)"
    r"|(s|u|q|sh|uh|uq)(add8|add16|sub8|sub16|asx|sax)"
)

COMMON = (
    "Memory answers without wait states: code and constants come from tightly coupled memory, a cache or a flash "
    "with prefetch that hides them.",
    "A block begins with an empty pipeline; an IT instruction and those under it always cost their full time.",
    "No interrupts, no unaligned accesses, no contention between fetch, data and DMA.",
)


class CoreModel(Protocol):
    """The timing of a core.

    Attributes:
        source: where the figures come from.
        taken: extra cycles of a branch that is taken.
        mispredicted: extra cycles of a conditional branch that went the rarer way.
    """

    @property
    def source(self) -> str: ...  # noqa: D102
    @property
    def taken(self) -> int: ...  # noqa: D102
    @property
    def mispredicted(self) -> int: ...  # noqa: D102
    @property
    def assumptions(self) -> tuple[str, ...]: ...  # noqa: D102

    def cycles(self, block: Sequence[Instruction]) -> int:
        """Cycles of a block whose last branch is not taken."""


@dataclasses.dataclass(frozen=True)
class SingleIssue:
    """One instruction after the other, each with its cycles of Arm's table of instruction timing.

    Attributes:
        load, store: cycles of a single load and of a single store with a constant offset.
        indexed_store: cycles of a store whose address is the sum of two registers.
        pipelined: whether a load or store directly after a single load costs one cycle less, unless its address
            needs what was loaded.
        address_stall: extra cycles of a load or store whose address the instruction before has computed.
        chain_updated: whether loads that update their address can be pipelined too.
        accumulate, long_multiply, long_accumulate, divide: cycles of MLA and MLS, of SMULL, of SMLAL, of UDIV.
        call, pop_pc: extra cycles of BL and of POP with PC, beside those of a taken branch.
    """

    source: str
    assumptions: tuple[str, ...]
    taken: int
    load: int = 2
    store: int = 1
    indexed_store: int = 2
    pipelined: bool = True
    address_stall: int = 0
    chain_updated: bool = True
    accumulate: int = 1
    long_multiply: int = 1
    long_accumulate: int = 1
    divide: int = 7
    call: int = 0
    pop_pc: int = 0
    mispredicted: int = 0

    def cycles(self, block: Sequence[Instruction]) -> int:
        """Cycles of a block whose last branch is not taken."""
        before = (None, *block[:-1])
        return sum(self._cost(own, previous) for own, previous in zip(block, before, strict=True))

    def _cost(self, own: Instruction, previous: Instruction | None) -> int:
        if own.is_load or own.is_store:
            computed = previous is not None and _computes(previous) and own.address_reads & previous.writes
            return self._memory(own, previous) + (self.address_stall if computed else 0)
        return self._arithmetic(own)

    def _arithmetic(self, own: Instruction) -> int:
        if own.name in DIVIDES:
            return self.divide
        if own.name in LONG_ACCUMULATES:
            return self.long_accumulate
        if own.name in LONG_MULTIPLIES:
            return self.long_multiply
        if own.name in {"mla", "mls"}:
            return self.accumulate
        if own.name in {"tbb", "tbh"}:
            return self.load
        return 1 + (self.call if own.name == "bl" else 0)

    def _memory(self, own: Instruction, previous: Instruction | None) -> int:
        if own.name in MULTIPLE or own.words > 1:
            # The first word costs what a single load does, each further one a cycle: 1 + N where that is 2.
            return max(self.load, 1) - 1 + own.words + (self.pop_pc if "pc" in own.writes else 0)
        cost = self.load if own.is_load else self.indexed_store if own.indexed else self.store
        return max(1, cost - 1) if previous is not None and self._chained(own, previous) else cost

    def _chained(self, own: Instruction, previous: Instruction) -> bool:
        """Whether `own` begins while the load before it ends."""
        single = previous.is_load and previous.words == 1
        if not (self.pipelined and single) or own.address_reads & previous.writes:
            return False
        return self.chain_updated or not (own.updates or previous.updates)


@dataclasses.dataclass(frozen=True)
class DualIssue:
    """Two instructions a cycle, in order.

    Attributes:
        load_latency, multiply_latency, divide_latency: cycles from issue until a result can be read. A
            multiply-accumulate gives its sum to the next one after a cycle.
        words_a_cycle: words that the load and store unit moves in a cycle; it takes one instruction at a time.
    """

    source: str
    assumptions: tuple[str, ...]
    taken: int = 0
    mispredicted: int = 4
    load_latency: int = 2
    multiply_latency: int = 2
    divide_latency: int = 7
    words_a_cycle: int = 2

    def cycles(self, block: Sequence[Instruction]) -> int:
        """Cycles from the first issue to the issue of what follows the block."""
        ready: dict[str, int] = {}
        sums: dict[str, int] = {}
        free = dict.fromkeys(("memory", "multiply", "divide", "packed"), 0)
        cycle, issued, written = 0, 0, set[str]()
        for own in block:
            unit = _unit(own)
            earliest = max(
                [cycle, free.get(unit, 0)]
                + [
                    sums.get(r, ready.get(r, 0)) if r in own.accumulates else ready.get(r, 0)
                    for r in own.reads
                ]
            )
            if earliest == cycle and (issued == 2 or written & own.writes - {FLAGS}):
                earliest += 1
            if earliest > cycle:
                cycle, issued, written = earliest, 0, set()
            issued, written = issued + 1, written | own.writes
            self._retire(own, unit, cycle, ready, sums, free)
        return max(cycle + 1, *free.values())

    def _retire(
        self,
        own: Instruction,
        unit: str,
        cycle: int,
        ready: dict[str, int],
        sums: dict[str, int],
        free: dict[str, int],
    ) -> None:
        """Note when the results of `own`, issued in `cycle`, and its unit can be used."""
        busy = -(-own.words // self.words_a_cycle) if unit == "memory" else 1
        latency = {"memory": busy - 1 + self.load_latency, "multiply": self.multiply_latency}.get(unit, 1)
        if unit == "divide":
            busy = latency = self.divide_latency
        if unit in free:
            free[unit] = cycle + busy
        for register in own.writes:
            address_only = unit == "memory" and register not in own.loaded
            ready[register] = cycle + (1 if address_only else latency)
            sums.pop(register, None)
            if own.name in ACCUMULATES:
                sums[register] = cycle + 1


def _computes(own: Instruction) -> bool:
    return not (own.is_load or own.is_store or own.is_branch)


def _unit(own: Instruction) -> str:
    if own.is_load or own.is_store:
        return "memory"
    if own.name in DIVIDES:
        return "divide"
    if own.is_multiply:
        return "multiply"
    return "packed" if _PACKED.fullmatch(own.name) else "arithmetic"


_REFILL = "A taken branch costs 1 + P cycles; P, the refill of the pipeline, is 1 to 3 and assumed to be 2."
_M4_TABLE = (
    "Most instructions, all multiplies and the DSP extension cost 1 cycle; UDIV and SDIV cost 2 to 12, assumed 7.",
    _REFILL,
    "LDR costs 2, or 1 directly after another LDR whose results its address does not need; STR with a constant offset "
    "costs 1, with a register offset 2; LDM, STM, LDRD, STRD, PUSH and POP of N words cost 1 + N. An address that the "
    "instruction before has computed costs 1 more.",
)
CORTEX_M4 = SingleIssue(
    "Arm Cortex-M4 Processor Technical Reference Manual (DDI 0439), sections 3.3.1 and 3.3.2",
    _M4_TABLE,
    taken=2,
    address_stall=1,
)
CORTEX_M3 = dataclasses.replace(
    CORTEX_M4,
    source="Arm Cortex-M3 Processor Technical Reference Manual (DDI 0337I), sections 3.3.1 and 3.3.2",
    assumptions=(
        "Most instructions and MUL cost 1 cycle, MLA and MLS 2; SMULL and UMULL cost 3 to 5, assumed 4; SMLAL and "
        "UMLAL 4 to 7, assumed 5; UDIV and SDIV 2 to 12, assumed 7.",
        *_M4_TABLE[1:],
        "Loads and stores that update their address are not pipelined.",
    ),
    chain_updated=False,
    accumulate=2,
    long_multiply=4,
    long_accumulate=5,
)
CORTEX_M0 = SingleIssue(
    "Arm Cortex-M0 Technical Reference Manual (DDI 0432), section 3.3",
    (
        "Most instructions cost 1 cycle, loads and stores 2, those of N words 1 + N; the multiplier is the fast one "
        "(MULS 1 cycle).",
        "A taken branch costs 3 cycles, BL 4, POP with PC 4 + N.",
    ),
    taken=2,
    store=2,
    pipelined=False,
    call=1,
    pop_pc=1,
)
CORTEX_M0PLUS = dataclasses.replace(
    CORTEX_M0,
    source="Arm Cortex-M0+ Technical Reference Manual (DDI 0484), section 3.3",
    assumptions=(
        CORTEX_M0.assumptions[0],
        "A taken branch costs 2 cycles, BL 3, POP with PC 3 + N.",
    ),
    taken=1,
)
CORTEX_M23 = dataclasses.replace(
    CORTEX_M0PLUS,
    source="no published table of instruction timing: the figures of the Cortex-M0+",
    assumptions=(*CORTEX_M0PLUS.assumptions, "UDIV and SDIV cost 17 cycles (the fast divider)."),
    divide=17,
)
CORTEX_M33 = dataclasses.replace(
    CORTEX_M4,
    source="no published table of instruction timing: the figures of the Cortex-M4",
    assumptions=(
        *_M4_TABLE,
        "The limited dual issue of pairs of 16-bit instructions is left out, which overestimates.",
    ),
)
CORTEX_M55 = BeatIssue(
    "no published table of instruction timing: the Technical Reference Manual's description (101051), the rules for "
    "beats of the Architecture Reference Manual (DDI 0553), and the latencies of SLOTHY's model of the core "
    "(slothy/targets/arm_v81m/cortex_m55r1.py), approximate by its own account",
    (
        "One instruction a cycle, in order; a loaded core register can be used after one more cycle, UDIV and SDIV "
        "take 7, LDM and STM a cycle a word.",
        "Two beats a cycle: a vector instruction keeps its unit (memory, multiply, arithmetic) for two cycles; one of "
        "another unit may be issued in the second, even if it needs the result of a load or of arithmetic.",
        "The vector result of a multiplication can be used after 2 cycles. A core register that VMLADAV writes can be "
        "read after 3, one that VADDV or VMAXV writes after 2; the next accumulation is no exception.",
        "Gathering loads and scattering stores move one element a cycle. VPST and VCTP cost a cycle; a vector "
        "instruction that is not known keeps all units.",
        "The end of a low-overhead loop (LE, LETP) costs nothing, as start-up code has enabled the cache of loops "
        "(CCR.LOB); another taken branch costs 3 cycles in all.",
        "The limited dual issue of pairs of 16-bit instructions is left out, which overestimates; so are conflicts of "
        "loads and stores in the banks of the tightly coupled memory, which underestimates.",
    ),
)
CORTEX_M7 = DualIssue(
    "no published table of instruction timing: rules from the Technical Reference Manual's description (DDI 0489) and "
    "the latencies of LLVM's model",
    (
        "Two instructions a cycle, in order, unless the second reads or writes what the first writes.",
        "One load or store a cycle, of up to 64 bits; LDM and STM move two words a cycle. A loaded value can be used "
        "two cycles later.",
        "One extension, bit field, saturation or packed arithmetic instruction a cycle; all other arithmetic two.",
        "One multiply a cycle, its result can be used two cycles later, as accumulator of the next one cycle later; "
        "UDIV and SDIV take 7.",
        "A predicted branch costs its issue only and ends the block; of a conditional branch the rarer way counts as "
        "mispredicted, at 4 cycles.",
        "Caches and tightly coupled memory always hit.",
    ),
)

MODELS: dict[str, CoreModel] = {
    "cortex-m0": CORTEX_M0,
    "cortex-m0plus": CORTEX_M0PLUS,
    "cortex-m3": CORTEX_M3,
    "cortex-m4": CORTEX_M4,
    "cortex-m7": CORTEX_M7,
    "cortex-m23": CORTEX_M23,
    "cortex-m33": CORTEX_M33,
    "cortex-m55": CORTEX_M55,
}


def core_model(cpu: str) -> CoreModel:
    """The model of a core; raises UserError when there is none."""
    if cpu not in MODELS:
        raise UserError(
            f"There is no cycle model of {cpu!r}.", f"Profile on a target with one of: {', '.join(MODELS)}."
        )
    return MODELS[cpu]


def block_cycles(model: CoreModel, block: Sequence[Instruction], entered: int, left: int) -> int:
    """Cycles of a block that was executed `entered` times and left for another place `left` times."""
    last = block[-1]
    total = entered * model.cycles(block)
    if last.name not in {"le", "letp"}:
        total += left * model.taken
    conditional = last.is_branch and (last.conditional or last.name in {"cbz", "cbnz"})
    return total + (model.mispredicted * min(left, entered - left) if conditional else 0)

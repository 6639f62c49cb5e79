"""Thumb instructions of an ELF as the cycle models see them: kind, registers read and written, words moved.

The text comes from objdump of the toolchain that built the program: it knows every extension that the compiler
emits. (Capstone 5 does not decode the low-overhead loops and vectors of Armv8.1-M.)
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
from pathlib import Path

from tvmtiny.errors import EnvironmentProblem
from tvmtiny.runner.build import DEFAULT_PREFIX
from tvmtiny.runner.process import find_tool, last_lines, run_program

FLAGS = "flags"
ARCHITECTURE_WITH_VECTORS = "armv8.1-m.main"
_LINE = re.compile(r"^ *([0-9a-f]+):\t(\S+)(?:\t([^@;]*))?")
_REGISTER = re.compile(r"\b(?:r\d+|sl|fp|ip|sp|lr|pc|[sdq]\d+)\b")
_ALIASES = {"sl": "r10", "fp": "r11", "ip": "r12"}


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_CONDITIONS = _names("eq ne cs cc mi pl vs vc hi ls ge lt gt le hs lo al")

LOADS = _names("ldr ldrb ldrh ldrsb ldrsh ldrd ldm ldmia ldmdb pop ldrex vldr vldm vldmia vpop")
STORES = _names("str strb strh strd stm stmia stmdb push strex vstr vstm vstmia vpush")
MULTIPLE = _names("ldm ldmia ldmdb pop vldm vldmia vpop stm stmia stmdb push vstm vstmia vpush")
DIVIDES = frozenset({"udiv", "sdiv"})
BRANCHES = _names("b bl bx blx cbz cbnz tbb tbh bxns blxns")
LOOPS = _names("dls dlstp wls wlstp le letp lctp")
COMPARES = _names("cmp cmn tst teq vcmp vcmpe")
LONG_ACCUMULATES = _names("smlal umlal umaal smlald smlaldx smlsld smlsldx smlalbb smlalbt smlaltb smlaltt")
LONG_MULTIPLIES = LONG_ACCUMULATES | {"smull", "umull"}
ACCUMULATES = (
    _names("mla mls smmla smmlar smmls smmlsr smlad smladx smlsd smlsdx smlawb smlawt")
    | {f"smla{x}{y}" for x in "bt" for y in "bt"}
    | LONG_ACCUMULATES
)
MULTIPLIES = (
    _names("mul muls smmul smmulr smuad smuadx smusd smusdx smulwb smulwt")
    | {f"smul{x}{y}" for x in "bt" for y in "bt"}
    | ACCUMULATES
    | LONG_MULTIPLIES
)
_SETS_FLAGS = _names(
    "adds subs rsbs adcs sbcs ands orrs orns eors bics movs mvns lsls lsrs asrs rors rrxs muls negs"
)
# With two operands these write the first without reading it; all others (`adds r0, #1`) read it too.
_MOVES = _names(
    "mov movs movw mvn mvns sxtb sxth uxtb uxth sxtb16 uxtb16 clz rbit rev rev16 revsh neg negs adr mrs vmov vdup "
    "vmrs"
)
_READS_FLAGS = _names("adc adcs sbc sbcs rrx")
_VECTOR_MULTIPLIES = ("vmul", "vml", "vrml", "vqdmul", "vqdml", "vqrdmul", "vqrdml", "vrmul", "vfma", "vfms")
_OTHERS = _names("bic bics teq mls svc nop it movt bfi bfc ubfx sbfx")
_KNOWN = (
    LOADS
    | STORES
    | MULTIPLIES
    | DIVIDES
    | BRANCHES
    | LOOPS
    | COMPARES
    | _SETS_FLAGS
    | _MOVES
    | _READS_FLAGS
    | _OTHERS
)
_WRITES_FLAGS = _SETS_FLAGS | COMPARES
_TAKES_CONDITION = _KNOWN | _names("add sub and orr eor rsb lsl lsr asr")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        address: of its first byte; 0 in a hand-written snippet.
        name: mnemonic without width and condition: "ldr" for `ldrne.w`.
        text: as objdump writes it.
        conditional: executed under a condition: a conditional branch, or an instruction of an IT block.
        reads, writes: registers ("r0", "sp", "d7", "flags"); address registers are among `reads`.
        address_reads: registers that form a load's or store's address.
        loaded: registers that get what a load has read; `writes` may hold an updated address too.
        accumulates: registers that a multiply-accumulate adds to; among `reads`.
        words: 32-bit words that a load or store moves.
        vector: an MVE instruction.
    """

    address: int
    name: str
    text: str
    conditional: bool
    reads: frozenset[str]
    writes: frozenset[str]
    address_reads: frozenset[str]
    loaded: frozenset[str]
    accumulates: frozenset[str]
    words: int
    vector: bool

    @property
    def is_load(self) -> bool:
        """Whether it reads memory."""
        return self.name in LOADS or (self.vector and self.name.startswith("vld"))

    @property
    def is_store(self) -> bool:
        """Whether it writes memory."""
        return self.name in STORES or (self.vector and self.name.startswith("vst"))

    @property
    def is_multiply(self) -> bool:
        """Whether it uses the multiplier."""
        return self.name in MULTIPLIES or (self.vector and self.name.startswith(_VECTOR_MULTIPLIES))

    @property
    def is_branch(self) -> bool:
        """Whether it may go elsewhere than to the next instruction."""
        return self.name in BRANCHES | {"le", "letp", "wls", "wlstp"} or "pc" in self.writes

    @property
    def updates(self) -> bool:
        """Whether it writes an updated address back."""
        return bool(self.address_reads & self.writes - self.loaded)

    @property
    def indexed(self) -> bool:
        """Whether its address is the sum of two registers."""
        return len(self.address_reads) > 1


def parse(line: str) -> Instruction | None:
    """An instruction from a line of objdump, "  address:<tab>mnemonic<tab>operands"; None for anything else."""
    match = _LINE.match(line)
    if match is None or match[2].startswith("."):
        return None
    return dataclasses.replace(instruction(match[2], (match[3] or "").strip()), address=int(match[1], 16))


@functools.lru_cache(maxsize=1 << 16)
def instruction(mnemonic: str, operands: str = "") -> Instruction:
    """An instruction from its text, e.g. `instruction("ldrb.w", "r3, [r0, #1]!")`; a program repeats few of them."""
    plain = re.sub(r"\.(n|w)$", "", mnemonic)
    if plain.startswith("it") and set(plain[2:]) <= {"t", "e"}:
        name, conditional = "it", False
    else:
        name, conditional = _split_condition(plain)
    vector = bool(re.search(r"\bq\d", operands))
    if name.startswith("v") and "." in name and not vector:
        name = name.split(".")[0]
    use = _use(name, operands, vector)
    reads, writes = set(use.reads), set(use.writes)
    if conditional:
        reads |= writes | {FLAGS}
    if name in _READS_FLAGS or name == "it":
        reads |= {FLAGS}
    if name in _WRITES_FLAGS:
        writes |= {FLAGS}
    return Instruction(
        address=0,
        name=name,
        text=f"{mnemonic} {operands}".strip(),
        conditional=conditional,
        reads=frozenset(reads),
        writes=frozenset(writes),
        address_reads=frozenset(use.address),
        loaded=frozenset(use.loaded),
        accumulates=frozenset(use.accumulates),
        words=_words(name, operands, vector),
        vector=vector,
    )


def disassemble(elf: Path, *, vectors: bool = False) -> dict[int, Instruction]:
    """Every instruction of the ELF at `elf` by address.

    Args:
        vectors: the core has MVE, whose encodings other cores use for coprocessors.

    Raises:
        EnvironmentProblem: objdump is missing or fails.
    """
    tool = find_tool(f"{os.environ.get('CROSS_COMPILE', DEFAULT_PREFIX)}objdump")
    command = [tool, "--disassemble", "--no-show-raw-insn", *(["-m", ARCHITECTURE_WITH_VECTORS] * vectors)]
    finished = run_program([*command, str(elf)], timeout_s=60)
    if finished.status != 0:
        raise EnvironmentProblem(f"Disassembling {elf} failed:\n{last_lines(finished.output)}")
    found = (parse(line) for line in finished.output.splitlines())
    return {item.address: item for item in found if item is not None}


def _split_condition(name: str) -> tuple[str, bool]:
    base, condition = name[:-2], name[-2:]
    if name in _KNOWN:
        return name, False
    # A name that the sets do not hold (`ssat`, `pkhbt`) may carry a condition too, but must not lose a part of itself.
    if condition in _CONDITIONS and base in _TAKES_CONDITION:
        return base, True
    return name, False


@dataclasses.dataclass(frozen=True)
class _Use:
    reads: set[str] = dataclasses.field(default_factory=set)
    writes: set[str] = dataclasses.field(default_factory=set)
    address: set[str] = dataclasses.field(default_factory=set)
    loaded: set[str] = dataclasses.field(default_factory=set)
    accumulates: set[str] = dataclasses.field(default_factory=set)


def _use(name: str, operands: str, vector: bool) -> _Use:
    """Registers of an instruction, without those that its condition adds."""
    if name in LOADS | STORES or (vector and name[:3] in {"vld", "vst"}):
        return _of_memory(name, operands)
    found = _named(operands.partition("<")[0])
    if name in BRANCHES | LOOPS:
        return _Use(set(found), {"lr"} if name in {"bl", "blx"} | LOOPS else set())
    if name in COMPARES:
        return _Use(set(found))
    results = 2 if name in LONG_MULTIPLIES else 1
    writes, reads = set(found[:results]), set(found[results:])
    sums: set[str] = set()
    if name in LONG_ACCUMULATES or (vector and name.startswith(("vml", "vfma", "vfms"))):
        sums = writes
    elif name in ACCUMULATES:
        sums = set(found[-1:])
    merges = operands.count(",") == 1 and name not in _MOVES
    if merges or name in {"movt", "bfi", "bfc"}:
        reads |= writes
    return _Use(reads | sums, writes, accumulates=sums)


def _of_memory(name: str, operands: str) -> _Use:
    if name in MULTIPLE:
        base, _, rest = operands.partition("{")
        address = _named(base) or ["sp"]
        moved = set(_listed(rest))
        updated = "!" in base or not base.strip()
    else:
        data, _, place = operands.partition("[")
        address, moved = _named(place), set(_named(data))
        updated = bool(re.search(r"!|\],", place))
    changed = set(address[:1]) if updated else set()
    if name in LOADS or name.startswith("vld"):
        return _Use(set(address), moved | changed, set(address), moved)
    return _Use(set(address) | moved, changed, set(address))


def _named(text: str) -> list[str]:
    """Registers in a text, in order."""
    return [_ALIASES.get(register, register) for register in _REGISTER.findall(text)]


def _listed(text: str) -> list[str]:
    """Registers of a list such as "r4, r5, pc}" or "d8-d11}"."""
    result = []
    for part in text.partition("}")[0].split(","):
        ends = part.strip().split("-")
        if len(ends) == 2:
            low, high = (int(end[1:]) for end in ends)
            result += [f"{ends[0][0]}{index}" for index in range(low, high + 1)]
        elif ends[0]:
            result.append(_ALIASES.get(ends[0], ends[0]))
    return result


def _words(name: str, operands: str, vector: bool) -> int:
    if vector:
        return 4
    if name in MULTIPLE:
        return sum(2 if register[0] == "d" else 1 for register in _listed(operands.partition("{")[2]))
    if name in {"ldrd", "strd"}:
        return 2
    if name in {"vldr", "vstr"}:
        return 2 if operands.startswith("d") else 1
    return int(name in LOADS | STORES)


def straight(lines: str) -> tuple[Instruction, ...]:
    """Instructions from assembly text, one a line: "ldr r0, [r1]"."""
    split = (line.strip().partition(" ") for line in lines.strip().splitlines())
    return tuple(instruction(name, operands.strip()) for name, _, operands in split)

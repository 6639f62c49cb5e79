"""The executed blocks of a program: the function that each lies in, its instructions and its estimated cycles."""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence
from pathlib import Path

from tvmtiny.report.assembly import Instruction, disassemble
from tvmtiny.report.cycles import CoreModel, block_cycles
from tvmtiny.runner import Block, Symbol, read_symbols, symbol_at
from tvmtiny.target import Target

_COPY = re.compile(r"\.(constprop|isra|part|cold|lto_priv)(\.\d+)?")


class Program:
    """The code of an ELF that was executed on an emulated core.

    Attributes:
        symbols: functions and objects, by address; of several names of an address, that with a size last.
    """

    def __init__(self, elf: Path, target: Target, model: CoreModel) -> None:
        self.symbols = sorted(read_symbols(elf), key=lambda symbol: (symbol.address, symbol.bytes))
        self._code = disassemble(elf, vectors=target.mve)
        self._addresses = sorted(self._code)
        self._model = model

    def symbol(self, block: Block) -> Symbol:
        """The function of a block; the compiler's assembly routines have no sizes and reach to the next one."""
        before = bisect.bisect_right(self.symbols, block.address, key=lambda symbol: symbol.address) - 1
        found = symbol_at(self.symbols, block.address) or (self.symbols[before] if before >= 0 else None)
        assert found is not None, f"no function at {block.address:#x}"
        return found

    def instructions(self, block: Block) -> list[Instruction]:
        """The instructions of a block, in order."""
        start = bisect.bisect_left(self._addresses, block.address)
        return [self._code[at] for at in self._addresses[start : start + block.instructions]]

    def cycles(self, block: Block) -> int:
        """Estimated cycles of all executions of a block."""
        return block_cycles(self._model, self.instructions(block), block.entered, block.left)

    def cycles_in_place(self, blocks: Sequence[Block]) -> list[int]:
        """As `cycles` of each of a run's blocks, but without a bound where code runs on from one to the next.

        QEMU ends a block at every kilobyte of addresses. An estimate by single blocks would change with the place of a
        function by up to one per cent on a core with two issue slots.
        """
        before: dict[tuple[int, int], list[Block]] = {}
        for block in blocks:
            if not self.instructions(block)[-1].is_branch:
                before.setdefault((block.phase, self._end(block)), []).append(block)
        return [self.cycles(block) + self._saved(block, before) for block in blocks]

    def _end(self, block: Block) -> int:
        """Address of the instruction behind a block; 0 at the end of the code."""
        last = bisect.bisect_left(self._addresses, block.address) + block.instructions
        return self._addresses[last] if last < len(self._addresses) else 0

    def _saved(self, block: Block, before: dict[tuple[int, int], list[Block]]) -> int:
        """Cycles, at most 0, by which a block takes less because it only ever follows the blocks that end at it."""
        leading = before.get((block.phase, block.address), [])
        if sum(one.entered for one in leading) != block.entered:
            return 0
        own = self.instructions(block)
        apart = self._model.cycles(own)
        return sum(
            one.entered * (self._model.cycles([*found, *own]) - self._model.cycles(found) - apart)
            for one in leading
            if (found := self.instructions(one))
        )


def base_name(symbol: str) -> str:
    """A function's name in C, without what GCC adds to copies and parts of it (`.constprop.0`, `.part.0`)."""
    return _COPY.sub("", symbol)

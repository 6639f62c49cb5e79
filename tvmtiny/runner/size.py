"""What an ELF takes: bytes by purpose and by symbol, and addresses of symbols.

Purposes follow the output sections of microtvm_projects/baremetal/linker.ld.j2, which keep the model's code
and tables apart from the harness and the C library. A host's ELF has none of them: all counts as runtime.
"""

from __future__ import annotations

import bisect
import dataclasses
import re
from pathlib import Path

from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile

_FAULT_PC = re.compile(r"at pc (0x[0-9a-f]+)")

# Output section to purpose; what is not listed counts as the runtime's: start-up, harness, C library.
_PURPOSES = {
    ".model_text": "code_bytes",
    ".tvmt_code": "code_bytes",
    ".model_rodata": "table_bytes",
    ".tvmt_weights": "weight_bytes",
    ".data": "data_bytes",
    ".bss": "bss_bytes",
    ".stack": "stack_reserved_bytes",
    ".tvmt_arena": "arena_section_bytes",
}


@dataclasses.dataclass(frozen=True)
class Symbol:
    """A function or object: its section, address (Thumb bit removed) and size in bytes."""

    name: str
    section: str
    address: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Bytes of a program.

    Attributes:
        code_bytes: the model's instructions.
        table_bytes: the model's constants that are not weights.
        weight_bytes: weights.
        runtime_bytes: start-up code, harness, C library, in flash.
        data_bytes: initialised variables (in flash and in RAM).
        bss_bytes: zeroed variables.
        stack_reserved_bytes: stack set aside by the linker script.
        arena_section_bytes: arena with its guard zones.
        sections: every section that takes memory.
    """

    code_bytes: int
    table_bytes: int
    weight_bytes: int
    runtime_bytes: int
    data_bytes: int
    bss_bytes: int
    stack_reserved_bytes: int
    arena_section_bytes: int
    sections: dict[str, int]

    @property
    def flash_bytes(self) -> int:
        """All that is programmed into flash, harness included."""
        model = self.code_bytes + self.table_bytes + self.weight_bytes
        return model + self.runtime_bytes + self.data_bytes


def read_sizes(elf: Path) -> Sizes:
    """Sizes of the ELF file at `elf`."""
    with elf.open("rb") as stream:
        sections = {
            section.name: int(section["sh_size"])
            for section in ELFFile(stream).iter_sections()
            if section["sh_flags"] & SH_FLAGS.SHF_ALLOC and section["sh_size"]
        }
    totals = dict.fromkeys((*_PURPOSES.values(), "runtime_bytes"), 0)
    for name, size in sections.items():
        totals[_PURPOSES.get(name, "runtime_bytes")] += size
    return Sizes(sections=sections, **totals)


def read_symbols(elf: Path) -> list[Symbol]:
    """Functions and objects of the ELF file at `elf`, by address."""
    symbols = []
    with elf.open("rb") as stream:
        file = ELFFile(stream)
        table = file.get_section_by_name(".symtab")
        for entry in table.iter_symbols() if table else ():
            kind, index = entry["st_info"]["type"], entry["st_shndx"]
            if kind not in {"STT_FUNC", "STT_OBJECT"} or not isinstance(index, int):
                continue
            thumb = 1 if kind == "STT_FUNC" and file["e_machine"] == "EM_ARM" else 0
            address = int(entry["st_value"]) & ~thumb
            section = file.get_section(index).name
            symbols.append(Symbol(entry.name, section, address, int(entry["st_size"])))
    return sorted(symbols, key=lambda symbol: symbol.address)


def with_function(elf: Path, text: str) -> str:
    """Add the function's name to the address of a fault ("at pc 0x...") in what a program said."""
    match = _FAULT_PC.search(text)
    symbol = symbol_at(read_symbols(elf), int(match[1], 16)) if match else None
    if match is None or symbol is None:
        return text
    offset = int(match[1], 16) - symbol.address
    return text.replace(match[0], f"{match[0]} ({symbol.name}+{offset:#x})")


def symbol_at(symbols: list[Symbol], address: int) -> Symbol | None:
    """The symbol of `read_symbols` that covers `address`."""
    index = bisect.bisect_right(symbols, address, key=lambda symbol: symbol.address) - 1
    if index < 0 or address >= symbols[index].address + max(1, symbols[index].bytes):
        return None
    return symbols[index]

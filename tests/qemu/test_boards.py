"""Programs for real boards: they link, carry their own start-up code and serial port, and boot where the core looks."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from link_models import write_fake

from tvmtiny.boards import uf2
from tvmtiny.runner import build, read_symbols
from tvmtiny.runner.project import Project
from tvmtiny.target import list_targets, load_target

pytestmark = pytest.mark.qemu

BOARDS = [target.name for target in list_targets() if target.has_uart and not target.qemu_machine]


def firmware(directory: Path, name: str) -> Project:
    return build(write_fake(directory), load_target(name), strict=True)


@pytest.mark.parametrize("name", BOARDS)
def test_a_board_starts_by_its_own_code_and_needs_no_debugger(tmp_path: Path, name: str) -> None:
    project = firmware(tmp_path, name)
    symbols = {symbol.name: symbol for symbol in read_symbols(project.elf)}
    assert symbols["tvmt_board_start"].bytes > 16
    assert "tvmt_systick" in symbols
    listing = subprocess.run(
        ["arm-none-eabi-objdump", "-d", str(project.elf)], capture_output=True, text=True, check=True
    ).stdout
    assert "<tvmt_uart_put>:" in listing
    assert "bkpt" not in listing


@pytest.mark.parametrize("name", BOARDS)
def test_model_and_harness_are_the_objects_that_qemu_runs(tmp_path: Path, name: str) -> None:
    project = firmware(tmp_path, name)
    board = {symbol.name: symbol for symbol in read_symbols(project.elf)}
    emulated = {symbol.name: symbol for symbol in read_symbols(project.run_elf)}
    own = ("tvmt_board", "tvmt_uart", "tvmt_transport", "tvmt_counter", "tvmt_systick", "tvmt_mark")
    shared = [each for each in board if each in emulated and not each.startswith(own)]
    assert {"fake_model", "run", "dot", "tvmt_link_receive", "main", "tvmt_reset"} <= set(shared)
    assert all(board[each].bytes == emulated[each].bytes for each in shared)


@pytest.mark.parametrize("name", BOARDS)
def test_the_vector_table_lies_where_the_core_looks(tmp_path: Path, name: str) -> None:
    project = firmware(tmp_path, name)
    target = load_target(name)
    flash = next(region for region in target.memory if region.name == "flash")
    with project.elf.open("rb") as stream:
        vectors = ELFFile(stream).get_section_by_name(".vectors")
        assert vectors["sh_addr"] == flash.origin
        stack, reset = (int.from_bytes(vectors.data()[at : at + 4], "little") for at in (0, 4))
    assert any(region.origin < stack <= region.end for region in target.memory if region.kind == "ram")
    assert flash.origin < reset < flash.end
    assert reset & 1


def test_the_boot_loader_of_rp2040_has_the_checksum_that_its_rom_asks_for(tmp_path: Path) -> None:
    project = firmware(tmp_path, "rp2040")
    with project.elf.open("rb") as stream:
        section = ELFFile(stream).get_section_by_name(".boot2")
        assert (section["sh_addr"], section["sh_size"]) == (0x1000_0000, 256)
        data = section.data()
    crc = 0xFFFF_FFFF
    for byte in data[:252]:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C1_1DB7 if crc & 0x8000_0000 else 0)) & 0xFFFF_FFFF
    assert crc == int.from_bytes(data[252:], "little")
    with project.run_elf.open("rb") as stream:
        assert ELFFile(stream).get_section_by_name(".boot2") is None


def test_a_uf2_file_holds_what_the_elf_does(tmp_path: Path) -> None:
    project = firmware(tmp_path, "rp2040")
    segments = uf2.loaded_segments(project.elf)
    data = uf2.encode(segments, 0xE48B_FF56)
    assert len(data) % 512 == 0
    memory = {}
    for index in range(len(data) // 512):
        block = data[512 * index : 512 * index + 512]
        words = [int.from_bytes(block[4 * i : 4 * i + 4], "little") for i in range(8)]
        assert words[:3] == [0x0A32_4655, 0x9E5D_5157, 0x2000]
        assert words[4:] == [256, index, len(data) // 512, 0xE48B_FF56]
        assert int.from_bytes(block[508:], "little") == 0x0AB1_6F30
        memory.update(enumerate(block[32 : 32 + 256], words[3]))
    assert min(memory) == 0x1000_0000
    for address, content in segments:
        assert bytes(memory[address + i] for i in range(len(content))) == content

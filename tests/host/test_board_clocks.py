"""Start-up code of boards, run on the host with cells of memory for registers: what it writes gives, by the formulas
of the manuals, the clock of the target's file and the baud rate of the link."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tvmtiny.link.serial_line import BAUD
from tvmtiny.resources import data_dir
from tvmtiny.runner.process import host_compiler
from tvmtiny.target import NO_BOARD, list_targets, load_target

PORT = data_dir("microtvm_projects/baremetal")
BOARDS = sorted({target.board for target in list_targets() if not target.qemu_machine} - {NO_BOARD, "none"})

Read = Callable[[int], int]

ALWAYS = {
    "stm32f746": {
        0x4002_3800: 1 << 25,  # PLL ready
        0x4002_3808: 2 << 2,  # the PLL is the system clock
        0x4000_7004: 1 << 16 | 1 << 17,  # over-drive ready and switched
    },
    "stm32h743": {
        0x5802_4400: 1 << 25,
        0x5802_4410: 3 << 3,
        0x5802_4804: 1 << 13,
        0x5802_4818: 1 << 13,
    },
    "stm32l4r5": {0x4002_1000: 1 << 10 | 1 << 25, 0x4002_1008: 3 << 2},
    "nrf52840": {0x4000_0100: 1},
    "rp2040": {
        0x4000_C008: 0xFFFF_FFFF,
        0x4002_4004: 1 << 31,
        0x4002_8000: 1 << 31,
        0x4000_8038: 4,
        0x4000_8044: 1 | 2,  # clk_sys has switched, to either source
    },
}
"""Address -> bits that say that something is ready, by board."""


def clock_f746(read: Read) -> tuple[int, float]:
    """RM0385, RCC_PLLCFGR and RCC_CFGR; USART1 hangs on APB2."""
    pll, cfgr = read(0x4002_3804), read(0x4002_3808)
    assert cfgr & 3 == 2
    assert read(0x4002_3C00) & 15 == 7
    assert read(0x4000_7000) & (1 << 16 | 1 << 17) == 1 << 16 | 1 << 17
    m, n, p = pll & 63, pll >> 6 & 511, 2 * ((pll >> 16 & 3) + 1)
    assert 1e6 <= 16e6 / m <= 2e6
    assert 100e6 <= 16e6 / m * n <= 432e6
    core = 16_000_000 // m * n // p
    apb2 = core / {4: 2, 5: 4, 6: 8, 7: 16}[cfgr >> 13 & 7]
    return core, apb2 / read(0x4001_100C)


def clock_h743(read: Read) -> tuple[int, float]:
    """RM0433, RCC_PLLCKSELR, RCC_PLL1DIVR, RCC_D1CFGR, RCC_D2CFGR; USART3 hangs on APB1."""
    select, divide, d1 = read(0x5802_4428), read(0x5802_4430), read(0x5802_4418)
    reference = 64_000_000 // (select >> 4 & 63)
    assert select & 3 == 0
    assert 8e6 <= reference <= 16e6
    assert read(0x5802_442C) >> 2 & 3 == 3
    vco = reference * ((divide & 511) + 1)
    assert 192e6 <= vco <= 960e6
    core = vco // ((divide >> 9 & 127) + 1)
    assert d1 >> 8 & 15 == 0
    ahb = core / {0: 1, 8: 2, 9: 4}[d1 & 15]
    assert ahb <= 240e6
    assert read(0x5200_2000) & 15 == 4
    assert read(0x5802_4410) & 7 == 3
    apb1 = ahb / {4: 2, 5: 4}[read(0x5802_441C) >> 4 & 7]
    return core, apb1 / read(0x4000_480C)


def clock_l4r5(read: Read) -> tuple[int, float]:
    """RM0432, RCC_PLLCFGR; LPUART1 divides 256 times its clock."""
    pll = read(0x4002_100C)
    assert pll & 3 == 2
    reference = 16_000_000 // ((pll >> 4 & 15) + 1)
    vco = reference * (pll >> 8 & 127)
    assert 2.66e6 <= reference <= 16e6
    assert 64e6 <= vco <= 344e6
    core = vco // (2 * ((pll >> 25 & 3) + 1))
    assert read(0x4002_1008) & (3 | 15 << 4) == 3
    assert read(0x4002_2000) & 15 == 5
    assert not read(0x4000_7080) & 1 << 8
    return core, 256 * core / read(0x4000_800C)


def clock_nrf52840(read: Read) -> tuple[int, float]:
    """The core has one frequency; the UART's register is baud * 2^32 / 16 MHz, rounded to 4,096."""
    assert read(0x4000_0000) == 1
    return 64_000_000, read(0x4000_2524) * 16e6 / 2**32


def clock_rp2040(read: Read) -> tuple[int, float]:
    """RP2040 datasheet, PLL and UART."""
    prim = read(0x4002_800C)
    vco = 12_000_000 * read(0x4002_8008)
    assert 750e6 <= vco <= 1600e6
    core = vco // ((prim >> 16 & 7) * (prim >> 12 & 7))
    return core, core / 16 / (read(0x4003_4024) + read(0x4003_4028) / 64)


CLOCKS = {
    "stm32f746": clock_f746,
    "stm32h743": clock_h743,
    "stm32l4r5": clock_l4r5,
    "nrf52840": clock_nrf52840,
    "rp2040": clock_rp2040,
}


def build(board: str, directory: Path) -> ctypes.CDLL:
    """The board's file for the host, without what only its core has: caches, and the boot loader in assembly."""
    for header in (PORT / "boards").glob("*.h"):
        shutil.copy(header, directory)
    (directory / "cortex_m7_caches.h").write_text("static inline void tvmt_caches_on(void) {}\n")
    source = (PORT / "boards" / f"{board}.c").read_text()
    source = re.sub(r"__attribute__\(\(section.*?^}\n", "", source, flags=re.MULTILINE | re.DOTALL)
    (directory / "board.c").write_text(source)
    (directory / "fake.h").write_text(
        "#include <stdint.h>\nvolatile uint32_t *fake_register(uint32_t address);\n"
        "#define TVMT_REGISTER(address) (*fake_register((uint32_t)(address)))\n"
    )
    shutil.copy(Path(__file__).parents[1] / "board_registers.c", directory)
    command = [host_compiler(), "-std=c11", "-O1", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-shared"]
    command += ["-fPIC", "-include", "fake.h", f"-I{PORT}", "board.c", "board_registers.c", "-o", "board.so"]
    subprocess.run(command, cwd=directory, check=True)
    return ctypes.CDLL(str(directory / "board.so"))


def loaded(board: str, directory: Path) -> ctypes.CDLL:
    """The board's file with registers whose peripherals are ready."""
    library = build(board, directory)
    library.fake_value.restype = library.fake_touched.restype = ctypes.c_uint32
    for address, bits in ALWAYS[board].items():
        library.fake_always(ctypes.c_uint32(address), ctypes.c_uint32(bits))
    return library


def test_the_pll_of_the_rp2040_is_changed_only_while_nothing_runs_from_it(tmp_path: Path) -> None:
    """A debugger starts the program a second time without resetting the chip."""
    library = loaded("rp2040", tmp_path)
    pll_pwr, clk_sys_ctrl, auxiliary = (ctypes.c_uint32(value) for value in (0x4002_8004, 0x4000_803C, 1))
    library.fake_forbid(pll_pwr, clk_sys_ctrl, auxiliary)
    for _ in range(2):
        library.tvmt_board_start()
        assert library.fake_value(clk_sys_ctrl) == 1
    assert library.fake_touched() == 0


@pytest.mark.parametrize("board", BOARDS)
def test_the_registers_give_the_clock_and_the_baud_rate(board: str, tmp_path: Path) -> None:
    library = loaded(board, tmp_path)
    library.tvmt_board_start()
    assert library.tvmt_uart_open() == 0
    core, baud = CLOCKS[board](lambda address: int(library.fake_value(ctypes.c_uint32(address))))
    (target,) = (target for target in list_targets() if target.board == board)
    assert core == target.clock_hz == library.tvmt_board_clock_hz()
    assert baud == pytest.approx(BAUD, rel=0.005)


@pytest.mark.parametrize("board", BOARDS)
def test_code_that_no_board_has_run_says_so(board: str) -> None:
    for name in (
        f"{board}.c",
        *(["stm32_usart.h", "cortex_m7_caches.h"] if board.startswith("stm32") else []),
    ):
        assert "NOT RUN ON HARDWARE" in (PORT / "boards" / name).read_text()
    assert load_target(board).has_uart

"""Target files: what ships is sound, what a user writes is checked field by field."""

from __future__ import annotations

from pathlib import Path

import pytest

from tvmtiny import target as target_module
from tvmtiny.errors import UserError
from tvmtiny.schedule.rules import family
from tvmtiny.target import CORES, ENVIRONMENT_VARIABLE, list_targets, load_target

BOARD = """
description = "a board"
cpu = "cortex-m4"
fpu = "fpv4-sp-d16"
clock_hz = 64_000_000
runner = "qemu"
emulated_by = "qemu-m4"
project = "baremetal"

[[memory]]
name = "flash"
kind = "flash"
origin = 0x0
bytes = 65_536
uses = ["code", "weights"]

[[memory]]
name = "ram"
kind = "ram"
origin = 0x2000_0000
bytes = 16_384
uses = ["arena", "data"]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path))
    return tmp_path


def test_every_shipped_target_is_valid_and_has_a_runner() -> None:
    targets = list_targets()
    assert len(targets) >= 15
    for target in targets:
        if target.cpu != "host":
            emulator = target.emulator()
            assert emulator.qemu_machine, target.name
            assert emulator.ram_bytes >= target.ram_bytes, target.name


def test_stm32f746_has_the_memory_of_its_datasheet() -> None:
    target = load_target("stm32f746")
    assert target.ram_bytes == 320 * 1024
    assert target.flash_bytes == 1024 * 1024
    assert target.arena_regions[0].name == "dtcm"
    assert target.arena_regions[0].bytes == 64 * 1024
    assert (target.dsp, target.mve, target.clock_hz) == (True, False, 216_000_000)
    assert target.flags == ("-mcpu=cortex-m7", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv5-sp-d16")
    assert target.emulator().qemu_machine == "mps2-an500"
    assert target.code_ram is not None
    assert target.code_ram.name == "itcm"


@pytest.mark.parametrize(
    ("cpu", "fpu", "expected"),
    [
        ("cortex-m3", "none", "portable"),
        ("cortex-m33", "none", "dsp"),
        ("cortex-m7", "fpv5-d16", "dual_issue"),
        ("cortex-m55", "auto", "mve"),
        ("cortex-m55", "none", "dsp"),
    ],
)
def test_family_of_micro_kernels_follows_from_the_core(
    folder: Path, cpu: str, fpu: str, expected: str
) -> None:
    text = BOARD.replace('cpu = "cortex-m4"', f'cpu = "{cpu}"').replace('"fpv4-sp-d16"', f'"{fpu}"')
    (folder / "myboard.toml").write_text(text)
    assert family(load_target("myboard")) == expected


def test_unknown_target_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match="stm32f764") as raised:
        load_target("stm32f764")
    assert "'stm32f746'" in raised.value.remedy


def test_users_folder_adds_and_overrides(folder: Path) -> None:
    (folder / "myboard.toml").write_text(BOARD)
    (folder / "rp2040.toml").write_text(BOARD.replace("a board", "my rp2040"))
    assert load_target("myboard").flash_bytes == 65_536
    assert load_target("rp2040").description == "my rp2040"
    assert {"myboard", "stm32f746"} <= {target.name for target in list_targets()}


def test_missing_users_folder_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / "absent"))
    with pytest.raises(UserError, match=ENVIRONMENT_VARIABLE):
        list_targets()


BAD_FILES = [
    ('cpu = "cortex-m4"', 'cpu = "cortex-m9"', "cpu", "cortex-m9", "cortex-m33"),
    ('cpu = "cortex-m4"', "", "cpu", "nothing", "cortex-m33"),
    ('fpu = "fpv4-sp-d16"', 'fpu = "fpv5-d16"', "fpu", "fpv5-d16", "none, fpv4-sp-d16"),
    ("clock_hz = 64_000_000", 'clock_hz = "64 MHz"', "clock_hz", "64 MHz", "whole number"),
    ("clock_hz = 64_000_000", "clock_hz = true", "clock_hz", "true", "whole number"),
    ("clock_hz = 64_000_000", "power_ma = -1.5", "power_ma", "-1.5", "at least 0"),
    ("clock_hz = 64_000_000", "clok_hz = 64_000_000", "clok_hz", "64000000", "did you mean clock_hz"),
    ("clock_hz = 64_000_000", "trustzone = true", "trustzone", "true", "cortex-m33"),
    ("clock_hz = 64_000_000", 'optimize = "-O9"', "optimize", "-O9", "-O2"),
    ("clock_hz = 64_000_000", "flags = [3]", "flags", "[3]", "array of strings"),
    ("clock_hz = 64_000_000", "stack_bytes = 257", "stack_bytes", "257", "multiple of 8"),
    ('emulated_by = "qemu-m4"', "", "emulated_by", "nothing", "qemu_machine"),
    ('project = "baremetal"', 'project = "host"', "cpu", "cortex-m4", "host"),
    ('kind = "ram"', 'kind = "rom"', "memory[1].kind", "rom", "flash, ram"),
    ("bytes = 16_384", "bytes = 0", "memory[1].bytes", "0", "at least 256"),
    ('uses = ["arena", "data"]', 'uses = ["arena", "heap"]', "memory[1].uses", "heap", "code, weights"),
    ('uses = ["arena", "data"]', 'uses = ["arena"]', "memory.uses", "data", "ram region"),
    ("origin = 0x2000_0000", "origin = 0x8000", "memory.origin", "0x8000", "ram after flash"),
    ('name = "ram"', 'name = "flash"', "memory.name", "flash", "a name of its own"),
    ("bytes = 16_384", "bytes = 0xf000_0000", "memory.bytes", "4026531840", "32-bit"),
    ("clock_hz = 64_000_000", 'usb = ["0483-374b"]', "usb", "0483-374b", "array of strings"),
    ("clock_hz = 64_000_000", "flash = {openocd = 3}", "flash", "openocd", "a table of strings"),
    ("clock_hz = 64_000_000", 'flash = {uf2 = "rp2040"}', "flash.uf2", "rp2040", "0xe48bff56"),
    ("clock_hz = 64_000_000", 'board = "a/b"', "board", "a/b", "[a-z0-9_]+"),
    ("[[memory]]", "[[memry]]", "memry", "flash", "did you mean memory"),
]


@pytest.mark.parametrize(("good", "bad", "expected"), [(row[0], row[1], row[2:]) for row in BAD_FILES])
def test_bad_field_is_named_with_what_is_allowed(
    folder: Path, good: str, bad: str, expected: tuple[str, str, str]
) -> None:
    assert good in BOARD
    (folder / "bad.toml").write_text(BOARD.replace(good, bad))
    with pytest.raises(UserError) as raised:
        load_target("bad")
    field, found, allowed = expected
    for part in ("bad.toml", f"field {field}:", found, allowed):
        assert part in raised.value.message


@pytest.mark.parametrize("text", [b"cpu = ", b"\xff\xfe"])
def test_a_file_that_is_not_toml_is_refused(folder: Path, text: bytes) -> None:
    (folder / "bad.toml").write_bytes(text)
    with pytest.raises(UserError, match=r"bad\.toml is not a target"):
        load_target("bad")


def test_emulated_by_an_unknown_target_is_reported(folder: Path) -> None:
    (folder / "lost.toml").write_text(BOARD.replace("qemu-m4", "qemu-m44"))
    with pytest.raises(UserError, match="qemu-m44"):
        load_target("lost").emulator()


def test_host_has_no_emulator() -> None:
    with pytest.raises(UserError, match="no QEMU machine"):
        load_target("host").emulator()


def test_tags_and_features_agree_with_tvm() -> None:
    tvm_target = pytest.importorskip("tvm.target")
    target_module.register_tags()
    target_module.register_tags()
    tagged = tvm_target.Target("tvmtiny/stm32f746")
    assert tagged.kind.name == "c"
    assert tagged.attrs["mcpu"] == "cortex-m7"
    for target in list_targets():
        if target.cpu != "host":
            attrs = target.tvm_target().attrs
            assert (attrs["feature.has_dsp"], attrs["feature.has_mve"]) == (target.dsp, target.mve), (
                target.name
            )
    assert set(CORES) >= {target.cpu for target in list_targets()}

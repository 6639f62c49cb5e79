"""Boards that are plugged in, and flashing: command lines against the real tools, up to where a probe is needed."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tvmtiny.boards import flash, uf2, usb
from tvmtiny.cli import app
from tvmtiny.cli.board import find_port
from tvmtiny.errors import EnvironmentProblem, UserError
from tvmtiny.link.frames import Frame
from tvmtiny.link.messages import Kind
from tvmtiny.link.monitor import listen
from tvmtiny.target import list_targets, load_target

# What the tools say when everything was right but no probe is there.
NO_PROBE = {
    "openocd": ("open failed", "unable to find a matching CMSIS-DAP device", "No J-Link device found"),
    "pyocd": ("No connected debug probes",),
    "st-flash": ("Couldn't find any ST-Link devices",),
}
WITH_TOOL = [(target.name, tool) for target in list_targets() for tool in target.flash if tool in NO_PROBE]


def tool_path(program: str) -> str | None:
    """On the PATH, or beside the Python that runs the tests."""
    return shutil.which(program) or shutil.which(program, path=str(Path(sys.executable).parent))


@pytest.fixture
def elf(tmp_path: Path) -> Path:
    """A program for ARM with four bytes in flash."""
    source, path = tmp_path / "a path" / "tiny.s", tmp_path / "a path" / "tiny.elf"
    source.parent.mkdir()
    source.write_text(".text\n.global _start\n_start: .word 0x12345678\n")
    if shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("arm-none-eabi-gcc is not installed")
    command = ["arm-none-eabi-gcc", "-nostdlib", "-Wl,-Ttext=0x08000000", str(source), "-o", str(path)]
    subprocess.run(command, check=True)
    return path


@pytest.mark.parametrize(("name", "tool"), WITH_TOOL)
def test_the_tool_takes_the_command_line_and_misses_only_the_probe(name: str, tool: str, elf: Path) -> None:
    path = tool_path(flash.TOOLS[tool].program)
    if path is None:
        pytest.skip(f"{tool} is not installed ({flash.TOOLS[tool].install})")
    arguments = flash.TOOLS[tool].command(elf, load_target(name).flash[tool])
    finished = subprocess.run(
        [path, *arguments], capture_output=True, text=True, check=False, timeout=60, cwd=elf.parent
    )
    said = finished.stdout + finished.stderr
    assert finished.returncode != 0
    assert any(text in said for text in NO_PROBE[tool]), said


def test_pyocd_knows_the_targets() -> None:
    path = tool_path("pyocd")
    if path is None:
        pytest.skip("pyocd is not installed (pip install pyocd)")
    said = subprocess.run([path, "list", "--targets"], capture_output=True, text=True, check=True).stdout
    known = {line.split()[0] for line in said.splitlines() if line.strip()}
    assert {target.flash["pyocd"] for target in list_targets() if "pyocd" in target.flash} <= known


def test_every_board_says_how_it_is_flashed() -> None:
    for target in list_targets():
        if target.cpu != "host" and not target.qemu_machine:
            assert target.usb, target.name
            assert target.flash, target.name
            assert set(target.flash) <= {*flash.TOOLS, flash.UF2}, target.name


def test_other_command_lines(elf: Path) -> None:
    assert flash.TOOLS["picotool"].command(elf, "elf")[-2:] == ["-t", "elf"]
    jlink = flash.TOOLS["jlink"].command(elf, "STM32F746NG")
    assert f"loadfile {elf}\n" in Path(jlink[-1]).read_text()
    (image, address) = flash.TOOLS["st-flash"].command(elf, "0x08000000")[2:]
    assert (Path(image).read_bytes(), address) == (b"\x78\x56\x34\x12", "0x08000000")


def fake_tool(directory: Path, name: str, status: int, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that writes its arguments down and ends with `status`."""
    directory.mkdir(exist_ok=True)
    log = directory / f"{name}.log"
    script = directory / name
    script.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > "{log}"\necho "it said this"\nexit {status}\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return log


def test_the_tool_that_is_there_is_taken(elf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = dataclasses.replace(
        load_target("nrf52840"), flash={"jlink": "nRF52840_xxAA", "pyocd": "nrf52840"}
    )
    log = fake_tool(tmp_path / "bin", "pyocd", 0, monkeypatch)
    assert flash.flash_elf(board, elf) == "pyocd"
    assert log.read_text().split("\n")[:4] == ["flash", "--no-wait", "--target", "nrf52840"]
    fake_tool(tmp_path / "bin", "pyocd", 3, monkeypatch)
    with pytest.raises(EnvironmentProblem, match=r"(?s)pyocd could not flash nrf52840.*it said this"):
        flash.flash_elf(board, elf)


def test_absent_tools_are_named_with_how_to_get_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentProblem, match="None of openocd, st-flash, jlink") as raised:
        flash.choose_tool(load_target("stm32f746"))
    assert "apt-get install openocd" in raised.value.remedy
    assert "segger.com" in raised.value.remedy
    with pytest.raises(UserError, match="does not say how pyocd flashes stm32f746"):
        flash.choose_tool(load_target("stm32f746"), "pyocd")
    with pytest.raises(UserError, match="does not say how qemu-m4 is flashed"):
        flash.choose_tool(load_target("qemu-m4"))


def test_uf2_goes_to_the_drive_of_the_boot_loader(
    elf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EnvironmentProblem, match=r"tiny\.uf2"):
        uf2.copy_to_drive(elf, 0xE48B_FF56)
    drive = tmp_path / "RPI RP2"
    drive.mkdir()
    (drive / "INFO_UF2.TXT").write_text("UF2 Bootloader v3.0\n")
    mounts = tmp_path / "mounts"
    escaped = str(drive).replace(" ", "\\040")
    mounts.write_text(f"proc /proc proc rw 0 0\n/dev/sdb1 {escaped} vfat rw 0 0\n")
    assert uf2.find_drive(mounts) == drive
    monkeypatch.setattr(uf2, "find_drive", lambda: drive)
    board = dataclasses.replace(load_target("rp2040"), flash={"uf2": "0xe48bff56"})
    assert flash.flash_elf(board, elf) == "uf2"
    assert (drive / "tiny.uf2").read_bytes() == elf.with_suffix(".uf2").read_bytes()


def test_mount_points_are_read_as_the_kernel_writes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive, mounts = tmp_path / "Müller\\ 1", tmp_path / "mounts"
    drive.mkdir()
    (drive / "INFO_UF2.TXT").touch()
    escaped = str(drive).replace("\\", "\\134").replace(" ", "\\040")
    mounts.write_text(f"/dev/sda1 /closed ext4 rw 0 0\n/dev/sdb1 {escaped} vfat rw 0 0\n", encoding="utf-8")
    stat = os.stat

    def refusing(path: Any, *args: Any, **options: Any) -> os.stat_result:
        if str(path).startswith("/closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, *args, **options)

    monkeypatch.setattr(os, "stat", refusing)
    assert uf2.find_drive(mounts) == drive


# --- What is plugged in


def port(device: str, vid: int | None, pid: int | None, serial: str | None = None) -> Any:
    return types.SimpleNamespace(
        device=device, vid=vid, pid=pid, serial_number=serial, product=None, description="a port", hwid="x"
    )


@pytest.fixture
def plugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ST-LINK with a port, a USB cable, and a J-Link without one."""
    root = tmp_path / "devices"
    for name, vendor, product, serial in (("1-1", "0483", "374b", "A1"), ("1-2", "1366", "1015", "B2")):
        folder = root / name
        folder.mkdir(parents=True)
        for file, text in (("idVendor", vendor), ("idProduct", product), ("serial", serial)):
            (folder / file).write_text(f"{text}\n")
    found = [
        port("/dev/ttyACM0", 0x0483, 0x374B, "A1"),
        port("/dev/ttyUSB0", 0x10C4, 0xEA60),
        port("/dev/x", None, None),
    ]
    monkeypatch.setattr("serial.tools.list_ports.comports", lambda: found)
    monkeypatch.setattr(usb, "USB_DEVICES", root)
    return root


@pytest.mark.usefixtures("plugged")
def test_ports_and_probes_are_listed_with_what_they_may_be() -> None:
    result = CliRunner().invoke(app, ["board", "list", "--json"])
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)["rows"]
    assert [(row["port"], row["usb"]) for row in rows] == [
        ("/dev/ttyACM0", "0483:374b"),
        ("/dev/ttyUSB0", "10c4:ea60"),
        ("/dev/x", ""),
        ("", "1366:1015"),
    ]
    assert rows[0]["what"] == "ST-LINK/V2-1"
    assert {"stm32f746", "stm32l4r5"} <= set(rows[0]["targets"])
    assert rows[3]["targets"] == ["nrf52840"]
    shown = CliRunner().invoke(app, ["board", "list"], env={"COLUMNS": "200"})
    assert "/dev/ttyACM0" in shown.stdout


@pytest.mark.usefixtures("plugged")
def test_the_port_of_a_board_is_found_by_its_usb_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_port(load_target("stm32f746")) == "/dev/ttyACM0"
    with pytest.raises(UserError, match="No serial port has the USB identity of rp2040"):
        find_port(load_target("rp2040"))
    two = [port("/dev/ttyACM0", 0x0483, 0x374B, "A1"), port("/dev/ttyACM1", 0x0483, 0x374B, "A2")]
    monkeypatch.setattr("serial.tools.list_ports.comports", lambda: two)
    with pytest.raises(UserError, match=r"/dev/ttyACM0 \(A1\), /dev/ttyACM1 \(A2\)"):
        find_port(load_target("stm32f746"))


def test_the_monitor_shows_text_and_leaves_answers_out() -> None:
    class Script:
        name = "script"

        def __init__(self) -> None:
            log = Frame(Kind.LOG, 0, 0, b"HardFault at pc 0x08001234\n").encode()
            answer = Frame(Kind.RUN | 0x80, 1, 2, b"x" * 28).encode()
            self.parts = [b"Hello from a boot loader\r\n", answer[:9], answer[9:] + log[:5], log[5:]]

        def read(self, timeout_s: float) -> bytes:
            if not self.parts:
                raise EnvironmentProblem("the line is gone")
            return self.parts.pop(0)

        def write(self, data: bytes) -> None:
            """The monitor says nothing."""

        def close(self) -> None:
            """Nothing to release."""

    said: list[str] = []
    with pytest.raises(EnvironmentProblem, match="gone"):
        said.extend(listen(Script()))
    assert "".join(said) == "Hello from a boot loader\r\nHardFault at pc 0x08001234\n"

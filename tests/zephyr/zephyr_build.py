"""Build Zephyr applications with the user's Zephyr (ZEPHYR_BASE) and run them in QEMU or as a program of the host."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import selectors
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from elftools.elf.elffile import ELFFile

HOST_BOARD = "native_sim/native/64"
MACHINES = {
    "mps2/an385": "mps2-an385",
    "mps2/an386": "mps2-an386",
    "mps2/an500": "mps2-an500",
    "mps3/corstone300/an547": "mps3-an547",
}
"""Board -> QEMU's machine."""

TIMEOUT_S = 60.0


@dataclasses.dataclass(frozen=True)
class Image:
    """A built application."""

    board: str
    directory: Path

    @property
    def elf(self) -> Path:
        return self.directory / "zephyr" / "zephyr.elf"

    def symbol(self, name: str) -> tuple[int, int]:
        """Address and size of a symbol; a static one must be the only one of its name."""
        with self.elf.open("rb") as file:
            table = ELFFile(file).get_section_by_name(".symtab")
            (found,) = table.get_symbol_by_name(name)
            return int(found["st_value"]), int(found["st_size"])

    def symbols(self, pattern: str) -> dict[str, int]:
        """Address of every object or function whose whole name matches."""
        with self.elf.open("rb") as file:
            table = ELFFile(file).get_section_by_name(".symtab")
            return {
                entry.name: int(entry["st_value"]) & ~1
                for entry in table.iter_symbols()
                if entry["st_info"]["type"] in ("STT_OBJECT", "STT_FUNC")
                and re.fullmatch(pattern, entry.name)
            }

    def configuration(self, name: str) -> str | None:
        """The value of a CONFIG_ symbol; None where it is not set."""
        text = (self.directory / "zephyr" / ".config").read_text("utf-8")
        found = re.search(rf"^CONFIG_{name}=(.*)$", text, re.MULTILINE)
        return found and found.group(1)

    def command(self) -> list[str]:
        if self.board == HOST_BOARD:
            return [str(self.directory / "zephyr" / "zephyr.exe")]
        machine = [
            "-machine",
            MACHINES[self.board],
            "-display",
            "none",
            "-monitor",
            "none",
            "-serial",
            "stdio",
        ]
        return ["qemu-system-arm", *machine, "-kernel", str(self.elf)]


def toolchain(board: str) -> dict[str, str]:
    """Variables that choose the compiler: the user's, else Debian's cross compiler, and the host's for the host."""
    if board == HOST_BOARD:
        return {"ZEPHYR_TOOLCHAIN_VARIANT": "host"}
    if "ZEPHYR_TOOLCHAIN_VARIANT" in os.environ or "ZEPHYR_SDK_INSTALL_DIR" in os.environ:
        return {}
    gcc = shutil.which("arm-none-eabi-gcc")
    assert gcc is not None
    return {
        "ZEPHYR_TOOLCHAIN_VARIANT": "gnuarmemb",
        "GNUARMEMB_TOOLCHAIN_PATH": str(Path(gcc).resolve().parent.parent),
    }


def build(application: Path, board: str, directory: Path, *options: str) -> Image:
    """Configure and build; a warning of the compiler is an error."""
    environment = os.environ | toolchain(board)
    strict = ["-DCONFIG_COMPILER_WARNINGS_AS_ERRORS=y", "-DBUILD_VERSION=test"]
    configure = ["cmake", "-G", "Ninja", "-S", application, "-B", directory, f"-DBOARD={board}"]
    for command in ([*configure, *strict, *options], ["cmake", "--build", directory]):
        finished = subprocess.run(
            list(map(str, command)), text=True, capture_output=True, check=False, env=environment
        )
        assert finished.returncode == 0, finished.stdout[-4000:] + finished.stderr[-4000:]
    return Image(board, directory)


@contextlib.contextmanager
def running(image: Image) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        image.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def read_until(process: subprocess.Popen[bytes], pattern: str) -> str:
    """What a program says up to a line that matches."""
    assert process.stdout is not None
    said, end = "", time.monotonic() + TIMEOUT_S
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not re.search(pattern, said):
            assert selector.select(max(0.0, end - time.monotonic())), f"no /{pattern}/ in:\n{said}"
            chunk = os.read(process.stdout.fileno(), 4096)
            assert chunk, f"ended without /{pattern}/:\n{said}"
            said += chunk.decode("utf-8", "replace")
    return said


def typed(process: subprocess.Popen[bytes], line: str, answer: str) -> str:
    """What a shell says to a line, up to a line that matches."""
    assert process.stdin is not None
    process.stdin.write(f"{line}\r\n".encode())
    process.stdin.flush()
    return read_until(process, answer)


def wait_for_shell(process: subprocess.Popen[bytes], prompt: str) -> None:
    """Until the shell answers an empty line: it prompts before it listens, and what comes between is lost."""
    read_until(process, prompt)
    assert process.stdin is not None
    assert process.stdout is not None
    said = ""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        for _ in range(int(TIMEOUT_S)):
            process.stdin.write(b"\r\n")
            process.stdin.flush()
            while selector.select(1.0) and (chunk := os.read(process.stdout.fileno(), 4096)):
                said += chunk.decode("utf-8", "replace")
                if re.search(prompt, said):
                    return
    raise AssertionError("the shell does not answer")


def run(image: Image, until: str = r"PROJECT EXECUTION \w+") -> str:
    """Run until a line that matches; returns what was said."""
    with running(image) as process:
        return read_until(process, until)

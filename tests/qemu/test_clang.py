"""clang assembles every micro-kernel for every core, without a warning."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from microkernel_driver.build import FAMILIES, WARNINGS, write_model

from tvmtiny.runner.process import find_tool

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(
        shutil.which("clang") is None, reason="clang is not installed (apt-get install clang)"
    ),
]

CORES = {"portable": ("cortex-m0", "cortex-m3")}
DSP_CORES = ("cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55")


def newlib_headers() -> str:
    """Newlib's headers, which lie beside its library."""
    command = [find_tool("arm-none-eabi-gcc"), "-print-file-name=libc.a"]
    library = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    return str(Path(library).resolve().parents[1] / "include")


@pytest.mark.parametrize("family", FAMILIES)
def test_clang_takes_the_kernels(family: str, tmp_path: Path) -> None:
    write_model(tmp_path, family)
    flags = ["--target=arm-none-eabi", "-mthumb", "-mfloat-abi=soft", "-isystem", newlib_headers()]
    flags += ["-std=c11", "-O2", *WARNINGS, "-I", str(tmp_path / "include")]
    flags += ["-Wno-overlength-strings"]  # -pedantic counts the characters of an assembly statement, too
    for cpu in CORES.get(family, DSP_CORES):
        output = str(tmp_path / f"{cpu}.o")
        subprocess.run(
            ["clang", f"-mcpu={cpu}", *flags, "-c", str(tmp_path / "driver.c"), "-o", output], check=True
        )

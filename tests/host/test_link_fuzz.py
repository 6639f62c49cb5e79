"""The C of the link under libFuzzer, AddressSanitizer and UndefinedBehaviorSanitizer, as it is built and for debugging.

A short run where clang is installed. A long one: TVMTINY_FUZZ_SECONDS=600 pytest tests/host/test_link_fuzz.py
"""

from __future__ import annotations

import os
import shutil
import subprocess
import zlib
from pathlib import Path

import pytest

from tvmtiny.link import messages
from tvmtiny.link.frames import Frame
from tvmtiny.link.messages import Kind
from tvmtiny.resources import data_dir

TESTS = Path(__file__).parents[1]
COMMON = data_dir("microtvm_projects/common")
RUNS = 30_000
_INPUTS = bytes(range(16))
SEEDS = (
    b"\x00" + Frame(Kind.INFO, 1, 9, messages.info_request(0)).encode(),
    b"\x01" + bytes([Kind.INFO, 1, 9, 4, 0, 0, 0, 0, Kind.WRITE, 2, 9, 20, 0, 0, 0, 0]) + _INPUTS,
    b"\x01" + bytes([Kind.INFO, 1, 9, 4, 0, 0, 0, 0, Kind.READ, 2, 9, 8, 0, 0, 0, 0, 8, 0, 0, 0]),
    b"\x01" + bytes([Kind.INFO, 1, 9, 4, 0, 0, 0, 0, Kind.PEEK, 2, 9, 8, 0, 0, 0, 0, 48, 0, 0, 0]),
    b"\x01"
    + bytes([Kind.INFO, 1, 9, 4, 0, 0, 0, 0, Kind.BENCHMARK, 2, 9, 12, 8, 0, 0, 0])
    + zlib.crc32(bytes(16)).to_bytes(4, "little")  # of what the arena holds then
    + bytes([3, 0, 0, 0]),
)


@pytest.mark.skipif(shutil.which("clang") is None, reason="clang is not installed")
@pytest.mark.parametrize("debug", [False, True])
def test_fuzzing_finds_nothing(tmp_path: Path, *, debug: bool) -> None:
    sanitizers = ["-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"]
    flags = ["-std=c11", "-g", "-O1", "-Wall", "-Wextra", "-Wconversion", "-Werror", *sanitizers]
    flags += ["-DTVMT_LINK_DEBUG"] if debug else []
    sources = [TESTS / "fuzz" / "link.c", COMMON / "tvmt_frame.c", COMMON / "tvmt_link.c"]
    command = ["clang", *flags, f"-I{COMMON}", f"-I{TESTS / 'qemu'}", *map(str, sources), "-o", "fuzzer"]
    built = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, check=False)
    assert built.returncode == 0, built.stderr
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for index, seed in enumerate(SEEDS):
        (corpus / str(index)).write_bytes(seed)
    seconds = os.environ.get("TVMTINY_FUZZ_SECONDS")
    limit = [f"-max_total_time={seconds}"] if seconds else [f"-runs={RUNS}", "-seed=1"]
    run = ["./fuzzer", *limit, "-max_len=600", "-timeout=10", str(corpus)]
    finished = subprocess.run(run, cwd=tmp_path, text=True, capture_output=True, check=False)
    assert finished.returncode == 0, finished.stderr[-4000:]

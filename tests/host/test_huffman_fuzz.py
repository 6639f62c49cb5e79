"""The decoder of Huffman codes under libFuzzer, AddressSanitizer and UndefinedBehaviorSanitizer.

A short run where clang is installed. A long one: TVMTINY_FUZZ_SECONDS=600 pytest tests/host/test_huffman_fuzz.py
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tvmtiny.resources import data_dir
from tvmtiny.storage.huffman import Code, histogram_of

TARGET = Path(__file__).parents[1] / "fuzz" / "huffman.c"
RUNS = 50_000


def _seed(width: float) -> bytes:
    """A sound input with a code of normally distributed bytes."""
    values = np.abs(np.random.default_rng(0).normal(0, width, (2, 100))).astype(np.uint8)
    code = Code.of(histogram_of(values))
    data, _ = code.encode(values)
    head = bytes([len(code.symbols) - 1, 100, 0, 3])
    return head + code.lengths.tobytes() + code.symbols.tobytes() + data.tobytes()


@pytest.mark.skipif(shutil.which("clang") is None, reason="clang is not installed")
def test_fuzzing_finds_nothing(tmp_path: Path) -> None:
    sanitizers = ["-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"]
    flags = ["-std=c11", "-g", "-O1", "-Wall", "-Wextra", "-Wconversion", "-Werror", *sanitizers]
    include = f"-I{data_dir('schedules') / 'microkernels' / 'portable'}"
    subprocess.run(["clang", *flags, include, str(TARGET), "-o", "fuzzer"], cwd=tmp_path, check=True)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for width in (1, 8, 60):
        (corpus / str(width)).write_bytes(_seed(width))
    seconds = os.environ.get("TVMTINY_FUZZ_SECONDS")
    limit = [f"-max_total_time={seconds}"] if seconds else [f"-runs={RUNS}", "-seed=1"]
    command = ["./fuzzer", *limit, "-max_len=600", "-timeout=10", str(corpus)]
    finished = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, check=False)
    assert finished.returncode == 0, finished.stderr[-4000:]

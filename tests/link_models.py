"""What the tests of the link share: the hand-written model, its program for the host, an emulated board on a pty."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tvmtiny.artifact import Artifact
from tvmtiny.resources import data_dir
from tvmtiny.runner import Sample

MAX_TOKENS = 8
CRASH, HANG, PAST = 0xFFFF, 0xFFFE, 0xFFFD
WEIGHTS = np.array([3, -1, 4, 1, -5, 9, 2, -6])


def write_fake(directory: Path, weight: int = 3) -> Artifact:
    """The model of tests/qemu/fake_model.c with its metadata; `weight` makes it another one."""
    directory.mkdir(parents=True, exist_ok=True)
    source = (Path(__file__).parent / "qemu" / "fake_model.c").read_text()
    source = source.replace("= {3, -1", f"= {{{weight}, -1")
    (directory / "fake.c").write_text(f"#define FAKE_ARENA_BYTES 48\n{source}")
    shutil.copy(data_dir("microtvm_projects/common") / "tvmt_model.h", directory)
    ids = {"name": "input_ids", "kind": "tokens", "dtype": "uint16", "shape": [8], "arena_offset": 0}
    logits = {"name": "logits", "kind": "output", "dtype": "int16", "shape": [4], "arena_offset": 16}
    unscaled: dict[str, list[float]] = {"scale": [], "zero_point": []}
    metadata = {
        "schema": 2,
        "name": "fake",
        "target": "qemu-m4",
        "inputs": [{**ids, **unscaled, "bytes": 16}],
        "outputs": [{**logits, **unscaled, "bytes": 8}],
        "max_tokens": MAX_TOKENS,
        "has_length": True,
        "arena": {"bytes": 48, "align": 16},
        "sources": ["fake.c"],
        "include_dirs": ["."],
    }
    (directory / "metadata.json").write_text(json.dumps(metadata))
    return Artifact.load(directory)


def sample(first: int = 7, n_tokens: int = MAX_TOKENS) -> Sample:
    """Inputs that count up from `first`."""
    return Sample({"input_ids": np.arange(first, first + 8).astype(np.uint16)}, n_tokens)


def expected(one: Sample) -> np.ndarray:
    """What the fake model gives."""
    n = one.n_tokens
    return (WEIGHTS[:n] @ one.inputs["input_ids"][:n].astype(int) + np.arange(4)).astype(np.int16)


@contextlib.contextmanager
def emulated_board(elf: Path, machine: str) -> Iterator[str]:
    """A QEMU machine that runs `elf`; yields the pseudo terminal on which its serial port is."""
    command = ["qemu-system-arm", "-machine", machine, "-display", "none", "-monitor", "none"]
    command += ["-serial", "pty", "-kernel", str(elf)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            said = ""
            match = None
            while match is None:
                line = process.stdout.readline()
                assert line, f"QEMU ended: {said}"
                said += line
                match = re.search(r"redirected to (\S+)", said)
            yield match[1]
        finally:
            process.kill()

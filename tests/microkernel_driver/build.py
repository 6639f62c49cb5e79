"""Builds driver.c with the micro-kernels of one family: for ctypes, or as a model for tvmtiny.runner."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from microkernel_driver.cases import CASES_BYTES, Case, first_difference, pack
from tvmtiny.artifact import Artifact, TensorInfo
from tvmtiny.resources import data_dir
from tvmtiny.runner.process import host_compiler
from tvmtiny.schedule.microkernels import line_of
from tvmtiny.schedule.variants import KNOBS_FILE, Variant

FAMILIES = ("portable", "dsp", "dual_issue", "wide_weights", "mve")
WARNINGS = [
    "-Wall",
    "-Wextra",
    "-Wconversion",
    "-Wdouble-promotion",
    "-pedantic",
    "-Wcast-qual",
    "-Wno-unused-function",
    "-Werror",
]


def write_model(directory: Path, family: str) -> Artifact:
    """Write driver.c and the headers of `family`, or of a variant, to `directory`, flat as an emitted model has."""
    include, variant = directory / "include", Variant.parse(family)
    include.mkdir(parents=True, exist_ok=True)
    for folder in reversed(line_of(variant.family)):
        for header in data_dir("schedules/microkernels").joinpath(folder).glob("*.h"):
            shutil.copy(header, include / header.name)
    if variant.settings:
        (include / KNOBS_FILE).write_text(variant.headers({"tvmt_knobs"})[KNOBS_FILE])
    shutil.copy(data_dir("microtvm_projects/common") / "tvmt_model.h", include)
    shutil.copy(Path(__file__).parent / "driver.c", directory)
    tensor = TensorInfo("cases", "features", "uint8", (CASES_BYTES,), 0, CASES_BYTES)
    return Artifact(
        directory=directory,
        name="microkernels",
        target="host",
        inputs=(tensor,),
        outputs=(tensor,),
        max_tokens=1,
        has_length=False,
        arena_bytes=CASES_BYTES,
        arena_align=16,
        sources=("driver.c",),
        include_dirs=("include",),
        metadata={},
    )


class HostLibrary:
    """driver.c in this process.

    Args:
        directory: where to build.
        family: folder of schedules/microkernels.
        flags: further compiler flags.
    """

    def __init__(self, directory: Path, family: str, flags: Sequence[str] = ()) -> None:
        write_model(directory, family)
        library = directory / "driver.so"
        command = [
            host_compiler(),
            "-std=c11",
            "-O2",
            "-shared",
            "-fPIC",
            *WARNINGS,
            *flags,
            "-Iinclude",
            "driver.c",
        ]
        subprocess.run([*command, "-o", library.name], cwd=directory, check=True)
        self._run = ctypes.CDLL(str(library)).microkernels_run
        self._run.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int32]

    def check(self, cases: Sequence[Case]) -> None:
        """Run `cases`; AssertionError names the first that gives other bytes than expected."""
        for arena in pack(cases):
            memory = np.zeros(CASES_BYTES + 16, np.uint8)
            start = -memory.ctypes.data % 16
            view = memory[start : start + CASES_BYTES]
            view[:] = np.frombuffer(arena[0], np.uint8)
            assert self._run(view.ctypes.data, CASES_BYTES, 1) == 0
            difference = first_difference(arena, view.tobytes())
            assert not difference, difference

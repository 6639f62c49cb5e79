"""Scripts of few-shot calls for driver.c, and what they must give by the Python twin."""

from __future__ import annotations

import ctypes
import dataclasses
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from microkernel_driver.build import WARNINGS

from tvmtiny.artifact import Artifact, TensorInfo
from tvmtiny.errors import UserError
from tvmtiny.fewshot import Store
from tvmtiny.resources import data_dir
from tvmtiny.runner.process import host_compiler
from tvmtiny.schedule.microkernels import headers

SCRIPT, RESULTS, STORE, MODEL = 24576, 12288, 4096, 77
ENROL, FORGET, CLASSIFY = 0, 1, 2
FULL, LABEL, ZERO = -2, -3, -4


@dataclasses.dataclass(frozen=True)
class Call:
    """One call; `embedding` is int8 or int16, least_similarity even, least_margin a multiple of 4.

    `moved`: the store is sealed, copied and opened before.
    """

    operation: int
    label: int
    embedding: np.ndarray
    zero_point: int = 0
    by_mean: bool = False
    least_similarity: int = -(1 << 15)
    least_margin: int = 0
    moved: bool = False

    def packed(self) -> np.ndarray:
        """As driver.c reads it."""
        bits = 8 * self.embedding.dtype.itemsize
        limits = (self.least_similarity // 2, self.least_margin // 4)
        head = [
            self.operation,
            self.label,
            bits,
            self.zero_point,
            int(self.by_mean),
            *limits,
            int(self.moved),
        ]
        return np.concatenate([np.array(head, np.int16), self.embedding.astype(np.int16)])


def script(capacity: int, calls: Sequence[Call]) -> np.ndarray:
    """The input of driver.c."""
    dimension = len(calls[0].embedding)
    words = np.concatenate([[capacity, dimension, len(calls)], *(call.packed() for call in calls)])
    result = np.zeros(SCRIPT // 2, np.int16)
    result[: len(words)] = words
    return result.view(np.uint8)


def expected(capacity: int, calls: Sequence[Call]) -> bytes:
    """The output of driver.c, by the twin."""
    store = Store(capacity, len(calls[0].embedding), MODEL)
    rows = [_row(store, call) for call in calls]
    result = np.array(rows, np.int32).tobytes() + store.to_bytes()
    return result + bytes(RESULTS - len(result))


def _row(store: Store, call: Call) -> tuple[int, ...]:
    nothing = (0, 0, 0, 0)
    try:
        if call.operation == FORGET:
            return (store.forget(call.label), *nothing)
        if call.operation == ENROL:
            store.enrol(call.label, call.embedding, call.zero_point)
            return (0, *nothing)
        answer = store.classify(
            call.embedding,
            call.zero_point,
            by_mean=call.by_mean,
            least_similarity=call.least_similarity,
            least_margin=call.least_margin,
        )
        return (0, *dataclasses.astuple(answer))
    except UserError as error:
        said = {"label": LABEL, "holds": FULL, "zero": ZERO}
        return (next(status for word, status in said.items() if word in error.message), *nothing)


def random_calls(seed: int, capacity: int, dimension: int, count: int = 24) -> list[Call]:
    """Calls of every kind; small numbers of labels and values, so that equal and opposite examples occur."""
    rng = np.random.default_rng(seed)
    wide, spread = bool(rng.integers(2)), int(rng.choice([1, 3, 40, 127, 20000]))
    dtype: Any = np.int16 if wide else np.int8
    limits = np.iinfo(dtype)
    calls = []
    for _ in range(count):
        values = np.clip(np.round(rng.normal(size=dimension) * spread), limits.min, limits.max)
        if rng.integers(8) == 0:
            values[:] = rng.choice([0, limits.min, limits.max])
        calls.append(
            Call(
                operation=int(rng.choice([ENROL, CLASSIFY, FORGET], p=[0.5, 0.4, 0.1])),
                label=int(rng.choice([-1, 0, 1, 2, 32767])),
                embedding=values.astype(dtype),
                zero_point=int(rng.integers(-128, 128)) * int(rng.integers(2)),
                by_mean=bool(rng.integers(2)),
                least_similarity=int(rng.choice([-32768, 0, 30000])),
                least_margin=int(rng.choice([0, 400])),
                moved=bool(rng.integers(2)),
            )
        )
    return calls


def write_model(directory: Path) -> Artifact:
    """driver.c and what it includes, as a model for tvmtiny.runner."""
    include = directory / "include"
    include.mkdir(parents=True, exist_ok=True)
    for name, text in headers({"tvmt_norm_rate", "tvmt_platform"}, "portable").items():
        (include / name).write_text(text)
    for name in ("tvmt_model.h", "tvmt_fewshot.h"):
        shutil.copy(data_dir("microtvm_projects/common") / name, include)
    shutil.copy(Path(__file__).parent / "driver.c", directory)
    return Artifact(
        directory=directory,
        name="fewshot",
        target="host",
        inputs=(TensorInfo("script", "features", "uint8", (SCRIPT,), 0, SCRIPT),),
        outputs=(TensorInfo("results", "output", "uint8", (RESULTS,), SCRIPT, RESULTS),),
        max_tokens=1,
        has_length=False,
        arena_bytes=SCRIPT + RESULTS,
        arena_align=16,
        sources=("driver.c",),
        include_dirs=("include",),
        metadata={},
    )


class HostLibrary:
    """driver.c in this process, with sanitizers of undefined behaviour.

    Args:
        directory: where to build.
    """

    def __init__(self, directory: Path) -> None:
        write_model(directory)
        command = [host_compiler(), "-std=c11", "-O1", "-shared", "-fPIC", *WARNINGS, "-Iinclude", "driver.c"]
        command += ["-fsanitize=undefined", "-fno-sanitize-recover=all"]
        subprocess.run([*command, "-o", "driver.so"], cwd=directory, check=True)
        self._run = ctypes.CDLL(str(directory / "driver.so")).fewshot_run
        self._run.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int32]

    def run(self, capacity: int, calls: Sequence[Call]) -> bytes:
        """The output for a script."""
        arena = np.zeros(SCRIPT + RESULTS, np.uint8)
        arena[:SCRIPT] = script(capacity, calls)
        assert self._run(arena.ctypes.data, arena.size, 1) == 0
        return arena[SCRIPT:].tobytes()

"""Many candidates as one firmware: each in a C file of its own, with the micro-kernels of its variant, found by index.

Nothing is shared between candidates but the data, so that what one takes does not depend on its neighbours.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile

from tvmtiny.artifact import Artifact, TensorInfo
from tvmtiny.codegen.c_sources import c_type, c_values, call_text
from tvmtiny.codegen.directory import write_files
from tvmtiny.codegen.program import Call, Program, build_program
from tvmtiny.errors import UserError
from tvmtiny.kernels import Blocking
from tvmtiny.passes.lower import Lower
from tvmtiny.resources import data_dir
from tvmtiny.schedule.rules import Schedule
from tvmtiny.schedule.space import describe
from tvmtiny.schedule.variants import Variant
from tvmtiny.target import Target
from tvmtiny.templates import jinja_environment
from tvmtiny.tune.tasks import Task

Array = npt.NDArray[Any]
NAME = "tune"
GUARD_BYTES = 32
_ALIGN = 16
_REQUEST_BYTES = 8


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A task with one of its schedules, lowered."""

    task: Task
    point: Blocking
    program: Program

    @property
    def scratch_bytes(self) -> int:
        """Bytes of the arena beside operands and result."""
        (call,) = self.program.calls
        return sum(a.parameter.bytes for a in call.arguments if a.parameter.role == "scratch")

    @property
    def weight_bytes(self) -> int:
        """Bytes of its constants in flash."""
        return sum(constant.array.nbytes for constant in self.program.constants)


class Lowering:
    """Lowers points of tasks for one target; points that differ in their knobs alone share the work."""

    def __init__(self, target: Target) -> None:
        self._target = target.tvm_target()
        self._known: dict[tuple[int, Blocking], Program] = {}
        self._one_at_a_time = threading.Lock()  # TVM's script parser is patched while it runs

    def candidate(self, task: Task, point: Blocking) -> Candidate:
        """The candidate of a point; may be called from several threads."""
        with self._one_at_a_time:
            program = self._program(task, point)
        calls = tuple(
            dataclasses.replace(call, function=dataclasses.replace(call.function, variant=point.variant))
            for call in program.calls
        )
        return Candidate(task, point, dataclasses.replace(program, calls=calls))

    def _program(self, task: Task, point: Blocking) -> Program:
        key = (id(task), dataclasses.replace(point, variant=Variant.parse(point.variant).family))
        if key not in self._known:
            lowered = Lower(lambda kernel, operands: key[1])(task.module())
            scheduled = Schedule(key[1].variant)(lowered)
            self._known[key] = build_program(scheduled, NAME, self._target)
        return self._known[key]


class _Data:
    """Arrays in flash, each distinct one once."""

    def __init__(self) -> None:
        self.constants: dict[tuple[str, bytes], tuple[str, Array]] = {}

    def symbol(self, array: Array) -> str:
        key = (str(array.dtype), array.tobytes())
        return self.constants.setdefault(key, (f"tune_data_{len(self.constants)}", array))[0]

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "symbol": symbol,
                "ctype": c_type(str(array.dtype)),
                "count": array.size,
                "shape": " x ".join(map(str, array.shape)),
                "initializer": _initializer(*key),
            }
            for key, (symbol, array) in self.constants.items()
        ]


@functools.lru_cache(maxsize=256)
def _initializer(dtype: str, data: bytes) -> str:
    """Elements as C has them: the images of a run share most of their data."""
    return c_values(np.frombuffer(data, dtype))


def write_image(candidates: Sequence[Candidate], target: Target, directory: Path) -> Artifact:
    """Write the sources of an image to an empty directory."""
    environment = jinja_environment("tvmtiny.tune")
    data, files = _Data(), dict[str, str]()
    contexts = [_candidate(index, candidate, data) for index, candidate in enumerate(candidates)]
    for context in contexts:
        files[f"candidate_{context['index']}.c"] = environment.get_template("candidate.c.j2").render(context)
    base = -(-(_REQUEST_BYTES + 4 * len(candidates)) // _ALIGN) * _ALIGN
    arena_bytes = base + max(candidate.program.plan.arena_bytes for candidate in candidates) + GUARD_BYTES
    shared = {
        "candidates": contexts,
        "constants": data.rows(),
        "base": base,
        "guard": GUARD_BYTES,
        "arena_bytes": arena_bytes,
    }
    for file, template in (("tune.c", "tune.c.j2"), ("data.c", "data.c.j2"), ("include/tune.h", "tune.h.j2")):
        files[file] = environment.get_template(template).render(shared)
    files |= _headers(candidates)
    write_files(directory, files)
    sources = ("tune.c", "data.c", *(f"candidate_{context['index']}.c" for context in contexts))
    return _artifact(directory, target, sources, len(candidates), arena_bytes)


def _artifact(
    directory: Path, target: Target, sources: tuple[str, ...], count: int, arena_bytes: int
) -> Artifact:
    request = TensorInfo("request", "features", "int32", (2,), 0, _REQUEST_BYTES)
    wrong = TensorInfo("wrong", "output", "int32", (count,), _REQUEST_BYTES, 4 * count)
    return Artifact(
        directory=directory,
        name=NAME,
        target=target.name,
        inputs=(request,),
        outputs=(wrong,),
        max_tokens=1,
        has_length=False,
        arena_bytes=arena_bytes,
        arena_align=_ALIGN,
        sources=sources,
        include_dirs=("include",),
        metadata={},
    )


def _candidate(index: int, candidate: Candidate, data: _Data) -> dict[str, Any]:
    program, task = candidate.program, candidate.task
    arrays = {constant.symbol: constant.array for constant in program.constants}
    (call,) = program.calls
    shared = tuple(
        dataclasses.replace(a, constant=data.symbol(arrays[a.constant])) if a.constant else a
        for a in call.arguments
    )
    call = Call(call.function, shared)
    inputs = [
        {
            "symbol": data.symbol(task.arrays[tensor.name]),
            "offset": program.plan.offsets[tensor.buffer],
            "bytes": tensor.bytes,
        }
        for tensor in program.inputs
    ]
    (output,) = program.outputs
    rows = output.shape[0]
    present = task.n if rows == task.arrays[next(iter(task.arrays))].shape[0] else rows
    expected = task.expected()[:present]
    variant = Variant.parse(candidate.point.variant)
    return {
        "index": index,
        "describe": f"{task.signature.text}; {describe(candidate.point)}",
        "variant": variant.symbol,
        "headers": sorted(call.function.microkernels | {"tvmt_platform"}),
        "call": call_text(call, dataclasses.replace(program, calls=(call,)), f"{NAME}_{index}"),
        "inputs": inputs,
        "expected": {
            "symbol": data.symbol(np.ascontiguousarray(expected)),
            "offset": program.plan.offsets[output.buffer],
            "bytes": expected.nbytes,
        },
        "arena_bytes": program.plan.arena_bytes,
        "n_tokens": task.n,
    }


def _headers(candidates: Sequence[Candidate]) -> dict[str, str]:
    """The micro-kernels of each variant in a folder of their own, where they include each other."""
    platform = Variant("portable").headers({"tvmt_platform"})
    found = {f"tune/{file}": text for file, text in platform.items()}
    for candidate in candidates:
        variant = Variant.parse(candidate.point.variant)
        (call,) = candidate.program.calls
        texts = variant.headers(call.function.microkernels | {"tvmt_platform"})
        found |= {f"{variant.symbol}/{file}": text for file, text in texts.items()}
    model = (data_dir("microtvm_projects") / "common" / "tvmt_model.h").read_text("utf-8")
    return {f"include/{file}": text for file, text in {**found, "tvmt_model.h": model}.items()}


def code_bytes(directory: Path, index: int) -> int:
    """Instructions and tables of a candidate, of the object file in an image's build directory."""
    path = directory / "out" / "model" / f"candidate_{index}.o"
    if not path.is_file():
        raise UserError(f"{path} is missing.", "The image was not built.")
    return allocated_bytes(path)


def allocated_bytes(path: Path) -> int:
    """Instructions and tables of an object file."""
    with path.open("rb") as stream:
        return sum(
            int(section["sh_size"])
            for section in ELFFile(stream).iter_sections()
            if section["sh_flags"] & SH_FLAGS.SHF_ALLOC
        )

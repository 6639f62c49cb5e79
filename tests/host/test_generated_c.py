"""The emitted C, on the host: warnings, API, memory, and the bytes it gives; object code for cores without an FPU."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from model_cases import CASES, compiled, samples, shared
from tvm import tirx

import tvmtiny.lowering
from tvmtiny.artifact import Artifact
from tvmtiny.passes.lower import VARIANT_ATTRIBUTE
from tvmtiny.runner import Sample, run
from tvmtiny.runner.process import find_tool, host_compiler
from tvmtiny.verify import expected_outputs

MODELS = {
    "post_norm": "qemu-m4",
    "pre_norm": "host",
    "first_token": "qemu-m4",
    "odd_sizes": "qemu-m3",
    "sensor_encoder": "qemu-m7",
    "sentence": "qemu-m4",
}
"""Case -> target: both families of micro-kernels."""

WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wdouble-promotion", "-pedantic", "-Werror"]
OK, NULL, ALIGNMENT, ARENA, LENGTH, TOKEN = 0, -1, -2, -3, -4, -5
FLOAT_CALL = re.compile(r"__aeabi_([cdf]|[u]?[il]2[df]|h2)|__\w+(sf|df)\d?$|^(exp|sqrt|floor|round|pow)f?$")


@pytest.fixture(params=MODELS)
def artifact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return shared(tmp_path_factory, request.param, MODELS[request.param])


@pytest.fixture
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return shared(tmp_path_factory, "post_norm", MODELS["post_norm"])


def _includes(artifact: Artifact) -> list[str]:
    return [f"-I{artifact.directory / folder}" for folder in artifact.include_dirs]


def _sources(artifact: Artifact) -> list[str]:
    return [str(artifact.directory / source) for source in artifact.sources]


def _call(command: list[str], **options: Any) -> str:
    finished = subprocess.run(command, text=True, capture_output=True, check=False, **options)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout + finished.stderr


class Library:
    """A model in this process."""

    def __init__(self, artifact: Artifact, directory: Path) -> None:
        path = directory / f"{artifact.name}.so"
        flags = ["-std=c11", "-O1", "-shared", "-fPIC", *_includes(artifact)]
        _call([host_compiler(), *flags, *_sources(artifact), "-o", str(path)])
        self.artifact = artifact
        self.function = getattr(ctypes.CDLL(str(path)), f"{artifact.name}_run")
        self.function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int32]

    def arena(self, fill: int | np.random.Generator = 0) -> np.ndarray:
        """An aligned arena with contents."""
        size, align = self.artifact.arena_bytes, self.artifact.arena_align
        memory = np.zeros(size + align, np.uint8)
        view = memory[-memory.ctypes.data % align :][:size]
        view[:] = fill if isinstance(fill, int) else fill.integers(0, 256, size)
        return view

    def write(self, arena: np.ndarray, sample: Sample) -> None:
        for info in self.artifact.inputs:
            raw = np.ascontiguousarray(sample.inputs[info.name]).view(np.uint8).reshape(-1)
            arena[info.arena_offset : info.arena_offset + info.bytes] = raw

    def call(self, arena: np.ndarray, n: int) -> int:
        return int(self.function(arena.ctypes.data, len(arena), n))

    def result(self, arena: np.ndarray) -> bytes:
        (info,) = self.artifact.outputs
        return arena[info.arena_offset : info.arena_offset + info.bytes].tobytes()

    def run(self, sample: Sample, fill: int | np.random.Generator = 0) -> bytes:
        arena = self.arena(fill)
        self.write(arena, sample)
        assert self.call(arena, sample.n_tokens) == OK
        return self.result(arena)


def _expected(artifact: Artifact, chosen: list[Sample]) -> list[bytes]:
    (info,) = artifact.outputs
    return [outputs[info.name].tobytes() for outputs in expected_outputs(artifact, chosen)]


def _all_lengths(artifact: Artifact) -> list[Sample]:
    lengths = range(1, artifact.max_tokens + 1) if artifact.has_length else [artifact.max_tokens]
    inputs = samples(artifact, len(lengths))
    return [Sample(sample.inputs, n) for sample, n in zip(inputs, lengths, strict=True)]


@pytest.mark.parametrize(("compiler", "standard"), [("gcc", "c11"), ("g++", "c++17")])
def test_compiles_without_a_warning(artifact: Artifact, compiler: str, standard: str, tmp_path: Path) -> None:
    language = "c++" if "+" in standard else "c"
    for source in _sources(artifact):
        command = [find_tool(compiler), f"-std={standard}", "-O2", *WARNINGS, *_includes(artifact)]
        said = _call([*command, "-x", language, "-c", source, "-o", str(tmp_path / "object.o")])
        assert said == ""


def test_every_header_stands_alone(artifact: Artifact, tmp_path: Path) -> None:
    for header in [artifact.directory / f"{artifact.name}.h", *(artifact.directory / "include").iterdir()]:
        source = tmp_path / "alone.c"
        source.write_text(f'#include "{header.name}"\n#include "{header.name}"\nextern int filled;\n')
        flags = ["-std=c11", "-fsyntax-only", "-Wno-unused-function", *WARNINGS, *_includes(artifact)]
        _call([find_tool("gcc"), *flags, str(source)])


def test_main_says_the_class_of_its_example(tmp_path: Path) -> None:
    labels = ["ein Wort", 'mit "Zeichen" \\', "größer", "trigraph ??/", "%d"]
    made = compiled(CASES["narrow_heads"], tmp_path / "model", labels=labels)
    program = str(tmp_path / "main")
    flags = ["-std=c11", "-O1", *WARNINGS, *_includes(made)]
    _call([find_tool("gcc"), *flags, str(made.directory / "main.c"), *_sources(made), "-o", program])
    said = _call([program])
    match = re.fullmatch(r"(.+) \((\d+) per mille\)\n", said)
    assert match is not None, said
    assert match[1] in [*labels, "not sure"]
    with np.load(made.directory / "reference" / "outputs.npz") as stored:
        logits = stored[made.outputs[0].name][0].reshape(-1).astype(np.float64) * made.outputs[0].scale[0]
    share = np.exp(logits - logits.max())
    assert abs(int(match[2]) - 1000 / share.sum()) <= 5
    assert match[1] == (labels[int(logits.argmax())] if int(match[2]) >= 500 else "not sure")


def test_main_of_an_embedding_finds_what_it_enrolled(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    made = shared(tmp_path_factory, "sentence", MODELS["sentence"])
    program = str(tmp_path / "main")
    flags = ["-std=c11", "-O1", *WARNINGS, *_includes(made)]
    _call([find_tool("gcc"), *flags, str(made.directory / "main.c"), *_sources(made), "-o", program])
    match = re.fullmatch(r"label 7, similarity (\d+) of 32768\n", _call([program]))
    assert match is not None
    assert abs(int(match[1]) - 32768) <= 1


def test_stored_vectors_are_what_the_c_gives(artifact: Artifact, tmp_path: Path) -> None:
    library = Library(artifact, tmp_path)
    with np.load(artifact.directory / "reference" / "inputs.npz") as stored:
        inputs = {name: stored[name] for name in stored.files}
    with np.load(artifact.directory / "reference" / "outputs.npz") as stored:
        outputs = stored[artifact.outputs[0].name]
    lengths = inputs.pop("n_tokens")
    assert len(lengths) == len(outputs) >= 8
    for i, n in enumerate(lengths):
        sample = Sample({name: array[i] for name, array in inputs.items()}, int(n))
        assert library.run(sample) == outputs[i].tobytes()


def test_contents_of_the_arena_before_do_not_matter(artifact: Artifact, tmp_path: Path) -> None:
    library, rng = Library(artifact, tmp_path), np.random.default_rng(0)
    chosen = _all_lengths(artifact)
    for sample, expected in zip(chosen, _expected(artifact, chosen), strict=True):
        for fill in (0x00, 0xA5, 0xFF, rng):
            assert library.run(sample, fill) == expected


def test_absent_tokens_do_not_matter(encoder: Artifact, tmp_path: Path) -> None:
    library, rng = Library(encoder, tmp_path), np.random.default_rng(0)
    for sample in _all_lengths(encoder):
        (name, ids) = next(iter(sample.inputs.items()))
        other = ids.copy()
        other[sample.n_tokens :] = rng.integers(0, 2**16, len(ids) - sample.n_tokens)
        assert library.run(sample) == library.run(Sample({name: other}, sample.n_tokens))


def test_sanitizers_find_nothing(artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANITIZE", "-fsanitize=address,undefined -fno-sanitize-recover=all")
    chosen = [*_all_lengths(artifact), *samples(artifact, 4, seed=3)]
    result = run(artifact, "host", chosen, target="host", build_dir=tmp_path / "build")
    assert result.status == [OK] * len(chosen)
    for outputs, expected in zip(result.outputs, expected_outputs(artifact, chosen), strict=True):
        assert all(np.array_equal(outputs[name], expected[name]) for name in expected)


def test_run_refuses_what_it_cannot_use(encoder: Artifact, tmp_path: Path) -> None:
    library = Library(encoder, tmp_path)
    size, most = encoder.arena_bytes, encoder.max_tokens
    sample = samples(encoder, 3)[2]
    arena = library.arena()
    assert library.function(None, size, most) == NULL
    for offset in range(1, encoder.arena_align):
        assert library.function(arena.ctypes.data + offset, size, most) == ALIGNMENT
    assert library.function(arena.ctypes.data, size - 1, most) == ARENA
    assert library.function(arena.ctypes.data, 0, most) == ARENA
    for n in (0, -1, most + 1, 2**31 - 1, -(2**31)):
        library.write(arena, sample)
        before = arena.copy()
        assert library.call(arena, n) == LENGTH
        assert np.array_equal(arena, before), "a refused run must not touch the arena"
    (info,) = encoder.inputs
    for position, wrong in [(0, info.limit), (most - 1, info.limit), (3, 65535)]:
        ids = sample.inputs[info.name].copy()
        ids[position] = wrong
        library.write(arena, Sample({info.name: ids}, most))
        assert library.call(arena, most) == TOKEN
        assert library.call(arena, max(1, position)) == (OK if position else TOKEN)
    library.write(arena, sample)
    assert library.function(arena.ctypes.data, size + 100, most) == OK


def test_a_model_without_a_length_runs_with_all_tokens_only(tmp_path_factory: pytest.TempPathFactory) -> None:
    made = shared(tmp_path_factory, "sensor_encoder", MODELS["sensor_encoder"])
    library = Library(made, tmp_path_factory.mktemp("library"))
    arena = library.arena()
    library.write(arena, samples(made, 1)[0])
    assert [library.call(arena, n) for n in (1, made.max_tokens - 1, made.max_tokens + 1)] == [LENGTH] * 3
    assert library.call(arena, made.max_tokens) == OK


def test_runs_on_two_arenas_do_not_meet(artifact: Artifact, tmp_path: Path) -> None:
    library = Library(artifact, tmp_path)
    one, other = samples(artifact, 6)[0], samples(artifact, 6)[-1]
    expected = [library.run(one), library.run(other)]
    first, second = library.arena(0xA5), library.arena(0x5A)
    library.write(first, one)
    library.write(second, other)
    assert library.call(first, one.n_tokens) == OK
    kept = first.copy()
    assert library.call(second, other.n_tokens) == OK
    assert np.array_equal(first, kept)
    assert [library.result(first), library.result(second)] == expected


def test_objects_have_no_writable_data(artifact: Artifact, tmp_path: Path) -> None:
    for source in _sources(artifact):
        target = tmp_path / "object.o"
        # Not for a shared library: position-independent code relocates tables of pointers.
        flags = ["-std=c11", "-O2", "-fno-pie", "-fno-pic", *_includes(artifact)]
        _call([find_tool("gcc"), *flags, "-c", source, "-o", str(target)])
        rows = [line.split() for line in _call([find_tool("nm"), str(target)]).splitlines()]
        assert not [row for row in rows if row[-2] in "bBdDC"], rows
        assert {row[-1] for row in rows if row[-2] == "U"} <= {
            *(row for row in _weights(artifact)),
            "memcpy", "memset",
        }  # fmt: skip


def _weights(artifact: Artifact) -> list[str]:
    text = (artifact.directory / f"{artifact.name}_weights.h").read_text()
    return re.findall(r"extern const \w+ (\w+)\[", text)


def test_header_plan_and_metadata_agree_on_the_arena(artifact: Artifact) -> None:
    header = (artifact.directory / f"{artifact.name}.h").read_text()
    declared = re.search(rf"#define {artifact.name.upper()}_ARENA_BYTES (\d+)", header)
    rows = artifact.metadata["arena"]["plan"]
    assert declared is not None
    assert int(declared[1]) == artifact.arena_bytes == max(row["offset"] + row["bytes"] for row in rows)
    placed = {row["name"]: row for row in rows}
    for info in (*artifact.inputs, *artifact.outputs):
        assert (placed[info.name]["offset"], placed[info.name]["bytes"]) == (info.arena_offset, info.bytes)


COMPILE = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from model_cases import CASES, compiled
for name in ("narrow_heads", "sensor"):
    compiled(CASES[name], Path(sys.argv[1]) / name)
"""


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    found = []
    for seed in ("1", "2"):
        directory = tmp_path / seed
        directory.mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        script = COMPILE.format(path=[p for p in sys.path if p])
        _call([sys.executable, "-c", script, str(directory)], env=environment, cwd=tmp_path)
        paths = sorted(path for path in directory.rglob("*") if path.is_file())
        found.append({str(path.relative_to(directory)): path.read_bytes() for path in paths})
    assert found[0].keys() == found[1].keys()
    assert len(found[0]) > 40
    assert [file for file in found[0] if found[0][file] != found[1][file]] == []


def _without_microkernels(variant: str) -> tvm.transform.Pass:
    """As `Schedule`, but tile operators stay loops."""

    @tvm.transform.module_pass(opt_level=0)
    def run(module: tvm.IRModule, _context: object) -> tvm.IRModule:
        functions = {
            symbol: function.with_attr(VARIANT_ATTRIBUTE, variant)
            if isinstance(function, tirx.PrimFunc)
            else function
            for symbol, function in module.functions.items()
        }
        return tvm.IRModule(functions, attrs=module.attrs)

    return run


@pytest.mark.parametrize("name", ["odd_sizes", "pre_norm"])
def test_c_of_tvm_alone_gives_the_same_bytes(
    name: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without micro-kernels TVM generates the loops of every tile operator."""
    made = shared(tmp_path_factory, name, MODELS[name])
    monkeypatch.setattr(tvmtiny.lowering, "Schedule", _without_microkernels)
    plain = compiled(CASES[name], tmp_path / name)
    text = (plain.directory / f"{name}.c").read_text()
    assert "tvmt_dense" not in text
    assert "tvmt_dense" in (made.directory / f"{name}.c").read_text()
    library = Library(plain, tmp_path)
    chosen = _all_lengths(made)
    assert [library.run(sample, 0xA5) for sample in chosen] == _expected(made, chosen)


def _cross(artifact: Artifact, flags: list[str], tmp_path: Path) -> list[Path]:
    objects = []
    for source in _sources(artifact):
        objects.append(tmp_path / f"{Path(source).stem}.o")
        command = [find_tool("arm-none-eabi-gcc"), *flags, "-mthumb", "-std=c11", "-O2", *WARNINGS]
        _call([*command, *_includes(artifact), "-c", source, "-o", str(objects[-1])])
    return objects


@pytest.mark.qemu  # for the cross compiler
@pytest.mark.parametrize("core", ["cortex-m0plus", "cortex-m3"])
def test_no_floating_point_on_cores_without_it(artifact: Artifact, core: str, tmp_path: Path) -> None:
    for path in _cross(artifact, [f"-mcpu={core}", "-mfloat-abi=soft"], tmp_path):
        undefined = _call([find_tool("arm-none-eabi-nm"), "-u", str(path)]).split()
        assert not [name for name in undefined if FLOAT_CALL.search(name)]
        assert not [name for name in _mnemonics(path) if name.startswith("v")]


@pytest.mark.qemu  # for the cross compiler
def test_no_floating_point_instruction_where_there_is_an_fpu(artifact: Artifact, tmp_path: Path) -> None:
    flags = ["-mcpu=cortex-m7", "-mfpu=fpv5-d16", "-mfloat-abi=hard"]
    for path in _cross(artifact, flags, tmp_path):
        found = _mnemonics(path)
        assert path.stem.endswith("_weights") or len(found) > 100
        assert not [
            name for name in found if re.search(r"\.(f16|f32|f64)|^v(cvt|add|sub|mul|div|mla|fma|sqrt)", name)
        ]


def _mnemonics(path: Path) -> list[str]:
    listing = _call([find_tool("arm-none-eabi-objdump"), "-d", "--no-show-raw-insn", str(path)])
    return re.findall(r"^\s+[0-9a-f]+:\t(\S+)", listing, re.MULTILINE)


def test_the_pattern_of_float_calls_finds_them() -> None:
    calls = "__aeabi_fmul __aeabi_dadd __aeabi_cfcmple __aeabi_cdcmpeq __aeabi_i2f __aeabi_ui2d __aeabi_l2f"
    assert all(FLOAT_CALL.search(name) for name in [*calls.split(), "__addsf3", "__muldf3", "expf"])
    integer = "__aeabi_idiv __aeabi_uidiv __aeabi_lmul __aeabi_uldivmod __aeabi_llsr __clzsi2 memcpy"
    assert not [name for name in integer.split() if FLOAT_CALL.search(name)]


@pytest.mark.qemu
def test_work_is_proportional_to_the_tokens(encoder: Artifact) -> None:
    """Tokens are taken four at a time: a third of twelve is one of three blocks."""
    counts = {}
    for n in (encoder.max_tokens // 3, encoder.max_tokens):
        sample = Sample(samples(encoder, 1)[0].inputs, n)
        counts[n] = run(encoder, "qemu", [sample], target="qemu-m4").instructions
    third, full = counts.values()
    if third is None or full is None:
        pytest.skip("this QEMU has no plugins")
    assert encoder.max_tokens == 12
    assert third < 0.36 * full

"""The runner on a model written by hand: right bytes everywhere, and every misbehaviour is told."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tvmtiny.artifact import Artifact
from tvmtiny.errors import EnvironmentProblem, ResultMismatch, UserError
from tvmtiny.resources import data_dir
from tvmtiny.runner import MemoryViolationError, RunResult, Sample, build, read_symbols, run, split, symbol_at
from tvmtiny.runner import plugin as plugin_module
from tvmtiny.runner.layout import place, translate
from tvmtiny.runner.process import find_tool, host_compiler, run_program
from tvmtiny.target import list_targets, load_target

HERE = Path(__file__).parent
WEIGHTS = np.array([3, -1, 4, 1, -5, 9, 2, -6])
MAX_TOKENS = 8
CRASH, HANG, PAST, BEFORE, DEEP, STALE = 0xFFFF, 0xFFFE, 0xFFFD, 0xFFFC, 0xFFFB, 0xFFFA

DEVICES = [target.name for target in list_targets() if target.cpu != "host"]
MACHINES = [target.name for target in list_targets() if target.qemu_machine]
EVERYWHERE = ["host", *DEVICES]
# What a board and its machine each have of their own.
OF_A_PLACE = ("tvmt_board", "tvmt_uart", "tvmt_transport", "tvmt_counter", "tvmt_systick", "tvmt_mark")

TOOLS = ("make", "arm-none-eabi-gcc", "qemu-system-arm")
missing = [tool for tool in TOOLS if shutil.which(tool) is None]
pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(
        bool(missing) and not os.environ.get("TVMTINY_REQUIRE_TOOLS"), reason=f"not installed: {missing}"
    ),
]

Make = Callable[..., Artifact]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Writes the fake model with an arena of some bytes and some bytes of further weights."""

    def write(arena_bytes: int = 48, extra_weights: int = 8) -> Artifact:
        source = (HERE / "fake_model.c").read_text()
        defines = f"#define FAKE_ARENA_BYTES {arena_bytes}\n#define FAKE_EXTRA_WEIGHTS {extra_weights}\n"
        (tmp_path / "fake.c").write_text(defines + source)
        shutil.copy(data_dir("microtvm_projects/common") / "tvmt_model.h", tmp_path)
        (tmp_path / "metadata.json").write_text(json.dumps(_metadata(arena_bytes)))
        return Artifact.load(tmp_path)

    return write


def _metadata(arena_bytes: int) -> dict[str, object]:
    ids = {"name": "input_ids", "kind": "tokens", "dtype": "uint16", "shape": [8], "arena_offset": 0}
    logits = {"name": "logits", "kind": "output", "dtype": "int16", "shape": [4], "arena_offset": 16}
    unscaled: dict[str, list[float]] = {"scale": [], "zero_point": []}
    return {
        "schema": 2,
        "name": "fake",
        "target": "qemu-m4",
        "inputs": [{**ids, **unscaled, "bytes": 16}],
        "outputs": [{**logits, **unscaled, "bytes": 8}],
        "max_tokens": MAX_TOKENS,
        "has_length": True,
        "arena": {"bytes": arena_bytes, "align": 16},
        "sources": ["fake.c"],
        "include_dirs": ["."],
    }


def sample(first: int = 7, n_tokens: int = MAX_TOKENS) -> Sample:
    return Sample({"input_ids": np.arange(first, first + 8).astype(np.uint16)}, n_tokens)


def misbehave(kind: int) -> Sample:
    return Sample({"input_ids": np.array([kind] + [0] * 7, dtype=np.uint16)}, MAX_TOKENS)


def expected(one: Sample) -> np.ndarray:
    n = one.n_tokens
    return (WEIGHTS[:n] @ one.inputs["input_ids"][:n].astype(int) + np.arange(4)).astype(np.int16)


def run_on(artifact: Artifact, name: str, samples: list[Sample], **options: object) -> RunResult:
    return run(artifact, "host" if name == "host" else "qemu", samples, target=name, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", EVERYWHERE)
def test_outputs_are_right(make: Make, name: str) -> None:
    samples = [sample(first, 1 + first % 8) for first in range(20)]
    result = run_on(make(), name, [*samples, sample(n_tokens=9)])
    assert result.status == [0] * 20 + [-4]
    assert result.outputs[20] == {}
    for one, outputs in zip(samples, result.outputs[:20], strict=True):
        np.testing.assert_array_equal(outputs["logits"], expected(one))
        assert outputs["logits"].dtype == np.int16
    assert result.elf.is_file()
    assert result.run_elf.is_file()


@pytest.mark.parametrize("name", ["qemu-m0", "qemu-m7", "qemu-m33", "qemu-m55", "stm32f746"])
def test_instructions_and_stack_are_exact_and_repeatable(make: Make, name: str) -> None:
    artifact = make()
    first = run_on(artifact, name, [sample(), sample(n_tokens=1)])
    again = run_on(artifact, name, [sample(3), sample(n_tokens=1)], jobs=2)
    assert first.instructions is not None
    assert first.total_instructions is not None
    assert first.instructions == again.instructions
    assert first.total_instructions == again.total_instructions
    assert 40 < first.instructions < 200
    assert first.instructions < first.total_instructions < 2 * first.instructions
    assert first.stack_bytes == again.stack_bytes
    assert first.stack_bytes is not None
    assert 0 < first.stack_bytes < 128


def test_blocks_add_up_to_the_instructions(make: Make) -> None:
    result = run_on(make(), "qemu-m4", [sample(), sample(n_tokens=2)], blocks=True)
    assert sum(block.instructions * block.entered for block in result.blocks) == result.instructions
    symbols = read_symbols(result.run_elf)
    names = {symbol.name for block in result.blocks if (symbol := symbol_at(symbols, block.address))}
    assert "run" in names
    assert {block.phase for block in result.blocks} == {0}
    assert all(block.left <= block.entered for block in result.blocks)
    assert "tvmt_transport_read" not in names


def test_board_is_linked_twice_from_the_same_objects(make: Make) -> None:
    project = build(make(), load_target("stm32f746"), strict=True)
    assert project.elf != project.run_elf
    board = {symbol.name: symbol for symbol in read_symbols(project.elf)}
    emulated = {symbol.name: symbol for symbol in read_symbols(project.run_elf)}
    assert board["tvmt_reset"].address >= 0x0800_0000
    assert emulated["tvmt_reset"].address < 0x0010_0000
    assert board["dot"].address < 0x4000  # ITCM
    assert emulated["dot"].section == ".tvmt_code"
    shared = board.keys() & emulated.keys()
    assert {"run", "dot", "weights", "main", "tvmt_link_receive"} <= shared
    assert all(
        board[name].bytes == emulated[name].bytes for name in shared if not name.startswith(OF_A_PLACE)
    )
    assert board["weights"].section == ".tvmt_weights"


@pytest.mark.parametrize("name", EVERYWHERE)
def test_compiles_without_a_warning(make: Make, name: str) -> None:
    build(make(), load_target(name), strict=True)


def test_sizes_tell_the_model_from_the_harness(make: Make) -> None:
    sizes = run_on(make(extra_weights=992), "qemu-m4", [sample()]).sizes
    assert sizes.weight_bytes == 1000
    assert 100 < sizes.code_bytes < 500
    assert 0 < sizes.table_bytes < 200
    assert sizes.arena_section_bytes == 48 + 2 * 64
    assert sizes.data_bytes == 0
    assert sizes.stack_reserved_bytes == 4096


@pytest.mark.parametrize("name", ["host", "qemu-m0", "qemu-m7"])
@pytest.mark.parametrize(("kind", "where"), [(PAST, "5 bytes past"), (BEFORE, "3 bytes before")])
def test_write_outside_the_arena_is_found(make: Make, name: str, kind: int, where: str) -> None:
    with pytest.raises(MemoryViolationError, match=rf"1 bytes around it changed.*{where}.*in sample 2\."):
        run_on(make(), name, [sample(), sample(), misbehave(kind), sample()])


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("host", "SIGILL|SIGTRAP"),
        ("qemu-m0", r"HardFault at pc 0x\w+ \(run\+0x"),
        ("qemu-m7", r"UsageFault at pc 0x\w+ \(run\+0x"),
        ("qemu-m33", r"UsageFault at pc 0x\w+ \(run\+0x"),
    ],
)
def test_crash_is_reported(make: Make, name: str, what: str) -> None:
    with pytest.raises(EnvironmentProblem, match=what):
        run_on(make(), name, [sample(), misbehave(CRASH)])


@pytest.mark.parametrize("name", ["host", *MACHINES])
def test_stack_overflow_is_reported(make: Make, name: str) -> None:
    with pytest.raises(EnvironmentProblem, match=r"stack|SIGSEGV"):
        run_on(make(), name, [misbehave(DEEP)])


@pytest.mark.parametrize("name", ["host", "qemu-m4"])
def test_time_limit_is_reported(make: Make, name: str) -> None:
    artifact = make()
    build(artifact, load_target(name))
    with pytest.raises(EnvironmentProblem, match=r"within 0\.5 s"):
        run_on(artifact, name, [sample(), misbehave(HANG)], timeout_s=0.5)


def test_repetitions_that_differ_are_reported(make: Make) -> None:
    with pytest.raises(ResultMismatch, match="sample 1"):
        run_on(make(), "host", [sample(), misbehave(STALE)], repeat=2)
    assert len(run_on(make(), "host", [sample(), sample()], repeat=3).outputs) == 2


def test_samples_keep_their_order_over_processes(make: Make) -> None:
    samples = [sample(first) for first in range(50)]
    result = run_on(make(), "qemu-m3", samples, jobs=3)
    for one, outputs in zip(samples, result.outputs, strict=True):
        np.testing.assert_array_equal(outputs["logits"], expected(one))
    assert [list(part) for part in split(range(7), 3)] == [[0, 1], [2, 3], [4, 5, 6]]
    assert [list(part) for part in split([1], 3)] == [[1]]


def test_weights_too_large_for_the_boards_flash_are_refused_with_numbers(make: Make) -> None:
    with pytest.raises(UserError, match=r"flash: needs 10\d{5} bytes, has 524288"):
        build(make(extra_weights=1_050_000), load_target("nucleo-f401re"))


def test_arena_too_large_for_the_boards_ram_is_refused_with_numbers(make: Make) -> None:
    with pytest.raises(UserError, match=r"400128 bytes.*stm32f746, 327680 bytes \(dtcm 65536, sram1 245760"):
        build(make(arena_bytes=400_000), load_target("stm32f746"))


@pytest.mark.parametrize(
    ("arena_bytes", "arena", "data"),
    [
        (1_000, "dtcm", "dtcm"),
        (65_000, "dtcm", "sram1"),
        (100_000, "sram1", "sram1"),
        (245_000, "sram1", "dtcm"),
        (250_000, "dtcm_sram1", "dtcm_sram1"),
        (322_000, "dtcm_sram1_sram2", "dtcm_sram1_sram2"),
    ],
)
def test_arena_takes_the_fastest_region_that_holds_it(arena_bytes: int, arena: str, data: str) -> None:
    board = load_target("stm32f746")
    placement = place(board, arena_bytes)
    assert (placement.arena, placement.data, placement.code) == (arena, data, "itcm")
    moved = translate(placement, board, board.emulator())
    assert [region.bytes for region in moved.regions] == [region.bytes for region in placement.regions]
    machine = {region.name: region for region in board.emulator().memory}
    for region in moved.regions:
        home = machine["flash" if region.kind == "flash" else "ram"]
        assert home.origin <= region.origin < region.end <= home.end


def test_large_arena_runs_across_regions(make: Make) -> None:
    result = run_on(make(arena_bytes=322_000), "stm32f746", [sample()])
    np.testing.assert_array_equal(result.outputs[0]["logits"], expected(sample()))


def test_generated_project_builds_by_hand(make: Make, tmp_path: Path) -> None:
    project = build(make(), load_target("nrf52840"), tmp_path / "a folder" / "app")
    moved = tmp_path / "moved"
    shutil.move(project.directory, moved)
    assert run_program([find_tool("make"), "clean", "all"], cwd=moved).status == 0
    assert (moved / "out/firmware.elf").is_file()


def test_compile_error_shows_command_and_message(make: Make) -> None:
    artifact = make()
    (artifact.directory / "fake.c").write_text("#error this cannot be\n")
    with pytest.raises(EnvironmentProblem, match=r"(?s)make.*this cannot be"):
        build(artifact, load_target("qemu-m4"))


@pytest.mark.parametrize(
    ("tool", "package"), [("arm-none-eabi-gcc", "gcc-arm-none-eabi"), ("qemu-system-arm", "qemu")]
)
def test_missing_tool_says_how_to_install_it(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tool: str, package: str
) -> None:
    artifact = make()
    others = tmp_path / "bin"
    others.mkdir()
    for name in {*TOOLS, "sh"} - {tool}:
        (others / name).symlink_to(shutil.which(name) or "")
    monkeypatch.setenv("PATH", str(others))
    with pytest.raises(EnvironmentProblem, match=tool) as raised:
        run_on(artifact, "qemu-m4", [sample()])
    assert f"apt-get install {package}" in raised.value.remedy


def test_wrong_samples_are_refused(make: Make) -> None:
    artifact = make()
    for inputs, message in (
        ({"ids": np.zeros(8, np.uint16)}, "lacks the input 'input_ids'"),
        ({"input_ids": np.zeros(8, np.int32)}, r"required uint16\[8\], found int32\[8\]"),
        ({"input_ids": np.zeros(9, np.uint16)}, r"found uint16\[9\]"),
    ):
        with pytest.raises(UserError, match=message):
            run_on(artifact, "host", [Sample(inputs, 8)])
    with pytest.raises(UserError, match="At least one sample"):
        run_on(artifact, "host", [])


def test_unknown_kind_and_target_without_emulator_are_refused(make: Make) -> None:
    with pytest.raises(UserError, match="moon") as raised:
        run(make(), "moon:1", [sample()])
    assert "host, qemu" in raised.value.remedy
    with pytest.raises(UserError, match="no QEMU machine"):
        run(make(), "qemu", [sample()], target="host")


def test_metadata_of_another_model_is_reported(make: Make) -> None:
    artifact = make()
    other = dataclasses.replace(artifact.outputs[0], bytes=16, shape=(8,))
    with pytest.raises(EnvironmentProblem, match="not for fake"):
        run_on(dataclasses.replace(artifact, outputs=(other,)), "host", [sample()])


def test_counter_works_with_version_2_of_the_plugin_interface(tmp_path: Path) -> None:
    fake = tmp_path / "fake_qemu"
    command = [host_compiler(), "-rdynamic", "-o", str(fake), str(HERE / "fake_qemu.c"), "-ldl"]
    subprocess.run(command, check=True)
    arguments = ["begin=0x100", "end=0x300", "out=counts.txt", "blocks=on"]
    finished = run_program([str(fake), str(plugin_module.plugin_path()), *arguments], cwd=tmp_path)
    assert finished.status == 0, finished.output
    counts = plugin_module.read_counts(tmp_path / "counts.txt")
    assert counts is not None
    assert (counts.first, counts.total, counts.runs, counts.each) == (15, 33, 2, (15, 18))
    assert [(block.address, block.entered) for block in counts.blocks] == [(0x200, 5)]
    assert [(block.phase, block.left) for block in counts.blocks] == [(0, 5)]
    phases = ["phase=0x500", "phase=0x200"]
    run_program([str(fake), str(plugin_module.plugin_path()), *arguments, *phases], cwd=tmp_path)
    counts = plugin_module.read_counts(tmp_path / "counts.txt")
    assert counts is not None
    assert [(block.phase, block.entered, block.left) for block in counts.blocks] == [(2, 5, 5)]

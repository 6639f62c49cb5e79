"""`tvmtiny bench` without an emulator: the catalogue, names, reports, comparisons and what is refused."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from tvmtiny.bench import session
from tvmtiny.bench.catalog import (
    Benchmark,
    EncoderBenchmark,
    FeatureBenchmark,
    KernelBenchmark,
    load_catalog,
    select,
)
from tvmtiny.bench.compare import compare
from tvmtiny.bench.models import build, calibration
from tvmtiny.bench.results import Report, Row, load, row
from tvmtiny.cli import app
from tvmtiny.errors import UserError
from tvmtiny.features.spec import parse_spec
from tvmtiny.resources import data_dir
from tvmtiny.target import Target, load_target

COUNTS = {"dense-32x64x64": 120_000, "enc32": 3_400_000}
KEYS = {
    "name",
    "target",
    "instructions",
    "estimated_cycles",
    "latency_ms",
    "macs",
    "arena_bytes",
    "code_bytes",
}
KEYS |= {"table_bytes", "weight_bytes", "stack_bytes", "peers"}


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"NO_COLOR": "1"})


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Figures in the place of an emulator; what was measured, in order."""
    calls: list[tuple[str, str]] = []

    def stand_in(benchmark: Benchmark, target: Target, directory: Path, *, timeout_s: float) -> Row:
        calls.append((benchmark.name, target.name))
        if benchmark.name.startswith("mhsa-coins"):
            raise UserError("It does not fit.", "Take less.")
        count = COUNTS[benchmark.name]
        if isinstance(benchmark, KernelBenchmark):
            sizes: dict[str, int] = {"elements": benchmark.elements, "macs": benchmark.macs}
        else:
            sizes = dict.fromkeys(("code_bytes", "table_bytes", "weight_bytes", "stack_bytes"), 1000)
            sizes |= {"macs": 3_408_384, "arena_bytes": 8192}
        return row(benchmark, target, instructions=count, estimated_cycles=2 * count, **sizes)

    monkeypatch.setattr(session, "measure", stand_in)
    monkeypatch.setattr(session, "c_compiler", lambda: "gcc 12.2.1")
    return calls


def report(*arguments: object) -> dict[str, Any]:
    result = invoke("bench", *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def names(*chosen: str) -> list[str]:
    return [item.name for item in select(load_catalog(), chosen)]


def test_names_groups_families_and_patterns_choose() -> None:
    assert names("enc32") == ["enc32"]
    assert names("bert-tiny") == ["bert-tiny-32", "bert-tiny-128", "bert-tiny-512", "bert-tiny-128-ids"]
    assert names("dense-32*", "enc32")[:2] == ["dense-32x64x64", "dense-32x256x64"]
    assert {*names("kernels"), *names("encoders"), *names("features")} == set(names())
    assert len(names()) == len(set(names()))


def test_every_kernel_benchmark_has_a_case_in_c() -> None:
    source = (data_dir("benchmarks") / "kernels.c").read_text("utf-8")
    for item in load_catalog():
        for step in item.steps if isinstance(item, KernelBenchmark) else ():
            assert f"CASE({step.kernel}," in source
            assert f'#include "tvmt_{step.kernel}.h"' in source


def test_baselines_have_their_peers() -> None:
    """Spot checks of the recorded figures, one of each kind."""
    peers = {(item.name, peer.figure): peer.by_cpu for item in load_catalog() for peer in item.peers}
    assert peers["dense-32x64x256", "instructions"] == {"cortex-m4": 879_985, "cortex-m7": 863_149}
    assert peers["values-4x128x16x128", "instructions"] == {"cortex-m4": 2_423_518, "cortex-m7": 2_426_020}
    assert peers["layer-norm-32x64", "instructions_per_element"]["cortex-m4"] == 571
    assert peers["enc32", "arena_bytes"]["cortex-m7"] == 34_400
    assert peers["mhsa-coins", "cycles"] == {"cortex-m4": 59_350_000, "cortex-m7": 17_170_000}


def test_macs_of_a_chain_are_those_of_the_model() -> None:
    """stories260K by its configuration: five layers of attention over 256 positions and SwiGLU, and 512 logits."""
    (item,) = select(load_catalog(), ["stories260k"])
    assert isinstance(item, KernelBenchmark)
    E, F, KV, T = 64, 172, 32, 256
    layer = E * E + 2 * E * KV + E * E + 3 * E * F + 2 * E * T
    assert item.macs == 5 * layer + 512 * E


@pytest.mark.parametrize("name", ["enc32", "bert-tiny-128-ids", "mhsa-coins"])
def test_models_have_the_stated_shapes(name: str) -> None:
    item = select(load_catalog(), [name])[0]
    assert isinstance(item, EncoderBenchmark)
    model = onnx.shape_inference.infer_shapes(build(item), strict_mode=True)
    (x,) = model.graph.input
    assert [d.dim_value for d in x.type.tensor_type.shape.dim][1] == item.tokens
    samples = calibration(item)["x"]
    assert samples.shape[1:] == ((item.tokens,) if item.vocabulary else (item.tokens, item.embedding))
    assert np.array_equal(samples, calibration(item)["x"])


def test_the_layer_of_the_peer_is_measured_with_its_operations_too() -> None:
    folded, plain = select(load_catalog(), ["mhsa-coins"])
    assert isinstance(folded, EncoderBenchmark)
    assert isinstance(plain, EncoderBenchmark)
    assert (folded.fold_qk, plain.fold_qk) == ("auto", "never")
    same = {"name": plain.name, "description": plain.description, "fold_qk": plain.fold_qk}
    assert dataclasses.replace(folded, **same) == plain
    assert (
        build(folded).SerializeToString()
        == build(dataclasses.replace(plain, name=folded.name)).SerializeToString()
    )


def test_list_has_a_line_for_each() -> None:
    result = invoke("bench", "--list")
    assert result.exit_code == 0
    assert all(name in result.stdout for name in names())
    rows = json.loads(invoke("bench", "gemv", "--list", "--json").stdout)["rows"]
    assert {entry["group"] for entry in rows} == {"kernels"}
    assert all(entry["description"] for entry in rows)


def test_json_keeps_the_contract(measured: list[tuple[str, str]]) -> None:
    found = report("enc32", "dense-32x64x64")
    assert measured == [
        (name, target) for target in ("qemu-m4", "qemu-m7") for name in ("dense-32x64x64", "enc32")
    ]
    assert found["compiler"] == "gcc 12.2.1"
    assert all(entry.keys() >= KEYS for entry in found["rows"])
    dense, encoder = found["rows"][:2]
    assert dense["instructions_per_mac"] == pytest.approx(120_000 / 131_072)
    assert dense["peers"][0]["ratio"] == pytest.approx(284_017 / 120_000)
    assert [peer["figure"] for peer in encoder["peers"]] == ["instructions", "arena_bytes"]
    assert encoder["flash_bytes"] == 3000


def test_latency_follows_the_clock_of_a_board(measured: list[tuple[str, str]]) -> None:
    (entry,) = report("enc32", "--target", "stm32f746")["rows"]
    assert entry["latency_ms"] == pytest.approx(2 * COUNTS["enc32"] / 216e3)


def test_tables_fit_a_hundred_columns(measured: list[tuple[str, str]]) -> None:
    result = invoke("bench", "enc32", "dense-32x64x64", "--target", "stm32f746")
    assert result.exit_code == 0
    rows = [line.rstrip() for line in result.stdout.splitlines() if "enc32" in line or "dense" in line]
    assert len(rows) == 5
    assert all(len(line) <= 100 for line in rows)


def test_what_does_not_fit_is_skipped_with_the_reason(measured: list[tuple[str, str]]) -> None:
    result = invoke("bench", "mhsa-coins", "enc32", "--target", "qemu-m4")
    assert result.exit_code == 0
    assert "Skipped mhsa-coins on qemu-m4: It does not fit." in result.stderr
    assert report("mhsa-coins", "enc32")["skipped"][0]["name"] == "mhsa-coins"
    alone = invoke("bench", "mhsa-coins")
    assert alone.exit_code == 2
    assert "Take less." in alone.stderr


def test_figures_are_saved_and_read_again(measured: list[tuple[str, str]], tmp_path: Path) -> None:
    path = tmp_path / "new" / "figures.json"
    found = report("enc32", "--save", path)
    assert json.loads(path.read_text()) == found
    again = load(path)
    assert [entry.instructions for entry in again.rows] == [COUNTS["enc32"]] * 2
    assert again.rows[0].flash_bytes == 3000


def test_comparison_shows_changes_new_and_vanished(
    measured: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "before.json"
    report("enc32", "--save", path, "--target", "qemu-m4")
    old = json.loads(path.read_text())
    gone = {**old["rows"][0], "name": "enc33"}
    path.write_text(json.dumps({**old, "rows": [*old["rows"], gone], "compiler": "gcc 11.0.0"}))
    monkeypatch.setitem(COUNTS, "enc32", 3_740_000)
    result = invoke("bench", "enc*", "dense-32x64x64", "--target", "qemu-m4", "--compare", path)
    assert result.exit_code == 0
    assert "+340,000" in result.stdout
    assert "+10.00 %" in result.stdout
    assert "New: dense-32x64x64 on qemu-m4" in result.stdout
    assert "No longer measured: enc33 on qemu-m4" in result.stdout
    assert "gcc 11.0.0" in result.stderr
    comparison = report("enc32", "--target", "qemu-m4", "--compare", path)["comparison"]
    assert [entry["figure"] for entry in comparison["rows"]] == ["estimated_cycles", "instructions"]
    assert comparison["rows"][1]["percent"] == pytest.approx(10)
    assert comparison["vanished"] == []
    assert comparison["figures"] == 5


def test_limit_of_a_comparison(
    measured: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "before.json"
    report("enc32", "--save", path)
    monkeypatch.setitem(COUNTS, "enc32", 3_434_000)
    assert invoke("bench", "enc32", "--compare", path, "--fail-above", "1").exit_code == 0
    failed = invoke("bench", "enc32", "--compare", path, "--fail-above", "0.9")
    assert failed.exit_code == 1
    assert "enc32 on qemu-m4: instructions 3,400,000 -> 3,434,000 (+1.00 %)" in failed.stderr
    monkeypatch.setitem(COUNTS, "enc32", 3_000_000)
    assert invoke("bench", "enc32", "--compare", path, "--fail-above", "0").exit_code == 0


def test_changes_are_sorted_by_size() -> None:
    def rows(*counts: int) -> Report:
        target = load_target("qemu-m4")
        items = select(load_catalog(), ["gemv"])
        entries = zip(items, counts, strict=False)
        return Report(
            tuple(row(item, target, instructions=n, estimated_cycles=1, macs=1) for item, n in entries),
            (),
            "gcc",
        )

    found = compare(rows(100, 100, 100), rows(101, 100, 90), [])
    assert [change.difference for change in found.changes] == [-10, 1]
    assert found.figures == 6


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "not JSON"),
        ("[]", "no figures"),
        ('{"format": 0}', "has format 0"),
        ('{"format": 1, "compiler": "", "version": "", "rows": [{"name": "x"}]}', "lacks a field"),
        ('{"format": 1}', "lacks a field"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "figures.json"
    path.write_text(content)
    result = invoke("bench", "enc32", "--compare", path)
    assert result.exit_code == 2
    assert reason in result.stderr.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["enc23"], "Did you mean 'enc32'"),
        (["gemm-*"], "Unknown benchmark 'gemm-*'"),
        (["enc32", "--target", "qemu-m5"], "Unknown target"),
        (["enc32", "--target", "host"], "Nothing can be counted exactly"),
        (["enc32", "--fail-above", "3"], "--compare FILE"),
        (["enc32", "--compare", "absent.json"], "absent.json"),
    ],
)
def test_wrong_input_is_exit_status_2(arguments: list[str], reason: str) -> None:
    result = invoke("bench", *arguments)
    assert result.exit_code == 2
    assert reason in result.stderr


def test_help_needs_neither_tvm_nor_numpy() -> None:
    script = "import sys; from tvmtiny.cli import app; app(['bench', '--list'], standalone_mode=False); "
    script += "assert not {'tvm', 'numpy', 'onnx'} & set(sys.modules)"
    finished = subprocess.run([sys.executable, "-c", script], text=True, capture_output=True, check=False)
    assert finished.returncode == 0, finished.stderr


def test_front_ends_of_the_catalogue_are_possible() -> None:
    items = select(load_catalog(), ["features"])
    assert {item.group for item in items} == {"features"}
    for item in items:
        assert isinstance(item, FeatureBenchmark)
        assert parse_spec(item.features).columns > 0

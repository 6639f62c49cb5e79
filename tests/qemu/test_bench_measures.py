"""`tvmtiny bench` on emulated cores: exact counts, the same every time, of a kernel and of an encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tvmtiny.bench import kernels
from tvmtiny.bench.catalog import KernelBenchmark, Step, load_catalog
from tvmtiny.cli import app
from tvmtiny.runner import Sample, run
from tvmtiny.target import load_target

pytestmark = pytest.mark.qemu


def report(*arguments: object) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["bench", *map(str, arguments), "--json"], env={"NO_COLOR": "1"})
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def instructions(target: str, directory: Path, *steps: Step) -> int:
    benchmark = KernelBenchmark("x", "", steps=steps)
    return kernels.measure(benchmark, load_target(target), directory, timeout_s=60).instructions


def test_a_kernel_and_an_encoder_on_two_cores(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    rows = report("enc32", "dense-1x64x64", "--save", path)["rows"]
    assert [(row["name"], row["target"]) for row in rows] == [
        (name, target) for target in ("qemu-m4", "qemu-m7") for name in ("dense-1x64x64", "enc32")
    ]
    for row in rows:
        assert 0.5 < row["instructions_per_mac"] < 2
        assert 0.5 < row["estimated_cycles"] / row["instructions"] < 2
        assert all(peer["ratio"] > 1 for peer in row["peers"])
    encoder = rows[1]
    assert encoder["macs"] == 3_408_384
    assert encoder["flash_bytes"] > encoder["weight_bytes"] > 98_304  # the weights of its layers
    again = report("enc32", "dense-1x64x64", "--compare", path, "--fail-above", 0)["comparison"]
    assert again["rows"] == []
    assert again["figures"] == 14


@pytest.mark.parametrize("target", ["qemu-m0-large", "qemu-m3", "qemu-m33", "qemu-m55", "nrf52840"])
def test_every_kernel_runs_on_every_kind_of_core(target: str, tmp_path: Path) -> None:
    cases = {
        step.kernel for item in load_catalog() if isinstance(item, KernelBenchmark) for step in item.steps
    }
    for kernel in cases:
        depth = 8 if kernel.startswith(("dense", "scores", "values")) else 0
        assert instructions(target, tmp_path, Step(kernel, 3, 12, depth)) > 36


def test_front_ends_of_a_second(tmp_path: Path) -> None:
    """Frames twice as often take twice the instructions."""
    rows = {row["name"]: row for row in report("mfcc-16k", "sensor", "--target", "qemu-m4")["rows"]}
    often, seldom = rows["mfcc-16k-25-10"], rows["mfcc-16k-30-20"]
    assert 1.8 < often["instructions"] / seldom["instructions"] < 2.1
    assert often["elements"] == 100 * 10
    assert rows["sensor-6x100"]["instructions"] < 50_000


def test_calls_are_counted_apart_from_the_program_around_them(tmp_path: Path) -> None:
    once, twice = (Step("dense_s8", 4, 8, 16, calls) for calls in (1, 2))
    count = instructions("qemu-m4", tmp_path, once)
    assert instructions("qemu-m4", tmp_path, twice) == 2 * count
    assert instructions("qemu-m4", tmp_path, once, twice) == 3 * count
    # The whole runs differ by the same and a turn of the benchmark's loop.
    totals = []
    for calls in (1, 2):
        work, arena_bytes = kernels._layout(Step("dense_s8_pairs", 4, 8, 16, calls))
        artifact = kernels._program(tmp_path, load_target("qemu-m4"), "dsp", arena_bytes)
        totals.append(run(artifact, "qemu", [Sample({"work": work}, 1)]).instructions or 0)
    assert count < totals[1] - totals[0] < count + 12


def test_a_shape_that_does_not_fit_is_refused() -> None:
    result = CliRunner().invoke(app, ["bench", "softmax-128x128", "--target", "qemu-m0"])
    assert result.exit_code == 2
    assert "16384" in result.stderr

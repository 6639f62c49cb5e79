"""`tvmtiny ablate` for real: trained, compiled, measured on the emulated core; beside the single commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")

from tvmtiny.cli import app  # noqa: E402  torch may be missing

pytestmark = pytest.mark.qemu

RECIPE = f"""
[task]
file = "{(Path(__file__).parents[1] / "recipe_task.py").as_posix()}"
width = 8
hidden = 8
layers = 1
heads = 2
[train]
epochs = 2
learning_rate = 5e-3
[compile]
target = "stm32l4r5"
[[ablation.variant]]
name = "impossible"
task.width = 9
"""


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"NO_COLOR": "1"})


def test_figures_are_those_of_the_single_commands(tmp_path: Path) -> None:
    recipe, out = tmp_path / "recipe.toml", tmp_path / "out"
    recipe.write_text(RECIPE)
    result = invoke("ablate", recipe, "-o", out, "--jobs", 1, "--limit", 8, "--json")
    assert result.exit_code == 0, result.output
    rows = {row["variant"]: row for row in json.loads(result.stdout)["rows"]}
    whole = rows["recipe"]["figures"]
    assert "is invalid for input of size" in rows["impossible"]["failure"]

    single = tmp_path / "single"
    assert invoke("compress", recipe, "-o", single).exit_code == 0
    assert invoke("compile", single, "-o", tmp_path / "model").exit_code == 0
    found = invoke("evaluate", tmp_path / "model", "--data", single / "test.npz", "--limit", 8, "--json")
    (row,) = json.loads(found.stdout)["rows"]
    assert row["metrics"]["accuracy"] == whole["accuracy"]["mean"]
    assert (
        json.loads((single / "figures.json").read_text())["test"]["accuracy"]
        == whole["float accuracy"]["mean"]
    )
    for name in ("flash_bytes", "ram_bytes", "weight_bytes"):
        assert row[name] == whole[name]["mean"]
    assert row["instructions"]["p95"] == whole["instructions_p95"]["mean"]
    assert row["latency_ms"]["p50"] == pytest.approx(whole["latency_p50_ms"]["mean"])

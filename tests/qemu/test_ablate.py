"""`tvmtiny ablate` for real: trained, compiled, measured on the emulated core; beside `tvmtiny evaluate`."""

from __future__ import annotations

import contextlib
import json
import types
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")

from tvmtiny.ablate import run  # noqa: E402  torch may be missing
from tvmtiny.cli import app  # noqa: E402
from tvmtiny.compress import runner  # noqa: E402
from tvmtiny.compress.checks import check_task  # noqa: E402
from tvmtiny.report.inspection import Fit, Inspection  # noqa: E402
from tvmtiny.target import load_target  # noqa: E402

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


@pytest.fixture
def without_estimates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes before compiling are not what this test looks at, and take seconds; what is impossible is still found."""
    sizes = Inspection(), Fit(load_target("stm32l4r5"), 1, 1, None, None, None, {})
    monkeypatch.setattr(runner, "estimate", lambda *_: sizes)
    monkeypatch.setattr(
        runner, "_rehearse", lambda _recipe, task, seed: check_task(task, runner._untrained(task, seed))
    )


@pytest.mark.usefixtures("without_estimates")
def test_figures_are_those_of_evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, out, kept = tmp_path / "recipe.toml", tmp_path / "out", tmp_path / "kept"
    recipe.write_text(RECIPE)
    place = types.SimpleNamespace(TemporaryDirectory=lambda **_: contextlib.nullcontext(kept))
    monkeypatch.setattr(run, "tempfile", place)  # what a run leaves, to be looked at
    result = invoke("ablate", recipe, "-o", out, "--jobs", 1, "--limit", 8, "--json")
    assert result.exit_code == 0, result.output
    rows = {row["variant"]: row for row in json.loads(result.stdout)["rows"]}
    whole = rows["recipe"]["figures"]
    assert "is invalid for input of size" in rows["impossible"]["failure"]
    trained = json.loads((kept / "result" / "figures.json").read_text())
    assert trained["test"]["accuracy"] == whole["float accuracy"]["mean"]

    data = kept / "result" / "test.npz"
    found = invoke("evaluate", kept / "model", "--data", data, "--limit", 8, "--no-reference", "--json")
    (row,) = json.loads(found.stdout)["rows"]
    assert row["metrics"]["accuracy"] == whole["accuracy"]["mean"]
    for name in ("flash_bytes", "ram_bytes", "weight_bytes"):
        assert row[name] == whole[name]["mean"]
    assert row["instructions"]["p95"] == whole["instructions_p95"]["mean"]
    assert row["latency_ms"]["p50"] == pytest.approx(whole["latency_p50_ms"]["mean"])

"""`tvmtiny profile` on compiled models: counts add up exactly, nothing is lost, and errors say what to do."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_cases import shared
from typer.testing import CliRunner

from tvmtiny.artifact import Artifact
from tvmtiny.cli import app
from tvmtiny.errors import UserError
from tvmtiny.report.arena import Buffer, live_bytes
from tvmtiny.report.page import page
from tvmtiny.report.profile import RUN_FUNCTION, Profile, base_name, profile
from tvmtiny.runner import Sample, run

MODELS = {"post_norm": "qemu-m4", "sensor_encoder": "qemu-m7", "odd_sizes": "qemu-m3"}
pytestmark = pytest.mark.qemu


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"NO_COLOR": "1"})


def most_tokens(artifact: Artifact) -> Sample:
    from tvmtiny.frontend.data import load_samples

    samples = load_samples(artifact, artifact.directory / "reference" / "inputs.npz")
    return max(samples, key=lambda sample: sample.n_tokens)


@pytest.fixture(params=MODELS)
def artifact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return shared(tmp_path_factory, request.param, MODELS[request.param])


@pytest.fixture
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return shared(tmp_path_factory, "post_norm", "qemu-m4")


@pytest.fixture
def found(encoder: Artifact) -> Profile:
    return profile(encoder, most_tokens(encoder))


def test_operators_and_functions_add_up_to_the_counted_instructions(artifact: Artifact) -> None:
    sample = most_tokens(artifact)
    counted = run(artifact, "qemu", [sample]).instructions
    result = profile(artifact, sample)
    assert result.instructions == counted
    assert sum(row.instructions for row in result.operators) == counted
    assert sum(row.instructions for row in result.functions) == counted
    assert sum(row.estimated_cycles for row in result.functions) == result.estimated_cycles
    names = [row["name"] for row in artifact.metadata["operators"]]
    assert [row.name for row in result.operators] == [RUN_FUNCTION, *names]
    assert all(row.instructions > 0 and row.estimated_cycles > 0 for row in result.operators)
    assert result.operators[0].instructions < 1000
    assert sum(row.weight_bytes for row in result.operators) == result.sizes.weight_bytes


def test_profile_is_the_same_every_time(encoder: Artifact, found: Profile) -> None:
    again = profile(encoder, most_tokens(encoder))
    assert (again.operators, again.functions) == (found.operators, found.functions)


def test_macs_and_instructions_follow_the_number_of_tokens(encoder: Artifact, found: Profile) -> None:
    whole = most_tokens(encoder)
    half = profile(encoder, Sample(whole.inputs, encoder.max_tokens // 2))
    full = profile(encoder, Sample(whole.inputs, encoder.max_tokens))
    assert full.macs == encoder.metadata["figures"]["macs"]
    assert half.macs is not None
    assert full.macs is not None
    assert half.macs < full.macs / 2 + 100
    # Tokens are taken four at a time: a third of twelve is one of three blocks.
    third = profile(encoder, Sample(whole.inputs, encoder.max_tokens // 3))
    assert encoder.max_tokens == 12
    assert third.instructions < full.instructions * 0.4
    rows = zip(full.operators[1:], half.operators[1:], encoder.metadata["operators"], strict=True)
    for all_tokens, fewer, row in rows:
        a, b, c = row["macs_by_tokens"]
        n = encoder.max_tokens
        assert (a + b * n + c * n * n, a + b * (n // 2) + c * (n // 2) ** 2) == (all_tokens.macs, fewer.macs)


def test_arena_of_an_operator_is_what_lives_while_it_runs(encoder: Artifact, found: Profile) -> None:
    assert max(row.arena_bytes for row in found.operators) <= encoder.arena_bytes
    assert [row.first_step for row in found.operators[2:]] == [
        row.last_step + 1 for row in found.operators[1:-1]
    ]
    plan = [
        Buffer("a", "tensor", 0, 16, 0, 1),
        Buffer("b", "tensor", 0, 16, 1, 2),
        Buffer("c", "scratch", 16, 8, 1, 1),
    ]
    assert [live_bytes(plan, step, step) for step in (0, 1, 2, 3)] == [16, 24, 16, 0]
    assert live_bytes(plan, 0, 2) == 24


def test_calls_of_a_function_are_counted(found: Profile) -> None:
    calls = {row.name: row.calls for row in found.functions}
    operators = {row.function for row in found.operators}
    assert {calls[name] for name in operators} == {1}
    assert any(name.startswith("tvmt_") and count > 1 for name, count in calls.items())


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("tvmt_dense_s8.constprop.0", "tvmt_dense_s8"),
        ("f.isra.0.part.2", "f"),
        ("__f.constprop.0_veneer", "__f_veneer"),
        ("f", "f"),
    ],
)
def test_copies_of_a_function_have_its_name(symbol: str, name: str) -> None:
    assert base_name(symbol) == name


@pytest.mark.parametrize("target", ["qemu-m0-large", "qemu-m33", "qemu-m55", "stm32f746"])
def test_every_kind_of_core_can_be_profiled(target: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    artifact = shared(tmp_path_factory, "post_norm", target)
    result = profile(artifact, most_tokens(artifact))
    assert sum(row.instructions for row in result.operators) == result.instructions
    assert 0.4 < result.estimated_cycles / result.instructions < 3


def test_json_keeps_the_contract(encoder: Artifact, found: Profile) -> None:
    result = invoke("profile", encoder.directory, "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["instructions"] == found.instructions
    assert report["n_tokens"] == most_tokens(encoder).n_tokens
    keys = {"instructions", "estimated_cycles", "latency_ms", "macs", "arena_bytes", "weight_bytes"}
    assert (
        keys | {"name", "target", "rows", "functions", "code_bytes", "table_bytes", "stack_bytes"}
        <= report.keys()
    )
    for row in report["rows"]:
        assert (
            keys | {"name", "kernel", "share", "instructions_per_mac", "estimated_cycles_per_mac"}
            <= row.keys()
        )
    assert sum(row["share"] for row in report["rows"]) == pytest.approx(1)
    assert report["latency_ms"] is None  # an emulated machine has no clock
    assert any("DDI 0439" in text for text in report["assumptions"])


def test_latency_is_cycles_at_the_boards_clock(tmp_path_factory: pytest.TempPathFactory) -> None:
    artifact = shared(tmp_path_factory, "post_norm", "stm32f746")
    report = json.loads(invoke("profile", artifact.directory, "--json").stdout)
    assert report["latency_ms"] == pytest.approx(report["estimated_cycles"] / 216e3)
    assert any("flash 7" in text for text in report["assumptions"])


def test_tables_and_page_name_every_operator(encoder: Artifact, found: Profile, tmp_path: Path) -> None:
    target = tmp_path / "new" / "profile.html"
    result = invoke("profile", encoder.directory, "--html", target, "--explain")
    assert result.exit_code == 0, result.stderr
    html = target.read_text(encoding="utf-8")
    for row in found.operators:
        assert row.name[:12] in result.stdout
        assert f">{row.name}</" in html
        assert f"{row.instructions:,}" in html
    assert all(f">{row.name}<" in html for row in found.functions)
    assert "estimate" in result.stdout
    assert "UDIV" in result.stdout
    assert not re.search(r"https?://|src=|@import|<script|<link", html)


def test_page_escapes_names(found: Profile) -> None:
    import dataclasses

    strange = dataclasses.replace(found.operators[1], name="<b>&")
    html = page(dataclasses.replace(found, operators=(found.operators[0], strange, *found.operators[2:])))
    assert "&lt;b&gt;&amp;" in html
    assert "<b>&" not in html


def test_own_input_is_profiled(encoder: Artifact, tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    with np.load(encoder.directory / "reference" / "inputs.npz") as data:
        np.savez(
            path, **{key: value[:1] if key != "n_tokens" else np.array([3]) for key, value in data.items()}
        )
    report = json.loads(invoke("profile", encoder.directory, "--input", path, "--json").stdout)
    assert report["n_tokens"] == 3


def test_model_for_the_host_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    artifact = shared(tmp_path_factory, "post_norm", "host")
    result = invoke("profile", artifact.directory)
    assert result.exit_code == 2
    assert "compiled for the target 'host'" in result.stderr
    assert "--target qemu-m4" in result.stderr


def test_model_of_an_older_version_is_refused(encoder: Artifact, tmp_path: Path) -> None:
    copy = tmp_path / "old"
    shutil.copytree(encoder.directory, copy, ignore=shutil.ignore_patterns("build"))
    platform = copy / "include" / "tvmt_platform.h"
    platform.write_text(platform.read_text().replace("__attribute__((noipa))", "inline"))
    with pytest.raises(UserError, match="inlined"):
        profile(Artifact.load(copy), most_tokens(encoder))
    metadata = json.loads((copy / "metadata.json").read_text())
    for row in metadata["operators"]:
        del row["steps"]
    (copy / "metadata.json").write_text(json.dumps(metadata))
    result = invoke("profile", copy)
    assert result.exit_code == 2
    assert "Compile the model again" in result.stderr

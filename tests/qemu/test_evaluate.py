"""`tvmtiny evaluate`: figures beside ONNX Runtime, single runs and the linker; baselines that fail when they should."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from link_models import emulated_board
from model_cases import CASES, compiled
from tokenizer_cases import EXAMPLE
from typer.testing import CliRunner

from tvmtiny.artifact import Artifact
from tvmtiny.cli import app
from tvmtiny.cli import evaluate as command
from tvmtiny.compiler import compile as compile_model
from tvmtiny.evaluate import floating
from tvmtiny.frontend.data import load_samples
from tvmtiny.report.latency import percentile
from tvmtiny.report.profile import profile
from tvmtiny.runner import build, run
from tvmtiny.target import load_target

pytestmark = pytest.mark.qemu

CASE = CASES["intent_and_tags"]
TAGS = ["O", "B-a", "I-a", "B-b", "I-b", "B-c", "I-c"]
TEXTS = (
    "intent\ttext\nPlayMusic\tplay some jazz\nGetWeather\twill it rain tomorrow in the north of the city\n"
)


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(
        app, ["evaluate", *map(str, arguments)], env={"NO_COLOR": "1", "COLUMNS": "140"}
    )


def report(*arguments: object) -> dict[str, Any]:
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("evaluate")
    _, tags = (value.name for value in CASE.model().graph.output)
    return compiled(CASE, folder / "joint", labels={tags: TAGS})


@pytest.fixture(scope="module")
def data(joint: Artifact) -> Path:
    """Six samples; the true classes are the float model's, with every third intent wrong."""
    arrays = CASE.calibration(count=6, seed=5)
    lengths = arrays.pop("n_tokens")
    mask = (np.arange(CASE.tokens) < lengths[:, None]).astype(np.int64)
    session = onnxruntime.InferenceSession(CASE.model().SerializeToString())
    rows = [session.run(None, {"ids": arrays["ids"][i : i + 1], "mask": mask[i : i + 1]}) for i in range(6)]
    intents, tags = (np.concatenate(part).argmax(-1) for part in zip(*rows, strict=True))
    intents[::3] = (intents[::3] + 1) % 5
    path = joint.directory.parent / "test.npz"
    np.savez(path, **arrays, n_tokens=lengths, labels=intents, **{joint.outputs[1].name: tags})
    return path


@pytest.fixture(scope="module")
def found(joint: Artifact, data: Path) -> dict[str, Any]:
    return report(joint.directory, "--data", data, "--float", joint.directory.with_suffix(".onnx"))


def test_the_float_model_is_right_where_its_own_classes_are_asked_for(found: dict[str, Any]) -> None:
    metrics = found["float"]["metrics"]
    assert found["float"]["engine"] == "ONNX Runtime"
    assert list(metrics.values()) == pytest.approx([4 / 6, 1.0, 1.0])
    assert [name.rpartition(".")[2] for name in metrics] == ["accuracy", "token_accuracy", "span_f1"]


def test_metrics_are_those_of_the_outputs_of_a_run(
    found: dict[str, Any], joint: Artifact, data: Path
) -> None:
    samples = load_samples_of(joint, data)
    outputs = run(joint, "host", samples, target="host").outputs
    intents = np.array([row[joint.outputs[0].name].argmax() for row in outputs])
    with np.load(data) as arrays:
        share = np.mean(intents == arrays["labels"])
    assert next(iter(found["rows"][0]["metrics"].values())) == share
    assert found["rows"][0]["bit_exact"] == 1
    assert min(found["rows"][0]["snr_db"].values()) > 20


def test_without_onnx_runtime_the_imported_model_is_the_float_one(
    found: dict[str, Any], joint: Artifact, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(floating.importlib.util, "find_spec", lambda _name: None)
    model = joint.directory.with_suffix(".onnx")
    other = report(joint.directory, "--data", data, "--float", model, "--on", "host", "--no-reference")
    assert other["float"]["engine"] == "TVM"
    assert other["float"]["metrics"] == found["float"]["metrics"]
    assert other["rows"][0]["snr_db"] == pytest.approx(found["rows"][0]["snr_db"], rel=1e-3)
    assert other["rows"][0]["flash_bytes"] is None


def load_samples_of(artifact: Artifact, data: Path) -> Any:
    with np.load(data) as arrays:
        path = data.with_name("inputs.npz")
        np.savez(path, ids=arrays["ids"], n_tokens=arrays["n_tokens"])
    return load_samples(artifact, path)


def test_percentiles_are_those_of_samples_that_run_alone(
    found: dict[str, Any], joint: Artifact, data: Path
) -> None:
    samples = load_samples_of(joint, data)
    alone = [run(joint, "qemu", [sample]).instructions or 0 for sample in samples]
    instructions, cycles = (found["rows"][0][key] for key in ("instructions", "cycles"))
    assert instructions["p50"] == percentile(alone, 50)
    assert instructions["p95"] == percentile(alone, 95)
    assert instructions["mean"] == pytest.approx(np.mean(alone))
    longest = samples[alone.index(percentile(alone, 95))]
    assert cycles["p95"] == profile(joint, longest).estimated_cycles
    assert cycles["p50"] < cycles["p95"]


def test_several_targets_stand_side_by_side(joint: Artifact, data: Path) -> None:
    nordic, st = report(
        joint.directory, "--data", data, "--target", "nrf52840", "--target", "nucleo-f401re", "--limit", 4,
        "--metric", f"{__file__}:largest", "--no-reference",
    )["rows"]  # fmt: skip
    assert (nordic["target"], st["target"]) == ("nrf52840", "nucleo-f401re")
    assert nordic["metrics"] == st["metrics"]
    assert list(st["metrics"]) == ["largest"]
    # Only one of the two boards states a current.
    assert nordic["latency_ms"]["p50"] == pytest.approx(nordic["cycles"]["p50"] / 64_000)
    assert nordic["energy_uj"]["p50"] == pytest.approx(nordic["latency_ms"]["p50"] * 3.3 * 3.0)
    assert nordic["energy_source"].startswith("3.3 mA at 3 V while running at 64 MHz (nRF52840 Product")
    assert (st["energy_uj"], st["energy_source"]) == (None, None)


def largest(outputs: dict[str, np.ndarray], targets: dict[str, np.ndarray]) -> float:
    """A metric of the user."""
    assert len(targets["n_tokens"]) == 4
    return float(np.mean([values.max() for values in outputs.values()]))


def test_a_board_on_a_serial_port_gives_the_same(found: dict[str, Any], joint: Artifact, data: Path) -> None:
    project = build(joint, load_target("qemu-m4"))
    with emulated_board(project.serial_elf, load_target("qemu-m4").qemu_machine) as port:
        usual = (joint.directory, "--data", data, "--limit", 4, "--no-reference")
        (row,) = report(*usual, "--on", f"serial:{port}")["rows"]
    assert row["metrics"] == report(*usual, "--on", "host")["rows"][0]["metrics"]
    assert row["flash_bytes"] == found["rows"][0]["flash_bytes"]
    # An emulated board counts nothing that means anything; the stack is measured.
    assert (row["instructions"], row["cycles"], row["cycles_measured"]) == (None, None, False)
    assert row["ram_bytes"] > row["arena_bytes"]


def test_texts_are_evaluated_with_the_tokenizer_on_the_device(tmp_path: Path) -> None:
    with np.load(EXAMPLE / "calibration.npz") as arrays:
        calibration = {name: values[::8] for name, values in arrays.items()}
    model = compile_model(
        EXAMPLE / "model.onnx",
        target="stm32f746",
        calibration=calibration,
        labels=EXAMPLE / "labels.txt",
        tokenizer=EXAMPLE / "tokenizer.json",
        output=tmp_path / "intent",
    )
    table = tmp_path / "texts.tsv"
    table.write_text(TEXTS)
    found = report(model.directory, "--data", table, "--float", EXAMPLE / "model.onnx")
    (row,) = found["rows"]
    assert row["metrics"] == {"accuracy": 1.0}
    assert found["float"]["metrics"] == {"accuracy": 1.0}
    assert row["snr_db"]["logits"] > 30
    assert row["ram_bytes"] == model.arena_bytes + row["stack_bytes"]
    parts = ("weight_bytes", "code_bytes", "table_bytes", "tokenizer_bytes", "front_end_bytes")
    assert row["flash_bytes"] == sum(row[part] for part in parts)
    about = model.metadata["tokenizer"]
    tables = about["character_table_bytes"] + about["vocabulary_table_bytes"]
    assert tables < row["tokenizer_bytes"] < tables + 4096
    # Given ids in place of texts, the same flash is counted, without the instructions of the tokenizer.
    ids = report(model.directory, "--data", EXAMPLE / "sample.npz", "--limit", 2, "--no-reference")["rows"][0]
    assert ids["flash_bytes"] == row["flash_bytes"]

    table.write_text(TEXTS.replace("GetWeather", "GetWether"))
    result = invoke(model.directory, "--data", table)
    assert result.exit_code == 2
    assert "'GetWether' under 'labels'" in result.stderr
    assert "Did you mean 'GetWeather'?" in result.stderr


@pytest.fixture
def measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every further call of the command gets the figures of the first, which would be the same."""
    found: list[Any] = []
    measure = command._evaluate

    def once(*arguments: Any) -> Any:
        if not found:
            found.append(measure(*arguments))
        return found[0]

    monkeypatch.setattr(command, "_evaluate", once)


@pytest.mark.usefixtures("measured_once")
def test_a_baseline_fails_what_got_worse(joint: Artifact, data: Path, tmp_path: Path) -> None:
    baseline = tmp_path / "ci" / "baseline.json"
    usual = (joint.directory, "--data", data, "--no-reference")
    assert invoke(*usual, "--save", baseline).exit_code == 0
    same = invoke(*usual, "--check", baseline)
    assert same.exit_code == 0
    for text in (
        "span_f1",
        "instructions, p50 / p95",
        "flash (bytes)",
        "  weights",
        "Flash is the model's own",
    ):
        assert text in same.stdout
    assert "figures are those of the baseline" in same.stdout

    contents = json.loads(baseline.read_text())
    figures = contents["rows"][0]["figures"]
    name = next(iter(figures))
    figures[name] += 0.01  # an accuracy, beyond the default tolerance
    figures["instructions_p50"] *= 0.995  # within it
    figures["ram_bytes"] -= 8
    figures["flash_bytes"] += 100
    baseline.write_text(json.dumps(contents))
    worse = invoke(*usual, "--check", baseline, "--save", baseline)
    assert worse.exit_code == 1
    assert json.loads(baseline.read_text()) == contents  # what is worse becomes no baseline
    rows = {figure: line for line in worse.stdout.splitlines() for figure in figures if f" {figure} " in line}
    assert {figure for figure, line in rows.items() if "REGRESSED" in line} == {name, "ram_bytes"}
    assert "tolerated" in rows["instructions_p50"]
    assert "better" in rows["flash_bytes"]
    assert "2 figures got worse" in worse.stderr
    changes = json.loads(invoke(*usual, "--check", baseline, "--json").stdout)["changes"]
    assert [change["figure"] for change in changes if change["regressed"]] == [name, "ram_bytes"]

    contents["tolerances"] |= {name: 0.02, "ram_bytes": 1.0}  # of a figure, and of a kind
    baseline.write_text(json.dumps(contents))
    assert invoke(*usual, "--check", baseline).exit_code == 0
    assert invoke(*usual, "--save", baseline).exit_code == 0
    kept = json.loads(baseline.read_text())
    assert kept["tolerances"][name] == 0.02
    assert kept["rows"][0]["figures"]["ram_bytes"] == figures["ram_bytes"] + 8


@pytest.mark.usefixtures("measured_once")
def test_a_baseline_of_something_else_is_refused(joint: Artifact, data: Path, tmp_path: Path) -> None:
    usual = (joint.directory, "--data", data, "--no-reference", "--on", "host")
    baseline = tmp_path / "baseline.json"
    assert invoke(*usual, "--save", baseline).exit_code == 0
    contents = json.loads(baseline.read_text())

    def refused(**changed: object) -> str:
        baseline.write_text(json.dumps({**contents, **changed}))
        result = invoke(*usual, "--check", baseline)
        assert result.exit_code == 2, result.output
        return str(result.stderr)

    assert "other data" in refused(data_sha256="")
    assert "made with 10 samples, these figures with 6" in refused(samples=10)
    assert "has no figures" in refused(rows=[])
    assert "no baseline of format 1" in refused(format=7)
    assert "tolerance 'accurcy'" in refused(tolerances={"accurcy": 0.1})
    assert "tolerance 'metrics' = -1" in refused(tolerances={"metrics": -1})
    assert "lacks a field" in refused(rows=[{}])
    other = {**contents["rows"][0], "target": "nrf52840", "on": "qemu"}
    assert "was not measured now" in refused(rows=[other])
    baseline.write_text("figures")
    assert "is not JSON" in invoke(*usual, "--check", baseline).stderr


def test_a_misspelt_mask_is_no_target(joint: Artifact, data: Path, tmp_path: Path) -> None:
    with np.load(data) as arrays:
        np.savez(tmp_path / "wrong.npz", ids=arrays["ids"], n_token=arrays["n_tokens"])
    result = invoke(joint.directory, "--data", tmp_path / "wrong.npz")
    assert result.exit_code == 2
    assert "has 'n_token'" in result.stderr
    assert "Did you mean 'n_tokens'?" in result.stderr


def test_another_float_model_is_refused(joint: Artifact, data: Path) -> None:
    result = invoke(
        joint.directory, "--data", data, "--on", "host", "--no-reference", "--float", EXAMPLE / "model.onnx"
    )
    assert result.exit_code == 2
    assert "takes 'input_ids', 'attention_mask'" in result.stderr

"""`tvmtiny inspect` beside real compiles: the same sizes without calibration data, and models that do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import clustered_model
import models
import numpy as np
import pytest
from models import VOCABULARY, OnnxBuilder, S, save
from onnx import TensorProto, helper
from typer.testing import CliRunner

import tvmtiny
from tvmtiny.cli import app
from tvmtiny.errors import UserError
from tvmtiny.options import ModelOptions
from tvmtiny.report.estimate import CoreFigures, Work, core_figures
from tvmtiny.report.inspection import inspect
from tvmtiny.target import list_targets, load_target

ROOT = Path(__file__).parents[2]
INTENT = ROOT / "examples" / "intent"
SMALL_BOARD = """
description = "Cortex-M4 with little of anything"
cpu = "cortex-m4"
clock_hz = 1_000_000
runner = "qemu"
emulated_by = "qemu-m4"
project = "baremetal"
stack_bytes = 256

[[memory]]
name = "flash"
kind = "flash"
origin = 0
bytes = 4096
uses = ["code", "weights"]

[[memory]]
name = "sram"
kind = "ram"
origin = 0x20000000
bytes = 768
uses = ["arena", "data"]
"""


def invoke(*arguments: object) -> Any:
    """Run the command line; `width` as in a log."""
    return CliRunner().invoke(app, ["inspect", *map(str, arguments)], env={"NO_COLOR": "1", "COLUMNS": "200"})


def report(*arguments: object) -> dict[str, Any]:
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(models.encoder_model(), tmp_path_factory.mktemp("inspect") / "encoder.onnx")


@pytest.fixture(scope="module")
def sensor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(models.sensor_model(), tmp_path_factory.mktemp("inspect") / "sensor.onnx")


def calibration(model: Path) -> dict[str, np.ndarray]:
    random = np.random.default_rng(5)
    if model.parent == INTENT:
        with np.load(INTENT / "calibration.npz") as arrays:
            return {name: values[:8] for name, values in arrays.items()}
    if model.stem == "sensor":
        return {"window": random.normal(size=(8, 16, 3)).astype(np.float32)}
    return {"ids": random.integers(0, VOCABULARY, (8, S)), "n_tokens": random.integers(1, S + 1, 8)}


@pytest.mark.parametrize("target", ["stm32f746", "qemu-m4"])
@pytest.mark.parametrize("name", ["intent", "encoder", "sensor"])
def test_sizes_are_those_of_a_compile(
    name: str, target: str, encoder: Path, sensor: Path, tmp_path: Path
) -> None:
    model = {"intent": INTENT / "model.onnx", "encoder": encoder, "sensor": sensor}[name]
    real = tvmtiny.compile(
        model, target=target, calibration=calibration(model), range_method="minmax", output=tmp_path / "m"
    )
    found = inspect(model, [load_target(target)])
    (fit,) = found.fits
    assert fit.arena_bytes == real.arena_bytes
    assert fit.weight_bytes == real.metadata["figures"]["weight_bytes"]
    assert sum(row.weight_bytes or 0 for row in found.operators) == fit.weight_bytes
    assert sum(row.macs or 0 for row in found.operators) == real.metadata["figures"]["macs"]
    names = [row["name"] for row in real.metadata["operators"]]
    assert [row.name for row in found.operators if row.kernel] == names
    assert (found.max_tokens, found.has_length) == (real.max_tokens, real.metadata["has_length"])


@pytest.mark.parametrize(
    "options", [{"fold_qk": "always"}, {"residual": "int16"}, {"weights": "int4"}, {"weights": "int16"}]
)
def test_options_are_those_of_a_compile(options: dict[str, Any], tmp_path: Path) -> None:
    model = save(models.encoder_model(18, pre_norm=True), tmp_path / "model.onnx")
    real = tvmtiny.compile(
        model, target="qemu-m4", calibration=calibration(model), range_method="minmax", output=tmp_path / "m", **options
    )  # fmt: skip
    ((name, value),) = options.items()
    found = report(model, "--target", "qemu-m4", f"--{name.replace('_', '-')}", value)
    (fit,) = found["targets"]
    assert (fit["arena_bytes"], fit["weight_bytes"]) == (
        real.arena_bytes,
        real.metadata["figures"]["weight_bytes"],
    )
    assert [row["name"] for row in found["rows"]] == [row["name"] for row in real.metadata["operators"]]


def test_parameters_are_those_of_the_file(tmp_path: Path) -> None:
    model = models.encoder_model(mask="none")
    wanted = sum(
        int(np.prod(t.dims)) for t in model.graph.initializer if t.data_type == TensorProto.FLOAT and t.dims
    )
    found = inspect(save(model, tmp_path / "model.onnx"), [load_target("host")])
    assert sum(row.parameters for row in found.operators) == wanted
    assert found.has_length is False


def test_every_target_gets_a_verdict(encoder: Path) -> None:
    found = report(encoder)
    assert [row["name"] for row in found["targets"]] == [target.name for target in list_targets()]
    assert found["supported"]
    assert all(row["fits"] and row["lacking"] == [] for row in found["targets"])
    rows = {row["name"]: row for row in found["targets"]}
    board = rows["stm32f746"]
    assert board["flash_bytes"] == board["weight_bytes"] + board["code_bytes"]
    assert board["latency_ms"] == pytest.approx(1000 * board["estimated_cycles"] / 216_000_000)
    assert rows["qemu-m4"]["latency_ms"] is None
    assert rows["host"]["estimated_cycles"] is None
    assert rows["rp2040"]["estimated_cycles"] > 3 * rows["stm32f746"]["estimated_cycles"]


def test_a_person_sees_operators_targets_and_what_is_an_estimate() -> None:
    result = invoke(INTENT / "model.onnx", "--target", "stm32f746", "--target", "rp2040")
    assert result.exit_code == 0, result.stderr
    text = result.stdout
    assert all(
        part in text for part in ("node_layer_norm_1", "attention", "1,376,592", "stm32f746", "rp2040")
    )
    assert "~ marks estimates, not measurements" in text
    assert "takes 1 to 32 tokens" in text


def test_what_does_not_fit_says_what_and_what_to_do(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny.toml").write_text(SMALL_BOARD)
    monkeypatch.setenv("TVMTINY_TARGETS", str(tmp_path))
    options = (encoder, "--target", "tiny", "--latency-budget", "0.5")
    (row,) = report(*options)["targets"]
    assert not row["fits"]
    assert [problem["what"] for problem in row["lacking"]] == ["flash", "arena", "latency"]
    assert "--max-tokens" in row["lacking"][1]["remedy"]
    text = invoke(*options).stdout
    assert "exceeds flash, arena, latency" in text
    assert all(problem["message"] in text.replace("\n", " ") for problem in row["lacking"])


def test_a_budget_that_is_met_is_no_fault(encoder: Path) -> None:
    (row,) = report(encoder, "--target", "stm32f746", "--latency-budget", "1000")["targets"]
    assert row["fits"]


def test_a_dynamic_axis_gets_its_size(tmp_path: Path) -> None:
    path = save(models.encoder_model(17, batch="batch", tokens="sequence"), tmp_path / "model.onnx")
    result = invoke(path)
    assert result.exit_code == 2
    assert "--max-tokens" in result.stderr
    assert report(path, "--target", "host", "--max-tokens", S)["max_tokens"] == S
    shapes = ("--shape", f"ids=1x{S}", "--shape", f"mask=1x{S}")
    assert report(path, "--target", "host", *shapes)["max_tokens"] == S


def test_operators_that_the_importer_lacks_are_listed(tmp_path: Path) -> None:
    model = models.dense_model()
    for kind, name in (("Det", "determinant"), ("StringNormalizer", "text"), ("Det", "other")):
        model.graph.node.append(helper.make_node(kind, ["features"], [f"{name}_out"], name=name))
    path = save(model, tmp_path / "model.onnx")
    found = report(path)
    assert [(row["operator"], row["node"]) for row in found["unsupported"]] == [
        ("Det", "determinant"),
        ("StringNormalizer", "text"),
        ("Det", "other"),
    ]
    assert all(row["remedy"] for row in found["unsupported"])
    assert (found["supported"], found["targets"]) == (False, [])
    assert "not supported: StringNormalizer at node 'text'" in invoke(path).stdout


def test_operators_that_do_not_fuse_are_listed_beside_those_that_do(tmp_path: Path) -> None:
    build = OnnxBuilder(18)
    x = build.dense(build.input("x", [1, 4, 6]), 6, 8, "first")
    for name in ("over_tokens", "again"):
        x = build.node("Softmax", [x], name, axis=1)
    path = save(build.model(build.dense(x, 8, 4, "last"), [1, 4, 4]), tmp_path / "model.onnx")
    found = report(path)
    assert [row["operator"] for row in found["unsupported"]] == ["softmax", "softmax"]
    assert [row["node"] for row in found["unsupported"]] == ["over_tokens", "again"]
    assert [(row["name"], row["kernel"], row["parameters"]) for row in found["rows"]] == [
        ("first", "dense", 56),
        ("last_out", "dense", 36),
    ]
    assert all(row["macs"] is None for row in found["rows"])
    assert "not supported: softmax at node 'over_tokens'. Attention is softmax" in invoke(path).stdout


def test_files_that_are_no_model_are_status_2(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    result = invoke(tmp_path / "model.onnx")
    assert result.exit_code == 2
    assert "is not an ONNX model" in result.stderr
    with pytest.raises(UserError, match="There is no file"):
        inspect(tmp_path / "absent.onnx", [load_target("host")])


def test_every_core_of_a_target_has_figures() -> None:
    known = core_figures()
    assert {target.cpu for target in list_targets()} - {"host"} <= set(known)
    assert all(0 <= row.cycles_error < 0.25 and 0 <= row.code_error < 0.25 for row in known.values())


def test_an_estimate_adds_up() -> None:
    figures = CoreFigures(2.0, 10.0, 5.0, 0.1, 1000, 100, 0.1, 3.0, 9.0)
    assert figures.cycles(Work(macs=100, scores=10, elements=4)) == 200 + 100 + 20
    assert figures.code(3) == 1300


@pytest.mark.parametrize(("name", "step"), [("llama", 1), ("stream", 1), ("strided", 2)])
def test_sizes_in_steps_are_those_of_a_compile(name: str, step: int, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    import step_models

    real = step_models.compiled(name, tmp_path, target="qemu-m4", step=step, range_method="minmax")
    found = inspect(step_models.exported(name), [load_target("qemu-m4")], ModelOptions(step=step))
    (fit,) = found.fits
    assert fit.arena_bytes == real.arena_bytes
    # An RMSNorm's offsets are its zero point, 16 times: two that are equal by chance are stored once.
    assert fit.weight_bytes == pytest.approx(real.metadata["figures"]["weight_bytes"], abs=16 * 4)
    assert sum(row.macs or 0 for row in found.operators) == real.metadata["figures"]["macs"]
    assert (found.in_steps, found.max_tokens, found.has_length) == (
        True,
        real.max_tokens,
        real.metadata["has_length"],
    )


def test_a_model_that_cannot_run_in_steps_says_so(encoder: Path) -> None:
    found = report(encoder, "--target", "qemu-m4", "--step", 1)
    assert not found["supported"]
    assert "takes no mask" in found["problems"][0]["message"]


def test_wide_weights_leave_out_targets_that_cannot_use_them(sensor: Path) -> None:
    rows = {row["name"] for row in report(sensor, "--weights", "int16")["targets"]}
    assert {"qemu-m4"} <= rows < {target.name for target in list_targets()}
    refused = invoke(sensor, "--weights", "int16", "--target", "qemu-m0")
    assert refused.exit_code == 2
    assert "of no use" in refused.stderr


def test_compressed_weights_are_those_of_a_compile(tmp_path: Path) -> None:
    artifact = clustered_model.compiled(tmp_path, "qemu-m4", "packed")
    options = ModelOptions(compress_weights="packed")
    plain, packed = (
        inspect(tmp_path / "model.onnx", [load_target("qemu-m4")], chosen) for chosen in (None, options)
    )
    storage = artifact.metadata["storage"]
    saved = plain.fits[0].weight_bytes - packed.fits[0].weight_bytes
    assert saved == pytest.approx(storage["plain_bytes"] - storage["stored_bytes"], rel=0.02)
    assert any(row.kernel == "unpack" for row in packed.operators)
    # Five to six cycles a weight, of which there are 34,560 beside the embeddings.
    more = packed.fits[0].estimated_cycles - plain.fits[0].estimated_cycles
    assert 30_000 * 5 < more < 40_000 * 6

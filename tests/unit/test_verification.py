"""`compile --verify`: both models on the user's data, what they lose where, and what is said about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
from models import CLASSES, VOCABULARY, S
from onnx.reference import ReferenceEvaluator
from typer.testing import CliRunner

from tvmtiny.cli import app
from tvmtiny.compiler import compile as compile_model
from tvmtiny.errors import UserError
from tvmtiny.quant.verification import FAIR_DB, Setup, advice, class_numbers

RANDOM = np.random.default_rng(11)
WINDOWS = RANDOM.normal(size=(40, 16, 3)).astype(np.float32)
NAMES = [f"class{i}" for i in range(CLASSES)]


@pytest.fixture(scope="module")
def sensor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.save(models.sensor_model(), tmp_path_factory.mktemp("verify") / "sensor.onnx")


def source_classes(model: Path, windows: np.ndarray) -> np.ndarray:
    """What the source model says, by ONNX's own evaluator."""
    evaluator = ReferenceEvaluator(str(model))
    return np.array([evaluator.run(None, {"window": window[None]})[0].argmax() for window in windows])


def verified(model: Path, folder: Path, data: dict[str, Any], **options: Any) -> dict[str, Any]:
    defaults: dict[str, Any] = {"target": "host", "calibration": {"window": WINDOWS}}
    artifact = compile_model(model, verify=data, output=folder / "out", **{**defaults, **options})
    return artifact.metadata["quality"]["verification"]


def test_accuracy_is_that_of_the_source_model(sensor: Path, tmp_path: Path) -> None:
    windows = RANDOM.normal(size=(50, 16, 3)).astype(np.float32)
    classes = source_classes(sensor, windows)
    wrong = classes.copy()
    wrong[:10] = (wrong[:10] + 1) % CLASSES
    found = verified(sensor, tmp_path, {"window": windows, "labels": wrong})
    assert found["samples"] == 50
    assert found["accuracy"]["float"] == pytest.approx(0.8)
    assert abs(found["accuracy"]["integer"] - 0.8) <= 1 - found["agreement"] + 1e-9
    right = verified(sensor, tmp_path, {"window": windows, "labels": classes})
    assert right["accuracy"] == {"float": 1.0, "integer": right["agreement"]}
    assert found["cosine"] > 0.99


def test_names_are_labels_too(sensor: Path, tmp_path: Path) -> None:
    labels = [NAMES[i] for i in source_classes(sensor, WINDOWS)]
    found = verified(sensor, tmp_path, {"window": WINDOWS, "labels": labels}, labels=NAMES)
    assert found["accuracy"]["float"] == 1.0


def test_without_labels_there_is_no_accuracy(sensor: Path, tmp_path: Path) -> None:
    """On the calibration samples the figures are those that every compile reports of them."""
    artifact = compile_model(
        sensor,
        target="host",
        calibration={"window": WINDOWS},
        verify={"window": WINDOWS},
        output=tmp_path / "out",
    )
    quality = artifact.metadata["quality"]
    found = quality["verification"]
    assert found["accuracy"] is None
    assert [(r["name"], r["snr_db"]) for r in found["layers"]] == [
        (r["name"], r["snr_db"]) for r in quality["layers"]
    ]
    assert (found["agreement"], found["cosine"]) == (quality["agreement"], quality["cosine"])


def test_nothing_is_verified_unasked(sensor: Path, tmp_path: Path) -> None:
    artifact = compile_model(sensor, target="host", calibration={"window": WINDOWS}, output=tmp_path / "out")
    assert artifact.metadata["quality"]["verification"] is None


def test_values_that_calibration_did_not_show_are_found(sensor: Path, tmp_path: Path) -> None:
    found = verified(sensor, tmp_path, {"window": 4 * WINDOWS}, range_method="minmax")
    (window,) = found["inputs"]
    patches = WINDOWS.reshape(-1, 12)  # the model cuts a window into rows of twelve, with a scale a column
    low, high, far = patches.min(axis=0), patches.max(axis=0), 4 * patches
    outside = np.mean((far < low) | (far > high))
    assert window["name"] == "window"
    assert window["clipped"] == pytest.approx(outside, abs=0.02)
    first = found["advice"][0]
    assert "window" in first["layers"]
    assert "outside the calibrated range" in first["message"]
    assert "--range-method minmax" not in first["message"]
    assert min(row["snr_db"] for row in found["layers"]) < FAIR_DB


def test_a_layer_loses_what_its_operands_had(tmp_path: Path) -> None:
    path = models.save(models.encoder_model(layers=2), tmp_path / "encoder.onnx")
    data = {"ids": RANDOM.integers(0, VOCABULARY, (8, S)), "n_tokens": RANDOM.integers(1, S + 1, 8)}
    found = verified(path, tmp_path, data, calibration=data)
    rows = {row["name"]: row for row in found["layers"]}
    chain = [row["snr_db"] for row in found["layers"]]
    for row, before in zip(found["layers"][1:], chain, strict=False):
        assert rows[row["name"]]["lost_db"] == pytest.approx(max(0.0, before - row["snr_db"]), abs=0.011)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.array(["classX"] * 40), "'classX' of --verify is no class(.|\n)*Did you mean 'class"),
        (np.zeros((40, 2), np.int64), "shape"),
        (np.zeros(40), "float64"),
    ],
)
def test_labels_that_say_nothing_are_refused(
    sensor: Path, tmp_path: Path, labels: np.ndarray, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        verified(sensor, tmp_path, {"window": WINDOWS, "labels": labels}, labels=NAMES)
    assert not (tmp_path / "out").exists()


def test_labels_need_a_classifier(tmp_path: Path) -> None:
    build = models.OnnxBuilder(18)
    x = build.dense(build.input("window", [1, 16, 3]), 3, 4, "dense")
    path = models.save(build.model(x, [1, 16, 4]), tmp_path / "model.onnx")
    with pytest.raises(UserError, match="not one row of scores"):
        verified(path, tmp_path, {"window": WINDOWS, "labels": np.zeros(40, np.int64)})


def test_data_of_another_shape_is_refused_before_anything_runs(sensor: Path, tmp_path: Path) -> None:
    stages: list[str] = []
    with pytest.raises(UserError, match="has the shape 40x8x3"):
        verified(
            sensor, tmp_path, {"window": WINDOWS[:, :8]}, on_stage=lambda name, seconds: stages.append(name)
        )
    assert stages == ["import"]


def layer(name: str, snr_db: float, lost_db: float = 5.0, clipped: float = 0.0) -> dict[str, Any]:
    return {"name": name, "snr_db": snr_db, "lost_db": lost_db, "clipped": clipped}


def messages(layers: list[dict[str, Any]], **how: Any) -> str:
    sources = {"bad": ["good"]}
    return "\n".join(
        row["message"]
        for row in advice([], layers, sources, Setup(**{"range_method": "auto", "samples": 500, **how}))
    )


def test_advice_is_about_what_can_be_changed() -> None:
    good, bad = layer("good", 38.0), layer("bad", 12.0)
    assert messages([good]) == ""
    assert "percentile" in messages([good, bad])
    assert "auto" in messages([bad], range_method="minmax")
    assert "has 8 samples" in messages([bad], samples=8)
    assert "samples" not in messages([good], samples=8)
    assert "--range-method minmax" in messages([layer("cut", 30.0, clipped=0.02)])


def test_advice_is_int16_for_what_the_losing_layers_read_or_write() -> None:
    good, bad = layer("good", 38.0), layer("bad", 12.0)
    possible = {"other": ("other",), "good": ("good",), "bad": ("source", "bad"), "source": ("source",)}
    assert "--int16" not in messages([good, bad])
    assert "--int16" not in messages([good], int16=possible)
    assert "--int16 good,bad,source keeps" in messages([good, bad], int16=possible)
    assert "--int16" not in messages([layer("bad", 12.0, lost_db=0.5)], int16=possible)
    assert "--residual int16 does so for the 4 tensors" in messages([bad], int16=possible, stream=4)
    assert "--residual" not in messages([bad], int16=possible)


def test_advice_names_the_layers_that_lose_most() -> None:
    layers = [layer(f"l{lost}", 10.0, float(lost)) for lost in (1, 9, 4, 7)]
    rows = advice([], layers, {}, Setup("auto", 500))
    assert rows[0]["layers"] == ["l9", "l7", "l4"]


def test_numbers_of_classes() -> None:
    assert class_numbers(np.array([2, 0]), ()).tolist() == [2, 0]
    assert class_numbers(np.array(["b", "a"]), ("a", "b")).tolist() == [1, 0]
    with pytest.raises(UserError, match="--labels"):
        class_numbers(np.array(["b"]), ())


def test_the_command_reports_it(sensor: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "calibration.npz", window=WINDOWS)
    np.savez(tmp_path / "test.npz", window=3 * WINDOWS, labels=source_classes(sensor, 3 * WINDOWS))
    options = ["compile", sensor, "--target", "host", "--calibration", tmp_path / "calibration.npz"]
    options += ["--verify", tmp_path / "test.npz", "-o", tmp_path / "out"]
    run = CliRunner().invoke(app, [*map(str, options), "--json"])
    assert run.exit_code == 0, run.stderr
    found = json.loads(run.stdout)["verification"]
    assert found["accuracy"]["float"] == 1.0
    text = CliRunner().invoke(app, [*map(str, options)], env={"COLUMNS": "200", "NO_COLOR": "1"}).stdout
    assert "On 40 samples: accuracy 100.00 % as float" in text
    assert "outside the calibrated range" in text
    assert all(f"{row['snr_db']:.1f}" in text for row in found["layers"])

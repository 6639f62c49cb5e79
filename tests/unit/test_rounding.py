"""How weights become integers: by calibration data, with corrected biases, and with scales that a user gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import CASES
from models import save

import tvmtiny
from tvmtiny.errors import UserError
from tvmtiny.frontend import import_model
from tvmtiny.frontend.data import check_arrays, input_specs
from tvmtiny.options import ModelOptions
from tvmtiny.passes.pipeline import fusion_passes
from tvmtiny.passes.weight_types import matrices
from tvmtiny.quant import gptq, qparams
from tvmtiny.quant.calibrate import FloatModel, Statistics, Trace, run_all
from tvmtiny.quant.qparams import QuantParams
from tvmtiny.quant.scales import read_scales, to_scales
from tvmtiny.verify import INTEGER_MODULE

SEEDS = st.integers(0, 2**32 - 1)
KNOWN = ("enc.out", "enc.q", "enc.w1", "x.input")


def alike(rng: np.random.Generator, rows: int, depth: int) -> np.ndarray:
    """Inputs that move alike, as those of a trained layer do."""
    return (
        rng.normal(size=(rows, 3)) @ rng.normal(size=(3, depth)) + 0.1 * rng.normal(size=(rows, depth)) + 0.5
    )


def error(weights: qparams.IntegerWeights, weight: np.ndarray, x: np.ndarray) -> np.ndarray:
    """What rounding changes at the output, real (R, N)."""
    return x @ (weights.values * weights.unit[:, None] - weight).T


@settings(deadline=None, max_examples=30)
@given(seed=SEEDS, kind=st.sampled_from(["int8", "int4"]))
def test_rounding_by_data_leaves_less_at_the_output(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    weight, x = rng.normal(size=(6, 40)), alike(rng, 400, 40)
    params = QuantParams(1.0)
    nearest, by_data = (qparams.WEIGHTS[kind](weight, np.zeros(6), params, seen) for seen in (None, x))
    assert np.sum(error(by_data, weight, x) ** 2) < 0.7 * np.sum(error(nearest, weight, x) ** 2)
    largest = np.abs(by_data.values.astype(np.int64)).sum(axis=1) * 128
    assert np.all(largest <= by_data.bound)


@given(seed=SEEDS)
def test_inputs_that_are_unrelated_leave_rounding_to_the_nearest(seed: int) -> None:
    steps = np.random.default_rng(seed).uniform(-150, 150, (4, 9))
    assert np.array_equal(gptq.rounded(steps, np.eye(9), -128, 127), np.clip(np.round(steps), -128, 127))


@given(seed=SEEDS, kind=st.sampled_from(["int8", "int4"]))
def test_corrected_biases_have_no_mean_error(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    weight, bias, x = rng.normal(size=(5, 24)), rng.normal(size=5), alike(rng, 200, 24)
    params = QuantParams(0.05, 3)
    integers = qparams.WEIGHTS[kind](weight, bias, params, None).corrected(weight, x)
    layer = qparams.dense(weight, bias, params, 1.0, "layer", integers=integers)
    acc = (x / 0.05 + 3) @ integers.values.T.astype(np.float64) + layer.bias
    mean = (acc * integers.unit - (x @ weight.T + bias)).mean(axis=0)
    assert np.all(np.abs(mean) <= 0.51 * integers.unit)


@given(seed=SEEDS, kind=st.sampled_from(["int8", "int4"]))
def test_weights_are_rounded_to_steps_that_were_given(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    size, (low, high) = (32, (-8, 7)) if kind == "int4" else (40, (-128, 127))
    weight, x = rng.normal(size=(5, 40)), QuantParams(np.exp(rng.normal(size=40)), np.full(40, 3))
    steps = np.exp(rng.normal(size=(5, -(-40 // size)))) / high
    made = qparams.WEIGHTS[kind](weight, rng.normal(size=5), x, None, steps)
    real = np.repeat(made.steps, size, axis=1)[:, :40] / (x.scale / x.scale.max())
    assert np.allclose(
        made.steps, steps, rtol=0.5 if kind == "int4" else 1e-12
    )  # scales of groups are integers
    assert np.allclose(made.real, np.clip(np.round(weight / real), low, high) * real)
    assert np.all(np.abs(made.values.astype(np.int64)).sum(axis=1) * 131 <= made.bound)


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_steps_that_were_found_make_the_same_weights_when_given(kind: str) -> None:
    weight = np.random.default_rng(0).normal(size=(8, 70))
    found = qparams.WEIGHTS[kind](weight, np.zeros(8), QuantParams(0.1, 5))
    again = qparams.WEIGHTS[kind](weight, np.zeros(8), QuantParams(0.1, 5), None, found.steps)
    if kind == "int8":
        assert np.array_equal(again.values, found.values)
        assert np.allclose(again.unit, found.unit, rtol=1e-12)
    else:  # the unit of a channel follows from its steps, and scales of groups are rounded to it
        assert np.abs(again.real - found.real).max() <= 0.002 * np.abs(weight).max()


@pytest.fixture(scope="module")
def encoder(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, tvm.IRModule, list[Trace], dict[str, Any]]:
    case = CASES["post_norm"]
    path = save(case.model(), tmp_path_factory.mktemp("rounding") / "model.onnx")
    fused = tvm.transform.Sequential(fusion_passes("never"))(import_model(path))
    specs, length, tokens = input_specs(fused)
    batch = check_arrays(case.calibration(16), specs, length, tokens)
    traces = list(run_all(FloatModel(fused), batch.arrays, batch.n_tokens))
    return path, fused, traces, case.calibration(16)


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_scales_that_were_chosen_make_the_same_module_again(encoder: Any, weights: str) -> None:
    _, fused, traces, _ = encoder
    options = ModelOptions(weights=weights, rounding="nearest")
    chosen = options.quantize(fused, Statistics(traces))
    given_again = read_scales(json.loads(json.dumps(to_scales(chosen.chosen))), chosen.chosen)
    again = options.quantize(fused, Statistics([], given_again))
    assert tvm.ir.save_json(again.module) == tvm.ir.save_json(chosen.module)


def test_the_compiler_takes_scales_from_a_file_and_needs_no_calibration_then(
    encoder: Any, tmp_path: Path
) -> None:
    path, fused, traces, calibration = encoder
    scales = to_scales(ModelOptions(range_method="minmax").quantize(fused, Statistics(traces)).chosen)
    (tmp_path / "scales.json").write_text(json.dumps(scales))
    tvmtiny.compile(path, target="host", scales=tmp_path / "scales.json", output=tmp_path / "a")
    tvmtiny.compile(
        path, target="host", calibration=calibration, range_method="minmax", output=tmp_path / "b"
    )
    modules = [(tmp_path / part / INTEGER_MODULE).read_text() for part in "ab"]
    assert modules[0] == modules[1]


def test_every_option_of_rounding_reaches_the_weights(encoder: Any) -> None:
    _, fused, traces, _ = encoder
    modules = {
        tvm.ir.save_json(
            ModelOptions(rounding=rounding, bias_correction=corrected)
            .quantize(fused, Statistics(traces))
            .module
        )
        for rounding in ("nearest", "gptq")
        for corrected in (False, True)
    }
    assert len(modules) == 4


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"enc.ou": {"scale": 1.0}}, "no value 'enc.ou'"),
        ({"enc.out": 3}, "'enc.out' is 3"),
        ({"enc.out": {"zero_point": 3}}, "'enc.out' is"),
        ({"enc.out": {"scale": "wide"}}, "'enc.out' is"),
        ({"enc.out": {"scale": -1.0}}, "the scale of 'enc.out' is -1.0"),
        ({"enc.out": {"scale": float("nan")}}, "the scale of 'enc.out'"),
        ({"enc.out": {"scale": 1.0, "zero_point": 128}}, "zero point of 'enc.out' is 128"),
        ({"enc.out": {"scale": 1.0, "zero_point": 0.5}}, "zero point of 'enc.out' is 0.5"),
        ({"enc.out": {"scale": [1.0, 2.0]}}, "'enc.out' has 2 scales"),
        ({"enc.q": {"scale": [1.0, 2.0], "zero_point": [0]}}, "zero point of 'enc.q'"),
        ({"enc.q": {"scale": [[1.0], [2.0]]}}, "scale of 'enc.q'"),
        ({"enc.w1": {"scale": [[1.0], [0.0]]}}, "scale of 'enc.w1'"),
    ],
)
def test_scales_that_are_none_are_refused(table: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        read_scales(table, KNOWN)


@pytest.mark.parametrize(("text", "says"), [("{", "cannot be read as JSON"), ("[]", "no JSON object")])
def test_files_that_hold_no_scales_are_refused(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "scales.json").write_text(text)
    with pytest.raises(UserError, match=says):
        read_scales(tmp_path / "scales.json", KNOWN)


def test_as_many_scales_as_heads_are_needed(encoder: Any) -> None:
    _, fused, traces, _ = encoder
    name = next(key for key in traces[0].values if key.endswith(".q"))
    with pytest.raises(UserError, match="has 3 scales"):
        ModelOptions().quantize(fused, Statistics(traces, {name: QuantParams(np.ones(3))}))


def test_steps_of_weights_are_as_many_as_channels_and_groups(encoder: Any) -> None:
    _, fused, traces, _ = encoder
    name = next(name for name in matrices(fused) if name.endswith(".w1"))
    with pytest.raises(UserError, match=f"'{name}' has scales of shape"):
        ModelOptions().quantize(fused, Statistics(traces, {name: QuantParams(np.ones((3, 1)))}))


def test_an_unknown_rounding_is_refused() -> None:
    with pytest.raises(UserError, match="Unknown rounding of weights 'up'"):
        ModelOptions(rounding="up")

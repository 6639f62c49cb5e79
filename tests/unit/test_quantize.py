"""Quantized models: close to the float model, and never an overflow, whatever the weights are."""

from __future__ import annotations

import dataclasses
import math

import models
import numpy as np
import onnx
import pytest
import tvm
from model_cases import CASES, OUTLIER_CHANNELS, VOCABULARY, Encoder
from onnx import numpy_helper

from tvmtiny.bench import models as bench_models
from tvmtiny.bench.catalog import EncoderBenchmark
from tvmtiny.errors import UserError
from tvmtiny.frontend import import_model
from tvmtiny.kernels import kernels
from tvmtiny.passes.lower import Lower
from tvmtiny.passes.pipeline import fusion_passes
from tvmtiny.passes.quantize import QuantizedModel, quantize
from tvmtiny.quant import qparams, ranges
from tvmtiny.quant.calibrate import FloatModel, Statistics, Trace, run_all
from tvmtiny.quant.reference import IntegerModel
from tvmtiny.quant.report import Quality
from tvmtiny.schedule.rules import blocking

SAMPLES = 32


@dataclasses.dataclass(frozen=True)
class Calibrated:
    """A fused float model with its traces over random sentences."""

    fused: tvm.IRModule
    ids: np.ndarray
    lengths: np.ndarray
    traces: list[Trace]

    def quantize(self, method: str = "auto", residual: str = "int8") -> QuantizedModel:
        return quantize(self.fused, Statistics(self.traces), method, residual)

    def quality(self, quantized: QuantizedModel) -> Quality:
        model, quality = IntegerModel(quantized.module), Quality(quantized.outputs)
        for ids, n, trace in zip(self.ids, self.lengths, self.traces, strict=True):
            quality.add(trace, model.run({"ids": ids.astype(np.uint16)}, int(n)), quantized.tensors)
        return quality


def _calibrated(
    model: onnx.ModelProto, tmp_path, tokens: int, count: int = SAMPLES, fold_qk: str = "auto"
) -> Calibrated:
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    fused = tvm.transform.Sequential(fusion_passes(fold_qk))(import_model(path))
    rng = np.random.default_rng(0)
    ids, lengths = rng.integers(0, VOCABULARY, (count, tokens)), rng.integers(1, tokens + 1, count)
    lengths[0], lengths[1] = tokens, 1
    return Calibrated(fused, ids, lengths, list(run_all(FloatModel(fused), {"ids": ids}, lengths)))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Calibrated:
    config = Encoder(tokens=16, embedding=32, heads=4, hidden=64, layers=2)
    return _calibrated(config.model(), tmp_path_factory.mktemp("encoder"), 16)


def test_every_layer_is_close_to_float(encoder: Calibrated) -> None:
    report = encoder.quality(encoder.quantize()).report()
    names = [row["name"] for row in report["layers"]]
    assert len(names) == 7  # embedding, two of attention and feed-forward, mean, classifier
    assert len(set(names)) == len(names)
    assert min(row["snr_db"] for row in report["layers"]) > 25, report
    assert report["cosine"] > 0.999
    assert report["agreement"] >= 1 - 1 / SAMPLES


@pytest.mark.parametrize("method", ranges.METHODS)
def test_every_range_method_gives_a_usable_model(encoder: Calibrated, method: str) -> None:
    report = encoder.quality(encoder.quantize(method)).report()
    assert min(row["snr_db"] for row in report["layers"]) > 20, report


def test_pre_norm_layers_are_close_to_float(tmp_path) -> None:
    calibrated = _calibrated(Encoder(pre_norm=True, layers=2).model(), tmp_path, 12)
    report = calibrated.quality(calibrated.quantize()).report()
    assert min(row["snr_db"] for row in report["layers"]) > 25, report


def test_folded_attention_is_as_close_to_float(tmp_path) -> None:
    model = Encoder(tokens=16, embedding=32, heads=3, head_dim=32, hidden=64, layers=2).model()
    reports = []
    for fold_qk in ("never", "auto"):
        calibrated = _calibrated(model, tmp_path, 16, fold_qk=fold_qk)
        reports.append(calibrated.quality(calibrated.quantize()).report())
    apart, folded = ([row["snr_db"] for row in report["layers"]] for report in reports)
    assert apart != folded
    assert all(b > a - 0.5 for a, b in zip(apart, folded, strict=True)), (apart, folded)
    assert reports[1]["agreement"] >= 1 - 1 / SAMPLES


@pytest.mark.parametrize("dead", [False, True])
def test_folded_attention_takes_features_of_any_scale(dead: bool, tmp_path) -> None:
    """Features with a scale and a zero point a column are the keys as they are; a column may be zero throughout."""
    benchmark = EncoderBenchmark(
        "layer", "", tokens=9, embedding=12, heads=3, head_dim=12, layers=1, classes=0, norm=False
    )
    factors = 10.0 ** np.linspace(-2, 2, 12)
    arrays = bench_models.calibration(benchmark)
    arrays["x"] = ((arrays["x"] + 0.5) * factors * (np.arange(12) != 5 if dead else 1)).astype(np.float32)
    model = bench_models.build(benchmark)
    for tensor in model.graph.initializer:  # the first three matrices read the features
        if tensor.dims == [12, 36]:
            array = numpy_helper.to_array(tensor) / factors[:, np.newaxis]
            tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float32), tensor.name))
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    fused = tvm.transform.Sequential(fusion_passes())(import_model(path))
    traces = list(run_all(FloatModel(fused), arrays, np.full(len(arrays["x"]), 9)))
    quantized = quantize(fused, Statistics(traces))
    integer, quality = IntegerModel(quantized.module), Quality(quantized.outputs)
    (params,) = quantized.inputs.values()
    assert "wk" not in quantized.module.script(show_meta=False)
    for x, trace in zip(arrays["x"], traces, strict=True):
        values = qparams.quantize(x.astype(np.float64), params)
        quality.add(trace, integer.run({"x": values}, 9), quantized.tensors)
    assert quality.report()["layers"][0]["snr_db"] > 28


def _snr(calibrated: Calibrated, residual: str) -> dict[str, float]:
    """Decibels against the float model by layer, LayerNorms among them."""
    report = calibrated.quality(calibrated.quantize(residual=residual)).report()
    return {row["name"]: row["snr_db"] for row in report["layers"]}


@pytest.mark.parametrize(("outliers", "gain"), [(30.0, 8), (100.0, 15)])
def test_an_int16_stream_keeps_the_channels_beside_outliers(outliers: float, gain: float, tmp_path) -> None:
    config = Encoder(pre_norm=True, layers=3, tokens=16, embedding=32, heads=4, hidden=64, outliers=outliers)
    calibrated = _calibrated(config.model(), tmp_path, 16)
    narrow, wide = _snr(calibrated, "int8"), _snr(calibrated, "int16")
    stream = np.abs(np.concatenate([trace.values["ffn0_sum.out"] for trace in calibrated.traces])).mean(
        axis=0
    )
    beside = np.delete(stream, OUTLIER_CHANNELS)
    assert stream[list(OUTLIER_CHANNELS)].min() > 0.8 * outliers
    assert beside.max() < 3
    behind = [name for name in wide if name.endswith(("1_norm", "2_norm", "final", "classifier_out"))]
    assert len(behind) == 6
    for name in behind:  # products read these, and the results
        assert wide[name] > narrow[name] + gain, (name, narrow, wide)
        assert wide[name] > 27, (name, wide)


def test_an_int16_stream_serves_a_model_without_outliers_too(tmp_path) -> None:
    config = Encoder(pre_norm=True, layers=3, tokens=16, embedding=32, heads=4, hidden=64)
    calibrated = _calibrated(config.model(), tmp_path, 16)
    narrow, wide = _snr(calibrated, "int8"), _snr(calibrated, "int16")
    assert min(wide[name] - narrow[name] for name in wide) > -0.5, (narrow, wide)
    assert np.mean([wide[name] - narrow[name] for name in wide]) > 1.5, (narrow, wide)


@pytest.mark.parametrize("final", ["before", "after", ""])
@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_an_int16_stream_is_int16_and_nothing_else_is(final: str, pooling: str, tmp_path) -> None:
    config = Encoder(tokens=5, embedding=8, hidden=12, pre_norm=True, final=final, pooling=pooling)
    quantized = _calibrated(config.model(), tmp_path, 5, count=8).quantize(residual="int16")
    types = {
        var.name: str(var.ty.dtype)
        for block in quantized.module["main"].body.blocks
        for var in (binding.var for binding in block.bindings)
        if var.name in quantized.tensors
    }
    assert len(quantized.int16) >= 2
    wide = {name for name, dtype in types.items() if dtype == "int16"}
    assert wide == {*quantized.int16, *quantized.outputs}  # logits are int16 in any case


def test_a_stream_may_begin_with_a_projection_that_adds_nothing(tmp_path) -> None:
    """Features without positions: a dense layer that is no sum, and whose result is one operand of the first."""
    build = models.OnnxBuilder(18)
    x = build.dense(build.input("x", [1, 6, 3]), 3, models.E, "patches")
    inner = build.dense(models._layer_norm(build, x, "norm"), models.E, models.E, "branch")
    x = build.node("Add", [x, inner], "sum")
    x = build.node("ReduceMean", [x, build.constant([1], np.int64)], "pool", keepdims=0)
    path = models.save(build.model(build.dense(x, models.E, 2, "classifier"), [1, 2]), tmp_path / "m.onnx")
    fused = tvm.transform.Sequential(fusion_passes())(import_model(path))
    arrays = {"x": np.random.default_rng(0).normal(size=(16, 6, 3)).astype(np.float32)}
    traces = list(run_all(FloatModel(fused), arrays, np.full(16, 6)))
    quantized = quantize(fused, Statistics(traces), residual="int16")
    assert quantized.int16 == ("patches", "sum")
    scale, zero_point = quantized.inputs["x"].scale, quantized.inputs["x"].zero_point
    model, quality = IntegerModel(quantized.module), Quality(quantized.outputs)
    for sample, trace in zip(arrays["x"], traces, strict=True):
        results = model.run({"x": qparams.quantize_features(sample, scale, zero_point)}, 6)
        assert results["patches"].dtype == results["sum"].dtype == np.int16
        quality.add(trace, results, quantized.tensors)
    assert min(row["snr_db"] for row in quality.report()["layers"]) > 30, quality.report()


def test_the_integer_module_is_well_formed_and_integer(encoder: Calibrated) -> None:
    quantized = encoder.quantize()
    tvm.relax.analysis.well_formed(quantized.module)  # raises
    assert "float" not in quantized.module.script(show_meta=False)
    assert quantized.has_length
    assert quantized.max_tokens == 16


def test_logits_have_headroom(encoder: Calibrated) -> None:
    quantized = encoder.quantize()
    largest = max(float(np.abs(trace.outputs[0]).max()) for trace in encoder.traces)
    assert float(quantized.tensors[quantized.outputs[0]].scale) * 32767 >= 2 * largest * 0.999


def _edited(model: onnx.ModelProto, edit) -> onnx.ModelProto:
    """A model with `edit(array)` in place of each weight matrix and bias (not of LayerNorm's constants)."""
    norms = {
        name for node in model.graph.node if node.op_type == "LayerNormalization" for name in node.input[1:]
    }
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32 and array.ndim and tensor.name not in norms:
            tensor.CopyFrom(numpy_helper.from_array(edit(array).astype(np.float32), tensor.name))
    return model


def _agrees_with_llvm(quantized: QuantizedModel, tokens: int) -> None:
    """NumPy and TVM on the host agree on random ids of all lengths."""
    kernels()
    built = tvm.compile(Lower(blocking("dsp"))(quantized.module), target="llvm")
    machine, model = tvm.relax.VirtualMachine(built, tvm.cpu()), IntegerModel(quantized.module)
    rng = np.random.default_rng(5)
    for n in (1, 2, tokens - 1, tokens):
        ids = rng.integers(0, VOCABULARY, tokens).astype(np.uint16)
        expected = list(model.run({"ids": ids}, n).values())[-1]
        assert np.array_equal(machine["main"](tvm.runtime.tensor(ids), n).numpy(), expected)


def _dead_channels(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array[..., ::3] = 0
    return array


def _outlier(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.reshape(-1)[0] *= 1e4
    return array


DEGENERATE = {
    "all zero": np.zeros_like,
    "dead channels": _dead_channels,
    "constant": np.ones_like,
    "one outlier": _outlier,
    "tiny": lambda array: array * 1e-12,
    "subnormal": lambda array: array * 1e-42,
    "huge": lambda array: array * 1e6,
    "enormous": lambda array: array * 1e12,
    "huge biases": lambda array: array * (1e6 if array.ndim == 1 else 1),
    "sharp": lambda array: array * 30,
}


REFUSED = {
    ("enormous", False): "is not finite",
    # The residual disappears beside the branch: there is no scale for both.
    **{
        (name, False): "the residual .* too small beside the sum"
        for name in ("one outlier", "huge", "huge biases")
    },
}

ON_LLVM = ("one outlier", "huge biases", "sharp")
"""Those with the largest accumulators are compared with TVM, too; NumPy asserts of all that none overflows."""


@pytest.mark.parametrize(
    ("name", "pre_norm"),
    [
        *((name, False) for name in DEGENERATE),
        *((name, True) for name in ("all zero", "constant", "one outlier", "sharp")),
    ],
)
def test_degenerate_weights_work_or_are_refused(name: str, pre_norm: bool, tmp_path) -> None:
    config = Encoder(
        tokens=5, embedding=8, hidden=12, pre_norm=pre_norm, activation="relu" if pre_norm else "gelu"
    )
    calibrated = _calibrated(_edited(config.model(), DEGENERATE[name]), tmp_path, 5, count=8)
    if (name, pre_norm) in REFUSED:
        with pytest.raises(UserError, match=REFUSED[name, pre_norm]) as caught:
            calibrated.quantize()
        assert caught.value.remedy
        return
    quantized = calibrated.quantize()
    if name in ON_LLVM:
        _agrees_with_llvm(quantized, 5)
    for ids, n in zip(calibrated.ids, calibrated.lengths, strict=True):
        IntegerModel(quantized.module).run({"ids": ids.astype(np.uint16)}, int(n))


@pytest.mark.parametrize("name", ["all zero", "dead channels", "constant", "tiny", "one outlier", "sharp"])
def test_degenerate_weights_with_an_int16_stream_work(name: str, tmp_path) -> None:
    """NumPy asserts that no accumulator and no residual overflows."""
    config = Encoder(tokens=5, embedding=8, hidden=12, pre_norm=True)
    calibrated = _calibrated(_edited(config.model(), DEGENERATE[name]), tmp_path, 5, count=8)
    quantized = calibrated.quantize(residual="int16")
    assert len(quantized.int16) == 2
    if name in ON_LLVM:
        _agrees_with_llvm(quantized, 5)
    for ids, n in zip(calibrated.ids, calibrated.lengths, strict=True):
        IntegerModel(quantized.module).run({"ids": ids.astype(np.uint16)}, int(n))


def test_a_model_of_zeros_answers_zero(tmp_path) -> None:
    config = Encoder(tokens=5, embedding=8, hidden=12)
    calibrated = _calibrated(_edited(config.model(), np.zeros_like), tmp_path, 5, count=8)
    quantized = calibrated.quantize()
    (*_, logits) = (
        IntegerModel(quantized.module).run({"ids": calibrated.ids[0].astype(np.uint16)}, 5).values()
    )
    params = quantized.tensors[quantized.outputs[0]]
    real = (logits.astype(np.float64) - params.zero_point) * params.scale
    assert np.abs(real - calibrated.traces[0].outputs[0]).max() <= 1e-3


@pytest.mark.parametrize("name", ["sensor_encoder", "wide_mean"])
def test_worst_inputs_do_not_overflow(name: str, tmp_path) -> None:
    """Features at both ends of int8, which calibration has not shown: NumPy asserts every accumulator."""
    case = CASES[name]
    path = tmp_path / "model.onnx"
    path.write_bytes(case.model().SerializeToString())
    fused = tvm.transform.Sequential(fusion_passes())(import_model(path))
    arrays = case.calibration()
    traces = list(run_all(FloatModel(fused), arrays, np.full(len(arrays["x"]), case.tokens)))
    quantized = quantize(fused, Statistics(traces), **case.options)
    model, rng = IntegerModel(quantized.module), np.random.default_rng(0)
    for _ in range(20):
        x = rng.choice(np.array([-128, 127], np.int8), (case.tokens, 6))
        (*_, logits) = model.run({"x": x}, case.tokens).values()
        assert np.all(np.abs(logits.astype(int)) <= 32767)
    assert not math.isnan(float(quantized.tensors[quantized.outputs[0]].scale))

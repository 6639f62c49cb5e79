"""Smoothing: where it applies, that the model stays the same function, and what it gains where columns are outliers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import models
import numpy as np
import onnx
import onnxruntime
import pytest
import tvm
from model_cases import CASES, Case, Encoder, _case
from onnx import numpy_helper
from tvm import relax

from tvmtiny.errors import UserError
from tvmtiny.frontend import import_model
from tvmtiny.options import ModelOptions
from tvmtiny.passes import operators, smooth
from tvmtiny.passes.graph import Graph, as_array
from tvmtiny.passes.smooth import factors, places
from tvmtiny.passes.weight_types import weight_types
from tvmtiny.quant.calibrate import FloatModel, Statistics, Trace, run_all
from tvmtiny.quant.qparams import QuantParams
from tvmtiny.quant.reference import IntegerModel

SENSOR = _case("sensor", Encoder(tokens=6, features=5, mask=False, pre_norm=True, activation="relu"))


def _fused(model: onnx.ModelProto, folder: Path) -> tvm.IRModule:
    return ModelOptions(fold_qk="never").fuse(import_model(models.save(model, folder / "model.onnx")))


def _traces(fused: tvm.IRModule, arrays: dict[str, Any], tokens: int) -> list[Trace]:
    rest = dict(arrays)
    lengths = rest.pop("n_tokens", np.full(len(next(iter(arrays.values()))), tokens))
    return list(run_all(FloatModel(fused), rest, lengths))


def _smoothed(fused: tvm.IRModule, traces: list[Trace], weights: str = "int8") -> tvm.IRModule:
    return smooth.smooth(fused, Statistics(traces), weight_types(fused, weights), "minmax")


def _values(fused: tvm.IRModule) -> list[str]:
    return [place.value.rpartition(".")[2] for place in places(Graph(fused["main"]))]


def _constants(fused: tvm.IRModule) -> dict[tuple[str, int], np.ndarray]:
    found = {}
    for var, value in Graph(fused["main"]):
        for index, arg in enumerate(value.args if operators.kind(value) else []):
            if (array := as_array(arg)) is not None:
                found[var.name, index] = array
    return found


def test_a_pre_norm_encoder_has_a_place_before_each_matrix_but_the_one_that_reads_the_input(
    tmp_path: Path,
) -> None:
    graph = Graph(_fused(SENSOR.model(), tmp_path)["main"])
    found = places(graph)
    assert sorted(place.value.rpartition(".")[2] for place in found) == [
        "context",
        "hidden",
        "out",
        "out",
        "out",
    ]
    read = {(name, index) for place in found for name, index in place.readers}
    kinds = {var.name: operators.kind(value) for var, value in graph}
    assert sorted((kinds[name], index) for name, index in read) == [
        ("attention", 1), ("attention", 3), ("attention", 5), ("attention", 7), ("dense", 1), ("ffn", 1), ("ffn", 3),
    ]  # fmt: skip


def test_a_sum_behind_a_post_norm_keeps_its_norm(tmp_path: Path) -> None:
    assert _values(_fused(CASES["post_norm"].model(), tmp_path)) == [
        "context",
        "out",
    ]  # out: before the classifier


@pytest.mark.parametrize("case", [SENSOR, CASES["pre_norm"]], ids=lambda case: case.name)
def test_the_function_stays(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smooth, "LEAST_GAIN", math.inf)  # every place takes factors
    proto, arrays = case.model(), case.calibration(8)
    fused = _fused(proto, tmp_path)
    found = _smoothed(fused, _traces(fused, arrays, case.tokens))
    before, after = _constants(fused), _constants(found)
    assert set(before) == set(after)
    changed = {key for key in before if not np.array_equal(before[key], after[key])}
    graph = Graph(fused["main"])
    assert changed == {key for place in places(graph) for key in (*place.writers, *place.readers)} - {
        key for key in before if not np.any(before[key])
    }
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    lengths = arrays.get("n_tokens", np.full(8, case.tokens))
    for index, trace in enumerate(_traces(found, arrays, case.tokens)):
        feed = {name: x[index : index + 1] for name, x in arrays.items() if name != "n_tokens"}
        if case.length:
            feed["mask"] = (np.arange(case.tokens) < lengths[index])[None].astype(np.int64)
        for mine, wanted in zip(trace.outputs, session.run(None, feed), strict=True):
            np.testing.assert_allclose(mine.reshape(wanted.shape), wanted, atol=1e-5)


S, E, P, F = 5, 8, 4, 6


def _module(operator: str, args: list[Any], **attrs: Any) -> tvm.IRModule:
    """An RMSNorm, and an operator that reads it."""
    builder, x = relax.BlockBuilder(), relax.Var("x", relax.TensorType([1, S, E], "float32"))
    ones, zeros = (relax.const(make(E).astype(np.float32)) for make in (np.ones, np.zeros))
    with builder.function("main", [x]):
        with builder.dataflow():
            rows = builder.emit(relax.op.reshape(x, (S, E)))
            norm = builder.emit(
                operators.call("rms_norm", [rows, ones, zeros], epsilon=1e-5), name_hint="norm"
            )
            call = operators.call(operator, [norm, *args], **attrs)
            output = builder.emit_output(builder.emit(call, name_hint="layer"))
        builder.emit_func_output(output)
    return builder.get()


def _weights(*shapes: tuple[int, ...]) -> list[Any]:
    random = np.random.default_rng(0)
    return [relax.const(random.normal(size=shape).astype(np.float32)) for shape in shapes]


def _grouped() -> tvm.IRModule:
    projections = [shape for rows in (4 * P, 2 * P, 2 * P) for shape in ((rows, E), (rows,))]
    *weights, angles = _weights(*projections, (E, 4 * P), (E,), (S, P // 2))
    args = [*weights, relax.const(S, "int64"), angles]
    return _module("rotary_attention", args, heads=4, kv_heads=2, scale=0.5)


def _gated() -> tvm.IRModule:
    return _module("glu", _weights((F, E), (F,), (F, E), (F,), (E, F), (E,)), activation="silu")


@pytest.mark.parametrize(("make", "inner"), [(_grouped, "context"), (_gated, "hidden")])
def test_grouped_heads_and_gated_layers_stay(make: Any, inner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smooth, "LEAST_GAIN", math.inf)
    fused = make()
    assert _values(fused) == ["out", inner]
    arrays = {"x": np.random.default_rng(1).normal(size=(8, S, E)).astype(np.float32)}
    before = _traces(fused, arrays, S)
    for old, new in zip(before, _traces(_smoothed(fused, before), arrays, S), strict=True):
        np.testing.assert_allclose(new.values["layer.out"], old.values["layer.out"], atol=1e-4)
        assert not np.allclose(new.values[f"layer.{inner}"], old.values[f"layer.{inner}"], rtol=0.05)


def test_layers_that_share_a_matrix_keep_it() -> None:
    same, output, bias = _weights((E, E), (E, E), (E,))
    args = [same, bias, same, bias, same, bias, output, bias, relax.const(S, "int64")]
    assert _values(_module("attention", args, heads=2, scale=0.5)) == []


def test_outliers_cost_less(tmp_path: Path) -> None:
    encoder = Encoder(tokens=6, embedding=16, features=5, mask=False, pre_norm=True, hidden=24)
    case = _case("outliers", encoder)
    fused = _fused(_with_outliers(case.model(), 40.0), tmp_path)
    arrays = case.calibration(16)
    plain = _noise(fused, arrays)
    found = _smoothed(fused, _traces(fused, arrays, case.tokens))
    assert plain - _noise(found, arrays) > 6


def _with_outliers(model: onnx.ModelProto, size: float) -> onnx.ModelProto:
    """Two columns of each LayerNorm are larger, and the matrices that read them smaller."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for norm in (node for node in model.graph.node if node.op_type == "LayerNormalization"):
        readers = [node for node in model.graph.node if norm.output[0] in node.input]
        matrices = [node.input[1] for node in readers if node.op_type == "MatMul"]
        if len(matrices) == len(readers):
            for name, factor in [(n, size) for n in norm.input[1:]] + [(n, 1 / size) for n in matrices]:
                array = numpy_helper.to_array(constants[name]).copy()
                array[[3, 11]] *= factor
                constants[name].CopyFrom(numpy_helper.from_array(array.astype(np.float32), name))
    return model


def _noise(fused: tvm.IRModule, arrays: dict[str, Any]) -> float:
    """Noise at the logits beside the signal, in dB."""
    traces = _traces(fused, arrays, len(arrays["x"][0]))
    quantized = ModelOptions(range_method="minmax").quantize(fused, Statistics(traces))
    name, params = quantized.outputs[0], quantized.tensors[quantized.outputs[0]]
    model, signal, noise = IntegerModel(quantized.module), 0.0, 0.0
    scale, zero = quantized.inputs["x"].scale, quantized.inputs["x"].zero_point
    for x, trace in zip(arrays["x"], traces, strict=True):
        integers = np.clip(np.round(x / scale) + zero, -128, 127).astype(np.int8)
        found = (model.run({"x": integers}, len(x))[name] - params.zero_point) * params.scale
        signal += float(np.sum(trace.outputs[0] ** 2))
        noise += float(np.sum((found - trace.outputs[0]) ** 2))
    return 10 * math.log10(noise / signal)


def test_columns_alike_are_left_as_they_are() -> None:
    random = np.random.default_rng(0)
    x, w = random.uniform(-1, 1, (400, 16)), random.uniform(-1, 1, (12, 16))
    assert factors(x, [(w, "int8")], "minmax") is None


def test_a_column_that_is_never_used_gets_the_factor_of_the_others() -> None:
    random = np.random.default_rng(0)
    x, w = random.normal(size=(400, 16)), random.normal(size=(12, 16))
    x[:, 2], w[:, 5] = 0, 0
    x[:, 3] *= 100
    s = factors(x, [(w, "int8")], "minmax")
    assert s is not None
    assert np.all(np.isfinite(s))
    assert s[3] > 4 * np.median(s)
    assert s[2] == s[5]
    assert np.delete(s, [2, 3, 5]).min() < s[2] < s[3]


def test_given_scales_are_refused(tmp_path: Path) -> None:
    fused = _fused(SENSOR.model(), tmp_path)
    statistics = Statistics([], {"final.out": QuantParams(0.1)})
    with pytest.raises(UserError, match="scales of this model have been given"):
        smooth.smooth(fused, statistics, weight_types(fused))

"""Models that come quantized: their scales and integers are kept, and the result is no worse than ONNX Runtime's."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import models
import numpy as np
import onnx
import pytest
import quantized_models
import tvm
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from tvm import relax

from tvmtiny.artifact import Artifact
from tvmtiny.compiler import compile as compile_model
from tvmtiny.errors import UserError
from tvmtiny.frontend import import_model
from tvmtiny.frontend.data import input_specs, load_samples
from tvmtiny.passes.graph import Graph, as_array
from tvmtiny.passes.pipeline import fusion_passes
from tvmtiny.passes.quantize import QuantizedModel, quantize
from tvmtiny.passes.strip_quantization import GIVEN_ATTRIBUTE, StripQuantization
from tvmtiny.quant import qparams
from tvmtiny.quant.calibrate import FloatModel, Statistics
from tvmtiny.quant.given import PROBES, _match, given_parameters, input_params, random_batch
from tvmtiny.quant.qparams import QuantParams
from tvmtiny.verify import expected_outputs

S, E = models.S, models.E


def compiled(model: onnx.ModelProto, place: Path, **options: object) -> Artifact:
    path = place / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return compile_model(path, target="host", output=place / "model", **options)


def integer_results(made: Artifact, data: dict[str, np.ndarray], place: Path) -> np.ndarray:
    """The first output in real numbers, a row a sample."""
    np.savez(place / "data.npz", **data)
    (info,) = made.metadata["outputs"]
    rows = expected_outputs(made, load_samples(made, place / "data.npz"))
    integers = np.stack([row[info["name"]].reshape(-1) for row in rows]).astype(np.float64)
    return (integers - info["zero_point"][0]) * info["scale"][0]


def given_scale(model: onnx.ModelProto, tensor: str) -> tuple[float, int]:
    """Scale and zero point with which a model quantizes a tensor."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    nodes = [n for n in model.graph.node if n.op_type == "QuantizeLinear" and n.input[0] == tensor]
    return float(constants[nodes[0].input[1]]), int(constants[nodes[0].input[2]])


def integer_weights(model: onnx.ModelProto) -> list[np.ndarray]:
    """The int8 matrices (K, N) of dense layers; the table of the embedding has a zero point of its own."""
    tensors = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    matrices = [tensor for tensor in tensors if tensor.dtype == np.int8 and tensor.ndim == 2]
    return [matrix for matrix in matrices if len(matrix) != models.VOCABULARY]


def quantized_module(path: Path) -> QuantizedModel:
    """The integer module of a quantized model, without calibration data."""
    imported = import_model(path)
    fused = tvm.transform.Sequential(fusion_passes())(imported)
    specs, _, tokens = input_specs(fused)
    inputs = input_params(imported)
    probes = random_batch(specs, inputs, tokens, PROBES)
    return quantize(fused, Statistics([], given_parameters(imported, FloatModel(fused), probes), inputs))


def emitted_constants(made: Artifact) -> list[np.ndarray]:
    module = tvm.ir.load_json((made.directory / "reference" / "integer.json").read_text())
    arrays = [as_array(arg) for _, value in Graph(module["main"]) for arg in getattr(value, "args", ())]
    return [array for array in arrays if array is not None]


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("activations", ["QInt8", "QUInt8"])
@pytest.mark.parametrize("name", ["encoder", "sensor"])
def test_is_as_close_to_float_as_onnx_runtime(
    name: str, activations: str, per_channel: bool, tmp_path: Path
) -> None:
    plain = {"encoder": models.encoder_model, "sensor": models.sensor_model}[name]()
    data = {"encoder": quantized_models.encoder_data, "sensor": quantized_models.sensor_data}[name](seed=5)
    model = getattr(quantized_models, name)(activations, per_channel=per_channel)
    made = compiled(model, tmp_path)  # without calibration data
    expected, runtime = (quantized_models.results(m, data) for m in (plain, model))
    ours = integer_results(made, data, tmp_path)
    assert quantized_models.decibels(expected, ours) > quantized_models.decibels(expected, runtime) - 0.5
    # Two models with the same scales differ by their roundings: about as much as each from float.
    assert quantized_models.decibels(runtime, ours) > quantized_models.decibels(expected, runtime) - 3


@pytest.mark.parametrize("per_channel", [False, True])
def test_the_integers_of_weights_are_kept(per_channel: bool, tmp_path: Path) -> None:
    model = quantized_models.encoder(per_channel=per_channel)
    constants = {array.tobytes() for array in emitted_constants(compiled(model, tmp_path))}
    wanted = [weight.T for weight in integer_weights(model)]
    assert len(wanted) >= 6
    assert all(np.ascontiguousarray(weight).tobytes() in constants for weight in wanted)


def test_the_scales_of_activations_are_kept(tmp_path: Path) -> None:
    model = quantized_models.encoder("QUInt8")
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    found = quantized_module(path)
    assert {key: found.scales[key] for key in ("attention_norm0.out", "attention_norm0.q")} == {
        "attention_norm0.out": "kept",
        "attention_norm0.q": "symmetric",
    }
    for layer in ("attention_norm0", "ffn_norm0", "pool"):
        scale, zero_point = given_scale(model, f"{layer}_out")
        assert found.tensors[layer] == QuantParams(scale, zero_point - 128)


def test_uint8_is_int8_shifted_by_128(tmp_path: Path) -> None:
    """Zero points differ by 128, integers with them, and the compiled model not at all."""
    signed = quantized_models.sensor("QInt8")
    unsigned = onnx.ModelProto()
    unsigned.CopyFrom(signed)
    zero_points = {node.input[2] for node in unsigned.graph.node if node.op_type == "QuantizeLinear"}
    for tensor in unsigned.graph.initializer:
        if tensor.name in zero_points:
            values = numpy_helper.to_array(tensor).astype(np.int64) + 128
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.uint8), tensor.name))
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, two = compiled(signed, tmp_path / "a"), compiled(unsigned, tmp_path / "b")
    for name in ("model.c", "model_weights.c"):
        assert (one.directory / name).read_text() == (two.directory / name).read_text()


def test_scaling_in_front_of_the_input_goes_into_its_parameters(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(quantized_models.sensor().SerializeToString())
    module = import_model(path)
    params = input_params(module)["window"]
    scales = [float(row[0]) for row in dict(module["main"].attrs[GIVEN_ATTRIBUTE]).values()]
    ratio = params.scale.reshape(16, 3) / (np.arange(3) + 2)  # sensor_model divides by these
    assert np.ptp(ratio) < 1e-9
    assert any(abs(ratio[0, 0] - scale) < 1e-9 for scale in scales)


def test_a_float_model_still_needs_data(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs calibration data"):
        compiled(models.encoder_model(), tmp_path)


def without_pair(model: onnx.ModelProto, tensor: str) -> onnx.ModelProto:
    """The model with one tensor left in float."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    quantize = next(n for n in found.graph.node if n.op_type == "QuantizeLinear" and n.input[0] == tensor)
    back = next(n for n in found.graph.node if quantize.output[0] in n.input)
    for node in found.graph.node:
        for index, name in enumerate(node.input):
            if name == back.output[0]:
                node.input[index] = tensor
    found.graph.node.remove(quantize)
    found.graph.node.remove(back)
    return found


def test_a_tensor_without_a_scale_needs_data(tmp_path: Path) -> None:
    model = without_pair(quantized_models.encoder(), "attention_norm0_out")
    with pytest.raises(UserError, match="no scale for the tensor 'out' of 'attention_norm0'") as caught:
        compiled(model, tmp_path)
    assert "--calibration" in caught.value.remedy
    made = compiled(model, tmp_path, calibration=quantized_models.encoder_data())
    assert "attention_norm0.out" not in made.metadata["quality"]["scales"]
    assert "ffn_norm0.out" in made.metadata["quality"]["scales"]


# Programs that torch's PT2E flow has quantized.


def pt2e_program() -> Any:
    """As `convert_pt2e` writes it: one dense layer with weights per channel, a ReLU, a mean, a classifier."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("torch.ao.quantization.fx._decomposed")
    ops = torch.ops.quantized_decomposed
    int8 = (-128, 127, torch.int8)

    def rounded(x: Any, scale: float, zero_point: int) -> Any:
        integers = ops.quantize_per_tensor.default(x, scale, zero_point, *int8)
        return ops.dequantize_per_tensor.default(integers, scale, zero_point, *int8)

    class Classifier(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            for name, shape in (("first", (16, 12)), ("second", (4, 16))):
                weight = torch.randint(-127, 128, shape, dtype=torch.int8)
                self.register_buffer(f"{name}_weight", weight)
                self.register_buffer(f"{name}_scale", torch.rand(shape[0]) * 0.01 + 0.002)
                self.register_buffer(f"{name}_zero", torch.zeros(shape[0], dtype=torch.int64))
                self.register_buffer(f"{name}_bias", torch.randn(shape[0]) * 0.1)

        def dense(self, x: Any, name: str) -> Any:
            parts = [getattr(self, f"{name}_{part}") for part in ("weight", "scale", "zero", "bias")]
            weight = ops.dequantize_per_channel.default(*parts[:3], 0, -127, 127, torch.int8)
            return torch.nn.functional.linear(x, weight, parts[3])

        def forward(self, x: Any) -> Any:
            x = torch.relu(self.dense(rounded(x, 0.03, 5), "first"))
            x = rounded(rounded(x, 0.04, -128).mean(1), 0.02, -128)
            return rounded(self.dense(x, "second"), 0.05, 3)

    return torch.export.export(Classifier().eval(), (torch.randn(1, 8, 12),))


def test_programs_of_pt2e_keep_scales_and_integers(tmp_path: Path) -> None:
    program = pt2e_program()
    import torch

    torch.export.save(program, tmp_path / "model.pt2")
    made = compile_model(tmp_path / "model.pt2", target="host", output=tmp_path / "model")
    quality = made.metadata["quality"]
    assert quality["source"]["largest_error"] < 1e-5
    assert (
        list(quality["scales"].values()) == ["kept"] * 3
    )  # the input, behind the ReLU, the mean; logits are int16
    constants = {array.tobytes() for array in emitted_constants(made)}
    state = program.state_dict
    assert state["first_weight"].numpy().tobytes() in constants
    assert state["second_weight"].numpy().tobytes() in constants

    samples = torch.randn(20, 8, 12)
    wanted = np.concatenate([program.module()(row[None]).numpy() for row in samples])
    found = integer_results(made, {made.inputs[0].name: samples.numpy()}, tmp_path)
    assert quantized_models.decibels(wanted, found) > 30


# What the pass does, module by module.


def stripped(build: object) -> tvm.IRModule:
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType([2, 8], "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            output = builder.emit_output(build(builder, x))  # type: ignore[operator]
        builder.emit_func_output(output)
    return StripQuantization()(builder.get())


def quantize_node(
    builder: relax.BlockBuilder, x: object, scale: object = 0.5, zero: int = 3, dtype: str = "int8"
) -> object:
    scale = relax.const(np.asarray(scale, np.float32))
    return builder.emit(relax.op.quantize(x, scale, relax.const(zero, dtype), axis=1, out_dtype=dtype))


def dequantize_node(
    builder: relax.BlockBuilder, x: object, scale: float = 0.5, zero: int = 3, dtype: str = "int8"
) -> object:
    scale, zero_point = relax.const(scale, "float32"), relax.const(zero, dtype)
    return builder.emit(relax.op.dequantize(x, scale, zero_point, axis=1))


def left(module: tvm.IRModule) -> list[str]:
    return [value.op.name for _, value in Graph(module["main"]) if isinstance(value, relax.Call)]


def test_moves_of_integers_become_moves_of_numbers() -> None:
    def build(b: relax.BlockBuilder, x: object) -> object:
        moved = b.emit(relax.op.permute_dims(b.emit(relax.op.reshape(quantize_node(b, x), (4, 4)))))
        return dequantize_node(b, moved)

    module = stripped(build)
    assert left(module) == ["relax.reshape", "relax.permute_dims"]
    rows = dict(module["main"].attrs[GIVEN_ATTRIBUTE]).values()  # before and behind the moves
    assert [(float(row[0]), int(row[1])) for row in rows] == [(0.5, 3)] * 2


def test_a_clamp_of_integers_at_zero_is_a_relu() -> None:
    module = stripped(lambda b, x: dequantize_node(b, b.emit(relax.op.clip(quantize_node(b, x), 3, 127))))
    assert left(module) == ["relax.maximum"]


def test_a_table_of_integers_becomes_numbers() -> None:
    table = np.arange(-6, 6, dtype=np.int8).reshape(6, 2)

    def build(b: relax.BlockBuilder, x: object) -> object:
        ids = b.emit(relax.op.astype(x, "int64"))
        return dequantize_node(b, b.emit(relax.op.take(relax.const(table), ids, axis=0, mode="clip")))

    values = [as_array(arg) for _, v in Graph(stripped(build)["main"]) for arg in getattr(v, "args", ())]
    np.testing.assert_array_equal(next(v for v in values if v is not None), (table - 3.0) * 0.5)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda b, x: dequantize_node(b, quantize_node(b, x), scale=0.25), "another scale"),
        (
            lambda b, x: b.emit(relax.op.astype(quantize_node(b, x), "float32")),
            "astype of quantized integers",
        ),
        (lambda b, x: dequantize_node(b, quantize_node(b, x, dtype="int16"), dtype="int16"), "to int16"),
        (
            lambda b, x: dequantize_node(b, quantize_node(b, x, scale=np.full(8, 0.5))),
            "a scale for each of 8 channels",
        ),
        (
            lambda b, x: b.emit(
                relax.op.quantize(x, b.emit(relax.op.max(x)), relax.const(0, "int8"), out_dtype="int8")
            ),
            "computed at run time",
        ),
    ],
)
def test_what_has_no_int8_form_is_refused(build: object, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        stripped(build)
    assert "QDQ" in caught.value.remedy


def test_operators_on_integers_are_refused_by_name(tmp_path: Path) -> None:
    build = models.OnnxBuilder(18)
    x = build.input("x", [1, 6])
    arguments = [
        build.constant(0.1), build.constant(0, np.int8), build.constant(np.ones((6, 3)), np.int8),
        build.constant(0.1), build.constant(0, np.int8), build.constant(0.1), build.constant(0, np.int8),
    ]  # fmt: skip
    q = build.node("QuantizeLinear", [x, *arguments[:2]])
    y = build.node(
        "DequantizeLinear", [build.node("QLinearMatMul", [q, *arguments], "product"), *arguments[-2:]]
    )
    path = tmp_path / "model.onnx"
    path.write_bytes(build.model(y, [1, 3]).SerializeToString())
    with pytest.raises(UserError, match="QLinearMatMul") as caught:
        import_model(path)
    assert "QDQ" in caught.value.remedy


# Operators on integers between a QuantizeLinear and a DequantizeLinear.


def between_pairs(kind: str) -> onnx.ModelProto:
    """A dense layer, integers with a zero point of -20 that an operator changes, and a classifier."""
    build = models.OnnxBuilder(21)
    grid = [build.constant(0.05), build.constant(-20, np.int8)]

    def dequantized(integers: str, scale: float = 0.05, zero: int = -20) -> str:
        return build.node(
            "DequantizeLinear", [integers, build.constant(scale), build.constant(zero, np.int8)]
        )

    def rounded(x: str, scale: float) -> str:
        integers = build.node("QuantizeLinear", [x, build.constant(scale), build.constant(0, np.int8)])
        return dequantized(integers, scale, 0)

    x = rounded(build.input("x", [1, 4, 8]), 0.03)
    integers = build.node("QuantizeLinear", [build.dense(x, 8, 16, "first"), *grid])
    if kind == "Clip":
        integers = build.node("Reshape", [integers, build.constant([1, 64], np.int64)])
        integers = build.node("Clip", [integers, build.constant(-20, np.int8), build.constant(40, np.int8)])
        integers = build.node("Reshape", [integers, build.constant([1, 4, 16], np.int64)])
    if kind == "Relu":
        integers = build.node("Relu", [integers])
    if kind == "Pad":
        widths = build.constant([0, 1, 0, 0, 0, 0], np.int64)
        integers = build.node("Pad", [integers, widths, build.constant(7, np.int8)])
    y = dequantized(integers)
    tokens = 5 if kind == "Pad" else 4
    return build.model(rounded(build.dense(y, 16, 3, "last"), 0.05), [1, tokens, 3])


@pytest.mark.parametrize("kind", ["Clip", "Relu", "Pad"])
def test_operators_on_integers_are_those_of_the_numbers(kind: str, tmp_path: Path) -> None:
    model = between_pairs(kind)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    data = {"x": np.random.default_rng(0).normal(size=(12, 4, 8)).astype(np.float32)}
    real = FloatModel(tvm.transform.Sequential(fusion_passes())(import_model(path)))
    ours = np.stack([real.run({"x": row}, 1).outputs[0].reshape(-1) for row in data["x"]])
    evaluator = ReferenceEvaluator(model)  # ONNX Runtime fails to optimize these
    wanted = np.stack([evaluator.run(None, {"x": row[None]})[0].reshape(-1) for row in data["x"]])  # type: ignore[index]
    assert quantized_models.decibels(wanted, ours) > 25

    made = compiled(model, tmp_path)  # the scale behind the operator is found: no calibration
    assert f"the operator {kind} at" in made.metadata["quality"]["source"]["not_run"]
    assert quantized_models.decibels(wanted, integer_results(made, data, tmp_path)) > 25


def test_moves_of_integers_leave_the_check_of_the_source(tmp_path: Path) -> None:
    source = compiled(between_pairs("none"), tmp_path).metadata["quality"]["source"]
    assert source["largest_error"] < 1e-5


# Which tensor holds the numbers of a value.


@pytest.mark.parametrize("size", [8192, 16384])
@pytest.mark.parametrize("part", [4, 8, 16, 64])
def test_parts_match_their_own_tensor_only(size: int, part: int) -> None:
    random = np.random.default_rng(size + part)
    for _ in range(20):
        probes = [random.normal(size=size).astype(np.float32) for _ in range(PROBES)]
        whole = {"whole": [np.sort(probe) for probe in probes]}
        slices = [random.choice(probe, part, replace=False) for probe in probes]
        noise = [(1 + 1e-7 * random.normal(size=part)).astype(np.float32) for _ in probes]
        reordered = [values * factor for values, factor in zip(slices, noise, strict=True)]
        strangers = [(0.3 * random.normal(size=part)).astype(np.float32) for _ in probes]
        assert _match(slices, whole) == "whole"
        assert _match(reordered, whole) == "whole"
        assert _match(strangers, whole) is None


# Numbers


@given(
    seed=st.integers(0, 2**32 - 1),
    columns=st.integers(9, 40),
    exponent=st.floats(-20, 10),
    most=st.integers(17, 127),
)
def test_weights_on_a_grid_keep_their_integers(seed: int, columns: int, exponent: float, most: int) -> None:
    random = np.random.default_rng(seed)
    integers = random.integers(-most, most + 1, (4, columns))
    integers[:, 0], integers[:, 1] = most, most - 1  # no common factor
    scale = np.float32(10.0**exponent)
    weight = (integers.astype(np.float32) * scale).astype(np.float64)
    found = qparams.int8_weights(weight, np.zeros(4), QuantParams(0.3, 7))
    np.testing.assert_array_equal(found.values, integers)
    np.testing.assert_allclose(found.unit, 0.3 * float(scale), rtol=1e-6)


@given(seed=st.integers(0, 2**32 - 1), columns=st.integers(1, 8), most=st.integers(1, 127))
def test_few_weights_on_a_grid_keep_their_values(seed: int, columns: int, most: int) -> None:
    integers = np.random.default_rng(seed).integers(-most, most + 1, (3, columns))
    weight = (integers.astype(np.float32) * np.float32(0.037)).astype(np.float64)
    found = qparams.int8_weights(weight, np.zeros(3), QuantParams(1.0))
    step = np.abs(weight).max(axis=1, keepdims=True) / 127
    assert np.all(np.abs(found.values * found.unit[:, None] - weight) <= 2e-3 * step + 1e-12)


@given(seed=st.integers(0, 2**32 - 1), zero=st.integers(-128, 127))
def test_a_table_keeps_its_integers(seed: int, zero: int) -> None:
    integers = np.random.default_rng(seed).integers(-128, 128, (20, 6))
    table = ((integers - zero).astype(np.float32) * np.float32(0.01)).astype(np.float64)
    values, params = qparams.quantized_constant(table, offset=True)
    steps = values.astype(np.int64) - params.zero_point
    np.testing.assert_allclose(steps * params.scale, table, atol=1e-6)


@given(scale=st.floats(1e-6, 1e3), zero=st.integers(-128, 127))
def test_symmetric_parameters_hold_the_same_range(scale: float, zero: int) -> None:
    found = qparams.made_symmetric(QuantParams(scale, zero))
    assert found.zero_point == 0
    ends = np.array([-128 - zero, 127 - zero]) * scale
    assert np.all(np.abs(qparams.quantize(ends, found) * found.scale - ends) <= 1.51 * found.scale)

"""Mutated ONNX files: each is imported, or refused with a UserError. No other exception, no hang, a clean terminal."""

from __future__ import annotations

import functools
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import models
import numpy as np
import onnx
import pytest
import quantized_models
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from tvmtiny.errors import UserError
from tvmtiny.frontend import import_model
from tvmtiny.frontend.data import input_specs
from tvmtiny.frontend.supported import check_fused
from tvmtiny.passes.pipeline import fusion_passes

HUNG_S = 20
NUMBERS = (-(2**63), -1, 0, 1, 2, 7, 2**31, 2**62)
EXTENTS = (-1, 0, 1, 2, 5, 1000, 2**40)
TYPES = tuple(range(24))
_OPERATORS = """
    Add Cast Clip Concat ConstantOfShape Conv Einsum Erf Expand Gather Gemm LayerNormalization MatMul NonZero OneHot
    Pad Pow Range ReduceMean Relu Reshape Resize Shape Slice Softmax Split Squeeze Tile TopK Transpose Unsqueeze Where
    QuantizeLinear DequantizeLinear
"""
SOURCES: tuple[Callable[[], onnx.ModelProto], ...] = (
    models.dense_model,
    models.sensor_model,
    models.encoder_model,
    functools.partial(models.encoder_model, 13, mask="where", fused_qkv=True),
    lambda: _copy(quantized_models.sensor("QUInt8", per_channel=True)),
    lambda: _copy(quantized_models.encoder()),
)
Draw = Callable[[Any], Any]


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def drop_node(graph: onnx.GraphProto, draw: Draw) -> None:
    del graph.node[draw(st.integers(0, len(graph.node) - 1))]


def repeat_node(graph: onnx.GraphProto, draw: Draw) -> None:
    graph.node.insert(draw(st.integers(0, len(graph.node))), draw(st.sampled_from(list(graph.node))))


def change_operator(graph: onnx.GraphProto, draw: Draw) -> None:
    draw(st.sampled_from(list(graph.node))).op_type = draw(st.sampled_from(_OPERATORS.split()))


def change_attribute(graph: onnx.GraphProto, draw: Draw) -> None:
    node = draw(st.sampled_from(list(graph.node)))
    name = draw(st.sampled_from(["axis", "axes", "perm", "keepdims", "to", "transA", "epsilon"]))
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    value = draw(st.sampled_from([*NUMBERS, float("nan"), [], [0], [1, 0], [9, -9], "x"]))
    kind = AttributeProto.INTS if value == [] else None
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value, attr_type=kind)])


def wire_anew(graph: onnx.GraphProto, draw: Draw) -> None:
    node = draw(st.sampled_from([node for node in graph.node if node.input]))
    node.input[draw(st.integers(0, len(node.input) - 1))] = draw(st.sampled_from([*_values(graph), ""]))


def add_operand(graph: onnx.GraphProto, draw: Draw) -> None:
    draw(st.sampled_from(list(graph.node))).input.append(draw(st.sampled_from(_values(graph))))


def change_extent(graph: onnx.GraphProto, draw: Draw) -> None:
    """Of a constant or of an input."""
    axes = draw(st.sampled_from(list(graph.input))).type.tensor_type.shape.dim
    if axes and draw(st.booleans()):
        draw(st.sampled_from(list(axes))).dim_value = draw(st.sampled_from(EXTENTS))
    else:
        tensor = draw(st.sampled_from([tensor for tensor in graph.initializer if tensor.dims]))
        tensor.dims[draw(st.integers(0, len(tensor.dims) - 1))] = draw(st.sampled_from(EXTENTS))


def change_rank(graph: onnx.GraphProto, draw: Draw) -> None:
    axes = draw(st.sampled_from(list(graph.input))).type.tensor_type.shape.dim
    if axes and draw(st.booleans()):
        axes.pop()
    else:
        axes.add().dim_value = 3


def change_type(graph: onnx.GraphProto, draw: Draw) -> None:
    if draw(st.booleans()):
        draw(st.sampled_from(list(graph.initializer))).data_type = draw(st.sampled_from(TYPES))
    else:
        draw(st.sampled_from(list(graph.input))).type.tensor_type.elem_type = draw(st.sampled_from(TYPES))


def change_constant(graph: onnx.GraphProto, draw: Draw) -> None:
    """Other values of another shape and type, not finite ones among them."""
    tensor = draw(st.sampled_from(list(graph.initializer)))
    shape = draw(st.lists(st.sampled_from([0, 1, 2, 3, 12]), max_size=4))
    dtype = draw(
        st.sampled_from(["float32", "float64", "float16", "int64", "int32", "int8", "uint8", "bool"])
    )
    fill = draw(st.sampled_from([0, 1, -1, 3, *([float("nan"), 1e30] if dtype.startswith("float3") else [])]))
    tensor.CopyFrom(numpy_helper.from_array(np.full(shape, fill).astype(dtype), tensor.name))


def change_output(graph: onnx.GraphProto, draw: Draw) -> None:
    graph.output[0].name = draw(st.sampled_from(_values(graph)))


MUTATIONS = (
    drop_node, repeat_node, change_operator, change_attribute, wire_anew, add_operand, change_extent, change_rank,
    change_type, change_constant, change_output,
)  # fmt: skip


def _values(graph: onnx.GraphProto) -> list[str]:
    results = [name for node in graph.node for name in node.output]
    return results + [tensor.name for tensor in graph.initializer] + [value.name for value in graph.input]


@contextmanager
def time_limit() -> Iterator[None]:
    def hang(*_: object) -> None:
        raise TimeoutError(f"importing takes longer than {HUNG_S} s")

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(HUNG_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def import_or_refuse(path: Path, data: bytes) -> UserError | None:
    """The whole front end on a file; the error that it was refused with."""
    path.write_bytes(data)
    with time_limit(), warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            fused = tvm.transform.Sequential(fusion_passes())(import_model(path))
            check_fused(fused)
            input_specs(fused)
        except UserError as error:
            return error
    return None


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mutants") / "model.onnx"


@settings(max_examples=150)
@given(st.data())
def test_mutated_graphs(place: Path, data: st.DataObject) -> None:
    model = data.draw(st.sampled_from(SOURCES))()
    for _ in range(data.draw(st.integers(1, 3))):
        if model.graph.node:
            data.draw(st.sampled_from(MUTATIONS))(model.graph, data.draw)
    import_or_refuse(place, model.SerializeToString())


@settings(max_examples=60)
@given(st.sampled_from(SOURCES), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4))
def test_flipped_bytes(
    place: Path, source: Callable[[], onnx.ModelProto], flips: list[tuple[float, int]]
) -> None:
    whole = bytearray(source().SerializeToString())
    for where, value in flips:
        whole[min(int(where * len(whole)), len(whole) - 1)] = value
    assert import_or_refuse(place, bytes(whole)) is None or flips


def test_an_input_without_an_element_type(place: Path) -> None:
    model = models.encoder_model()
    model.graph.input[1].type.tensor_type.elem_type = TensorProto.UNDEFINED
    error = import_or_refuse(place, model.SerializeToString())
    assert error is not None
    assert "'mask' has no element type" in error.message


def test_a_result_without_elements(place: Path) -> None:
    build = models.OnnxBuilder(18)
    x = build.node("Mul", [build.input("x", [1, 4, 1]), build.constant(np.zeros((4, 0)))], "nothing")
    error = import_or_refuse(place, build.model(x, [1, 4, 0]).SerializeToString())
    assert error is not None
    assert "'nothing' has no elements" in error.message


def test_a_masked_sum_over_the_axis_of_heads(place: Path) -> None:
    """Spelled like the mean over tokens, but of a tensor of four axes: no mean of tokens."""
    model = models.encoder_model()
    weighted = next(
        node for node in model.graph.node if node.input[0] == "ffn_norm0_out" and node.op_type == "Mul"
    )
    weighted.input[0] = "values0_out"  # (1, H, S, P)
    del model.graph.node[-2:]  # the classifier
    model.graph.output[0].name = "pool_out"
    error = import_or_refuse(place, model.SerializeToString())
    assert error is not None
    assert "is not a length" in error.message


def test_a_product_of_two_vectors(place: Path) -> None:
    model = models.encoder_model()
    product = next(node for node in model.graph.node if node.name == "classifier_product")
    vector = next(tensor.name for tensor in model.graph.initializer if list(tensor.dims) == [models.E])
    product.input[:] = [vector, vector]
    error = import_or_refuse(place, model.SerializeToString())
    assert error is not None
    assert error.remedy


def test_weights_that_are_not_finite(place: Path) -> None:
    model = models.encoder_model()
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2:
            array = np.full(tuple(tensor.dims), np.nan, np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    error = import_or_refuse(place, model.SerializeToString())
    assert error is not None
    assert "NaN or infinite" in error.message

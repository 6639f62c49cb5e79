"""The passes and operators that model families need: each beside what it stands for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tvm
from hypothesis import given
from hypothesis import strategies as st
from tvm import relax

from tvmtiny.passes.convolution import PatchConvolution
from tvmtiny.passes.decompose import Decompose
from tvmtiny.passes.fuse_attention import _window
from tvmtiny.passes.fuse_scale import FuseScale
from tvmtiny.passes.graph import Graph, array_of, op_name
from tvmtiny.passes.operators import call, kind
from tvmtiny.passes.recognize_positions import PADDING_ATTRIBUTE, RecognizePositions
from tvmtiny.passes.simplify import Simplify
from tvmtiny.quant import integer, qparams
from tvmtiny.quant.qparams import QuantParams

op = relax.op


def module_of(build: Any, *params: relax.Var) -> tvm.IRModule:
    builder = relax.BlockBuilder()
    with builder.function("main", list(params)):
        with builder.dataflow():
            output = builder.emit_output(build(builder, *params))
        builder.emit_func_output(output)
    return builder.get()


def run(module: tvm.IRModule, *arrays: np.ndarray) -> np.ndarray:
    machine = relax.VirtualMachine(tvm.compile(module, target="llvm"), tvm.cpu())
    return np.asarray(machine["main"](*map(tvm.runtime.tensor, arrays)).numpy())


def operators(module: tvm.IRModule) -> list[str]:
    return [op_name(value) for _, value in Graph(module["main"]) if isinstance(value, relax.Call)]


@pytest.mark.parametrize(
    ("shape", "kernel", "options"),
    [
        ((1, 3, 17), (5, 3, 4), {"strides": 3, "padding": (1, 2)}),
        ((1, 2, 12), (4, 2, 3), {"dilation": 2, "padding": (2, 2)}),
        ((1, 2, 9, 8), (3, 2, 3, 2), {"strides": (2, 1), "padding": (1, 0, 0, 1)}),
        ((1, 1, 8, 12), (6, 1, 4, 4), {"strides": (4, 4)}),
    ],
)
def test_a_convolution_is_a_product_with_patches(
    shape: tuple[int, ...], kernel: tuple[int, ...], options: dict[str, Any]
) -> None:
    rng = np.random.default_rng(0)
    weight, values = (rng.normal(size=size).astype(np.float32) for size in (kernel, shape))
    factor = rng.normal(size=(kernel[0], *[1] * (len(shape) - 2))).astype(np.float32)

    def build(b: relax.BlockBuilder, x: relax.Var) -> Any:
        convolution = op.nn.conv1d if len(shape) == 3 else op.nn.conv2d
        y = b.emit(convolution(x, relax.const(weight), **options))
        return b.emit(
            op.nn.relu(b.emit(op.add(b.emit(op.multiply(y, relax.const(factor))), relax.const(factor))))
        )

    before = module_of(build, relax.Var("x", relax.TensorType(shape, "float32")))
    after = PatchConvolution()(before)
    names = operators(after)
    assert not {"nn.conv1d", "nn.conv2d"} & set(names)
    assert names.index("matmul") < names.index("nn.relu") < names.index("permute_dims")
    np.testing.assert_allclose(run(after, values), run(before, values), atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "kernel", "options", "expected"),
    [
        ((1, 3, 17), (3, 1, 4), {"strides": 3, "padding": (1, 2), "groups": 3}, ["depthwise"]),
        ((1, 2, 12), (4, 1, 3), {"dilation": 2, "padding": (2, 2), "groups": 2}, ["depthwise"]),
        (
            (1, 3, 9, 8),
            (6, 1, 3, 2),
            {"strides": (2, 1), "padding": (1, 0, 0, 1), "groups": 3},
            ["depthwise"],
        ),
        (
            (1, 4, 7, 6),
            (4, 1, 5, 3),
            {"dilation": (2, 1), "padding": (4, 1, 4, 1), "groups": 4},
            ["depthwise"],
        ),
        ((1, 4, 9), (6, 2, 3), {"groups": 2}, []),
        ((1, 12, 9), (12, 2, 1), {"groups": 6}, []),
    ],
)
def test_groups_are_layers_or_a_depthwise_operator(
    shape: tuple[int, ...], kernel: tuple[int, ...], options: dict[str, Any], expected: list[str]
) -> None:
    rng = np.random.default_rng(0)
    weight, values = (rng.normal(size=size).astype(np.float32) for size in (kernel, shape))
    offset = rng.normal(size=(kernel[0], *[1] * (len(shape) - 2))).astype(np.float32)

    def build(b: relax.BlockBuilder, x: relax.Var) -> Any:
        convolution = op.nn.conv1d if len(shape) == 3 else op.nn.conv2d
        y = b.emit(convolution(x, relax.const(weight), **options))
        return b.emit(op.nn.relu(b.emit(op.add(y, relax.const(offset)))))

    before = module_of(build, relax.Var("x", relax.TensorType(shape, "float32")))
    after = PatchConvolution()(before)
    assert [kind(value) for _, value in Graph(after["main"]) if kind(value)] == expected
    assert not {"nn.conv1d", "nn.conv2d"} & set(operators(after))
    np.testing.assert_allclose(run(Decompose()(after), values), run(before, values), atol=1e-5)


def test_a_place_that_sees_only_padding_is_left() -> None:
    weight = np.ones((2, 1, 3), np.float32)

    def build(b: relax.BlockBuilder, x: relax.Var) -> Any:
        return b.emit(op.nn.conv1d(x, relax.const(weight), padding=(5, 5), groups=2))

    module = module_of(build, relax.Var("x", relax.TensorType((1, 2, 4), "float32")))
    assert "nn.conv1d" in operators(PatchConvolution()(module))


def counted(ids: relax.Var, b: relax.BlockBuilder, padding: int) -> Any:
    """RoBERTa's positions: the running number of tokens that are not padding, behind the id of padding."""
    present = b.emit(op.astype(b.emit(op.not_equal(ids, relax.const(padding, "int64"))), "int64"))
    count = b.emit(op.multiply(b.emit(op.cumsum(present, axis=1)), present))
    return b.emit(op.add(count, relax.const(padding, "int64")))


@pytest.mark.parametrize("padding", [0, 1, 29])
def test_counted_positions_become_constants(padding: int) -> None:
    table, positions = np.ones((30, 4), np.float32), np.ones((40, 4), np.float32)

    def build(b: relax.BlockBuilder, ids: relax.Var) -> Any:
        x = b.emit(op.take(relax.const(table), ids, axis=0))
        return b.emit(op.add(x, b.emit(op.take(relax.const(positions), counted(ids, b, padding), axis=0))))

    ids = relax.Var("ids", relax.TensorType((1, 6), "int64"))
    found = RecognizePositions()(module_of(build, ids))
    assert list(found["main"].attrs[PADDING_ATTRIBUTE]["ids"]) == [padding]
    gathers = [
        value
        for _, value in Graph(found["main"])
        if isinstance(value, relax.Call) and op_name(value) == "take"
    ]
    np.testing.assert_array_equal(array_of(gathers[1].args[1]), np.arange(1, 7)[None] + padding)
    assert "cumsum" not in operators(found)


def test_an_index_that_depends_on_every_id_is_left() -> None:
    table = np.ones((30, 4), np.float32)

    def build(b: relax.BlockBuilder, ids: relax.Var) -> Any:
        x = b.emit(op.take(relax.const(table), ids, axis=0))
        total = b.emit(op.cumsum(ids, axis=1))
        return b.emit(op.add(x, b.emit(op.take(relax.const(table), total, axis=0))))

    found = RecognizePositions()(module_of(build, relax.Var("ids", relax.TensorType((1, 6), "int64"))))
    assert "cumsum" in operators(found)
    assert PADDING_ATTRIBUTE not in (found["main"].attrs or {})


def test_a_factor_a_column_goes_into_the_layer_or_behind_the_sum() -> None:
    rng = np.random.default_rng(0)
    weight, gamma, beta = (rng.normal(size=size).astype(np.float32) for size in ((4, 3), (4,), (4,)))
    x, y = (relax.Var(name, relax.TensorType((5, n), "float32")) for name, n in (("x", 3), ("y", 4)))

    def scaled(b: relax.BlockBuilder, value: Any) -> Any:
        return b.emit(op.add(b.emit(op.multiply(value, relax.const(gamma))), relax.const(beta)))

    def layer(b: relax.BlockBuilder, x: relax.Var, y: relax.Var) -> Any:
        args = [x, relax.const(weight), relax.const(np.zeros(4, np.float32))]
        dense = b.emit(call("dense", args, activation="none"))
        return b.emit(op.add(scaled(b, dense), scaled(b, b.emit(op.add(dense, y)))))

    def alone(b: relax.BlockBuilder, x: relax.Var, y: relax.Var) -> Any:
        args = [x, relax.const(weight), relax.const(np.zeros(4, np.float32))]
        return b.emit(op.add(scaled(b, b.emit(call("dense", args, activation="none"))), y))

    kinds = [kind(value) for _, value in Graph(FuseScale()(module_of(layer, x, y))["main"]) if kind(value)]
    assert kinds == ["dense", "scale"]  # two read the layer: its weights stay
    (dense,) = [v for _, v in Graph(FuseScale()(module_of(alone, x, y))["main"]) if kind(v)]
    np.testing.assert_allclose(array_of(dense.args[1]), weight * gamma[:, None], rtol=1e-6)
    np.testing.assert_allclose(array_of(dense.args[2]), beta)


def test_batch_norm_is_a_factor_and_an_offset() -> None:
    rng = np.random.default_rng(0)
    gamma, beta, mean = (rng.normal(size=3).astype(np.float32) for _ in range(3))
    variance, values = (
        rng.uniform(0.5, 2, 3).astype(np.float32),
        rng.normal(size=(1, 3, 7)).astype(np.float32),
    )

    def build(b: relax.BlockBuilder, x: relax.Var) -> Any:
        parts = map(relax.const, (gamma, beta, mean, variance))
        return b.emit(relax.TupleGetItem(b.emit(op.nn.batch_norm(x, *parts, axis=1, training=False)), 0))

    found = Simplify()(module_of(build, relax.Var("x", relax.TensorType((1, 3, 7), "float32"))))
    assert operators(found) == ["multiply", "add"]
    expected = (values - mean[:, None]) / np.sqrt(variance[:, None] + 1e-5) * gamma[:, None] + beta[:, None]
    np.testing.assert_allclose(run(found, values), expected, atol=1e-5)


@given(before=st.integers(0, 6), after=st.integers(0, 6))
def test_a_constant_mask_is_a_window(before: int, after: int) -> None:
    distance = np.arange(6) - np.arange(6)[:, None]
    outside = (distance < -before) | (distance > after)
    mask = np.where(outside, -np.inf, 0.0)[None].repeat(2, axis=0)
    expected = {"before": min(before, 5), "after": min(after, 5)} if np.any(outside) else {}
    assert _window(mask) == expected
    mask[1, 3, 3] = -np.inf
    assert _window(mask) is None


@given(seed=st.integers(0, 2**32 - 1), extent=st.integers(1, 40))
def test_rms_norm_is_the_real_one(seed: int, extent: int) -> None:
    rng = np.random.default_rng(seed)
    scale, epsilon = 2.0**-12, 1e-5
    t = rng.integers(-(2**19), 2**19, (5, extent)).astype(np.int32)
    gamma, beta = rng.uniform(0.5, 2, extent), rng.normal(size=extent)
    real = t * scale
    real = real / np.sqrt(np.mean(real**2, axis=1, keepdims=True) + epsilon) * gamma + beta
    out = qparams.asymmetric(float(real.min()), float(real.max()))
    found = integer.rms_norm_s8(t, *qparams.norm_constants(gamma, beta, epsilon, scale, out, uncentred=True))
    assert (
        np.abs((found.astype(np.float64) - out.zero_point) * out.scale - real).max()
        <= 0.51 * out.scale + 1e-6
    )


@given(seed=st.integers(0, 2**32 - 1))
def test_a_scaled_sum_is_the_real_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scale = float(2.0 ** rng.integers(-20, -8))
    t = rng.integers(-(2**23), 2**23, (6, 9)).astype(np.int32)
    gamma, beta = rng.normal(size=9), rng.normal(size=9) * scale * 2**20
    real = t * scale * gamma + beta
    out = qparams.asymmetric(float(real.min()), float(real.max()))
    g, b, shift, out = qparams.scale_constants(gamma, beta, scale, out, "norm")
    found = integer.scale_s8(t, g, b, shift)
    assert np.abs((found.astype(np.float64) - out.zero_point) * out.scale - real).max() <= 0.51 * out.scale


@given(seed=st.integers(0, 2**32 - 1), heads=st.integers(1, 5))
def test_layers_that_share_weights_get_the_same_integers(seed: int, heads: int) -> None:
    rng = np.random.default_rng(seed)
    own = [rng.uniform(0.01, 3, heads) * 10.0 ** rng.integers(-3, 3) for _ in range(3)]
    weight = rng.normal(size=(7, 2 * heads))
    weights = []
    for index, scales in enumerate(own):
        shared = qparams.shared_scales(scales, own[:index] + own[index + 1 :], np.zeros(heads))
        assert np.all(shared >= scales)
        params = QuantParams(np.repeat(shared, 2))
        weights.append(qparams.dense(weight, np.zeros(7), params, 1e6, "o").weight)
    np.testing.assert_array_equal(weights[0], weights[1])
    np.testing.assert_array_equal(weights[0], weights[2])

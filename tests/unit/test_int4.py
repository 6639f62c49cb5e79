"""int4 weights: their format, their quantizer, and which layers get them."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from hypothesis import given
from hypothesis import strategies as st
from model_cases import Encoder
from models import save

from tvmtiny.errors import UserError
from tvmtiny.frontend import import_model
from tvmtiny.passes.pipeline import fusion_passes
from tvmtiny.passes.weight_types import weight_types
from tvmtiny.quant import int4, integer, qparams
from tvmtiny.quant.qparams import QuantParams

INT32 = 2**31 - 1
SEEDS = st.integers(0, 2**32 - 1)


# format


@given(seed=SEEDS, n=st.integers(1, 6), depth=st.integers(1, 80))
def test_packed_weights_come_back(seed: int, n: int, depth: int) -> None:
    q = np.random.default_rng(seed).integers(-8, 8, (n, depth), dtype=np.int8)
    packed = int4.pack(q)
    assert packed.dtype == np.uint8
    assert packed.shape == (n, int4.row_bytes(depth))
    assert packed.shape[1] % 4 == 0
    assert depth / 2 <= packed.shape[1] < depth / 2 + 4
    assert np.array_equal(int4.unpack(packed, depth), q)


def test_the_even_weight_lies_in_the_low_bits_and_zero_is_8() -> None:
    assert int4.pack(np.array([[-8, 7, 1]], np.int8)).tolist() == [[0xF0, 0x89, 0x88, 0x88]]


@given(seed=SEEDS, depth=st.integers(1, 100))
def test_every_weight_has_the_scale_of_its_group(seed: int, depth: int) -> None:
    rng = np.random.default_rng(seed)
    q = rng.integers(-8, 8, (3, depth), dtype=np.int8)
    scales = rng.integers(1, 256, (3, int4.groups_of(depth)), dtype=np.uint8)
    expected = [[int(scales[i, k // 32]) * int(q[i, k]) for k in range(depth)] for i in range(3)]
    assert int4.expand(int4.pack(q), scales, depth).tolist() == expected


# quantizer


def _weights(rng: np.random.Generator, n: int, depth: int) -> np.ndarray:
    """Rows and groups of very different sizes, an outlier, a row of zeros."""
    size = 10.0 ** rng.uniform(-3, 3, (n, 1)) * np.repeat(10.0 ** rng.uniform(-1, 1, (n, 9)), 32, axis=1)
    weight = rng.normal(size=(n, depth)) * size[:, :depth]
    weight[0, rng.integers(0, depth)] *= 30
    weight[-1] = 0
    return weight


@given(seed=SEEDS, n=st.integers(2, 5), depth=st.integers(1, 288), zero=st.integers(-128, 127))
def test_no_group_is_worse_than_with_the_scale_of_its_largest_weight(
    seed: int, n: int, depth: int, zero: int
) -> None:
    rng = np.random.default_rng(seed)
    weight, x = _weights(rng, n, depth), QuantParams(0.03, zero)
    made = qparams.int4_weights(weight, np.zeros(n), x)
    real = made.values * made.unit[:, None] / x.scale
    assert made.groups is not None
    assert made.groups.min() >= 1
    assert np.array_equal(int4.expand(made.stored, made.groups, depth), made.values)
    for start in range(0, depth, int4.GROUP):
        part = slice(start, start + int4.GROUP)
        got = ((real[:, part] - weight[:, part]) ** 2).sum(axis=1)
        # The integer scale of a group may miss max |w| / 7 by half a unit, which its weights take 7 times.
        step = np.abs(weight[:, part]).max(axis=1) / 7
        unit = made.unit / x.scale
        assert np.all(got <= weight[:, part].shape[1] * (step / 2 + 4 * unit) ** 2 * (1 + 1e-9))


def test_scales_that_clip_are_found() -> None:
    """A lone outlier in a group: the rest is worth more than its last bit."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(64, 32))
    weight[:, 0] = 4.5
    made = qparams.int4_weights(weight, np.zeros(64), QuantParams(1.0, 0))
    plain = np.abs(weight).max(axis=1, keepdims=True) / 7
    rounded = np.clip(np.round(weight / plain), -8, 7) * plain
    error = ((made.values * made.unit[:, None] - weight) ** 2).sum()
    assert error < 0.95 * ((rounded - weight) ** 2).sum()


@given(
    seed=SEEDS,
    depth=st.sampled_from([1, 31, 33, 700, 4096]),
    bias_size=st.floats(-20, 20),
    zero=st.integers(-128, 127),
    extreme=st.booleans(),
)
def test_int4_layers_cannot_overflow(
    seed: int, depth: int, bias_size: float, zero: int, extreme: bool
) -> None:
    """For any weights and bias, with an output as fine as it may be, and inputs at both ends: never refused either."""
    rng = np.random.default_rng(seed)
    weight, bias = rng.normal(size=(3, depth)), rng.normal(size=3) * 10.0**bias_size
    if extreme:
        weight = rng.choice([-1.0, 1.0], (3, depth))
    x = QuantParams(0.02, zero)
    observed = rng.normal(size=(20, depth)) if depth < 100 else None
    made = qparams.int4_weights(weight, bias, x, observed)
    assert np.all(made.bound <= qparams.INT4_BOUND)
    out = qparams.floor_scale(1e-30, made.unit)
    p = qparams.dense(weight, bias, x, out, "layer", integers=made)
    w = made.values.astype(np.int64)
    for ends in (np.where(w > 0, 127, -128), np.where(w > 0, -128, 127)):
        acc = (ends * w).sum(axis=1) + p.bias
        assert np.all(np.abs(acc) <= made.bound)
        assert np.all(np.abs(acc << p.shift) <= INT32)


def test_a_very_wide_layer_gets_a_coarser_unit_instead_of_an_overflow() -> None:
    wide, narrow = (
        qparams.int4_weights(np.ones((1, depth)), np.zeros(1), QuantParams(1.0, 0)) for depth in (2**15, 2**8)
    )
    assert wide.unit[0] > 2 * narrow.unit[0]
    assert wide.bound[0] <= qparams.INT4_BOUND
    assert np.abs(wide.values * wide.unit[0] - 1).max() < 0.1


@given(seed=SEEDS, depth=st.integers(24, 80))
def test_weights_make_up_for_the_errors_of_others_where_inputs_move_alike(seed: int, depth: int) -> None:
    """On inputs that were not observed, too: the error at the output shrinks to less than three quarters."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(depth // 4, depth))
    inputs = rng.normal(size=(4000, depth // 4)) @ mixing + 0.1 * rng.normal(size=(4000, depth))
    weight, x = rng.normal(size=(24, depth)), QuantParams(0.05, 3)
    plain, compensated = (
        qparams.int4_weights(weight, np.zeros(24), x, observed) for observed in (None, inputs[:2000])
    )
    errors = [
        ((inputs[2000:] @ (made.values * made.unit[:, None] / x.scale - weight).T) ** 2).mean()
        for made in (plain, compensated)
    ]
    assert errors[1] < 0.75 * errors[0]


@pytest.mark.parametrize("inputs", [np.zeros((5, 40)), np.ones((1, 40)), np.full((3, 40), 1e-20)])
def test_degenerate_inputs_leave_weights_close(inputs: np.ndarray) -> None:
    weight = np.random.default_rng(0).normal(size=(8, 40))
    made = qparams.int4_weights(weight, np.zeros(8), QuantParams(0.1, 0), inputs)
    assert np.abs(made.values * made.unit[:, None] / 0.1 - weight).max() < np.abs(weight).max() / 3


@given(seed=SEEDS, n=st.integers(1, 6), depth=st.integers(1, 100))
def test_an_int4_layer_is_the_real_layer_of_its_rounded_weights(seed: int, n: int, depth: int) -> None:
    rng = np.random.default_rng(seed)
    x, px = (
        rng.integers(-128, 128, (n, depth)).astype(np.int8),
        QuantParams(0.04, int(rng.integers(-128, 128))),
    )
    weight, bias = rng.normal(size=(7, depth)) / np.sqrt(depth), rng.normal(size=7)
    made = qparams.int4_weights(weight, bias, px)
    rounded = made.values * made.unit[:, None] / px.scale
    real = (x.astype(float) - px.zero_point) * px.scale @ rounded.T + bias
    out = qparams.asymmetric(float(real.min()), float(real.max()))
    p = qparams.dense(weight, bias, px, out.scale, "layer", integers=made)
    values = int4.expand(p.weight, p.groups, depth)
    got = integer.dense_s8(x, values, p.bias, p.multiplier, p.shift, int(out.zero_point))
    assert np.abs((got.astype(float) - out.zero_point) * out.scale - real).max() <= 0.6 * out.scale


# which layers


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> tvm.IRModule:
    path = save(Encoder(features=6, mask=False).model(), tmp_path_factory.mktemp("types") / "model.onnx")
    return tvm.transform.Sequential(fusion_passes())(import_model(path))


def test_int4_leaves_the_ends_of_a_model_int8(fused: tvm.IRModule) -> None:
    assert set(weight_types(fused).values()) == {"int8"}
    types = list(weight_types(fused, "int4").values())
    assert types == ["int8", "int4", "int4", "int8"]  # patches, attention, feed-forward, classifier


def test_a_layer_gets_the_type_that_is_asked_for(fused: tvm.IRModule) -> None:
    first, attention, *_ = weight_types(fused)
    types = weight_types(fused, "int4", {first: "int4", attention: "int8"})
    assert list(types.values()) == ["int4", "int8", "int4", "int8"]


def test_an_unknown_layer_is_answered_with_the_names_that_there_are(fused: tvm.IRModule) -> None:
    names = list(weight_types(fused))
    with pytest.raises(UserError, match=rf"no layer '{names[1]}x'.*did you mean {names[1]}") as caught:
        weight_types(fused, "int4", {f"{names[1]}x": "int8"})
    assert all(name in str(caught.value.remedy) for name in names)


def test_an_unknown_type_is_refused(fused: tvm.IRModule) -> None:
    with pytest.raises(UserError, match="Unknown type of weights 'int2'"):
        weight_types(fused, "int2")
    with pytest.raises(UserError, match="Unknown type of weights 'float' of layer ffn0"):
        weight_types(fused, "int8", {"ffn0": "float"})

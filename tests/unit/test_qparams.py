"""Real numbers to integers: multipliers, scales, ranges, tables; no parameters may let an accumulator overflow."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tvmtiny.errors import UserError
from tvmtiny.quant import integer, qparams, ranges
from tvmtiny.quant.qparams import QuantParams

INT32 = 2**31 - 1
POSITIVE = st.floats(1e-9, 2.0)
SIZED = st.floats(-1e4, 1e4, allow_subnormal=False)
SEEDS = st.integers(0, 2**32 - 1)


@given(real=st.lists(POSITIVE, min_size=1, max_size=8))
def test_fixed_point_is_exact_to_its_last_bit(real: list[float]) -> None:
    multiplier, shift = qparams.fixed_point(np.array(real))
    assert multiplier.dtype == np.int32
    assert multiplier.min() >= 0
    assert 0 <= shift <= 3
    # Half a unit of a multiplier, and one where rounding up would leave int32.
    assert np.all(np.abs(multiplier * 2.0 ** (shift - 32) - real) <= 2.0 ** (shift - 32))
    if max(real) < 0.49:
        assert shift == 0
    if shift:  # the largest multiplier keeps at least 29 bits
        assert multiplier.max() >= 2**29


@given(real=st.floats(1e-6, 1e6), acc=st.integers(-(2**20), 2**20))
def test_a_fixed_point_multiplication_rounds_the_real_product(real: float, acc: int) -> None:
    multiplier, shift = qparams.fixed_point(real, limit=math.inf)
    if abs(acc) * 2**shift > INT32:
        return
    got = int(integer.multiply_high(acc << shift, multiplier[0]))
    assert abs(got - acc * real) <= 0.5 + abs(acc) * 2.0 ** (shift - 32)


@pytest.mark.parametrize("real", [0.0, 0.5, 1.0, 2.0, math.nextafter(0.5, 0), math.nextafter(1.0, 0)])
def test_fixed_point_at_powers_of_two(real: float) -> None:
    multiplier, shift = qparams.fixed_point(real)
    assert 0 <= int(multiplier[0]) <= INT32
    assert abs(int(multiplier[0]) * 2.0 ** (shift - 32) - real) <= 2.0 ** (shift - 32)


def test_fixed_point_refuses_a_ratio_that_gains_nothing() -> None:
    with pytest.raises(AssertionError, match="above"):
        qparams.fixed_point(qparams.MAX_REAL_MULTIPLIER * 1.01)


@given(real=st.floats(1e-6, 40.0), divisor=st.integers(1, 300), more=st.integers(1, 100))
def test_ratio_divided_at_run_time_is_the_real_quotient(real: float, divisor: int, more: int) -> None:
    numerator, shift = qparams.ratio(real, divisor)
    assert numerator.dtype == np.uint32
    assert int(numerator[0]) // divisor <= INT32
    count = divisor * more
    assert abs(int(numerator[0]) // count * 2.0 ** (shift - 32) - real / count) <= 2.0 ** (shift - 32) * 1.5


@pytest.mark.parametrize(("bound", "shift", "fits"), [(INT32, 0, True), (2**31, 0, False), (2**20, 10, True)])
def test_check_shift_knows_the_last_accumulator_that_fits(bound: int, shift: int, fits: bool) -> None:
    if fits:
        qparams.check_shift(bound, shift, "layer")
        return
    with pytest.raises(UserError, match="layer: an accumulator of up to"):
        qparams.check_shift(bound, shift, "layer")


def test_check_shift_refuses_one_more_bit() -> None:
    with pytest.raises(UserError, match=r"encoder\.1\.ffn.*shifted by 11"):
        qparams.check_shift(2**20, 11, "encoder.1.ffn")


@given(low=SIZED, high=SIZED)
def test_asymmetric_covers_the_range_and_holds_zero(low: float, high: float) -> None:
    low, high = min(low, high), max(low, high)
    p = qparams.asymmetric(low, high)
    assert -128 <= p.zero_point <= 127
    assert (p.zero_point - p.zero_point) * p.scale == 0.0
    for end in (low, high, 0.0):
        error = abs((int(qparams.quantize(np.array(end), p)) - p.zero_point) * p.scale - end)
        assert error <= 1.01 * p.scale


@given(low=SIZED, high=SIZED)
def test_symmetric_never_uses_the_128th_negative(low: float, high: float) -> None:
    p = qparams.symmetric(low, high)
    assert p.zero_point == 0
    assert qparams.quantize(np.array([low, high]), p).min() >= -127


def test_quantize_saturates() -> None:
    assert qparams.quantize(np.array([-1e9, -128.6, 127.6, 1e9]), QuantParams(1.0, 0)).tolist() == [
        -128,
        -128,
        127,
        127,
    ]


@given(seed=SEEDS, k=st.integers(1, 20), size=st.floats(-30, 30), bias_size=st.floats(-30, 30))
def test_dense_parameters_cannot_overflow(seed: int, k: int, size: float, bias_size: float) -> None:
    """Whatever the sizes of weights and bias: either refused, or no int8 input overflows."""
    rng = np.random.default_rng(seed)
    weight, bias = rng.normal(size=(5, k)) * 10.0**size, rng.normal(size=5) * 10.0**bias_size
    weight[rng.integers(0, 5)] = 0
    x = QuantParams(0.02, int(rng.integers(-128, 128)))
    unit = qparams.accumulator_scales(weight, bias, x)
    out = qparams.floor_scale(float(rng.choice([1e-20, 0.01, 1e6])), unit)
    p = qparams.dense(weight, bias, x, out, "layer")
    assert p.weight.dtype == np.int8
    assert p.weight.min() >= -127
    assert p.bias.dtype == p.multiplier.dtype == np.int32
    for ends in (np.where(p.weight > 0, 127, -128), np.where(p.weight > 0, -128, 127)):
        acc = (ends * p.weight.astype(np.int64)).sum(axis=1) + p.bias
        assert np.all(np.abs(acc << p.shift) <= INT32)
    # The bias is where it belongs: input zero gives it, to the nearest unit of the accumulator.
    zero = p.weight.astype(np.int64).sum(axis=1) * x.zero_point + p.bias
    assert np.all(np.abs(zero * unit - bias) <= 0.51 * unit)


def test_a_row_of_zeros_still_has_its_bias() -> None:
    weight, bias = np.array([[0.0, 0.0], [1.0, -1.0]]), np.array([3.0, 0.0])
    unit = qparams.weight_scales(weight, bias)
    assert np.all(unit > 0)
    assert abs(np.round(bias[0] / unit[0]) * unit[0] - 3.0) < 1e-4


@pytest.mark.parametrize("bias", [1e6, 1e12, -1e30])
def test_a_huge_bias_fits_32_bits(bias: float) -> None:
    unit = qparams.weight_scales(np.array([[0.5, -0.25]]), np.array([bias]))
    assert abs(bias / unit[0]) <= 2.0**26 * 1.000001


def test_all_zero_weights_and_bias_have_a_scale() -> None:
    assert np.all(qparams.weight_scales(np.zeros((3, 4)), np.zeros(3)) > 0)


def test_dense_refuses_a_layer_that_is_too_wide() -> None:
    wide = 2**18
    with pytest.raises(UserError, match="too_wide: an accumulator"):
        qparams.dense(np.ones((1, wide)), np.zeros(1), QuantParams(1.0, 0), 1 / 127, "too_wide")


@given(
    values=hnp.arrays(np.float32, st.integers(1, 400), elements=st.floats(-100, 100, width=32)),
    symmetric=st.booleans(),
)
def test_auto_is_never_noisier_than_any_other_method(values: np.ndarray, symmetric: bool) -> None:
    values = values.astype(np.float64)
    best = ranges.noise(values, ranges.choose(values, "auto", symmetric=symmetric), symmetric=symmetric)
    for method in set(ranges.METHODS) - {"auto"}:
        other = ranges.choose(values, method, symmetric=symmetric)
        assert best <= ranges.noise(values, other, symmetric=symmetric)


def test_auto_clips_a_lone_outlier() -> None:
    values = np.random.default_rng(0).normal(size=1_000_000)
    values[0] = 20.0
    low, high = ranges.choose(values, "auto", symmetric=False)
    assert -6 < low < -2
    assert 2 < high < 19
    assert ranges.choose(values, "minmax", symmetric=False) == (values.min(), 20.0)


@pytest.mark.parametrize("method", ranges.METHODS)
@pytest.mark.parametrize("values", [np.zeros(10), np.full(10, 3.5), np.full(10, -1e-12), np.array([5.0])])
def test_ranges_of_constants_are_usable(method: str, values: np.ndarray) -> None:
    low, high = ranges.choose(values, method, symmetric=False)
    p = qparams.asymmetric(low, high)
    assert 0 < p.scale < math.inf
    assert math.isfinite(ranges.noise(values, (low, high), symmetric=False))


@given(seed=SEEDS, size=st.floats(-1, 2.5))
def test_features_are_scaled_within_one_step(seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(20, 4)) * 10.0**size * np.array([1, 3, 0.3, 1])
    p = qparams.columns(values.min(axis=0), values.max(axis=0))
    got = qparams.quantize_features(values, p.scale, p.zero_point).astype(np.int64)
    # A Q16.16 value is exact to half of 2**-16: what that is in steps of the result adds to its rounding.
    assert np.all(np.abs(got - qparams.quantize(values, p)) <= 1 + 2.0**-17 / p.scale)


def test_columns_of_zeros_do_not_coarsen_the_weights() -> None:
    low, high = np.array([-1.0, 0.0, -0.1, 0.0]), np.array([1.0, 0.0, 0.2, 0.0])
    p = qparams.columns(low, high)
    assert p.scale == pytest.approx([2 / 255, 0.3 / 255, 0.3 / 255, 0.3 / 255])
    assert np.all(qparams.quantize(np.zeros(4), p) == p.zero_point)
    assert np.all(qparams.columns(np.zeros(3), np.zeros(3)).scale == 1)


@pytest.mark.parametrize(("value", "expected"), [(1e9, 127), (-1e9, -128), (32767.9, 127), (-32768.0, -128)])
def test_features_beyond_their_range_saturate(value: float, expected: int) -> None:
    for scale, zero_point in ((0.01, 0), (2.0, 5), (100.0, -20)):
        got = int(qparams.quantize_features(np.array([value]), np.array([scale]), np.array([zero_point]))[0])
        q16 = np.clip(value, -32768.0, 32767.99999)
        assert abs(got - np.clip(round(q16 / scale) + zero_point, -128, 127)) <= 1
        if scale < 100:
            assert got == expected


@pytest.mark.parametrize("scale", [1e-6, 1e5])
def test_features_that_q16_cannot_carry_are_refused(scale: float) -> None:
    with pytest.raises(UserError, match="Column 1 of a feature input spans"):
        qparams.feature_multipliers(np.array([0.1, scale]))


def test_q16_saturates() -> None:
    assert qparams.to_q16(np.array([1e9, -1e9, 0.5])).tolist() == [INT32, -(2**31), 1 << 15]


def test_exponential_table_is_the_exponential() -> None:
    table = qparams.exponential_table()
    exact = 255 * np.exp(-np.arange(256) * qparams.EXP_RANGE / 255)
    assert table.dtype == np.uint8
    assert table[0] == 255
    assert np.all(np.diff(table.astype(int)) <= 0)
    assert np.abs(table - exact).max() <= 0.5 + 1e-9


def test_far_tokens_get_no_weight_however_many_they_are() -> None:
    table = qparams.exponential_table()
    assert table[255] == 0
    scores = np.full((1, 4096), -(10**6), np.int32)
    scores[0, 7] = 0
    p, total = integer.softmax_u8(scores, 2**30, 0, table)
    assert total.tolist() == [255]
    assert np.flatnonzero(p).tolist() == [7]


@given(low=st.floats(-8, -0.1), high=st.floats(0.1, 8))
def test_a_table_is_its_function(low: float, high: float) -> None:
    x, y = qparams.asymmetric(low, high), qparams.asymmetric(-1, 1)
    table = qparams.table(np.tanh, x, y)
    real = (np.arange(-128, 128) - x.zero_point) * x.scale
    assert table.dtype == np.int8
    assert np.abs((table.astype(int) - y.zero_point) * y.scale - np.tanh(real)).max() <= 1.01 * y.scale


@given(extent=st.integers(1, 2048))
def test_norm_bits_keep_a_row_inside_its_bound(extent: int) -> None:
    bits = qparams.norm_bits(extent)
    assert extent * 2 ** (bits - 1) <= 2**integer.NORM_MAX_BITS
    assert extent * 2**bits > 2 ** (integer.NORM_MAX_BITS - 1)


@given(value=st.integers(1, 2**63 - 1))
def test_reciprocal_square_root_is_exact_to_27_bits(value: int) -> None:
    mantissa, exponent = integer.reciprocal_sqrt(value)
    assert 2**30 - 2 <= mantissa <= 2**31 + 2
    assert abs(mantissa * 2.0**-exponent * math.sqrt(value) - 1) < 2.0**-27


@given(seed=SEEDS, scale=st.floats(-4, 2), largest=st.floats(-4, 4))
def test_a_residual_sum_fits_or_is_refused(seed: int, scale: float, largest: float) -> None:
    rng = np.random.default_rng(seed)
    accumulator, bound = 10.0 ** rng.uniform(-7, -2, 4), 2.0**20
    residual = QuantParams(10.0**scale, 3)
    try:
        total = qparams.residual_sum(residual, 10.0**largest, qparams.SUM_BITS, accumulator, bound, "layer")
    except UserError:
        return
    assert total.scale == residual.scale / 2**total.residual_shift
    assert 10.0**largest <= total.scale * 2 ** (total.bits - 1)
    multiplier, shift = qparams.fixed_point(accumulator / total.scale, limit=math.inf)
    assert bound * 2**shift <= INT32
    assert np.all(multiplier >= 0)


@given(
    residual=st.floats(-6, 3),
    total=st.floats(-6, 3),
    worst=st.floats(0, 2.5),
    extent=st.none() | st.integers(1, qparams.NORM_MAX_EXTENT),
)
def test_an_int16_residual_always_enters_its_sum(
    residual: float, total: float, worst: float, extent: int | None
) -> None:
    """However small the stream is beside a later sum, or a sum beside the stream, and also in front of a LayerNorm."""
    bits = qparams.SUM_BITS if extent is None else qparams.norm_bits(extent)
    # Without a LayerNorm a sum is at least half of what is added, as its branch counts as well.
    largest = max(10.0**total, 10.0**residual / 2)
    accumulator, bound = np.full(3, largest * 10.0**worst / 2.0**22), 2.0**22
    params = qparams.wide(10.0**residual, qparams.wide_residual_floor(largest, bits))
    found = qparams.residual_sum(params, largest, bits, accumulator, bound, "layer", 16)
    assert params.zero_point == 0
    assert 10.0**residual * 2 <= float(params.scale) * 32767 * (1 + 1e-9)
    assert qparams.SUM_MARGIN * largest <= found.scale * 2.0 ** (bits - 1) * (1 + 1e-9)
    assert 2**15 << found.residual_shift <= 2**30


@given(extent=st.integers(1, qparams.NORM_MAX_EXTENT), bits=st.sampled_from([8, 16]))
def test_a_tensor_of_any_value_fits_the_layer_norm_that_takes_it(extent: int, bits: int) -> None:
    width = qparams.norm_bits(extent)
    shift = qparams.norm_shift(width, bits)
    largest = 255 if bits == 8 else 2**15
    assert shift >= 0
    assert extent * (largest << shift) <= 2**integer.NORM_MAX_BITS
    assert largest << shift <= 2 ** (width - 1)


def test_int16_parameters_of_zeros_have_a_scale() -> None:
    assert qparams.wide(0.0).scale == 1.0


def test_norm_constants_refuse_what_overflows() -> None:
    with pytest.raises(UserError, match="gamma or beta is too large"):
        qparams.norm_constants(np.full(4, 1e9), np.zeros(4), 1e-5, 1.0, QuantParams(0.01, 0))

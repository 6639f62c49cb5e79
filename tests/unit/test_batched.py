"""The integers of training in torch are those of the NumPy reference, operator by operator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tvm
from hypothesis import given
from hypothesis import strategies as st
from model_cases import CASES
from models import save

torch = pytest.importorskip("torch")

from tvmtiny.compress import integer as batched  # noqa: E402  torch may be missing
from tvmtiny.compress.batched import BatchedModel  # noqa: E402
from tvmtiny.errors import UserError  # noqa: E402
from tvmtiny.frontend import import_model  # noqa: E402
from tvmtiny.frontend.data import check_arrays, input_specs  # noqa: E402
from tvmtiny.passes.pipeline import fusion_passes  # noqa: E402
from tvmtiny.passes.quantize import QuantizedModel, quantize  # noqa: E402
from tvmtiny.passes.weight_types import weight_types  # noqa: E402
from tvmtiny.quant import integer, qparams  # noqa: E402
from tvmtiny.quant.calibrate import FloatModel, Statistics, run_all  # noqa: E402
from tvmtiny.quant.reference import IntegerModel, integer_inputs  # noqa: E402

SEEDS = st.integers(0, 2**32 - 1)
RUN = ("first_token", "narrow_heads", "int4", "wide_mean", "int16_layers", "sentence")


def tensor(array: Any) -> Any:
    return torch.from_numpy(np.asarray(array).astype(np.int64))


@given(st.lists(st.integers(1, 2**63 - 1), min_size=1, max_size=20))
def test_lengths_in_bits_and_reciprocal_roots_are_exact(values: list[int]) -> None:
    values += [1, 2**62 - 1, 2**62, 2**63 - 1, 2**53 - 1, 2**53 + 1]
    assert batched.bit_length(tensor(values)).tolist() == [value.bit_length() for value in values]
    mantissa, exponent = batched.reciprocal_sqrt(tensor(values))
    expected = [integer.reciprocal_sqrt(value) for value in values]
    assert list(zip(mantissa.tolist(), exponent.tolist(), strict=True)) == expected


@given(seed=SEEDS, extent=st.integers(2, 40), bits=st.integers(1, 18), uncentred=st.booleans())
def test_normalizations_give_the_same_bytes(seed: int, extent: int, bits: int, uncentred: bool) -> None:
    rng = np.random.default_rng(seed)
    t = rng.integers(-(2**bits), 2**bits, (3, extent))
    t[0] = 0
    gamma, beta = rng.integers(-(2**29), 2**29, extent), rng.integers(-(2**16), 2**16, extent)
    epsilon = int(rng.integers(1, 2**30))
    function = integer.rms_norm_s8 if uncentred else integer.layer_norm_s8
    found = batched.norm_s8(tensor(t), tensor(gamma), tensor(beta), epsilon, uncentred=uncentred)
    assert np.array_equal(found.numpy(), function(t, gamma, beta, epsilon))


@given(seed=SEEDS, rows=st.integers(1, 5), n=st.integers(1, 9), width=st.integers(1, 6))
def test_attention_gives_the_same_bytes(seed: int, rows: int, n: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    scores, v = rng.integers(-(2**20), 2**20, (rows, n)), rng.integers(-127, 128, (n, width))
    multiplier, ratio = int(rng.integers(1, 2**31)), int(rng.integers(1, 2**32))
    table = qparams.exponential_table()
    p, total = integer.softmax_u8(scores, multiplier, 4, table)
    expected = integer.values_s8(p, np.ascontiguousarray(v.T).astype(np.int8), total, ratio, 1, 3)
    padded = np.concatenate([scores, np.full((rows, 2), 2**20)], axis=1)  # two keys that are absent
    seen = torch.arange(n + 2) < n
    found = batched.exponentials(tensor(padded), seen, multiplier, 4, tensor(table))
    assert np.array_equal(found[:, :n].numpy(), p)
    values = tensor(np.concatenate([v, np.ones((2, width))]))
    assert np.array_equal(batched.values_s8(found, values, ratio, 1, 3).numpy(), expected)


def integers_of(name: str, tmp_path) -> tuple[QuantizedModel, list[dict[str, Any]], np.ndarray]:
    """A model of `model_cases` as integers, and samples in the arena's types with their lengths."""
    case = CASES[name]
    fused = tvm.transform.Sequential(fusion_passes("never"))(
        import_model(save(case.model(), tmp_path / "m.onnx"))
    )
    specs, length, tokens = input_specs(fused)
    batch = check_arrays(case.calibration(8), specs, length, tokens)
    traces = run_all(FloatModel(fused), batch.arrays, batch.n_tokens)
    quantized = quantize(
        fused, Statistics(traces), "minmax", case.options.get("residual", "int8"),
        weight_types(fused, case.options.get("weights", "int8")), case.options.get("int16", ()),
    )  # fmt: skip
    rows = [
        integer_inputs(quantized, specs, {k: a[i] for k, a in batch.arrays.items()})
        for i in range(len(batch))
    ]
    return quantized, rows, batch.n_tokens


@pytest.mark.parametrize("name", RUN)
def test_every_result_of_a_batch_is_that_of_the_reference(name: str, tmp_path) -> None:
    quantized, rows, lengths = integers_of(name, tmp_path)
    inputs = {key: tensor(np.stack([row[key] for row in rows])) for key in rows[0]}
    found = BatchedModel(quantized.module).run(inputs, tensor(lengths))
    reference = IntegerModel(quantized.module)
    for index, (row, n) in enumerate(zip(rows, lengths, strict=True)):
        for key, expected in reference.run(row, int(n)).items():
            assert np.array_equal(found[key][index].numpy(), expected), (key, index)


def test_the_constants_of_an_operator_are_what_its_products_multiply(tmp_path) -> None:
    quantized, _, _ = integers_of("int4", tmp_path)
    model = BatchedModel(quantized.module)
    layers = [name for name in quantized.tensors if model.constant(name, "w1", 42) is not None]
    assert layers
    weight = model.constant(layers[0], "w1", 42)
    assert weight.shape == (69, 42)
    assert int(weight.abs().max()) > 127  # a group's scale times int4
    assert model.constant(layers[0], "wq", 42) is None


def test_attention_without_a_twin_is_refused(tmp_path) -> None:
    case = CASES["folded"]
    fused = tvm.transform.Sequential(fusion_passes("always"))(
        import_model(save(case.model(), tmp_path / "m.onnx"))
    )
    specs, length, tokens = input_specs(fused)
    batch = check_arrays(case.calibration(8), specs, length, tokens)
    quantized = quantize(fused, Statistics(run_all(FloatModel(fused), batch.arrays, batch.n_tokens)))
    inputs = {"ids": tensor(batch.arrays["ids"])}
    with pytest.raises(UserError, match="in one matrix"):
        BatchedModel(quantized.module).run(inputs, tensor(batch.n_tokens))

"""Stepping: the rows of a whole sequence, byte for byte, however it is divided; what cannot step is refused by name."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmtiny.errors import UserError
from tvmtiny.frontend import import_model
from tvmtiny.frontend.data import InputSpec, check_arrays, input_specs
from tvmtiny.frontend.supported import check_fused
from tvmtiny.passes.graph import Graph, array_of, constant
from tvmtiny.passes.operators import kind
from tvmtiny.passes.pipeline import fusion_passes
from tvmtiny.passes.quantize import QuantizedModel, quantize
from tvmtiny.passes.quantize_embedding import _by_row
from tvmtiny.passes.step import step
from tvmtiny.quant.calibrate import FloatModel, Statistics, run_all
from tvmtiny.quant.reference import IntegerModel, integer_inputs
from tvmtiny.quant.stepped_reference import SteppedReference

pytest.importorskip("torch")
import step_models

_LLAMA = ["embed", *2 * ["rms_norm", "rotary_attention", "rms_norm", "glu"], "dense"]
_PLAIN = [*2 * ["layer_norm", "attention", "layer_norm", "ffn"], "dense"]
FUSED = {
    "llama": _LLAMA,
    "neighbours": _LLAMA,
    "gpt": ["embed", *_PLAIN],
    "stream": ["convolution", "convolution", *_PLAIN],
    "strided": ["convolution", "convolution", *_PLAIN],
}
"""The last norm of a model is part of the operator before it."""


def fuse(program: Any) -> tvm.IRModule:
    return tvm.transform.Sequential(fusion_passes("never"))(import_model(program))


def quantized(program: Any, arrays: dict[str, np.ndarray]) -> tuple[QuantizedModel, list[InputSpec]]:
    fused = fuse(program)
    check_fused(fused)
    specs, length, tokens = input_specs(fused)
    batch = check_arrays(arrays, specs, length, tokens)
    return quantize(fused, Statistics(run_all(FloatModel(fused), batch.arrays, batch.n_tokens))), specs


@functools.cache
def model(name: str) -> tuple[QuantizedModel, list[InputSpec]]:
    return quantized(step_models.exported(name), step_models.inputs(name))


@functools.cache
def whole(name: str) -> list[tuple[dict[str, np.ndarray], np.ndarray]]:
    """Sequences in the arena's types, and the rows that the module of whole sequences gives."""
    found, specs = model(name)
    reference, arrays = IntegerModel(found.module), step_models.inputs(name, 3, seed=5)
    rows = []
    for i in range(3):
        inputs = integer_inputs(found, specs, {key: array[i] for key, array in arrays.items()})
        rows.append((inputs, reference.run(inputs, found.max_tokens)[found.outputs[0]]))
    return rows


def stepped(name: str, tokens: int) -> SteppedReference:
    made = step(model(name)[0], tokens)
    return SteppedReference(made.module, {key: state.fill for key, state in made.state.items()})


def rows_of(
    reference: SteppedReference,
    inputs: dict[str, np.ndarray],
    sizes: list[int],
    tokens: int,
    total: int,
    output: str,
) -> np.ndarray:
    """A sequence in steps of these sizes, by a module of steps of up to `tokens` tokens."""
    found, done = [], 0
    reference.reset()
    for size in sizes:
        part = {}
        for name, array in inputs.items():
            per = len(array) // total
            rows = array[done * per : (done + size) * per]
            part[name] = np.zeros((tokens * per, *array.shape[1:]), array.dtype)
            part[name][: len(rows)] = rows
        found.append(reference.run(part, size)[output][:size])
        done += size
    return np.concatenate(found)


@pytest.mark.parametrize("name", FUSED)
def test_the_operators_are_fused(name: str) -> None:
    graph = Graph(fuse(step_models.exported(name))["main"])
    assert [kind(value) for _, value in graph if kind(value)] == FUSED[name]


@pytest.mark.parametrize("name", FUSED)
def test_steps_of_one_size_give_the_rows_of_the_whole(name: str) -> None:
    output = model(name)[0].outputs[0]
    for tokens in (1, 3, 12):
        reference = stepped(name, tokens)
        for inputs, expected in whole(name):
            sizes = [tokens] * (12 // tokens)
            assert np.array_equal(rows_of(reference, inputs, sizes, tokens, 12, output), expected)


@pytest.mark.parametrize("name", ["llama", "stream"])
def test_steps_of_any_sizes_give_the_rows_of_the_whole(name: str) -> None:
    output, reference = model(name)[0].outputs[0], stepped(name, 5)

    @settings(max_examples=20)
    @given(st.lists(st.integers(1, 5), min_size=12, max_size=12))
    def check(sizes: list[int]) -> None:
        ends = np.minimum(np.cumsum(sizes), 12)
        sizes = [int(size) for size in np.diff([0, *ends]) if size > 0]
        inputs, expected = whole(name)[0]
        assert np.array_equal(rows_of(reference, inputs, sizes, 5, 12, output), expected)

    check()


def test_a_stream_without_end_is_that_of_a_longer_sequence() -> None:
    """Rings go round: the state of 30 tokens is that of the last ones, whatever length the model was exported with."""
    found, specs = model("stream")
    rng = np.random.default_rng(3)
    frames = integer_inputs(
        found, specs, {"x": rng.normal(size=(30, step_models.CHANNELS)).astype(np.float32) * 3}
    )
    reference, whole_model = stepped("stream", 1), IntegerModel(found.module)
    made = step(found, 1)
    assert made.positions == 0
    rows = [reference.run({"x": frames["x"][i : i + 1]}, 1)[found.outputs[0]][0] for i in range(30)]
    # Two layers see 3 tokens back each, the convolutions 2 and 3 more: 11 in all, of the 12 that the model takes.
    for last in range(11, 30):
        window = whole_model.run({"x": frames["x"][last - 11 : last + 1]}, 12)[found.outputs[0]]
        assert np.array_equal(window[-1], rows[last])


def test_positions_end_where_a_table_or_a_cache_does() -> None:
    assert {name: step(model(name)[0], 1).positions for name in FUSED} == {
        "llama": 12, "neighbours": 12, "gpt": 12, "stream": 0, "strided": 0
    }  # fmt: skip
    assert step(model("stream")[0], 1).period % 4 == 0


def test_state_holds_each_head_of_keys_and_values_once() -> None:
    made = step(model("llama")[0], 1)
    assert len(made.state) == 4
    assert {state.shape for state in made.state.values()} == {(2 * 12, 4), (8, 12)}


@pytest.mark.parametrize("peak", [0.0, 1.0])
def test_tied_tables_may_be_of_zeros(peak: float) -> None:
    tokens = peak * np.random.default_rng(0).normal(size=(12, 8)).astype(np.float32)
    tensors, attrs, unit = _by_row(constant(tokens), {"segments": constant(np.zeros((2, 8), np.float32))})
    assert unit > 0
    assert attrs == {"segment_factor": 1}
    assert not np.any(array_of(tensors["segments"]))
    values = array_of(tensors["tokens"]) * array_of(tensors["row_factors"])[:, None] * unit
    np.testing.assert_allclose(values, tokens, atol=2e-2)


def test_a_tied_table_has_the_bytes_of_the_last_layer() -> None:
    from tvmtiny.kernels import kernel_of, operands_of
    from tvmtiny.passes.graph import array_of

    calls = [value for _, value in Graph(model("llama")[0].module["main"]) if kernel_of(value) is not None]
    table, weight = operands_of(calls[0])["tokens"], operands_of(calls[-1])["weight"]
    assert np.array_equal(array_of(table), array_of(weight))
    assert "positions" not in operands_of(calls[0])


def test_logits_are_those_of_torch() -> None:
    import torch

    for name in ("llama", "neighbours", "gpt"):
        found, _ = model(name)
        params = found.tensors[found.outputs[0]]
        ids = step_models.inputs(name, 3, seed=5)["ids"]
        with torch.no_grad():
            expected = np.concatenate(
                [step_models.module(name)(torch.from_numpy(row[None]))[0].numpy() for row in ids]
            )
        real = np.concatenate([rows for _, rows in whole(name)]) * params.scale
        noise = np.sum((real - expected) ** 2) / np.sum(expected**2)
        assert 10 * np.log10(1 / noise) > 24, name


def test_what_looks_ahead_is_refused() -> None:
    import torch

    class Both(torch.nn.Module):
        """Attention to one token before and one after."""

        def __init__(self) -> None:
            super().__init__()
            self.attention = step_models.Attention(step_models.Shape(), 4, "")
            place = torch.arange(12)
            self.attention.near = (place[:, None] - place).abs() <= 1
            self.first = torch.nn.Linear(step_models.CHANNELS, 16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.attention(self.first(x))

    torch.manual_seed(0)
    arrays = step_models.inputs("stream")
    program = torch.export.export(Both().eval(), (torch.from_numpy(arrays["x"][:1]),))
    with pytest.raises(UserError, match=r"\(attention\) attends to tokens that are still to come"):
        step(quantized(program, arrays)[0], 1)


def test_pooling_over_tokens_is_refused() -> None:
    import torch

    class Pooled(step_models.Stream):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).mean(dim=1)

    torch.manual_seed(0)
    arrays = step_models.inputs("stream")
    program = torch.export.export(Pooled().eval(), (torch.from_numpy(arrays["x"][:1]),))
    with pytest.raises(UserError, match=r"mean\) needs all tokens at once"):
        step(quantized(program, arrays)[0], 1)


def test_more_tokens_than_the_sequence_has_are_refused() -> None:
    with pytest.raises(UserError, match="--step 13: the model's results have 12 rows"):
        step(model("gpt")[0], 13)


def test_a_mask_is_refused() -> None:
    masked = dataclasses.replace(model("gpt")[0], has_length=True)
    with pytest.raises(UserError, match="takes no mask"):
        step(masked, 1)

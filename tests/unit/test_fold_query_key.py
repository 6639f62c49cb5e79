"""Folding the projections of queries and keys: what comes out, that it is the same attention, and where it pays."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import tvm
from hypothesis import given
from hypothesis import strategies as st
from tvm import relax

from tvmtiny.kernels.attention import macs
from tvmtiny.passes import operators
from tvmtiny.passes.fold_query_key import FoldQueryKey, fold
from tvmtiny.passes.graph import Graph, shape_of

Weights = dict[str, np.ndarray]


def weights(embedding: int, heads: int, width: int, seed: int = 0) -> Weights:
    """Small whole numbers, so that products in any order are exact."""
    rng = np.random.default_rng(seed)
    D = heads * width
    shapes = {"wq": (D, embedding), "wk": (D, embedding), "wv": (D, embedding), "wo": (embedding, D)}
    shapes |= {"bq": (D,), "bk": (D,), "bv": (D,), "bo": (embedding,)}
    return {name: rng.integers(-3, 4, shape).astype(np.float32) for name, shape in shapes.items()}


def module_of(operator: str, x: relax.Var, arrays: list[np.ndarray], **attrs: Any) -> tvm.IRModule:
    """A module whose `main` is one operator on x, with 5 tokens present, a residual (x again) and a LayerNorm."""
    builder = relax.BlockBuilder()
    gamma = relax.const(np.ones(shape_of(x)[1], np.float32))
    with builder.function("main", [x]):
        with builder.dataflow():
            args = [x, *map(relax.const, arrays), relax.const(5, "int64"), x, gamma, gamma]
            output = builder.emit_output(builder.emit(operators.call(operator, args, **attrs)))
        builder.emit_func_output(output)
    return builder.get()


ATTRIBUTES = {"heads": 2, "scale": 0.25, "residual": 1, "norm": 1, "epsilon": 1e-5}


def test_before_and_expected() -> None:
    w = weights(embedding=4, heads=2, width=3)
    x = relax.Var("x", relax.TensorType([6, 4], "float32"))
    order = ("wq", "bq", "wk", "bk", "wv", "bv", "wo", "bo")
    before = module_of("attention", x, [w[name] for name in order], **ATTRIBUTES)
    first, second = slice(0, 3), slice(3, 6)
    weight = np.concatenate([w["wk"][part].T @ w["wq"][part] for part in (first, second)])
    bias = np.concatenate([w["wk"][part].T @ w["bq"][part] for part in (first, second)])
    arrays = [weight, bias, *(w[name] for name in order[4:])]
    expected = module_of("folded_attention", x, arrays, **ATTRIBUTES)
    tvm.ir.assert_structural_equal(FoldQueryKey("always")(before), expected, map_free_vars=True)
    tvm.ir.assert_structural_equal(FoldQueryKey("never")(before), before, map_free_vars=True)


@pytest.mark.parametrize(
    ("tokens", "embedding", "heads", "width", "folds"),
    [
        (32, 64, 16, 64, True),  # the layer of the benchmark mhsa-coins
        (32, 64, 4, 16, False),
        (40, 24, 1, 24, True),
        (8, 16, 2, 9, False),  # P / E = 9 / 16 < (E + S) / (2 E + S) = 3 / 5
        (8, 16, 2, 10, True),
        (6, 9, 2, 6, True),  # 6 / 9 > 15 / 24
        (9, 9, 2, 6, False),  # equal work: nothing is gained
        (18, 9, 2, 6, False),
    ],
)
def test_folds_where_it_saves_work(tokens: int, embedding: int, heads: int, width: int, folds: bool) -> None:
    w = weights(embedding, heads, width)
    x = relax.Var("x", relax.TensorType([tokens, embedding], "float32"))
    order = ("wq", "bq", "wk", "bk", "wv", "bv", "wo", "bo")
    before = module_of("attention", x, [w[name] for name in order], **{**ATTRIBUTES, "heads": heads})
    found = [operators.kind(value) for _, value in Graph(FoldQueryKey()(before)["main"])]
    assert found[0] == ("folded_attention" if folds else "attention")


@given(tokens=st.integers(1, 512), embedding=st.integers(1, 256), width=st.integers(1, 256))
def test_the_rule_is_that_of_the_field_and_holds_for_fewer_tokens(
    tokens: int, embedding: int, width: int
) -> None:
    def pays(n: int) -> bool:
        folded = macs(n, embedding, embedding, 3 * embedding, 0, 3 * width)
        return folded < macs(n, embedding, embedding, 3 * width, 3 * width, 3 * width)

    threshold = Fraction(embedding + tokens, 2 * embedding + tokens)
    assert pays(tokens) == (Fraction(width, embedding) > threshold)
    if pays(tokens):
        assert all(pays(n) for n in {1, tokens // 2 or 1, tokens})
        assert embedding * embedding < 2 * width * embedding  # weights of a head


@given(
    seed=st.integers(0, 2**32 - 1),
    tokens=st.integers(1, 9),
    embedding=st.integers(1, 12),
    heads=st.integers(1, 3),
    width=st.integers(1, 9),
)
def test_folded_scores_differ_by_a_constant_a_row(
    seed: int, tokens: int, embedding: int, heads: int, width: int
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(tokens, embedding))
    wq, wk = rng.normal(size=(2, heads * width, embedding)).astype(np.float32)
    bq, bk = rng.normal(size=(2, heads * width)).astype(np.float32)
    weight, bias = fold(wq, bq, wk, heads)
    assert (weight.dtype, bias.dtype) == (np.float32, np.float32)
    queries = np.split(x @ weight.T + bias, heads, axis=1)
    pairs = zip(*(np.split(x @ w.T + b, heads, axis=1) for w, b in ((wq, bq), (wk, bk))), strict=True)
    for folded, (q, k) in zip(queries, pairs, strict=True):
        difference = q @ k.T - folded @ x.T
        np.testing.assert_allclose(
            difference, np.broadcast_to(difference[:, :1], difference.shape), atol=1e-4
        )

"""Draws: the distribution that softmax gives, integers of any size, options of the command line."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvmtiny.cli.generation import parse_ids, sampler_of
from tvmtiny.errors import UserError
from tvmtiny.sampling import MOST, Sampler

SCALE_Q32 = round(2**32 * 0.001)
LOGITS = np.array([3000, 2500, 2500, 1000, -500, 2999, -32768], np.int16)


def expected(logits: np.ndarray, top_k: int, temperature: float) -> np.ndarray:
    """Softmax over the largest logits, the first of equal ones."""
    logits = logits.astype(float)
    kept = np.argsort(-logits, kind="stable")[:top_k]
    weights = np.zeros(len(logits))
    weights[kept] = np.exp((logits[kept] - logits.max()) * 0.001 / temperature)
    return weights / weights.sum()


@pytest.mark.parametrize(("top_k", "temperature"), [(3, 1.0), (7, 1.0), (7, 0.5), (5, 4.0), (1, 1.0)])
def test_draws_have_the_frequencies_of_softmax(top_k: int, temperature: float) -> None:
    sampler, draws = Sampler(2026, round(temperature * 65536), top_k), 20000
    counts = np.bincount([sampler.choose(LOGITS, SCALE_Q32) for _ in range(draws)], minlength=len(LOGITS))
    wanted = draws * expected(LOGITS, top_k, temperature)
    seen = wanted > 5
    assert counts[~seen].sum() <= max(3, 3 * wanted[~seen].sum())
    chi_square = float(np.sum((counts[seen] - wanted[seen]) ** 2 / wanted[seen]))
    assert chi_square < 22.5  # 0.1 % of draws of six degrees of freedom exceed it; the seed is fixed


@given(st.lists(st.integers(-32768, 32767), min_size=1, max_size=100), st.integers(0, 2**64 - 1))
def test_the_largest_logit_wins_without_temperature_and_among_one(values: list[int], seed: int) -> None:
    logits = np.array(values, np.int16)
    assert Sampler(seed).choose(logits, 1) == logits.argmax()
    assert Sampler(seed, 1 << 16, 1).choose(logits, 2**32) == logits.argmax()


@given(
    st.lists(st.integers(-32768, 32767), min_size=1, max_size=100),
    st.integers(0, 2**64 - 1), st.integers(1, 2**32 - 1), st.integers(1, MOST), st.integers(0, 2**33),
)  # fmt: skip
def test_a_draw_is_among_the_largest(values: list[int], seed: int, q16: int, top_k: int, scale: int) -> None:
    logits = np.array(values, np.int16)
    chosen = Sampler(seed, q16, top_k).choose(logits, scale)
    assert np.count_nonzero(logits > logits[chosen]) < top_k


def test_the_same_seed_draws_the_same_and_another_one_others() -> None:
    first, again, other = (Sampler(seed, 1 << 17, 7) for seed in (1, 1, 2))
    rows = [[sampler.choose(LOGITS, SCALE_Q32) for _ in range(50)] for sampler in (first, again, other)]
    assert rows[0] == rows[1] != rows[2]


def test_options_make_a_sampler() -> None:
    assert sampler_of(None, None, 5) == Sampler()
    assert sampler_of(8, None, 5) == Sampler(5, 1 << 16, 8)
    assert sampler_of(None, 0.5, 5) == Sampler(5, 1 << 15, 40)
    assert parse_ids("1,2, 3") == [1, 2, 3]


@pytest.mark.parametrize(
    "options",
    [
        (0, None, 0),
        (65, None, 0),
        (None, -1.0, 0),
        (None, 1.0, -1),
        (None, float("nan"), 0),
        (None, float("inf"), 0),
    ],
)
def test_options_out_of_range_are_refused(options: tuple[int | None, float | None, int]) -> None:
    with pytest.raises(UserError):
        sampler_of(*options)


@pytest.mark.parametrize("text", ["", "1,x", "-1", "70000"])
def test_what_is_no_list_of_ids_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        parse_ids(text)

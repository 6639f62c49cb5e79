"""Few-shot classification: the C gives the bytes of its Python twin, and both the geometry of real numbers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from fewshot_driver.script import HostLibrary, expected, random_calls, write_model
from hypothesis import given
from hypothesis import strategies as st
from microkernel_driver.build import WARNINGS

from tvmtiny.errors import UserError
from tvmtiny.fewshot import ONE, UNKNOWN, Store
from tvmtiny.runner.process import find_tool

RANDOM = np.random.default_rng(5)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> HostLibrary:
    return HostLibrary(tmp_path_factory.mktemp("fewshot"))


@given(seed=st.integers(0, 2**32 - 1), capacity=st.integers(1, 9), dimension=st.integers(1, 70))
def test_any_script_gives_the_bytes_of_the_twin(
    library: HostLibrary, seed: int, capacity: int, dimension: int
) -> None:
    calls = random_calls(seed, capacity, dimension)
    assert library.run(capacity, calls) == expected(capacity, calls)


def test_the_widest_embeddings_do_not_overflow(library: HostLibrary) -> None:
    calls = random_calls(1, 2, 1024, count=11)
    assert library.run(2, calls) == expected(2, calls)


def _cosine(x: np.ndarray, y: np.ndarray) -> float:
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


@given(seed=st.integers(0, 2**32 - 1), dimension=st.integers(2, 200), zero_point=st.integers(-40, 40))
def test_similarity_is_the_cosine(seed: int, dimension: int, zero_point: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.integers(-80, 81, (2, dimension))
    x[0], y[0] = 5, 3  # neither is zero
    store = Store(1, dimension)
    store.enrol(4, x + zero_point, zero_point)
    answer = store.classify(y + zero_point, zero_point)
    assert answer.nearest == 4
    assert abs(answer.similarity - ONE * _cosine(x, y)) <= 1


@given(seed=st.integers(0, 2**32 - 1), members=st.integers(1, 9))
def test_similarity_to_a_mean_is_the_cosine_to_the_mean_of_unit_vectors(seed: int, members: int) -> None:
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=48) * 40
    rows = np.clip(np.round(centre + rng.normal(size=(members, 48)) * 20), -127, 127).astype(np.int8)
    query = np.clip(np.round(rng.normal(size=48) * 40), -127, 127).astype(np.int8)
    store = Store(members, 48)
    for row in rows:
        store.enrol(0, row)
    mean = (rows / np.linalg.norm(rows.astype(float), axis=1)[:, None]).mean(axis=0)
    found = store.classify(query, by_mean=True).similarity
    assert abs(found - ONE * _cosine(mean, query.astype(float))) <= 16  # components have 14 to 15 bits


def test_int16_embeddings_lose_a_hundredth_at_most() -> None:
    x, y = (RANDOM.normal(size=64) * 9000 for _ in range(2))
    store = Store(1, 64)
    store.enrol(0, np.round(x).astype(np.int16))
    found = store.classify(np.round(y).astype(np.int16)).similarity
    assert abs(found / ONE - _cosine(x, y)) < 0.01


def test_the_nearest_wins_and_the_margin_is_to_another_label() -> None:
    store = Store(4, 2)
    for label, row in ((7, [100, 0]), (7, [100, 10]), (2, [0, 100])):
        store.enrol(label, np.array(row, np.int8))
    answer = store.classify(np.array([100, 8], np.int8))
    assert (answer.label, answer.nearest) == (7, 7)
    wanted = _cosine(np.array([100, 10]), np.array([100, 8])) - _cosine(
        np.array([0, 100]), np.array([100, 8])
    )
    assert abs(answer.margin / ONE - wanted) < 1e-4


def test_what_is_not_near_enough_is_unknown() -> None:
    store = Store(2, 2)
    store.enrol(0, np.array([100, 0], np.int8))
    store.enrol(1, np.array([0, 100], np.int8))
    between = np.array([100, 99], np.int8)
    assert store.classify(between).label == 0
    assert store.classify(between, least_margin=1000).label == UNKNOWN
    far = store.classify(np.array([-100, -1], np.int8), least_similarity=0)
    assert (far.label, far.nearest) == (UNKNOWN, 1)


def test_an_empty_store_knows_nothing() -> None:
    answer = Store(1, 3).classify(np.array([1, 2, 3], np.int8))
    assert (answer.label, answer.nearest, answer.similarity) == (UNKNOWN, UNKNOWN, -ONE)


def test_a_forgotten_label_makes_room() -> None:
    store = Store(2, 1)
    store.enrol(0, np.array([5], np.int8))
    store.enrol(1, np.array([-5], np.int8))
    with pytest.raises(UserError, match="holds 2 examples"):
        store.enrol(1, np.array([-5], np.int8))
    assert store.forget(0) == 1
    store.enrol(2, np.array([5], np.int8))
    assert store.classify(np.array([9], np.int8)).label == 2


def test_a_store_comes_back_from_bytes_unless_they_are_damaged() -> None:
    store = Store(3, 5, model=0xDEADBEEF)
    for label in (3, 1):
        store.enrol(label, RANDOM.integers(-99, 99, 5).astype(np.int8))
    data = store.to_bytes()
    back = Store.from_bytes(data)
    assert back.to_bytes() == data
    assert (back.model, back.capacity, [label for label, _ in back.examples]) == (0xDEADBEEF, 3, [1, 3])
    for at in (0, 9, 14, 21, len(data) - 4):
        wrong = bytearray(data)
        wrong[at] ^= 1
        with pytest.raises(UserError, match=r"no store|damaged"):
            Store.from_bytes(bytes(wrong))
    with pytest.raises(UserError, match="no store"):
        Store.from_bytes(data[:-1])


@pytest.mark.parametrize("compiler", ["gcc", "clang", "g++"])
def test_the_header_compiles_without_a_warning(compiler: str, tmp_path: Path) -> None:
    write_model(tmp_path)
    language = ["-x", "c++", "-std=c++17"] if compiler == "g++" else ["-std=c11"]
    (tmp_path / "only.c").write_text(
        '#include "tvmt_fewshot.h"\nint main(void) { return TVMT_FEWSHOT_OK; }\n'
    )
    source = "only.c" if compiler == "g++" else "driver.c"
    warnings = [flag for flag in WARNINGS if compiler != "g++" or flag != "-Wcast-qual"]
    command = [find_tool(compiler), *language, *warnings, "-Iinclude", "-c", source, "-o", "out.o"]
    subprocess.run(command, cwd=tmp_path, check=True)

"""Samples in .npz files: what is accepted, and that everything else is refused with its reason."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvmtiny.artifact import TensorInfo
from tvmtiny.errors import UserError
from tvmtiny.frontend.data import InputSpec, check_arrays, load_samples, read_npz

S = 6
IDS = InputSpec("ids", "tokens", (S,), 10, "int64")
WINDOW = InputSpec("window", "features", (4, 3))


def ids(count: int = 3) -> np.ndarray:
    return np.arange(count * S).reshape(count, S) % 10


def mask(*lengths: int) -> np.ndarray:
    return (np.arange(S) < np.asarray(lengths)[:, None]).astype(np.int64)


def check(length_input: str | None = "mask", minimum: int = 1, **contents: Any) -> Any:
    spec = IDS if "ids" in contents or "idz" in contents else WINDOW
    return check_arrays(contents, [spec], length_input, S, minimum=minimum)


def test_reads_ids_with_mask_and_labels(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, ids=ids().astype(np.int32), mask=mask(1, 4, 6), labels=np.array(["a", "b", "c"]))
    batch = read_npz(path, [IDS], "mask", S)
    assert len(batch) == 3
    assert batch.n_tokens.tolist() == [1, 4, 6]
    assert batch.arrays["ids"].dtype == np.int64
    assert batch.labels is not None
    assert batch.labels.tolist() == ["a", "b", "c"]


def test_lengths_may_be_given_as_n_tokens_or_left_out() -> None:
    assert check(ids=ids(), n_tokens=np.array([1, 2, 3])).n_tokens.tolist() == [1, 2, 3]
    assert check(ids=ids()).n_tokens.tolist() == [S, S, S]
    assert check(length_input=None, ids=ids(), n_tokens=np.full(3, S)).n_tokens.tolist() == [S, S, S]


@given(st.lists(st.integers(1, S), min_size=1, max_size=5))
def test_mask_and_n_tokens_say_the_same(lengths: list[int]) -> None:
    values = ids(len(lengths))
    by_mask = check(ids=values, mask=mask(*lengths)).n_tokens
    by_count = check(ids=values, n_tokens=np.asarray(lengths)).n_tokens
    assert by_mask.tolist() == by_count.tolist() == lengths


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        ({"idz": ids()}, "lacks 'ids'"),
        ({"ids": ids(), "maks": mask(1, 2, 3)}, "Did you mean 'mask'"),
        ({"ids": ids()[:, :4]}, "shape 3x4; Nx6 is needed"),
        ({"ids": ids()[0]}, "array[None]"),
        ({"ids": ids().astype(np.float32)}, "must be integers"),
        ({"ids": ids() - 1}, "sample 0 has the token id -1; the model knows 0 to 9"),
        ({"ids": ids() + 1}, "sample 1 has the token id 10"),
        ({"ids": ids(), "mask": mask(2, 3, 4)[:, ::-1]}, "in sample 0 a 0 comes before a 1"),
        ({"ids": ids(), "mask": mask(2, 0, 4)}, "marks no token of sample 1"),
        ({"ids": ids(), "mask": mask(2, 1, 4) * 2}, "other than 0 and 1"),
        ({"ids": ids(), "mask": mask(2, 1, 4)[:, :5]}, "Nx6 is needed"),
        ({"ids": ids(), "mask": mask(1, 2, 3), "n_tokens": np.array([1, 2, 3])}, "twice"),
        ({"ids": ids(), "n_tokens": np.array([1, 7, 3])}, "sample 1 has 7, not 1 to 6"),
        ({"ids": ids(), "n_tokens": np.array([1.0, 2.0, 3.0])}, "One integer a sample"),
        ({"ids": ids(), "labels": np.zeros(2)}, "'ids' 3, 'labels' 2"),
        ({"window": np.zeros((2, 4, 4))}, "shape 2x4x4; Nx4x3 is needed"),
        ({"window": np.full((2, 4, 3), np.nan)}, "sample 0 has the value nan"),
        ({"window": np.full((2, 4, 3), 1e300)}, "infinite"),
        ({"window": np.full((2, 4, 3), "x")}, "must be real numbers"),
    ],
)
def test_refuses_what_does_not_fit(contents: dict[str, np.ndarray], said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        check(**contents)
    assert caught.value.exit_status == 2


def test_refuses_too_few_samples_and_lengths_of_a_model_without() -> None:
    with pytest.raises(UserError, match="has 3 samples; at least 8 are needed"):
        check(minimum=8, ids=ids())
    with pytest.raises(UserError, match="no mask input"):
        check(length_input=None, ids=ids(), n_tokens=np.array([1, 2, 3]))


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"not a zip file", b"\x93NUMPY"])
def test_refuses_files_that_are_no_npz(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"numpy\.savez"):
        read_npz(path, [IDS], "mask", S)


def test_refuses_missing_files_single_arrays_and_pickles(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no file"):
        read_npz(tmp_path / "none.npz", [IDS], "mask", S)
    np.save(tmp_path / "one.npy", ids())
    with pytest.raises(UserError, match="one array"):
        read_npz(tmp_path / "one.npy", [IDS], "mask", S)
    np.savez(tmp_path / "objects.npz", ids=np.array([{}], dtype=object))
    with pytest.raises(UserError, match="plain arrays"):
        read_npz(tmp_path / "objects.npz", [IDS], "mask", S)


@given(st.binary(min_size=1, max_size=8), st.integers(0, 400))
def test_damaged_files_never_end_in_a_traceback(tmp_path_factory: Any, noise: bytes, place: int) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    np.savez_compressed(path, ids=ids(), mask=mask(1, 2, 3))
    data = bytearray(path.read_bytes())
    data[place : place + len(noise)] = noise
    path.write_bytes(data)
    with contextlib.suppress(UserError):
        read_npz(path, [IDS], "mask", S)


def test_samples_come_in_the_element_types_of_the_arena(tmp_path: Path) -> None:
    np.savez(tmp_path / "ids.npz", ids=ids(), mask=mask(1, 4, 6))
    info = TensorInfo("ids", "tokens", "uint16", (S,), 0, 2 * S, limit=10)
    metadata = {"inputs": [{"name": "ids", "shape": [S]}], "length_input": "mask"}
    artifact: Any = SimpleNamespace(
        inputs=(info,), reference_inputs=tmp_path / "reference.npz", max_tokens=S, metadata=metadata
    )
    samples = load_samples(artifact, tmp_path / "ids.npz")
    assert [sample.n_tokens for sample in samples] == [1, 4, 6]
    assert samples[0].inputs["ids"].dtype == np.uint16
    assert samples[1].inputs["ids"].tolist() == ids()[1].tolist()


def test_features_are_scaled_and_take_the_shape_of_the_arena(tmp_path: Path) -> None:
    values = np.linspace(-2, 2, 24).reshape(2, 4, 3)
    np.savez(tmp_path / "window.npz", window=values)
    info = TensorInfo("window", "features", "int8", (2, 6), 0, 12, (0.05,) * 6, (3,) * 6)
    metadata = {"inputs": [{"name": "window", "shape": [2, 6], "model_shape": [4, 3]}], "length_input": None}
    artifact: Any = SimpleNamespace(
        inputs=(info,), reference_inputs=tmp_path / "reference.npz", max_tokens=2, metadata=metadata
    )
    samples = load_samples(artifact, tmp_path / "window.npz")
    found = samples[1].inputs["window"]
    assert (found.dtype, found.shape, samples[1].n_tokens) == (np.int8, (2, 6), 2)
    assert np.allclose((found - 3.0) * 0.05, values[1].reshape(2, 6), atol=0.026)

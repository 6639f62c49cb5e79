"""Few-shot classification on every emulated core gives the bytes of its Python twin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fewshot_driver.script import expected, random_calls, script, write_model

from tvmtiny.runner import Sample, run

pytestmark = pytest.mark.qemu

SHAPES = ((1, 1), (4, 3), (9, 16), (6, 33), (8, 64), (3, 256))
"""Capacity and dimension."""


@pytest.mark.parametrize(
    "machine", ["qemu-m0-large", "qemu-m3", "qemu-m4", "qemu-m7", "qemu-m33", "qemu-m55"]
)
def test_scripts_give_the_bytes_of_the_twin(machine: str, tmp_path: Path) -> None:
    made = write_model(tmp_path)
    cases = [(capacity, random_calls(seed, capacity, width)) for seed, (capacity, width) in enumerate(SHAPES)]
    samples = [Sample({"script": script(capacity, calls)}, 1) for capacity, calls in cases]
    result = run(made, "qemu", samples, target=machine)
    assert set(result.status) == {0}
    for (capacity, calls), outputs in zip(cases, result.outputs, strict=True):
        assert np.asarray(outputs["results"]).tobytes() == expected(capacity, calls)

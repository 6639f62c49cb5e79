"""Models that run in steps, on emulated cores: the bytes of whole sequences, and text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tvmtiny.runner.generate import generate
from tvmtiny.runner.steps import run_sequences
from tvmtiny.sampling import Sampler
from tvmtiny.verify import expected_generation, expected_outputs

pytest.importorskip("torch")
import step_models

pytestmark = pytest.mark.qemu

CASES: list[tuple[str, str, int, dict[str, Any]]] = [
    ("llama", "qemu-m0", 1, {}),
    ("llama", "qemu-m4", 1, {}),
    ("llama", "qemu-m55", 5, {}),
    ("gpt", "qemu-m7", 3, {}),
    ("gpt", "qemu-m4", 1, {"tuned": "latency"}),
    ("stream", "qemu-m55", 1, {}),
    ("stream", "qemu-m4", 1, {"residual": "int16"}),
    ("strided", "qemu-m4", 2, {}),
]


@pytest.mark.parametrize(("name", "target", "step", "options"), CASES)
def test_steps_give_the_bytes_of_whole_sequences(
    name: str, target: str, step: int, options: dict[str, Any], tmp_path: Path
) -> None:
    made = step_models.compiled(name, tmp_path, target=target, step=step, **options)
    chosen = step_models.sequences(made, name, tmp_path)
    result = run_sequences(made, "qemu", chosen)
    assert result.status == [0] * len(chosen)
    for actual, expected in zip(result.outputs, expected_outputs(made, chosen), strict=True):
        for key, rows in expected.items():
            np.testing.assert_array_equal(actual[key], rows)


def test_a_core_writes_what_the_reference_writes(tmp_path: Path) -> None:
    made = step_models.compiled("llama", tmp_path, weights="int4")
    sampler = Sampler(3, 3 << 16, 10)
    found = generate(made, "qemu", [1, 2, 3], 9, sampler)
    assert found.ids == expected_generation(made, [1, 2, 3], 9, sampler)
    assert found.instructions_per_token is not None

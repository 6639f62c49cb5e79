"""The step `quantize`: which layers become int4 under a budget, and what travels with the module."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from quantized_families import family_task, fused_family  # noqa: E402  torch may be missing
from recipe_task import task as recipe_task  # noqa: E402

from tvmtiny.compress import quantize as step  # noqa: E402
from tvmtiny.compress.calibrated import Judge, statistics_of  # noqa: E402
from tvmtiny.compress.export import to_fused  # noqa: E402
from tvmtiny.compress.options import compile_options  # noqa: E402
from tvmtiny.compress.progress import Progress  # noqa: E402
from tvmtiny.compress.quantize import Budget, layer_bytes, mixed, sensitivities  # noqa: E402
from tvmtiny.compress.steps import DECIDES  # noqa: E402
from tvmtiny.errors import UserError  # noqa: E402
from tvmtiny.passes.quantize import quantize  # noqa: E402
from tvmtiny.passes.weight_types import weight_types  # noqa: E402


@pytest.fixture(scope="module")
def parts() -> Any:
    """A model of random weights as integers by types, its types and its judge."""
    torch.manual_seed(0)
    task = recipe_task(0)
    module = task.model().eval()
    fused = to_fused(module, task)
    statistics = statistics_of(fused, task)
    judge = Judge(module, fused, task, task.selection)
    return lambda types: quantize(fused, statistics, "minmax", weights=types), weight_types(fused), judge


def test_sensitivities_name_every_layer_once_the_cheapest_first(parts: Any) -> None:
    integers, types, judge = parts
    rows = sensitivities(integers, types, layer_bytes(integers(types)), judge)
    assert {row.layer for row in rows} == set(types)
    assert [row.price for row in rows] == sorted(row.price for row in rows)
    saved = {row.layer: row.saved_bytes for row in rows}
    alone = {**types, rows[0].layer: "int4"}
    sizes = [sum(layer_bytes(integers(choice)).values()) for choice in (types, alone)]
    assert sizes[0] - sizes[1] == saved[rows[0].layer]
    assert rows[0].snr_db == judge.measure(integers(alone)).snr_db


def test_a_budget_of_bytes_stops_as_soon_as_it_is_met(parts: Any) -> None:
    integers, types, judge = parts
    rows = sensitivities(integers, types, layer_bytes(integers(types)), judge)
    size = sum(layer_bytes(integers(types)).values())
    found = mixed(integers, types, judge, Budget(1.0, -100.0, size - rows[0].saved_bytes), Progress())
    assert [name for name, kind in found.items() if kind == "int4"] == [rows[0].layer]


def test_budgets_of_noise_and_of_the_metric_hold(parts: Any) -> None:
    integers, types, judge = parts
    best = max(row.snr_db for row in sensitivities(integers, types, layer_bytes(integers(types)), judge))
    assert "int4" not in mixed(integers, types, judge, Budget(1.0, best + 1), Progress()).values()
    assert "int4" not in mixed(integers, types, judge, Budget(-1.0, -100.0), Progress()).values()
    assert set(mixed(integers, types, judge, Budget(1.0, -100.0), Progress()).values()) == {"int4"}


def test_a_size_out_of_reach_is_an_error(parts: Any) -> None:
    integers, types, judge = parts
    with pytest.raises(UserError, match="1 are allowed"):
        mixed(integers, types, judge, Budget(1.0, -100.0, 1), Progress())


def test_options_travel_with_a_copy_and_the_module_stays() -> None:
    task = recipe_task(0)
    module = task.model()
    found = step.quantize(module, task, weights="int4", rounding="gptq", bias_correction=True)
    assert compile_options(module) == {}
    assert compile_options(found)["weights"] == "int4"
    assert compile_options(found)["bias_correction"] is True
    assert set(compile_options(found)) <= set(DECIDES["quantize"])


def test_steps_calibrate_with_the_tables_that_frames_share(tmp_path: Path) -> None:
    (tmp_path / "front.toml").write_text('kind = "sensor"\nchannels = 3\ngain = 0.1\n')
    fused, task = fused_family("causal"), family_task("causal")
    front = dataclasses.replace(task, files={"features": tmp_path / "front.toml"})
    alone, shared = (quantize(fused, statistics_of(fused, t)).inputs["x"].scale for t in (task, front))
    assert len(set(alone)) == 6
    assert np.array_equal(shared[:3], shared[3:])

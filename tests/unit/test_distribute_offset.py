"""Positions behind a CLS token go into the constant and into the dense layer; other concatenations stay as they are."""

from __future__ import annotations

from pathlib import Path

import models
import numpy as np
import pytest
import tvm
from models import OnnxBuilder
from onnx.reference import ReferenceEvaluator
from tvm import relax

from tvmtiny.frontend import import_model
from tvmtiny.passes.graph import Graph, op_name
from tvmtiny.passes.operators import attributes, kind
from tvmtiny.passes.pipeline import fusion_passes

E, S = 6, 5


def _model(folder: Path, *, activated: bool = False, twice: bool = False, swapped: bool = False) -> Path:
    build = OnnxBuilder(18)
    x = build.dense(build.input("x", [1, S, 4]), 4, E, "patches")
    x = build.node("Relu", [x]) if activated else x
    parts = [build.weight(1, 1, E), x]
    joined = build.node("Concat", parts[::-1] if swapped else parts, "joined", axis=1)
    y = build.node("Add", [joined, build.weight(1, S + 1, E)], "positions")
    y = build.node("Mul", [y, joined]) if twice else y
    return models.save(build.model(build.dense(y, E, 3, "head"), [1, S + 1, 3]), folder / "model.onnx")


def _fused(path: Path) -> Graph:
    return Graph(tvm.transform.Sequential(fusion_passes())(import_model(path))["main"])


def _adds(graph: Graph) -> int:
    return sum(isinstance(value, relax.Call) and op_name(value) == "add" for _, value in graph)


@pytest.mark.parametrize("swapped", [False, True])
def test_the_dense_layer_takes_its_positions_in(swapped: bool, tmp_path: Path) -> None:
    graph = _fused(_model(tmp_path, swapped=swapped))
    dense = [attributes(value) for _, value in graph if kind(value) == "dense"]
    assert [attrs["residual"] for attrs in dense] == [1, 0]
    assert _adds(graph) == 0


@pytest.mark.parametrize("swapped", [False, True])
def test_the_values_stay(swapped: bool, tmp_path: Path) -> None:
    path = _model(tmp_path, swapped=swapped)
    x = np.random.default_rng(2).normal(size=(1, S, 4)).astype(np.float32)
    (wanted,) = ReferenceEvaluator(str(path)).run(None, {"x": x})
    module = relax.get_pipeline("tvmtiny")(import_model(path))
    machine = relax.VirtualMachine(tvm.compile(module, target="llvm"), tvm.cpu())
    found = machine["main"](tvm.runtime.tensor(x)).numpy()
    np.testing.assert_allclose(found.reshape(wanted.shape), wanted, atol=1e-5)


@pytest.mark.parametrize("how", ["activated", "twice"])
def test_it_stays_behind_what_takes_no_sum(how: str, tmp_path: Path) -> None:
    assert _adds(_fused(_model(tmp_path, activated=how == "activated", twice=how == "twice"))) == 1

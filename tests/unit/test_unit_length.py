"""Rows of length 1: recognised however they are written, and left alone where they are something else."""

from __future__ import annotations

from pathlib import Path

import models
import numpy as np
import pytest
import tvm
from models import OnnxBuilder

from tvmtiny.frontend import import_model
from tvmtiny.passes.graph import Graph
from tvmtiny.passes.operators import kind
from tvmtiny.passes.pipeline import fusion_passes

E = 6


def _length(build: OnnxBuilder, x: str, form: str) -> str:
    axes = build.constant([-1], np.int64)
    if form == "norm":
        return build.node("ReduceL2", [x, axes], keepdims=1)
    if form == "power":
        squares = build.node("Pow", [build.node("Abs", [x]), build.constant(2.0)])
    else:
        squares = build.node("Mul", [x, x])
    mean = form == "mean"
    total = build.node("ReduceMean" if mean else "ReduceSum", [squares, axes], keepdims=1)
    if form == "epsilon":
        total = build.node("Add", [total, build.constant(0.1)])
    return build.node("Sqrt", [total])


def _operators(form: str, folder: Path, *, product: bool = False, projected: bool = False) -> list[str]:
    build = OnnxBuilder(18)
    x = build.input("x", [1, 4, E])
    x = build.dense(x, E, E, "projection") if projected else build.node("Tanh", [x])
    length = _length(build, x, form)
    if product:
        y = build.node("Mul", [x, build.node("Reciprocal", [length])], "unit")
    else:
        y = build.node("Div", [x, length], "unit")
    path = models.save(build.model(y, [1, 4, E]), folder / "model.onnx")
    fused = tvm.transform.Sequential(fusion_passes())(import_model(path))
    return [kind(value) for _, value in Graph(fused["main"]) if kind(value)]


@pytest.mark.parametrize("form", ["norm", "power", "square"])
@pytest.mark.parametrize("product", [False, True])
def test_every_way_of_writing_it_is_one_operator(form: str, product: bool, tmp_path: Path) -> None:
    assert _operators(form, tmp_path, product=product) == ["rms_norm"]


@pytest.mark.parametrize("form", ["mean", "epsilon"])
def test_other_quotients_are_left_alone(form: str, tmp_path: Path) -> None:
    assert _operators(form, tmp_path) == []


def test_a_projection_takes_it_in(tmp_path: Path) -> None:
    assert _operators("square", tmp_path, projected=True) == ["dense"]

"""What the result of an operator overwrites: only what the operator has read before it writes there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from model_cases import Case, Encoder, compiled
from models import OnnxBuilder, save

from tvmtiny.artifact import Artifact
from tvmtiny.compiler import compile as compile_model

TOKENS, EMBEDDING = 8, 12


def _compiled(tmp_path: Path, fold_qk: str, **options: Any) -> Artifact:
    encoder = Encoder(tokens=TOKENS, embedding=EMBEDDING, hidden=12, features=6, mask=False, **options)
    case = Case("encoder", encoder.model, {"x": ((TOKENS, 6), 0)}, TOKENS, length=False)
    return compiled(case, tmp_path / "model", "host", fold_qk=fold_qk)


def _plan(artifact: Artifact) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in artifact.metadata["arena"]["plan"]}


def _attention(artifact: Artifact) -> dict[str, Any]:
    """The row of the plan of what the attention operator computes."""
    (name,) = (row["name"] for row in artifact.metadata["operators"] if row["kernel"] == "attention")
    return _plan(artifact)[name]


def _tokens(artifact: Artifact) -> str:
    """What the first attention operator reads: the result before it."""
    names = [row["name"] for row in artifact.metadata["operators"]]
    kernels = [row["kernel"] for row in artifact.metadata["operators"]]
    return names[kernels.index("attention") - 1]


def test_attention_overwrites_its_tokens(tmp_path: Path) -> None:
    made = _compiled(tmp_path, "never", heads=2, head_dim=12)
    assert _attention(made)["in_place_of"] == _tokens(made)


def test_folded_attention_overwrites_contexts_but_not_its_tokens(tmp_path: Path) -> None:
    """The tokens are its keys until the end, although they are the residual, which it might overwrite, too."""
    made = _compiled(tmp_path, "always", heads=2, head_dim=12)
    row, tokens = _attention(made), _plan(made)[_tokens(made)]
    assert row["in_place_of"] == f"{row['name']}.earlier"
    assert tokens["last_step"] == row["first_step"]  # both are live in the last loop
    assert abs(tokens["offset"] - row["offset"]) >= TOKENS * EMBEDDING


def test_contexts_narrower_than_the_result_are_not_overwritten(tmp_path: Path) -> None:
    """A row of the result would reach into rows of contexts that are still to be read."""
    assert _attention(_compiled(tmp_path, "always", heads=2, head_dim=11))["in_place_of"] is None


def test_folded_attention_overwrites_another_residual(tmp_path: Path) -> None:
    made = _compiled(tmp_path, "always", heads=2, head_dim=12, pre_norm=True)
    first = made.metadata["operators"][0]["name"]
    assert _attention(made)["in_place_of"] == first


def test_a_dense_layer_overwrites_tokens_that_are_its_residual(tmp_path: Path) -> None:
    build = OnnxBuilder(18)
    x = build.dense(build.input("x", [1, 8, 6]), 6, 8, "first")
    x = build.node("Add", [x, build.dense(x, 8, 8, "second")], "sum")
    x = build.node("Relu", [build.dense(x, 8, 8, "third")])
    path = save(build.model(x, [1, 8, 8]), tmp_path / "model.onnx")
    x = np.random.default_rng(0).normal(size=(8, 8, 6)).astype(np.float32)
    made = compile_model(path, target="host", calibration={"x": x}, output=tmp_path / "model")
    first, second, third = (_plan(made)[row["name"]] for row in made.metadata["operators"])
    assert second["in_place_of"] == first["name"]
    assert third["in_place_of"] is None

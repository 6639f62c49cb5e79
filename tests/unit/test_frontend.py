"""Model files become Relax modules, or are refused with what to do."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import models
import numpy as np
import onnx
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from models import CLASSES, VOCABULARY, E, OnnxBuilder, S, save
from onnx import TensorProto, helper

from tvmtiny.errors import EnvironmentProblem, UserError
from tvmtiny.frontend import import_model
from tvmtiny.frontend.data import input_specs
from tvmtiny.frontend.onnx import OPSETS, import_onnx
from tvmtiny.frontend.supported import check_fused
from tvmtiny.passes.graph import Graph, shape_of
from tvmtiny.passes.pipeline import fusion_passes


def fuse(module: tvm.IRModule) -> tvm.IRModule:
    return tvm.transform.Sequential(fusion_passes())(module)


def refused(tmp_path: Path, model: onnx.ModelProto, said: str, **options: Any) -> None:
    """Import, fuse and check; the UserError must match `said`."""
    with pytest.raises(UserError, match=said) as caught:
        check_fused(fuse(import_onnx(save(model, tmp_path / "model.onnx"), **options)))
    assert caught.value.exit_status == 2
    assert caught.value.remedy


def on_features(*nodes: tuple[str, dict[str, Any]], opset: int = 18) -> onnx.ModelProto:
    """One-input operators after each other on features (1, 4, 6)."""
    build = OnnxBuilder(opset)
    x = build.input("x", [1, 4, 6])
    for kind, attributes in nodes:
        x = build.node(kind, [x], **attributes)
    return build.model(x, ["a", "b", "c"])


@pytest.mark.parametrize("opset", [13, 16, 18, 22, 24, OPSETS[-1]])
def test_imports_every_supported_opset_with_the_names_of_the_model(tmp_path: Path, opset: int) -> None:
    module = import_onnx(save(models.encoder_model(opset), tmp_path / "model.onnx"))
    graph = Graph(module["main"])
    names = {var.name for var, _ in graph}
    assert [param.name for param in graph.params] == ["ids", "mask"]
    assert {"classifier", "softmax0", "attention_norm0", "tokens"} <= names
    assert not [name for name in names if name.startswith("lv")]


def test_names_of_inputs_and_nodes_with_other_characters(tmp_path: Path) -> None:
    build = OnnxBuilder(18)
    x = build.input("serving.input:0", [1, 6])
    model = build.model(build.dense(x, 6, 3, "/head/0.dense"), [1, 3])
    fused = fuse(import_onnx(save(model, tmp_path / "model.onnx")))
    check_fused(fused)
    assert input_specs(fused)[0][0].name == "serving.input:0"


@pytest.mark.parametrize("opset", [12, OPSETS[-1] + 1])
def test_refuses_other_opsets(tmp_path: Path, opset: int) -> None:
    model = models.dense_model(18)
    model.opset_import[0].version = opset
    refused(tmp_path, model, f"opset {opset}; 13 to {OPSETS[-1]} are supported")


def test_dynamic_axes_get_sizes_from_the_options(tmp_path: Path) -> None:
    path = save(models.encoder_model(17, batch="batch", tokens="sequence"), tmp_path / "model.onnx")
    for options in ({"max_tokens": S}, {"shapes": {"ids": (1, S), "mask": (1, S)}}):
        module = import_onnx(path, **options)
        assert [shape_of(param) for param in module["main"].params] == [(1, S), (1, S)]


def test_refuses_dynamic_axes_without_sizes(tmp_path: Path) -> None:
    model = models.encoder_model(17, batch="batch", tokens="sequence")
    refused(tmp_path, model, r"Axis 1 \('sequence'\) of input 'ids' is dynamic(.|\n)*--max-tokens 32")
    refused(tmp_path, model, "Did you mean 'ids'", shapes={"idz": (1, S)})
    refused(tmp_path, model, "has 3 axes; the model has 2", shapes={"ids": (1, S, 1)})
    refused(tmp_path, model, "the batch, its first axis, is 2", shapes={"ids": (2, S), "mask": (2, S)})


def test_refuses_sizes_that_the_model_contradicts(tmp_path: Path) -> None:
    refused(tmp_path, models.encoder_model(), "--max-tokens 8 fits no input", max_tokens=8)
    refused(tmp_path, models.encoder_model(), "fixes axis 1 at 12", shapes={"ids": (1, 8)})
    refused(tmp_path, models.dense_model(batch=4), "the batch, its first axis, is 4")


def test_refuses_more_tokens_than_positions(tmp_path: Path) -> None:
    build = OnnxBuilder(18)
    ids = build.input("ids", [1, "tokens"], TensorProto.INT64)
    count = build.node("Gather", [build.node("Shape", [ids]), build.constant(1, np.int64)])
    places = build.node("Range", [build.constant(0, np.int64), count, build.constant(1, np.int64)])
    positions = build.node("Gather", [build.weight(S, E), places])
    x = build.node("Add", [build.node("Gather", [build.weight(VOCABULARY, E), ids]), positions])
    x = build.node("ReduceMean", [x, build.constant([1], np.int64)], keepdims=0)
    model = build.model(build.dense(x, E, CLASSES, "head"), [1, CLASSES])
    check_fused(fuse(import_onnx(save(model, tmp_path / "model.onnx"), max_tokens=S)))
    refused(tmp_path, model, rf"with size {S}(.|\n)*--max-tokens", max_tokens=S + 1)


def test_refuses_operators_that_the_importer_lacks(tmp_path: Path) -> None:
    model = on_features(("Relu", {}))
    model.graph.node.append(helper.make_node("Det", ["x"], ["y"], name="determinant"))
    refused(tmp_path, model, "Det .node 'determinant'.")


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([("Cosh", {})], "operator cosh at node 'Cosh_0_out'"),
        ([("Softmax", {"axis": 1})], "(?i)softmax(.|\n)*Attention is softmax"),
        ([("Transpose", {"perm": [0, 2, 1]})], "computes nothing"),
        ([("Identity", {})], "computes nothing"),
    ],
)
def test_refuses_what_does_not_fuse(tmp_path: Path, nodes: list[Any], said: str) -> None:
    refused(tmp_path, on_features(*nodes), said)


def test_refuses_convolutions_of_three_dimensions_and_unused_inputs(tmp_path: Path) -> None:
    build = OnnxBuilder(18)
    x = build.input("x", [1, 2, 4, 4, 4])
    convolution = build.node("Conv", [x, build.constant(np.ones((2, 2, 3, 3, 3)))], "conv")
    refused(
        tmp_path,
        build.model(convolution, [1, 2, 2, 2, 2]),
        "conv3d at node 'conv_out'(.|\n)*one or two dimensions",
    )

    model = models.encoder_model()
    model.graph.input.append(helper.make_tensor_value_info("extra", TensorProto.FLOAT, [1, 4, 4]))
    refused(tmp_path, model, "'extra' has no effect")


def test_refuses_control_flow(tmp_path: Path) -> None:
    build = OnnxBuilder(18)
    x = build.input("x", [1, 6])
    result = helper.make_tensor_value_info("r", TensorProto.FLOAT, [1, 6])
    branch = helper.make_graph([helper.make_node("Relu", [x], ["r"])], "branch", [], [result])
    y = build.node("If", [build.constant(True, bool)], "choice", then_branch=branch, else_branch=branch)
    refused(tmp_path, build.model(y, [1, 6]), "'choice' is control flow")


@pytest.mark.parametrize("data", [b"", b"not a model", b"\x08\x08", bytes(100)])
def test_refuses_files_that_are_no_model(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(UserError, match="is not an ONNX model, or is damaged"):
        import_onnx(path)
    with pytest.raises(UserError, match="There is no file"):
        import_onnx(tmp_path / "other.onnx")


def test_refuses_missing_external_weights(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(models.dense_model(), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    check_fused(fuse(import_onnx(path)))
    (tmp_path / "w.bin").unlink()
    with pytest.raises(UserError, match="external data file"):
        import_onnx(path)


@settings(max_examples=60)
@given(st.floats(0, 1), st.binary(max_size=4), st.booleans())
def test_damaged_models_never_end_in_a_traceback(
    tmp_path_factory: Any, where: float, noise: bytes, cut: bool
) -> None:
    whole = models.sensor_model().SerializeToString()
    place = int(where * len(whole))
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    path.write_bytes(whole[:place] + noise + (b"" if cut else whole[place + len(noise) :]))
    with contextlib.suppress(UserError):
        check_fused(fuse(import_onnx(path)))


def test_the_terminal_stays_clean(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = models.dense_model()
    model.graph.node[0].input[1] = "const_1"  # a bias where a weight belongs
    with pytest.raises(UserError, match=re.escape("classifier_product")):
        import_onnx(save(model, tmp_path / "model.onnx"))
    import_onnx(save(models.encoder_model(13), tmp_path / "model.onnx"))
    assert capfd.readouterr() == ("", "")


def test_onnx_needs_no_torch(tmp_path: Path) -> None:
    path = save(models.dense_model(), tmp_path / "model.onnx")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from tvmtiny.frontend import import_model\n"
        f"import_model({str(path)!r})\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_torch_programs_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(EnvironmentProblem, match=re.escape("tvmtiny[train]")):
        import_model(tmp_path / "model.pt2")


def test_refuses_other_models() -> None:
    with pytest.raises(UserError, match=r"no ONNX file"):
        import_model("model.h5")
    with pytest.raises(UserError, match="not dict"):
        import_model({})


def test_imports_pt2_with_a_dynamic_axis(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    features = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    steps = torch.export.Dim("steps", min=2, max=64)
    program = torch.export.export(features, (torch.zeros(1, 16, 6),), dynamic_shapes=({1: steps},))
    path = tmp_path / "model.pt2"
    torch.export.save(program, path)
    with pytest.raises(UserError, match=r"Axis 1 .* is dynamic"):
        import_model(path)
    fused = fuse(import_model(path, max_tokens=8))
    check_fused(fused)
    specs, length_input, tokens = input_specs(fused)
    assert (specs[0].shape, length_input, tokens) == ((8, 6), None, 8)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match="is not an ExportedProgram, or is damaged"):
        import_model(path)

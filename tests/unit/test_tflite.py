"""TensorFlow Lite models: as close to their float model as LiteRT's own interpreter, damaged ones refused."""

from __future__ import annotations

import signal
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st

from tvmtiny.artifact import Artifact
from tvmtiny.compiler import compile as compile_model
from tvmtiny.errors import UnsupportedOperators, UserError
from tvmtiny.frontend import import_model
from tvmtiny.frontend.data import input_specs, load_samples
from tvmtiny.frontend.supported import check_fused
from tvmtiny.passes.graph import Graph
from tvmtiny.passes.operators import kind
from tvmtiny.passes.pipeline import fusion_passes
from tvmtiny.passes.strip_quantization import GIVEN_ATTRIBUTE
from tvmtiny.verify import expected_outputs

pytest.importorskip("tflite")

DATA = Path(__file__).parent.parent / "data" / "tflite"
MODELS = {
    "encoder": ["dense", "attention", "ffn", "mean", "dense"],
    "text": ["embed", "attention", "ffn", "mean", "dense"],
    "images": ["dense", "dense", "dense", "dense"],
}
"""Models of DATA, and what they fuse to."""


def inputs(name: str, count: int = 32, seed: int = 4) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    if name == "text":
        return {"ids": random.integers(0, 40, (count, 12))}
    key, shape = {"encoder": ("window", (12, 6)), "images": ("image", (8, 8, 2))}[name]
    return {key: random.normal(size=(count, *shape)).astype(np.float32)}


def interpreted(name: str, values: np.ndarray) -> np.ndarray:
    """Results of LiteRT in real numbers, a row a sample."""
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    runner = litert.Interpreter(str(DATA / f"{name}.tflite"))
    runner.allocate_tensors()
    (source,), (result,) = runner.get_input_details(), runner.get_output_details()
    rows = []
    for row in values:
        runner.set_tensor(source["index"], stored(row[None], source))
        runner.invoke()
        scale, zero_point = result["quantization"]
        found = runner.get_tensor(result["index"]).astype(np.float64)
        rows.append((found - zero_point) * scale if scale else found)
    return np.concatenate(rows)


def stored(values: np.ndarray, source: dict[str, Any]) -> np.ndarray:
    scale, zero_point = source["quantization"]
    if scale:
        values = np.clip(np.round(values / scale) + zero_point, -128, 127)
    return values.astype(source["dtype"])


def integer_results(made: Artifact, data: dict[str, np.ndarray], place: Path) -> np.ndarray:
    np.savez(place / "data.npz", **data)
    (info,) = made.metadata["outputs"]
    rows = expected_outputs(made, load_samples(made, place / "data.npz"))
    integers = np.stack([row[info["name"]].reshape(-1) for row in rows]).astype(np.float64)
    return (integers - info["zero_point"][0]) * info["scale"][0]


def decibels(expected: np.ndarray, actual: np.ndarray) -> float:
    return float(10 * np.log10(np.sum(expected**2) / np.sum((expected - actual) ** 2)))


def fused(path: Path) -> tvm.IRModule:
    module = tvm.transform.Sequential(fusion_passes())(import_model(path))
    check_fused(module)
    return module


@pytest.mark.parametrize("kind_of_file", ["float", "int8"])
@pytest.mark.parametrize("name", MODELS)
def test_comes_in_as_fused_operators(name: str, kind_of_file: str) -> None:
    graph = Graph(fused(DATA / f"{name}_{kind_of_file}.tflite")["main"])
    assert [kind(value) for _, value in graph if kind(value)] == MODELS[name]


@pytest.mark.parametrize("name", MODELS)
def test_is_as_close_to_float_as_the_interpreter(name: str, tmp_path: Path) -> None:
    data = inputs(name)
    (values,) = data.values()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = compile_model(DATA / f"{name}_int8.tflite", target="host", output=tmp_path / "model")
    expected, runtime = interpreted(f"{name}_float", values), interpreted(f"{name}_int8", values)
    ours = integer_results(made, data, tmp_path)
    assert decibels(expected, ours) > decibels(expected, runtime) - 1
    assert decibels(runtime, ours) > decibels(expected, runtime) - 3
    assert set(made.metadata["quality"]["scales"].values()) <= {"kept", "symmetric"}


def test_the_float_module_is_the_interpreters(tmp_path: Path) -> None:
    """A float .tflite, which needs calibration data, gives the interpreter's results before it is quantized."""
    from tvmtiny.quant.calibrate import FloatModel

    for name in MODELS:
        data = inputs(name, count=2)
        ((key, values),) = data.items()
        module = fused(DATA / f"{name}_float.tflite")
        model, (_, _, tokens) = FloatModel(module), input_specs(module)
        found = [model.run({key: row}, tokens).outputs[0].reshape(-1) for row in values]
        np.testing.assert_allclose(found, interpreted(f"{name}_float", values), atol=1e-4)
        with pytest.raises(UserError, match="needs calibration data"):
            compile_model(DATA / f"{name}_float.tflite", target="host", output=tmp_path / name)


def test_scales_are_those_of_the_file() -> None:
    import tflite

    path = DATA / "encoder_int8.tflite"
    graph = tflite.Model.GetRootAsModel(path.read_bytes(), 0).Subgraphs(0)
    wanted = set()
    for index in range(graph.TensorsLength()):
        found = graph.Tensors(index).Quantization()
        if found is not None and found.ScaleLength() == 1:
            wanted.add((round(float(found.Scale(0)), 12), int(found.ZeroPoint(0))))
    given_rows = dict(import_model(path)["main"].attrs[GIVEN_ATTRIBUTE]).values()
    assert {(round(float(row[0]), 12), int(row[1])) for row in given_rows} <= wanted


def test_names_of_tensors_need_not_differ(tmp_path: Path) -> None:
    import tflite

    from tvmtiny.quant.calibrate import FloatModel

    path = DATA / "encoder_float.tflite"
    data = bytearray(path.read_bytes())
    graph = tflite.Model.GetRootAsModel(bytes(data), 0).Subgraphs(0)
    outside = {graph.Inputs(0), graph.Outputs(0)}
    for index in set(range(graph.TensorsLength())) - outside:
        table = graph.Tensors(index)._tab
        string = table.Indirect(
            table.Pos + table.Offset(10)
        )  # the field `name`: its length, then its characters
        data[string : string + 6] = b"\x01\0\0\0t\0"
    (tmp_path / "model.tflite").write_bytes(data)
    values = inputs("encoder", 1)
    sample = {name: rows[0] for name, rows in values.items()}
    one, other = (
        FloatModel(fused(file)).run(sample, 1).outputs[0] for file in (path, tmp_path / "model.tflite")
    )
    np.testing.assert_array_equal(one, other)


def test_a_custom_operator_is_refused_by_name(tmp_path: Path) -> None:
    import tflite

    data = bytearray((DATA / "images_int8.tflite").read_bytes())
    model = tflite.Model.GetRootAsModel(data, 0)
    codes = [model.OperatorCodes(index)._tab for index in range(model.OperatorCodesLength())]
    (tanh,) = [code for code in codes if data[code.Pos + code.Offset(4)] == tflite.BuiltinOperator.TANH]
    data[tanh.Pos + tanh.Offset(4)] = tflite.BuiltinOperator.CUSTOM
    if tanh.Offset(10):  # the code in four bytes, in newer files
        data[tanh.Pos + tanh.Offset(10)] = tflite.BuiltinOperator.CUSTOM
    path = tmp_path / "model.tflite"
    path.write_bytes(data)
    with pytest.raises(UnsupportedOperators, match="CUSTOM") as caught:
        import_model(path)
    assert [row.node for row in caught.value.rows] == ["functional_2_1/dense_7_1/Tanh"]


@pytest.mark.parametrize("data", [b"", b"TFL3", b"\x00" * 64, b"\x1c\x00\x00\x00TFL3" + b"\xff" * 200])
def test_what_is_no_model_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(data)
    with pytest.raises(UserError):
        import_model(path)


def import_or_refuse(path: Path, data: bytes) -> None:
    """The whole front end on a file. Warnings are errors, and so is a hang."""

    def hang(*_: object) -> None:
        raise TimeoutError("importing takes longer than 20 s")

    path.write_bytes(data)
    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(20)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                input_specs(fused(path))
            except UserError:
                return
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@settings(max_examples=120)
@given(
    name=st.sampled_from(sorted(MODELS)),
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4)), min_size=1, max_size=4),
    keep=st.floats(0.05, 2),
)
def test_mutated_files(
    name: str, changes: list[tuple[float, bytes]], keep: float, tmp_path_factory: Any
) -> None:
    """Bytes changed, most of them in the tables and not in the weights, and the file cut short."""
    data = bytearray((DATA / f"{name}_int8.tflite").read_bytes())
    for where, new in changes:
        place = min(int(where * len(data)), len(data) - len(new))
        data[place : place + len(new)] = new
    import_or_refuse(
        tmp_path_factory.getbasetemp() / "mutant.tflite", bytes(data[: max(8, int(keep * len(data)))])
    )

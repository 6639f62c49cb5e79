"""The compiler as a whole: what it says when it cannot, what it leaves behind, what it tells on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import models
import numpy as np
import onnxruntime
import pytest
import tvm
from model_cases import CASES, Case, compiled
from tvm import relax

import tvmtiny.compiler
from tvmtiny.artifact import Artifact
from tvmtiny.compiler import compile as compile_model
from tvmtiny.errors import UserError
from tvmtiny.frontend.data import load_samples
from tvmtiny.resources import data_dir
from tvmtiny.runner import run
from tvmtiny.target import load_target

SMALL, ENCODER = CASES["sensor"], CASES["narrow_heads"]
STAGES = ["import", "fuse", "calibrate", "quantize", "lower", "schedule", "generate", "check", "write"]
DUMPS = ["1-imported.py", "2-fused.py", "3-quantized.py", "4-lowered.py", "5-scheduled.py"]


@pytest.fixture
def compile_case(tmp_path: Path) -> Any:
    """Compile a case to tmp_path/out/model."""

    def run(case: Case = SMALL, **options: Any) -> Artifact:
        path = models.save(case.model(), tmp_path / "source.onnx")
        defaults: dict[str, Any] = {
            "target": "host",
            "calibration": case.calibration(),
            "output": tmp_path / "out" / "model",
        }
        return compile_model(path, **{**defaults, **options})

    return run


@pytest.fixture
def nothing_written(tmp_path: Path) -> Any:
    """Checks after the test that there is no output, whole or in part."""
    yield
    out = tmp_path / "out"
    assert not out.exists() or list(out.iterdir()) == []


def _small_target(folder: Path, monkeypatch: pytest.MonkeyPatch, flash: int, ram: int) -> str:
    """qemu-m0 with less memory, as a user's own target."""
    text = (data_dir("targets") / "qemu-m0.toml").read_text()
    text = text.replace("bytes = 262_144", f"bytes = {flash}").replace("bytes = 16_384", f"bytes = {ram}")
    folder.mkdir()
    (folder / "tiny.toml").write_text(text)
    monkeypatch.setenv("TVMTINY_TARGETS", str(folder))
    assert (load_target("tiny").flash_bytes, load_target("tiny").ram_bytes) == (flash, ram)
    return "tiny"


@pytest.mark.usefixtures("nothing_written")
class TestErrors:
    def test_without_calibration(self, compile_case: Any) -> None:
        with pytest.raises(UserError, match="needs calibration data") as caught:
            compile_case(calibration=None)
        assert "--calibration" in caught.value.remedy
        assert caught.value.exit_status == 2

    @pytest.mark.parametrize(
        ("options", "named"),
        [({"rounding": "gptq"}, "--rounding gptq"), ({"bias_correction": True}, "--bias-correction")],
    )
    def test_with_a_rounding_by_data_and_no_data(
        self, compile_case: Any, options: dict[str, Any], named: str
    ) -> None:
        with pytest.raises(UserError, match=f"^{named}: weights are rounded by calibration data"):
            compile_case(calibration=None, **options)

    def test_with_too_few_samples(self, compile_case: Any) -> None:
        with pytest.raises(UserError, match="7 samples; at least 8"):
            compile_case(calibration=SMALL.calibration(7))

    @pytest.mark.parametrize("count", [1, 4, 6])
    def test_with_a_wrong_number_of_labels(self, compile_case: Any, count: int) -> None:
        with pytest.raises(UserError, match=rf"5 classes.* {count}\b"):
            compile_case(labels=[f"label {i}" for i in range(count)])

    def test_without_the_label_file(self, compile_case: Any, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="no label file"):
            compile_case(labels=tmp_path / "labels.txt")

    def test_with_labels_that_are_not_text(self, compile_case: Any, tmp_path: Path) -> None:
        (tmp_path / "labels.txt").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(UserError, match="not UTF-8"):
            compile_case(labels=tmp_path / "labels.txt")

    def test_with_an_unknown_range_method(self, compile_case: Any) -> None:
        with pytest.raises(UserError, match="range method 'kl'") as caught:
            compile_case(range_method="kl")
        assert "auto, minmax, percentile, entropy" in caught.value.remedy

    def test_with_an_unknown_folding(self, compile_case: Any) -> None:
        with pytest.raises(UserError, match=r"folding of Q K\^T 'yes'") as caught:
            compile_case(fold_qk="yes")
        assert "auto, never, always" in caught.value.remedy

    def test_with_weights_of_an_unknown_layer(self, compile_case: Any) -> None:
        with pytest.raises(UserError, match="no layer 'head' with weights") as caught:
            compile_case(layer_weights={"head": "int4"})
        assert caught.value.remedy.startswith("Its layers with weights are ")

    def test_with_an_unknown_target(self, compile_case: Any) -> None:
        with pytest.raises(UserError, match="stm32f476") as caught:
            compile_case(target="stm32f476")
        assert "Did you mean 'stm32f746'" in caught.value.remedy

    @pytest.mark.parametrize(
        "name", ["int", "main", "string", "features", "signal", "3d", "", "---", "tvmt_x", "arena"]
    )
    def test_with_a_name_that_c_cannot_take(self, compile_case: Any, name: str) -> None:
        with pytest.raises(UserError, match="cannot be a C prefix"):
            compile_case(name=name)

    def test_when_the_arena_does_not_fit(
        self, compile_case: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        target = _small_target(tmp_path / "targets", monkeypatch, 262_144, 2048 + 256)
        with pytest.raises(UserError, match=r"arena 0\.6 KB > 0\.2 KB RAM of tiny") as caught:
            compile_case(ENCODER, target=target)
        assert "--max-tokens" in caught.value.remedy

    def test_when_the_stack_leaves_no_ram(
        self, compile_case: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(UserError, match="arena"):
            compile_case(ENCODER, target=_small_target(tmp_path / "targets", monkeypatch, 262_144, 1024))

    def test_when_the_weights_do_not_fit(
        self, compile_case: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        target = _small_target(tmp_path / "targets", monkeypatch, 2048, 16_384)
        with pytest.raises(UserError, match=r"weights 3\.8 KB > 2 KB flash of tiny"):
            compile_case(ENCODER, target=target)

    def test_when_writing_fails_halfway(self, compile_case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tvmtiny.compiler, "save_npz", _fail)
        with pytest.raises(OSError, match="disk full"):
            compile_case()

    def test_with_a_model_that_is_none(self, compile_case: Any, tmp_path: Path) -> None:
        (tmp_path / "broken.onnx").write_bytes(b"not a model")
        with pytest.raises(UserError):
            compile_model(
                tmp_path / "broken.onnx",
                target="host",
                calibration=SMALL.calibration(),
                output=tmp_path / "out" / "model",
            )


def _fail(*_: Any) -> None:
    raise OSError("disk full")


def test_an_output_that_holds_other_files_is_left_alone(compile_case: Any, tmp_path: Path) -> None:
    directory = tmp_path / "out" / "model"
    directory.mkdir(parents=True)
    (directory / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="not empty and holds no compiled model"):
        compile_case()
    assert (directory / "thesis.tex").read_text() == "precious"
    with pytest.raises(UserError, match="not a directory"):
        compile_case(output=directory / "thesis.tex")


def test_a_failure_leaves_the_earlier_model_whole(
    compile_case: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = compile_case()
    before = {path: path.read_bytes() for path in made.directory.rglob("*") if path.is_file()}
    monkeypatch.setattr(tvmtiny.compiler, "save_npz", _fail)
    with pytest.raises(OSError, match="disk full"):
        compile_case(name="other")
    after = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert after == before


def test_compiling_again_replaces_everything(compile_case: Any, tmp_path: Path) -> None:
    first = compile_case()
    (first.directory / "build").mkdir()
    (first.directory / "build" / "stale.o").write_text("")
    second = compile_case(name="other")
    assert second.name == "other"
    names = {path.name for path in second.directory.iterdir()}
    assert {"other.c", "other.h", "other_weights.c", "main.c", "metadata.json"} <= names
    assert not names & {"model.c", "build"}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model"]


def test_every_stage_is_told_and_dumped(compile_case: Any, tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []
    dumped = tmp_path / "dump" / "inner"
    compile_case(ENCODER, on_stage=lambda name, seconds: told.append((name, seconds)), dump_dir=dumped)
    assert [name for name, _ in told] == STAGES
    assert all(seconds >= 0 for _, seconds in told)
    assert sorted(path.name for path in dumped.iterdir()) == DUMPS
    texts = {path.name: path.read_text() for path in dumped.iterdir()}
    assert all("def main" in text for text in texts.values())
    assert "tvmtiny.attention" in texts["2-fused.py"]
    assert "tvmtiny.q_attention" in texts["3-quantized.py"]
    assert "call_tir" in texts["4-lowered.py"]
    assert "tvmtiny.microkernel" in texts["5-scheduled.py"]
    assert "tvmtiny.microkernel" not in texts["4-lowered.py"]


def test_ir_is_verified_after_a_stage() -> None:
    builder = relax.BlockBuilder()
    x, other = (relax.Var(name, relax.TensorType([2], "int8")) for name in "xy")
    with builder.function("main", [x]):
        with builder.dataflow():
            result = builder.emit_output(x)
        builder.emit_func_output(result)
    whole = builder.get()
    stages = tvmtiny.compiler.Stages(None, None)
    assert stages.dump("good", whole) is whole
    function = whole["main"]
    undefined = relax.Function([x], relax.SeqExpr([], other), function.ret_ty)
    with pytest.raises(Exception, match=r"(?i)not well.formed|not defined|undefined|well.formed"):
        stages.dump("bad", tvm.IRModule({"main": undefined}))


def test_calibration_as_a_file_or_as_arrays_gives_the_same_model(compile_case: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "calibration.npz", **SMALL.calibration())
    hashes = [
        json.loads((compile_case(**options).directory / "metadata.json").read_text())["files"]
        for options in (
            {},
            {"calibration": tmp_path / "calibration.npz"},
            {"calibration": str(tmp_path / "calibration.npz")},
        )
    ]
    assert hashes[0] == hashes[1] == hashes[2]


def test_labels_from_a_file_and_from_a_list(compile_case: Any, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("eins\nzwei\n\n  drei \nvier\nfünf\n", encoding="utf-8")
    labels = ("eins", "zwei", "drei", "vier", "fünf")
    assert compile_case(labels=tmp_path / "labels.txt").labels == labels
    assert compile_case(labels=labels).labels == labels
    assert compile_case(labels=str(tmp_path / "labels.txt")).labels == labels


def test_output_and_name_follow_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = models.save(SMALL.model(), tmp_path / "My-Sensor v2.onnx")
    made = compile_model(path, target="host", calibration=SMALL.calibration())
    assert made.directory == Path("build") / "My-Sensor v2"
    assert made.name == "my_sensor_v2"
    assert (made.directory / "my_sensor_v2.c").is_file()


def test_metadata_tells_what_was_compiled(compile_case: Any, tmp_path: Path) -> None:
    made = compile_case(ENCODER, target="qemu-m4")
    data = made.metadata
    assert (data["target"], data["cpu"]) == ("qemu-m4", "cortex-m4")
    assert data["has_length"]
    assert data["max_tokens"] == ENCODER.tokens
    assert data["length_input"] == "mask"
    kernels = [row["kernel"] for row in data["operators"]]
    assert kernels == ["embed", "attention", "ffn", "mean", "dense"]
    n, e, f, classes = 7, 15, 19, 5
    macs = [0, n * e * 4 * e + 2 * n * n * e, 2 * n * e * f, 0, e * classes]
    assert [row["macs"] for row in data["operators"]] == macs
    assert data["figures"]["macs"] == sum(macs)
    assert data["quality"]["samples"] == 16
    assert min(row["snr_db"] for row in data["quality"]["layers"]) > 20
    found = {
        path.relative_to(made.directory).as_posix() for path in made.directory.rglob("*") if path.is_file()
    }
    assert set(data["files"]) == found - {"metadata.json"}


def test_labels_of_each_output(tmp_path: Path) -> None:
    tags = [f"tag {i}" for i in range(7)]
    (tmp_path / "tags.txt").write_text("\n".join(tags), encoding="utf-8")
    case = CASES["intent_and_tags"]
    made = compiled(case, tmp_path / "plain")
    first, second = (info.name for info in made.outputs)
    made = compiled(case, tmp_path / "model", labels={second: tmp_path / "tags.txt", first: list("abcde")})
    assert [info.labels for info in made.outputs] == [tuple("abcde"), tuple(tags)]
    header = (made.directory / "model.h").read_text()
    assert "model_labels[MODEL_LABEL_COUNT]" in header
    assert f"model_{second}_labels[MODEL_{second.upper()}_LABEL_COUNT]" in header
    with pytest.raises(UserError, match=r"no output of the model(.|\n)*Did you mean"):
        compiled(case, tmp_path / "wrong", labels={second[:-1]: tags})


def test_metadata_tells_which_attention_is_folded_and_counts_what_is_executed(compile_case: Any) -> None:
    S, E, H, P = 9, 12, 3, 14
    found = {}
    for mode in ("auto", "never"):
        artifact = compile_case(CASES["folded"], fold_qk=mode)
        (found[mode],) = (row for row in artifact.metadata["operators"] if row["kernel"] == "attention")
        assert all(row["variant"] == "" for row in artifact.metadata["operators"] if row != found[mode])
    assert [found[mode]["variant"] for mode in ("auto", "never")] == ["folded", ""]
    assert found["never"]["macs"] == H * S * (4 * E * P + 2 * S * P)
    assert found["auto"]["macs"] == H * S * (E * E + S * E + 2 * E * P + S * P)


@pytest.mark.parametrize(("kernel", "stride"), [(5, 2), (3, 4)])
def test_a_first_layer_may_read_elements_of_the_input_often_or_never(
    tmp_path: Path, kernel: int, stride: int
) -> None:
    build, samples = models.OnnxBuilder(18), np.random.default_rng(0).normal(size=(16, 6, 32))
    patches = build.node("Conv", [build.input("x", [1, 6, 32]), build.weight(8, 6, kernel)], strides=[stride])
    rows = build.node("Relu", [build.node("Transpose", [patches], perm=[0, 2, 1])])
    mean = build.node("ReduceMean", [rows, build.constant([1], np.int64)], keepdims=0)
    path = models.save(build.model(build.dense(mean, 8, 3, "classifier"), [1, 3]), tmp_path / "model.onnx")
    data = {"x": samples.astype(np.float32)}
    made = compile_model(path, target="host", calibration=data, output=tmp_path / "model")
    session = onnxruntime.InferenceSession(path)
    expected = np.concatenate([session.run(None, {"x": row[None]})[0] for row in data["x"]])
    np.savez(tmp_path / "data.npz", **data)  # type: ignore[arg-type]
    outputs = run(made, "host", load_samples(made, tmp_path / "data.npz")).outputs
    (info,) = made.outputs
    actual = np.stack([output[info.name].reshape(-1) for output in outputs]) * np.asarray(info.scale)
    noise = np.sum((actual - expected) ** 2)
    assert 10 * np.log10(np.sum(expected**2) / noise) > 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fold_qk": "always"}, "--fold-qk always: a model that runs in steps keeps keys"),
        ({"features": "features.toml"}, "--features: the front end fills a whole window"),
    ],
)
def test_what_a_model_in_steps_cannot_have_is_refused(
    compile_case: Any, nothing_written: None, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        compile_case(step=1, **options)

"""The command line: help, exit statuses, messages and the shape of --json.

Compiler, runner and reference are replaced by stand-ins of a few lines: what they do is tested elsewhere.
"""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tvmtiny import __version__
from tvmtiny.artifact import Artifact
from tvmtiny.cli import app, doctor
from tvmtiny.cli.compile import parse_layer_weights, parse_shapes
from tvmtiny.cli.run import first_difference
from tvmtiny.errors import EnvironmentProblem, UserError
from tvmtiny.runner import RunResult, Sample, Sizes

COMMANDS = ("doctor", "targets", "inspect", "compile", "run", "project", "profile")
PLAN = {
    "bytes": 16944,
    "align": 16,
    "lower_bound_bytes": 16944,
    "optimal": True,
    "regions": ["dtcm"],
    "origin": 0x2000_0000,
    "plan": [
        {
            "name": "tokens",
            "kind": "tensor",
            "offset": 0,
            "bytes": 16944,
            "align": 4,
            "first_step": 0,
            "last_step": 1,
            "in_place_of": None,
        }
    ],
}
TUNED = {"schedule": "rows 6", "schedule_origin": "tuned", "schedule_from": "attention 32x64"}
BY_RULE = {"schedule": "rows 4", "schedule_origin": "default", "schedule_from": None}
RESIDUAL = {"dtype": "int16", "tensors": ["attention_sum", "ffn_sum"], "extra_bytes": 1024}
LABELS = ["GetWeather", "PlayMusic", "RateBook"]


def invoke(*arguments: object, width: int = 200) -> Any:
    return CliRunner().invoke(
        app, [str(argument) for argument in arguments], env={"COLUMNS": str(width), "NO_COLOR": "1"}
    )


def report(*arguments: object) -> dict[str, Any]:
    """Standard output of a command that succeeds, which must be one JSON object."""
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture
def model_directory(tmp_path: Path) -> Path:
    """A compiled classifier of three classes, as far as the command line looks at one."""
    logits = {
        "name": "logits",
        "kind": "output",
        "dtype": "int16",
        "shape": [1, 3],
        "arena_offset": 0,
        "bytes": 6,
    }
    tokens = {
        "name": "input_ids",
        "kind": "tokens",
        "dtype": "uint16",
        "shape": [8],
        "arena_offset": 0,
        "bytes": 16,
    }
    metadata = {
        "schema": 2,
        "name": "intent",
        "target": "stm32f746",
        "inputs": [{**tokens, "scale": [], "zero_point": [], "limit": 10}],
        "outputs": [{**logits, "scale": [0.01], "zero_point": [0], "labels": LABELS}],
        "max_tokens": 8,
        "has_length": True,
        "arena": PLAN,
        "operators": [
            {"name": "attention_0", "kernel": "attention", "variant": "folded", **TUNED},
            {"name": "attention_1", "kernel": "attention", "variant": "", **BY_RULE},
        ],
        "schedules": "latency",
        "residual": RESIDUAL,
        "sources": ["intent.c", "intent_weights.c"],
        "include_dirs": [".", "include"],
        "figures": {"weight_bytes": 40000, "table_bytes": 512},
        "quality": {"agreement": 0.995, "layers": [{"name": "attention_0", "snr_db": 31.5}]},
    }
    directory = tmp_path / "intent"
    directory.mkdir()
    (directory / "metadata.json").write_text(json.dumps(metadata))
    return directory


def run_result(outputs: list[dict[str, np.ndarray]], status: int = 0) -> RunResult:
    sizes = Sizes(
        code_bytes=6000,
        table_bytes=600,
        weight_bytes=40000,
        runtime_bytes=3000,
        data_bytes=0,
        bss_bytes=0,
        stack_reserved_bytes=4096,
        arena_section_bytes=17000,
        sections={},
    )
    return RunResult(
        outputs=outputs,
        status=[status] * len(outputs),
        instructions=1_234_567,
        total_instructions=2_469_134,
        stack_bytes=640,
        elf=Path("board.elf"),
        run_elf=Path("qemu.elf"),
        sizes=sizes,
    )


def module(name: str, monkeypatch: pytest.MonkeyPatch, **functions: object) -> None:
    stand_in = types.ModuleType(name)
    vars(stand_in).update(functions)
    monkeypatch.setitem(sys.modules, name, stand_in)


@pytest.fixture
def sample_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An NPZ file that is read as two samples, whose labels say 1 and 0."""
    module("tvmtiny.frontend", monkeypatch)
    module("tvmtiny.frontend.data", monkeypatch, load_samples=lambda artifact, path: [Sample({}, 5)] * 2)
    module("tvmtiny.verify", monkeypatch, expected_outputs=lambda artifact, samples: None)
    path = tmp_path / "sample.npz"
    np.savez(path, input_ids=np.zeros((2, 8), np.int64), labels=np.array([1, 0]))
    return path


@pytest.fixture
def run_data(sample_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, with a run that classifies the samples as 1 and 2, as the reference does."""
    outputs = [{"logits": np.array([0, 300, 10], np.int16)}, {"logits": np.array([0, 1, 200], np.int16)}]
    monkeypatch.setattr("tvmtiny.runner.run", lambda artifact, **options: run_result(outputs))
    module("tvmtiny.verify", monkeypatch, expected_outputs=lambda artifact, samples: outputs)
    return sample_file


# --- The program itself


def test_help_names_every_command() -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    assert all(command in result.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert "--json" in result.stdout


def test_version() -> None:
    assert invoke("--version").stdout == f"tvmtiny {__version__}\n"


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["run"], ["targets", "--nonsense"], ["compile", "absent.onnx"]]
)
def test_wrong_usage_is_status_2_without_traceback(arguments: list[str]) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert result.stderr
    assert "Traceback" not in result.stderr


def test_command_line_imports_nothing_heavy() -> None:
    program = "import sys, tvmtiny.cli; print(*{name.split('.')[0] for name in sys.modules})"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"tvm", "tvm_ffi", "torch", "onnx", "numpy"} & set(result.stdout.split())


def test_help_answers_at_once() -> None:
    def processor_seconds() -> float:
        """Time on a core, not on the clock: other tests run beside this one."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "tvmtiny", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(processor_seconds() for _ in range(5)) < 0.5


# --- Errors


def compile_that_raises(error: BaseException, monkeypatch: pytest.MonkeyPatch, model: Path) -> Any:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    module("tvmtiny.compiler", monkeypatch, compile=fail)
    model.write_bytes(b"onnx")
    return invoke("compile", model, "--target", "stm32f746")


@pytest.mark.parametrize(("kind", "status"), [(UserError, 2), (EnvironmentProblem, 1)])
def test_error_shows_message_then_remedy(
    kind: type[Exception], status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = kind("arena 341 KB > 320 KB [DTCM]", "Try --max-tokens 96.")
    result = compile_that_raises(error, monkeypatch, tmp_path / "model.onnx")
    assert result.exit_code == status
    assert result.stderr == "error: arena 341 KB > 320 KB [DTCM]\nTry --max-tokens 96.\n"
    assert result.stdout == ""


def test_interrupt_is_status_130(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = compile_that_raises(KeyboardInterrupt(), monkeypatch, tmp_path / "model.onnx")
    assert result.exit_code == 130


def test_defect_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = compile_that_raises(ZeroDivisionError(), monkeypatch, tmp_path / "model.onnx")
    assert isinstance(result.exception, ZeroDivisionError)


# --- targets


def test_targets_lists_sizes_in_bytes() -> None:
    rows = {row["name"]: row for row in report("targets")["rows"]}
    board = rows["stm32f746"]
    assert (board["cpu"], board["clock_hz"]) == ("cortex-m7", 216_000_000)
    assert (board["flash_bytes"], board["ram_bytes"]) == (1 << 20, 320 << 10)
    assert rows["host"]["qemu_machine"] is None


def test_targets_shows_one_with_its_memory_map() -> None:
    text = invoke("targets", "stm32f746").stdout
    assert all(part in text for part in ("cortex-m7", "216 MHz", "dtcm", "0x20000000", "64 KB", "mps2-an500"))


def test_every_target_can_be_shown() -> None:
    for row in report("targets")["rows"]:
        assert report("targets", row["name"])["name"] == row["name"]
        assert row["name"] in invoke("targets", row["name"]).stdout


def test_unknown_target_suggests_the_nearest() -> None:
    result = invoke("targets", "stm32f764")
    assert result.exit_code == 2
    assert "stm32f746" in result.stderr


# --- doctor


def test_doctor_is_content_when_all_required_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    optional = doctor.Check("torch", "training", None, "pip install torch", required=False)
    monkeypatch.setattr(doctor, "CHECKS", (lambda: doctor.Check("gcc", "host", "12.2", ""), lambda: optional))
    found = report("doctor")
    assert found["ok"] is True
    assert [row["ok"] for row in found["rows"]] == [True, False]


@pytest.mark.parametrize(("found", "problem"), [(None, ""), ("0.1.15", "0.1.14 is needed")])
def test_doctor_fails_and_tells_the_remedy(
    found: str | None, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = doctor.Check("apache-tvm-ffi", "compile", found, "pip install apache-tvm-ffi==0.1.14", problem)
    monkeypatch.setattr(doctor, "CHECKS", (lambda: check,))
    result = invoke("doctor")
    assert result.exit_code == 1
    assert "pip install apache-tvm-ffi==0.1.14" in result.stdout
    assert problem in result.stdout


def test_doctor_finds_the_tools_missing_from_an_empty_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    result = invoke("doctor", "--json")
    assert result.exit_code == 1
    rows = {row["name"]: row for row in json.loads(result.stdout)["rows"]}
    for tool in ("gcc", "arm-none-eabi-gcc", "newlib", "qemu-system-arm"):
        assert rows[tool]["found"] is None
        assert "apt-get install" in rows[tool]["remedy"]
    assert rows["Python"]["ok"]


# --- compile


@pytest.mark.parametrize(
    ("texts", "shapes"),
    [
        ([], None),
        (["x=1x32"], {"x": (1, 32)}),
        (["a=b=4", "y=1x2x3"], {"a=b": (4,), "y": (1, 2, 3)}),
    ],
)
def test_shapes(texts: list[str], shapes: dict[str, tuple[int, ...]] | None) -> None:
    assert parse_shapes(texts) == shapes


@pytest.mark.parametrize("texts", [["x"], ["x="], ["=1x2"], ["x=1x"], ["x=1x0"], ["x=-1"], ["x=1", "x=2"]])
def test_wrong_shape_is_quoted(texts: list[str]) -> None:
    with pytest.raises(UserError, match=re.escape(texts[-1].partition("=")[0] or "=1x2")):
        parse_shapes(texts)


def test_weights_of_layers() -> None:
    assert parse_layer_weights([]) == {}
    assert parse_layer_weights(["a=int8", "b=c=int4"]) == {"a": "int8", "b=c": "int4"}


@pytest.mark.parametrize("text", ["a", "a=", "=int4", "a=int2", "int8"])
def test_wrong_weights_of_a_layer_are_quoted(text: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"--layer-weights {text} ")) as caught:
        parse_layer_weights([text])
    assert "int8 or int4" in caught.value.remedy


@pytest.fixture
def compiler(model_directory: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Replace the compiler; gives the options of its last call."""
    seen: dict[str, Any] = {}

    def compile_model(model: Path, **options: Any) -> Artifact:
        seen.update(options, model=model)
        options["on_stage"]("import", 0.25)
        options["on_stage"]("quantize", 0.5)
        return Artifact.load(model_directory)

    module("tvmtiny.compiler", monkeypatch, compile=compile_model)
    return seen


def test_compile_passes_its_options_and_reports(compiler: dict[str, Any], tmp_path: Path) -> None:
    model, labels = tmp_path / "small.onnx", tmp_path / "labels.txt"
    model.write_bytes(b"")
    labels.write_text("a\n")
    options = ("--shape", "x=1x8", "--max-tokens", 8, "--labels", labels, "--range-method", "entropy")
    options += ("--fold-qk", "always")
    options += ("--residual", "int16")
    options += ("--weights", "int4", "--layer-weights", "head=int8")
    found = report("compile", model, "--target", "stm32f746", "-o", tmp_path / "out", *options)
    assert compiler["model"] == str(model)
    assert compiler["shapes"] == {"x": (1, 8)}
    assert (compiler["max_tokens"], compiler["labels"]) == (8, labels)
    assert (compiler["range_method"], compiler["fold_qk"]) == ("entropy", "always")
    assert found["folded_qk"] == ["attention_0"]
    assert compiler["range_method"] == "entropy"
    assert compiler["residual"] == "int16"
    assert (compiler["weights"], compiler["layer_weights"]) == ("int4", {"head": "int8"})
    assert compiler["output"] == tmp_path / "out"
    assert found["arena_bytes"] == 16944
    assert found["arena_available_bytes"] == 320 << 10
    assert found["flash_bytes"] == 40512
    assert found["fits"] is True
    assert found["residual"] == RESIDUAL
    assert found["schedules"] == "latency"
    assert found["operators"] == [
        {"name": "attention_0", "kernel": "attention", **TUNED},
        {"name": "attention_1", "kernel": "attention", **BY_RULE},
    ]
    assert found["rows"] == [{"name": "attention_0", "snr_db": 31.5}]
    assert found["stages"][0] == {"stage": "import", "seconds": 0.25}


def test_compile_tells_a_person_what_it_made(compiler: dict[str, Any], tmp_path: Path) -> None:
    model = tmp_path / "small.onnx"
    model.write_bytes(b"")
    result = invoke("compile", model, "--target", "stm32f746", "--verbose")
    assert result.exit_code == 0, result.stderr
    assert compiler["output"] == Path("build/small")
    assert compiler["fold_qk"] == "auto"
    assert "Q K^T folded into one matrix a head: attention_0\n" in result.stdout
    assert "Schedules (latency): 1 tuned, 1 default\n" in result.stdout
    assert compiler["residual"] == "int8"
    assert (
        "In int16: attention_sum, ffn_sum (2 tensors of the arena, each up to 1,024 bytes larger"
        in result.stdout
    )
    assert all(
        part in result.stdout for part in ("16,944", "320 KB", "5.2 %", "fits stm32f746", "attention_0")
    )
    assert "0.50 s  quantize" in result.stderr
    assert "0.75 s  total" in result.stderr


def test_compile_checks_the_target_first(compiler: dict[str, Any], tmp_path: Path) -> None:
    model = tmp_path / "small.onnx"
    model.write_bytes(b"")
    assert invoke("compile", model, "--target", "stm32f74").exit_code == 2
    assert not compiler


def test_compile_refuses_an_unknown_type_of_the_residual_stream(
    compiler: dict[str, Any], tmp_path: Path
) -> None:
    model = tmp_path / "small.onnx"
    model.write_bytes(b"")
    result = invoke("compile", model, "--target", "stm32f746", "--residual", "float16")
    assert result.exit_code == 2
    assert "'int8', 'int16'" in result.stderr
    assert not compiler


# --- run


def test_run_reports_classes_accuracy_and_figures(model_directory: Path, run_data: Path) -> None:
    found = report("run", model_directory, "--input", run_data)
    assert [row["label"] for row in found["rows"]] == ["PlayMusic", "RateBook"]
    assert [row["expected"] for row in found["rows"]] == ["PlayMusic", "GetWeather"]
    assert found["rows"][0]["outputs"] == {"logits": [0, 300, 10]}
    assert found["rows"][0]["confidence"] == pytest.approx(1 / (1 + np.exp(-3) + np.exp(-2.9)))
    assert found["accuracy"] == 0.5
    assert found["bit_exact"] is True
    assert (found["instructions"], found["stack_bytes"]) == (1_234_567, 640)
    assert (found["code_bytes"], found["flash_bytes"]) == (6000, 46600)


def test_run_on_the_host_tells_nothing_about_the_board(model_directory: Path, run_data: Path) -> None:
    found = report("run", model_directory, "--on", "host", "--input", run_data)
    assert found["bit_exact"] is True
    assert (found["code_bytes"], found["stack_bytes"], found["instructions"]) == (None, None, None)


def test_run_shows_texts_and_where_they_were_computed(
    model_directory: Path, run_data: Path, tmp_path: Path
) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("PlayMusic\tplay [some] jazz\nGetWeather\twill it rain\n", encoding="utf-8")
    result = invoke("run", model_directory, "--on", "qemu", "--input", run_data, "--texts", texts)
    assert result.exit_code == 0, result.stderr
    assert all(part in result.stdout for part in ("play [some] jazz", "will it rain", "emulated Cortex-M7"))
    assert all(part in result.stdout for part in ("1,234,567", "640", "16,944", "byte for byte", "50.00 %"))
    assert str(model_directory) in result.stdout


def test_run_takes_texts_without_labels(model_directory: Path, run_data: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("one\ntwo\n")
    np.savez(run_data, input_ids=np.zeros((2, 8), np.int64))
    found = report("run", model_directory, "--input", run_data, "--texts", texts)
    assert [row["text"] for row in found["rows"]] == ["one", "two"]
    assert found["accuracy"] is None


def test_run_refuses_texts_of_another_length(model_directory: Path, run_data: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("only one\n")
    result = invoke("run", model_directory, "--input", run_data, "--texts", texts)
    assert result.exit_code == 2
    assert "1 lines for 2 samples" in result.stderr


def test_run_fails_on_one_differing_byte(
    model_directory: Path, run_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = [{"logits": np.array([0, 300, 10], np.int16)}, {"logits": np.array([0, 1, 201], np.int16)}]
    module("tvmtiny.verify", monkeypatch, expected_outputs=lambda artifact, samples: other)
    result = invoke("run", model_directory, "--input", run_data, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["bit_exact"] is False
    assert "sample 1, output logits, element 2: 200 instead of 201" in result.stderr


def test_run_refuses_a_directory_that_is_no_model(tmp_path: Path, run_data: Path) -> None:
    result = invoke("run", tmp_path, "--input", run_data)
    assert result.exit_code == 2
    assert "metadata.json" in result.stderr


def test_run_reports_a_sample_that_the_model_refuses(
    model_directory: Path, run_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tvmtiny.runner.run", lambda artifact, **options: run_result([{}, {}], status=-5))
    result = invoke("run", model_directory, "--input", run_data)
    assert result.exit_code == 2
    assert "sample 0 with status -5" in result.stderr


def test_run_on_an_unknown_place_is_the_users_error(model_directory: Path, sample_file: Path) -> None:
    result = invoke("run", model_directory, "--on", "moon", "--input", sample_file)
    assert result.exit_code == 2
    assert "moon" in result.stderr


# --- profile


def test_profile_refuses_a_directory_that_is_no_model(tmp_path: Path) -> None:
    result = invoke("profile", tmp_path)
    assert result.exit_code == 2
    assert "metadata.json" in result.stderr


def test_profile_refuses_what_it_cannot_count_on(model_directory: Path, sample_file: Path) -> None:
    path = model_directory / "metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "target": "host"}))
    result = invoke("profile", model_directory, "--input", sample_file)
    assert result.exit_code == 2
    assert "nothing can be counted" in result.stderr
    assert "--target qemu-m4" in result.stderr


def test_first_difference_counts_all() -> None:
    have = [{"y": np.array([[1, 2], [3, 4]], np.int8)}]
    assert first_difference(have, [{"y": np.array([1, 2, 3, 4], np.int8)}]) == ""
    assert first_difference(have, [{"y": np.array([1, 0, 3, 0], np.int8)}]).startswith("2 values differ")

"""Code generation below the compiler: names, buffers, comments, line breaks, the output directory, files of arrays."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
import tvm_ffi
from hypothesis import given
from hypothesis import strategies as st
from model_cases import CASES, compiled
from tvm import ir

import tvmtiny
import tvmtiny.lowering
from tvmtiny.artifact import METADATA_FILE
from tvmtiny.codegen import directory as output_directory
from tvmtiny.codegen import program as program_module
from tvmtiny.codegen.c_sources import LINE, _wrapped
from tvmtiny.codegen.directory import check_output, replaced_directory, to_json
from tvmtiny.codegen.program import Constant, Program, Tensor, build_program
from tvmtiny.codegen.symbols import c_comment, tensor_symbols
from tvmtiny.compiler import save_npz
from tvmtiny.errors import UserError
from tvmtiny.evaluate import load_dataset
from tvmtiny.frontend.data import load_samples
from tvmtiny.lowering import Stages, check_flash
from tvmtiny.target import load_target
from tvmtiny.verify import expected_outputs

HOST = load_target("host")


@dataclasses.dataclass
class Generated:
    """What code generation got and gave when a model was compiled."""

    module: tvm.IRModule
    program: Program


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Generated:
    """An encoder without a length: input `x`."""
    found: list[Generated] = []

    def build(module: tvm.IRModule, *args: Any, **options: Any) -> Program:
        found.append(Generated(module, build_program(module, *args, **options)))
        return found[-1].program

    folder = tmp_path_factory.mktemp("generated")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tvmtiny.lowering, "build_program", build)
        compiled(CASES["sensor_encoder"], folder / "model", "host")
    return found[0]


def _renamed(module: tvm.IRModule, names: dict[str, str]) -> tvm.IRModule:
    """The module with variables of `main` renamed, inputs too."""
    known: dict[Any, Any] = {}

    def rename(var: ir.Var) -> Any:
        if var.name not in names:
            return var
        return known.setdefault(var, type(var)(names[var.name], var.ty))

    changed = tvm.IRModule(dict(module.functions.items()))
    changed["main"] = tvm_ffi.structural_map(module["main"], (ir.Var, rename))
    return changed


class TestBuffers:
    @pytest.fixture
    def names(self, generated: Generated) -> list[str]:
        """Names of the results in order."""
        calls = generated.program.calls
        return [next(a.tensor for a in call.arguments if a.parameter.role == "output") for call in calls]

    def test_are_called_as_in_the_model(self, generated: Generated, names: list[str]) -> None:
        assert [tensor.buffer for tensor in generated.program.inputs] == ["x"]
        assert set(generated.program.plan.offsets) >= {"x", *names}

    def test_of_an_input_and_a_result_of_one_name_are_two(
        self, generated: Generated, names: list[str]
    ) -> None:
        program = build_program(_renamed(generated.module, {"x": names[0]}), "m", HOST.tvm_target())
        (tensor,) = program.inputs
        assert (tensor.name, tensor.buffer) == (names[0], f"{names[0]} (input)")
        first, second = program.calls[:2]
        assert first.arguments[0].tensor == tensor.buffer
        assert second.arguments[0].tensor == names[0]
        assert program.plan.arena_bytes == generated.program.plan.arena_bytes
        assert len(program.plan.buffers) == len(generated.program.plan.buffers)

    def test_of_an_input_with_the_name_of_a_scratch_buffer_are_two(self, generated: Generated) -> None:
        scratch = next(b.name for b in generated.program.plan.buffers if b.kind == "scratch")
        program = build_program(_renamed(generated.module, {"x": scratch}), "m", HOST.tvm_target())
        assert program.inputs[0].buffer == f"{scratch} (input)"
        assert program.plan.arena_bytes == generated.program.plan.arena_bytes

    def test_of_two_results_may_not_share_a_name(self, generated: Generated, names: list[str]) -> None:
        module = _renamed(generated.module, {names[0]: "same", names[1]: "same"})
        with pytest.raises(AssertionError, match="two tensors are called same"):
            build_program(module, "m", HOST.tvm_target())

    def test_are_as_large_as_every_function_takes_them(
        self, generated: Generated, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def emit(module: tvm.IRModule, target: Any) -> list[Any]:
            first, *others = program_functions(module, target)
            parameters = tuple(
                dataclasses.replace(p, elements=p.elements + (p.role == "argument")) for p in first.parameters
            )
            return [dataclasses.replace(first, parameters=parameters), *others]

        program_functions = program_module.emit_functions
        monkeypatch.setattr(program_module, "emit_functions", emit)
        with pytest.raises(AssertionError, match=r"takes \d+ bytes as \w+, \w+ has \d+"):
            build_program(generated.module, "m", HOST.tvm_target())


def _program(inputs: list[str], outputs: list[str], constants: tuple[str, ...] = ()) -> Any:
    def tensors(names: list[str], role: str) -> tuple[Tensor, ...]:
        return tuple(Tensor(name, "int8", (1,), f"{role} {i}") for i, name in enumerate(names))

    arrays = tuple(Constant(name, np.zeros(1, np.int8)) for name in constants)
    return Program((), arrays, tensors(inputs, "input"), tensors(outputs, "output"), None)  # type: ignore[arg-type]


def _symbols(*inputs: str, outputs: tuple[str, ...] = (), prefix: str = "net") -> list[str]:
    return list(tensor_symbols(prefix, _program(list(inputs), list(outputs))).values())


class TestSymbols:
    def test_keep_names_that_are_fine(self) -> None:
        names = ["input_ids", "X", "0", "int", "n_tokens", "result"]
        assert _symbols(*names, outputs=("logits",)) == [*names, "logits"]

    @pytest.mark.parametrize(
        ("name", "symbol"),
        [
            ("Identity:0", "Identity_0"),
            ("/c/Add_output_0", "c_Add_output_0"),
            ("größe", "gr_e"),
            ("漢", "input"),
            ("::", "input"),
            ("a b\nc", "a_b_c"),
        ],
    )
    def test_are_ascii(self, name: str, symbol: str) -> None:
        assert _symbols(name) == [symbol]

    def test_are_unique(self) -> None:
        assert _symbols("a.b", "a_b", "A.B", outputs=("a/b",)) == ["a_b", "a_b_2", "A_B_3", "a_b_4"]

    @pytest.mark.parametrize(
        "name",
        [
            *(
                "run",
                "model",
                "labels",
                "label",
                "label_count",
                "status",
                "arena",
                "arena_bytes",
                "ARENA_ALIGN",
            ),
            *("Max_Tokens", "ok", "weights", "t"),
        ],
    )
    def test_are_nothing_of_the_api(self, name: str) -> None:
        assert _symbols(name) == [f"{name}_input"]
        assert _symbols(outputs=(name,)) == [f"{name}_output"]

    @pytest.mark.parametrize("name", ["quantize_x", "error_null", "ERROR_TOKEN"])
    def test_do_not_begin_like_the_api(self, name: str) -> None:
        assert _symbols(name) == [f"input_{name}"]

    def test_leave_names_that_are_made_of_others(self) -> None:
        assert _symbols("x", "x_count", "x_zero_point", "x_multiplier") == [
            "x", "x_count_2", "x_zero_point_2", "x_multiplier_2",
        ]  # fmt: skip
        assert _symbols("x_count", "x") == ["x_count", "x_2"]

    def test_leave_emitted_constants(self) -> None:
        program = _program(["dense_w"], [], constants=("net_dense_w",))
        assert tensor_symbols("net", program) == {"input 0": "dense_w_2"}

    def test_make_no_identifier_of_others(self) -> None:
        assert _symbols("tokens", prefix="n") == ["tokens_input"]

    @given(st.lists(st.text(min_size=1), max_size=6, unique=True), st.sampled_from(["n", "net"]))
    def test_of_any_names_are_different_identifiers(self, names: list[str], prefix: str) -> None:
        found = _symbols(*names, outputs=("y",), prefix=prefix)
        assert len({symbol.upper() for symbol in found}) == len(names) + 1
        assert all(re.fullmatch(r"[A-Za-z0-9_]+", symbol) for symbol in found)


@pytest.mark.parametrize(
    ("text", "comment"),
    [
        ("model v2.onnx", "model v2.onnx"),
        ("a*/b", "a* /b"),
        ("/*/", "/ * /"),
        ("**//", "** //"),
        ("*\\", "* /"),
        ("two\nlines\r\n\u2028", "two lines   "),
        ("größe 漢", r"gr\xf6\xdfe \u6f22"),
        ("ends in \\", "ends in /"),
        ("what??/", "what? ?/"),
        ("\0\x1b", r"\x00\x1b"),
        ("\udcff", r"\udcff"),
    ],
)
def test_comments_hold_any_name(text: str, comment: str) -> None:
    assert c_comment(text) == comment


@given(st.text(alphabet=st.one_of(st.sampled_from("*/\\?\n"), st.characters())))
def test_comments_end_where_they_should(text: str) -> None:
    comment = c_comment(text)
    assert not re.search(r"\*/|/\*|\?\?|\\$|[^ -~]", comment)


def test_lines_end_between_parameters() -> None:
    items = [f"const int32_t *parameter_{i}" for i in range(12)]
    text = _wrapped("static void function(", items)
    first, *lines = text.split("\n")
    assert first == "static void function("
    assert len(lines) > 2
    assert all(len(line) <= LINE and line.startswith("    const ") for line in lines)
    assert " ".join(line.strip() for line in lines) == ", ".join(items) + ")"
    assert all(line.endswith((",", ")")) for line in lines)
    assert _wrapped("static void function(", items[:2]) == f"static void function({', '.join(items[:2])})"


def _model_directory(place: Path) -> Path:
    """Something with the outlines of a compiled model."""
    (place / "include").mkdir(parents=True)
    (place / "include" / "tvmt_model.h").write_text("/* */\n")
    (place / "m.c").write_text("/* old */\n")
    files = {"m.c": "", "include/tvmt_model.h": ""}
    (place / METADATA_FILE).write_text(json.dumps({"schema": 2, "name": "m", "files": files}))
    return place


def _contents(place: Path) -> dict[str, str]:
    return {str(path.relative_to(place)): path.read_text() for path in place.rglob("*") if path.is_file()}


def _replace(place: Path) -> None:
    with replaced_directory(place) as temporary:
        (temporary / "new.c").write_text("/* new */\n")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Where a model goes; its parent holds nothing else afterwards."""
    parent = tmp_path / "parent"
    parent.mkdir()
    yield parent / "m"
    assert [path.name for path in parent.iterdir()] in ([], ["m"])


class TestOutputDirectory:
    def test_is_made_with_its_parents(self, tmp_path: Path) -> None:
        check_output(tmp_path / "a" / "b" / "c")
        assert list(tmp_path.iterdir()) == []
        _replace(tmp_path / "a" / "b" / "c")
        assert _contents(tmp_path) == {"a/b/c/new.c": "/* new */\n"}

    def test_that_is_empty_or_a_model_is_replaced(self, place: Path) -> None:
        place.mkdir()
        _replace(place)
        (place / "new.c").unlink()
        place.rmdir()
        _model_directory(place)
        (place / "build" / "host").mkdir(parents=True)
        (place / "build" / "host" / "firmware.elf").write_text("built")
        _replace(place)
        assert _contents(place) == {"new.c": "/* new */\n"}

    def test_with_metadata_that_is_not_ours_is_left(self, place: Path) -> None:
        place.mkdir()
        for text in (
            "{}",
            "[]",
            "\xff",
            '{"schema": "2", "name": "m", "files": {}}',
            '{"schema": 2, "name": "m"}',
        ):
            (place / METADATA_FILE).write_text(text, encoding="latin-1")
            with pytest.raises(UserError, match=r"holds no compiled model, but metadata\.json"):
                check_output(place)

    @pytest.mark.parametrize(
        "file", ["notes.txt", "include/mine.h", "other/thesis.tex", ".git/HEAD", "m/build/x"]
    )
    def test_with_a_file_of_the_user_is_left(self, place: Path, file: str) -> None:
        _model_directory(place)
        (place / file).parent.mkdir(parents=True, exist_ok=True)
        (place / file).write_text("precious")
        before = _contents(place)
        for action in (check_output, _replace):
            with pytest.raises(UserError, match=rf"holds {re.escape(file)}, which is no part"):
                action(place)
        assert _contents(place) == before

    @pytest.mark.parametrize("name", ["elsewhere", "build"])
    def test_with_a_link_of_the_user_is_left(self, place: Path, name: str, tmp_path: Path) -> None:
        _model_directory(place)
        (place / name).symlink_to(tmp_path)
        with pytest.raises(UserError, match=f"holds {name}, which"):
            check_output(place)

    def test_that_is_a_link_is_replaced_where_it_leads(self, place: Path, tmp_path: Path) -> None:
        _model_directory(place)
        link = tmp_path / "link"
        link.symlink_to(place)
        _replace(link)
        assert link.is_symlink()
        assert _contents(place) == {"new.c": "/* new */\n"}

    def test_that_is_a_link_to_nothing_is_made_there(self, place: Path, tmp_path: Path) -> None:
        link = tmp_path / "link"
        link.symlink_to(place)
        _replace(link)
        assert link.is_symlink()
        assert _contents(place) == {"new.c": "/* new */\n"}

    def test_that_is_a_circle_of_links(self, tmp_path: Path) -> None:
        (tmp_path / "a").symlink_to(tmp_path / "b")
        (tmp_path / "b").symlink_to(tmp_path / "a")
        for action in (check_output, _replace):
            with pytest.raises(UserError, match=r"Cannot write|not a directory"):
                action(tmp_path / "a" / "m")

    @pytest.mark.parametrize("directory", [".", "..", "../m"])
    def test_that_is_the_current_one(
        self, place: Path, directory: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _model_directory(place)
        monkeypatch.chdir(place)
        before = _contents(place)
        for action in (check_output, _replace):
            with pytest.raises(UserError, match="holds the current directory"):
                action(Path(directory))
        assert _contents(place) == before

    def test_below_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("precious")
        for action in (check_output, _replace):
            with pytest.raises(UserError, match=r"Cannot write .*(Not a directory|File exists)"):
                action(tmp_path / "file" / "m")

    @pytest.mark.parametrize("directory", ["/proc/m", "/proc/a/b", "m" * 300])
    def test_that_cannot_be_made(
        self, directory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        for action in (check_output, _replace):
            with pytest.raises(UserError, match="Cannot write"):
                action(Path(directory))
        assert list(tmp_path.iterdir()) == []

    def test_is_as_before_when_the_second_rename_fails(
        self, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _model_directory(place)
        before = _contents(place)
        rename = Path.rename

        def failing(self: Path, target: Path) -> Path:
            if Path(target) == place and not self.name.endswith("-old"):
                raise OSError(28, "No space left on device")
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", failing)
        with pytest.raises(UserError, match="No space left"):
            _replace(place)
        assert _contents(place) == before

    def test_is_as_before_when_the_first_rename_fails(
        self, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _model_directory(place)
        before = _contents(place)

        def failing(*_: Any) -> Path:
            raise OSError(16, "Device or resource busy")

        monkeypatch.setattr(Path, "rename", failing)
        with pytest.raises(UserError, match="resource busy"):
            _replace(place)
        assert _contents(place) == before

    def test_that_gets_a_file_meanwhile_is_left(self, place: Path) -> None:
        _model_directory(place)
        with pytest.raises(UserError, match=r"holds notes\.txt"), replaced_directory(place):
            (place / "notes.txt").write_text("precious")
        assert (place / "notes.txt").read_text() == "precious"


def test_json_takes_names_of_files_that_are_no_utf_8() -> None:
    text = to_json({"source": "b\udcff ö"})
    assert text.encode("utf-8")
    assert json.loads(text) == {"source": "b\udcff ö"}


class TestNpz:
    def test_takes_any_name(self, tmp_path: Path) -> None:
        arrays = {
            name: np.arange(i + 1) for i, name in enumerate(["file", "args", "a/b", "größe", "n_tokens"])
        }
        save_npz(tmp_path / "new" / "x.npz", arrays)
        with np.load(tmp_path / "new" / "x.npz") as stored:
            assert list(stored.files) == list(arrays)
            assert all(np.array_equal(stored[name], array) for name, array in arrays.items())

    def test_depends_on_the_arrays_alone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        arrays = {"x": np.ones((2, 3), np.int8), "y": np.asarray([1, 2])}
        save_npz(tmp_path / "a.npz", arrays)
        monkeypatch.setattr("time.time", lambda: 2e9)
        monkeypatch.setattr("time.localtime", lambda *_: (2033, 5, 18, 3, 33, 20, 2, 138, 0))
        save_npz(tmp_path / "b.npz", arrays)
        assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize("directory", ["file", "file/below", "/proc/dumps"])
def test_a_dump_directory_that_cannot_be_written_is_refused_first(directory: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(UserError, match="Cannot write dumps to"):
        Stages(None, tmp_path / directory)
    assert (tmp_path / "file").read_text() == "precious"


class TestFlash:
    """A target of 1024 KB of flash."""

    def check(self, constants: int, columns: int = 0) -> None:
        arrays = (Constant("w", np.zeros(constants, np.int8)),)
        inputs = (Tensor("x", "int8", (4, columns), "x"),) if columns else ()
        board = load_target("stm32f746")
        assert board.flash_bytes == 1 << 20
        check_flash(Program((), arrays, inputs, (), None), board)  # type: ignore[arg-type]

    def test_that_is_just_enough(self) -> None:
        self.check(1 << 20)
        self.check((1 << 20) - 80, columns=10)

    @pytest.mark.parametrize(("constants", "columns"), [((1 << 20) + 1, 0), ((1 << 20) - 79, 10)])
    def test_that_is_just_too_small(self, constants: int, columns: int) -> None:
        with pytest.raises(UserError, match=r"^weights 1024\.1 KB > 1024 KB flash of stm32f746"):
            self.check(constants, columns)


def test_files_are_read_as_utf_8() -> None:
    """Whatever the locale: an encoding is given wherever text is read."""
    folder = Path(output_directory.__file__).parents[1]
    for file in (
        "codegen/c_sources.py",
        "schedule/microkernels.py",
        "artifact.py",
        "verify.py",
        "compiler.py",
    ):
        assert not re.search(
            r"read_text\(\)|write_text\([^)]*\)\)$", (folder / file).read_text("utf-8"), re.M
        )


def test_reference_inputs_are_samples_as_they_lie(tmp_path: Path) -> None:
    motion = Path(__file__).parents[2] / "examples" / "motion"
    made = tvmtiny.compile(
        motion / "model.onnx",
        target="host",
        calibration=motion / "calibration.npz",
        output=tmp_path / "motion",
    )
    samples = load_samples(made, made.reference_inputs)
    for row, item in zip(samples, load_dataset(made, made.reference_inputs).items, strict=True):
        np.testing.assert_array_equal(item.inputs["window"], row.inputs["window"])
    with np.load(made.reference_inputs.with_name("outputs.npz")) as outputs:
        for row, found in enumerate(expected_outputs(made, samples)):
            np.testing.assert_array_equal(found["logits"], outputs["logits"][row])

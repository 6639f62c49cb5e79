"""Recipes: what is refused, and that a run which was killed ends as one that was not."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import re
import signal
from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")

import recipe_task  # noqa: E402  torch may be missing

from tvmtiny.cli import app  # noqa: E402
from tvmtiny.compress import runner  # noqa: E402
from tvmtiny.compress.directory import read_options, write_result  # noqa: E402
from tvmtiny.compress.progress import Event, Progress  # noqa: E402
from tvmtiny.compress.recipe import Recipe, load_recipe  # noqa: E402
from tvmtiny.compress.runner import preview, run_recipe  # noqa: E402
from tvmtiny.compress.steps import GIVEN, step_function  # noqa: E402
from tvmtiny.compress.training import Training, fit  # noqa: E402
from tvmtiny.errors import EnvironmentProblem, UserError  # noqa: E402
from tvmtiny.report.inspection import Fit, Inspection  # noqa: E402
from tvmtiny.target import load_target  # noqa: E402

TESTS = Path(__file__).parents[1]
TASK = f'[task]\nfile = "{(TESTS / "recipe_task.py").as_posix()}"\n'
TRAIN = "[train]\nepochs = 6\nlearning_rate = 5e-3\n"
COMPILE = '[compile]\ntarget = "stm32l4r5"\n'


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return path


def recipe(tmp_path: Path, text: str = TASK + TRAIN + COMPILE) -> Recipe:
    return load_recipe(write(tmp_path, text))


@pytest.fixture
def without_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports and sizes are not what these tests look at, and take seconds."""
    fit = Fit(load_target("stm32l4r5"), 1, 1, None, None, None, {})
    monkeypatch.setattr(runner, "to_onnx", lambda _module, _task: onnx.ModelProto())
    monkeypatch.setattr(runner, "check_export", lambda _proto, _module, _task: 0.0)
    monkeypatch.setattr(runner, "estimate", lambda _proto, _options: (Inspection(), fit))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("task = ", "no TOML"),
        (TASK + TRAIN, r"lacks the table \[compile\]"),
        (TASK + COMPILE + "[tran]\n", "no 'tran'; did you mean train"),
        ('[task]\nfile = "missing.py"\n' + COMPILE, "no Python file"),
        (TASK + "widht = 8\n" + COMPILE, r"\[task\] has no 'widht'; did you mean width"),
        (TASK + 'width = "8"\n' + COMPILE, r"width = '8': .*valid integer"),
        (TASK + "[train]\nepoch = 3\n" + COMPILE, r"\[train\] has no 'epoch'; did you mean epochs"),
        (TASK + "[train]\nepochs = 0\n" + COMPILE, r"epochs = 0: .*greater than or equal to 1"),
        (TASK + "[train]\nepochs = 1.5\n" + COMPILE, r"epochs = 1.5: .*valid integer"),
        (TASK + '[compile]\ntarget = "stm32l4r6"\n', "stm32l4r6"),
        (TASK + COMPILE + "wieghts = 1\n", r"\[compile\] has no 'wieghts'; did you mean weights"),
        (TASK + COMPILE + 'tokenizer = "none.json"\n', "there is no file"),
        (TASK + '[[step]]\nkind = "prun"\n' + COMPILE, "no 'prun'; did you mean prune"),
        (
            TASK + '[[step]]\nkind = "prune"\nhaeds = 0.5\n' + COMPILE,
            r"1 \(prune\) has no 'haeds'; did you mean heads",
        ),
        (TASK + '[[step]]\nkind = "prune"\nheads = 1.5\n' + COMPILE, r"heads = 1.5: .*less than 1"),
        (
            TASK + '[[step]]\nkind = "prune"\nmethod = "size"\n' + COMPILE,
            r"method = 'size': .*'magnitude', 'taylor'",
        ),
        (
            TASK + '[[step]]\nkind = "prune"\n[step.train]\nepoch = 4\n' + COMPILE,
            r"\(prune\): train has no 'epoch'; did you mean epochs",
        ),
        (TASK + "[[step]]\nheads = 0.5\n" + COMPILE, r"\[\[step\]\] 1 has no kind"),
        (TASK + '[step]\nkind = "prune"\n' + COMPILE, "steps are tables of their own"),
        (TASK + '[[step]]\nkind = "qat"\ntrain = 5\n' + COMPILE, "train = 5: it is a table"),
        (TASK + COMPILE + 'max_tokens = "x"\n', "max_tokens = 'x': .*valid integer"),
        (TASK + "[compile]\n", r"\[compile\] lacks target"),
        (
            TASK + '[[step]]\nkind = "quantize"\n' + COMPILE + 'weights = "int4"\n',
            r"\[compile\] sets weights, on which \[\[step\]\] 1 \(quantize\) decides",
        ),
        (
            TASK + '[[step]]\nkind = "qat"\n' + COMPILE + 'weights = "int4"\nresidual = "int16"\n',
            r"sets weights, residual, on which \[\[step\]\] 1 \(qat\) decides",
        ),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        recipe(tmp_path, text)


def test_the_front_end_of_a_recipe_is_known_to_its_steps(tmp_path: Path) -> None:
    (tmp_path / "front.toml").write_text('kind = "sensor"\nchannels = 3\ngain = 0.1\n')
    found = recipe(tmp_path, TASK + COMPILE + 'features = "front.toml"\n')
    task, key = found.task(0), found.key(0, 0)
    assert task.files["features"] == tmp_path / "front.toml"
    assert task.files["labels"] == ["fewer", "more"]
    (tmp_path / "front.toml").write_text('kind = "sensor"\nchannels = 3\ngain = 0.2\n')
    assert found.key(0, 0) != key


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("beside.py", "WIDTH = 2\n"),  # which the task imports
        ("task.py", "def task(seed: int, width: int = 2): ...\n"),  # the default of a parameter
        ("teacher.pt", "another"),
        ("front.toml", "another"),
    ],
)
def test_a_checkpoint_does_not_count_when_a_file_has_changed(tmp_path: Path, file: str, text: str) -> None:
    files = {
        "beside.py": "WIDTH = 1\n",
        "task.py": "def task(seed: int, width: int = 1): ...\n",
        "teacher.pt": "one",
        "front.toml": "one",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    task = dataclasses.replace(
        recipe_task.task(0), depends=(tmp_path / "teacher.pt",), files={"features": tmp_path / "front.toml"}
    )
    loaded = recipe(tmp_path, '[task]\nfile = "task.py"\n' + COMPILE)
    before = loaded.key(0, 0, task)
    assert loaded.key(0, 0, task) == before
    (tmp_path / file).write_text(text)
    assert loaded.key(0, 0, task) != before


def test_defaults_count_as_if_they_were_written(tmp_path: Path) -> None:
    def key(width: str, rounds: str) -> str:
        text = f'{TASK}{width}[[step]]\nkind = "prune"\n{rounds}'
        return recipe(tmp_path, text + COMPILE).key(0, 1)

    assert key("", "") == key("width = 16\n", "rounds = 1\n")
    assert len({key("", ""), key("width = 12\n", ""), key("", "rounds = 2\n")}) == 3


def test_a_default_that_has_changed_is_another_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = recipe(tmp_path, TASK + '[[step]]\nkind = "prune"\n' + COMPILE)
    before = loaded.key(0, 1)
    monkeypatch.setitem(step_function("prune", "prune").__kwdefaults__, "rounds", 2)
    assert loaded.key(0, 1) != before


def test_a_file_that_the_task_depends_on_must_exist(tmp_path: Path) -> None:
    task = dataclasses.replace(recipe_task.task(0), depends=(tmp_path / "module.pt",))
    with pytest.raises(UserError, match=r"Cannot read .*module.pt, on which the task depends"):
        recipe(tmp_path).key(0, 0, task)


def test_an_error_in_the_task_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def task(seed):\n    return 1 / 0\n")
    loaded = recipe(tmp_path, '[task]\nfile = "broken.py"\n' + COMPILE)
    with pytest.raises(UserError, match=r"broken.py, line 2: ZeroDivisionError"):
        loaded.task(0)


def test_a_type_for_type_checkers_alone_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "typed.py").write_text(
        "from __future__ import annotations\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import nowhere\n"
        "def task(seed: int, width: int = 1, kind: nowhere.Kind = 2) -> nowhere.Task: ...\n"
    )
    text = '[task]\nfile = "typed.py"\nkind = 3\n'
    assert recipe(tmp_path, text + COMPILE).task_parameters == {"kind": 3}
    with pytest.raises(UserError, match=r"width = 'x': .*valid integer"):
        recipe(tmp_path, text + 'width = "x"\n' + COMPILE)


@pytest.mark.parametrize(
    ("flaw", "says"),
    [
        ("one class", "'labels' of selection hold the class 1 only"),
        ("labels out of range", "the loss of the first batch failed: IndexError"),
        ("names", r"Inputs and targets share the names \['mask'\]"),
        ("steps", "An epoch has 8 batches; the task says 9"),
        ("outputs", "returns 1 tensors; the task names 2"),
        ("loss", "The loss is nan in train, epoch 1 of 6, batch .*, learning rate 0.00"),
    ],
)
@pytest.mark.usefixtures("without_compiler")
def test_flaws_of_a_task_are_named(tmp_path: Path, flaw: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        run_recipe(recipe(tmp_path, TASK + f'flaw = "{flaw}"\n' + TRAIN + COMPILE), tmp_path / "out")
    assert not (tmp_path / "out" / "compile.json").exists()


@pytest.mark.parametrize(
    ("flaw", "step", "says"),
    [
        ("no teacher", 'kind = "distil"', "no teacher"),
        ("", 'kind = "distil"\naugment = true', "no `augment`"),
        ("", 'kind = "distil"\nhidden = {"layers.9" = "layers.0"}', r"no module 'layers.9'"),
        ("", 'kind = "low_rank"\nlayers = ["dense*"]', r"no linear layer is called 'dense\*'"),
    ],
)
@pytest.mark.usefixtures("without_compiler")
def test_mistakes_of_steps_are_found_before_anything_is_trained(
    tmp_path: Path, flaw: str, step: str, says: str
) -> None:
    loaded = recipe(tmp_path, TASK + f'flaw = "{flaw}"\n' + TRAIN + f"[[step]]\n{step}\n" + COMPILE)
    events: list[Event] = []
    with pytest.raises(UserError, match=says):
        run_recipe(loaded, tmp_path / "out", on_progress=events.append)
    assert not events


def test_a_checkpoint_of_another_model_is_named(tmp_path: Path) -> None:
    task, training = recipe_task.task(0), Training(epochs=1)
    fit(recipe_task.Encoder(8, 2, 8, 1), task, training, progress=Progress(checkpoints=tmp_path / "state"))
    with pytest.raises(EnvironmentProblem, match=r"state-1.pt is of another model"):
        fit(
            recipe_task.Encoder(4, 2, 8, 1), task, training, progress=Progress(checkpoints=tmp_path / "state")
        )


def test_files_of_a_result_are_called_by_what_they_are(tmp_path: Path) -> None:
    labels = {name: tmp_path / name / "labels.txt" for name in ("intent", "slots/x")}
    for name, file in labels.items():
        file.parent.mkdir(parents=True)
        file.write_text(name)
    parts = torch.nn.Linear(1, 1), onnx.ModelProto(), recipe_task.task(0)
    write_result(tmp_path, *parts, {"labels": labels, "weights": "int8"}, {})
    told = read_options(tmp_path)["labels"]
    assert {name: file.read_text() for name, file in told.items()} == {name: name for name in labels}
    labels["intent"].unlink()
    with pytest.raises(UserError, match=r"Cannot read .*intent.labels.txt"):
        write_result(tmp_path, *parts, {"labels": labels}, {})
    assert read_options(tmp_path)["labels"] == told


class Stopped(Exception):
    """Ends a run between two epochs."""


@pytest.mark.usefixtures("without_compiler")
def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    loaded, epochs = recipe(tmp_path), []

    def kill(event: Event) -> None:
        if event.done == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        run_recipe(loaded, tmp_path / "killed", on_progress=kill)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert not (tmp_path / "killed" / "compile.json").exists()
    again = run_recipe(loaded, tmp_path / "killed", on_progress=lambda event: epochs.append(event.done))
    whole = run_recipe(loaded, tmp_path / "whole")
    assert [epoch for epoch in epochs if epoch] == [4, 5, 6]
    for name, value in whole.module.state_dict().items():
        assert torch.equal(value, again.module.state_dict()[name]), name


@pytest.mark.usefixtures("without_compiler")
def test_a_finished_run_trains_nothing_again_unless_told_to(tmp_path: Path) -> None:
    loaded, epochs = recipe(tmp_path, TASK + "[train]\nepochs = 1\n" + COMPILE), []
    seconds = []
    for resume in (True, True, False):
        run_recipe(loaded, tmp_path, resume=resume, on_progress=lambda event: epochs.append(event.done))
        seconds.append(json.loads((tmp_path / "figures.json").read_text())["rows"][0]["seconds"])
    assert sum(epochs) == 2
    assert [value is None for value in seconds] == [False, True, False]


@pytest.mark.usefixtures("without_compiler")
def test_a_place_that_cannot_be_written_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    events: list[Event] = []
    with pytest.raises(EnvironmentProblem, match=r"Cannot write .*file"):
        run_recipe(recipe(tmp_path), tmp_path / "file", on_progress=events.append)
    assert not events


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tvmtiny.compress.progress import Checkpoint

    def full(_path: Path, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    checkpoint = Checkpoint(tmp_path / "state.pt", "")
    checkpoint.save({"epoch": 1})
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(EnvironmentProblem, match=r"Cannot write .*state.pt: No space left"):
            checkpoint.save({"epoch": 2})
    assert checkpoint.load() == {"epoch": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    from tvmtiny.compress.progress import Checkpoint

    (tmp_path / "state.pt").write_bytes(b"no checkpoint")
    with pytest.raises(EnvironmentProblem, match=r"state.pt is damaged"):
        Checkpoint(tmp_path / "state.pt", "").load()


@pytest.mark.usefixtures("without_compiler")
def test_a_dry_run_trains_and_writes_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, TASK + TRAIN + COMPILE)
    stages = preview(load_recipe(path))
    assert [stage.step for stage in stages] == ["train"]
    assert stages[0].metrics == {}
    assert list(tmp_path.iterdir()) == [path]


def test_a_result_compiles_with_nothing_by_hand(tmp_path: Path) -> None:
    path, out = write(tmp_path, TASK + "[train]\nepochs = 1\n" + COMPILE), tmp_path / "out"
    found = CliRunner().invoke(app, ["compress", str(path), "-o", str(out), "--json"])
    assert found.exit_code == 0, found.output
    made = json.loads(found.stdout)
    row = made["rows"][-1]
    assert made["test_of"] == "float"
    compiled = CliRunner().invoke(app, ["compile", str(out), "--json"])
    assert compiled.exit_code == 0, compiled.output
    report = json.loads(compiled.stdout)
    assert (report["target"], report["name"]) == ("stm32l4r5", "out")
    assert Path(report["directory"]) == out / "c"
    assert {name: report[name] for name in ("weight_bytes", "arena_bytes", "macs")} == {
        name: row[name] for name in ("weight_bytes", "arena_bytes", "macs")
    }
    inspected = CliRunner().invoke(app, ["inspect", str(out), "--json"])
    assert inspected.exit_code == 0, inspected.output
    (fit_,) = json.loads(inspected.stdout)["targets"]
    assert (fit_["name"], fit_["weight_bytes"]) == ("stm32l4r5", row["weight_bytes"])
    with np.load(out / "test.npz") as test:
        assert {"ids", "mask", "labels"} == set(test.files)


STEPS = """
[[step]]
kind = "distil"
mask = "mask"
[step.train]
epochs = 2
[[step]]
kind = "prune"
heads = 0.5
feed_forward = 0.75
multiple = 1
rounds = 2
batches = 1
[step.train]
epochs = 2
"""


@pytest.mark.parametrize(
    ("epoch", "round_of_prune", "left"),
    [
        (1, 2, [("2 prune", 2)]),
        (2, 1, [("2 prune", 1), ("2 prune", 2)]),  # what is pruned next must not depend on the training
    ],
)
@pytest.mark.usefixtures("without_compiler")
def test_steps_run_in_order_and_go_on_within_one(
    tmp_path: Path, epoch: int, round_of_prune: int, left: list[tuple[str, int]]
) -> None:
    loaded, seen = recipe(tmp_path, TASK + TRAIN + STEPS + COMPILE), []

    def stop(event: Event) -> None:
        seen.append((event.step, event.text, event.done))
        if seen.count(("2 prune", "training", epoch)) == round_of_prune:
            raise Stopped

    with pytest.raises(Stopped):
        run_recipe(loaded, tmp_path / "stopped", on_progress=stop)
    assert list(dict.fromkeys(step for step, _, _ in seen)) == ["train", "1 distil", "2 prune"]
    rest: list[tuple[str, int]] = []
    again = run_recipe(
        loaded,
        tmp_path / "stopped",
        on_progress=lambda e: rest.append((e.step, e.done)) if e.text == "training" else None,
    )
    assert rest == left
    whole = run_recipe(loaded, tmp_path / "whole")
    assert whole.module.layers[0].attention.heads == 2
    for name, value in whole.module.state_dict().items():
        assert torch.equal(value, again.module.state_dict()[name]), name


@pytest.mark.usefixtures("without_compiler")
def test_recipes_that_begin_alike_share_their_trainings(tmp_path: Path) -> None:
    loaded, trained = recipe(tmp_path, TASK + TRAIN + STEPS + COMPILE), []

    def listen(event: Event) -> None:
        if event.text == "training":
            trained.append(event.step)

    shorter = dataclasses.replace(loaded, steps=loaded.steps[:1])
    for variant in (shorter, loaded):
        run_recipe(
            variant, tmp_path / f"{len(variant.steps)}", checkpoints=tmp_path / "kept", on_progress=listen
        )
    assert trained.count("train") == 6
    assert trained.count("1 distil") == 2


@pytest.mark.parametrize("kind", ["distil", "low_rank", "prune"])
def test_every_parameter_is_documented(kind: str) -> None:
    page = (TESTS.parent / "docs" / "compression.md").read_text(encoding="utf-8")
    section = page.split(f"\n### {kind.replace('_', ' ').capitalize()}\n")[1].split("\n### ")[0]
    named = set(inspect.signature(step_function(kind, kind)).parameters) - set(GIVEN)
    assert named <= set(re.findall(r"`(\w+)`", section))

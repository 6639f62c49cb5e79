"""A recipe: which task, how its model is trained, what is done to it, and how the result is compiled.

    [task]
    file = "task.py"            # defines task(seed, **parameters) -> Task; the other keys are its parameters
    [train]                     # before the first step: a `Training`; left out: the model is as the task makes it
    epochs = 12
    [[step]]                    # any number, in this order
    kind = "prune"
    heads = 0.5
    [step.train]                # of the step before it
    epochs = 4
    [compile]                   # arguments of tvmtiny.compile
    target = "stm32l4r5"
    [ablation]                  # of `tvmtiny ablate` alone: tvmtiny/ablate/variants.py

Paths are relative to the recipe. Everything is checked when it is loaded, before anything is trained.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from tvmtiny import __version__
from tvmtiny.compress.parameters import read, unknown
from tvmtiny.compress.progress import Progress
from tvmtiny.compress.steps import DECIDES, GIVEN, step_function
from tvmtiny.compress.task import Task
from tvmtiny.compress.training import Training
from tvmtiny.errors import UserError
from tvmtiny.user_code import failure, load_module

TABLES = ("task", "train", "step", "compile", "ablation")
PATHS = ("tokenizer", "features", "labels", "scales")
"""Arguments of tvmtiny.compile that are files."""
_OF_THE_RUN = ("model", "calibration", "output", "dump_dir", "on_stage", "verify")


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        kind: its name in `steps.STEPS`.
        parameters: checked keyword arguments of its function.
    """

    kind: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def apply(self, module: nn.Module, task: Task, progress: Progress) -> nn.Module:
        """What the step makes of a module, which stays as it is."""
        return step_function(self.kind, self.kind)(module, task, **self.parameters, progress=progress)

    def bound(self) -> dict[str, Any]:
        """All its parameters, those left at their defaults among them."""
        return _bound(step_function(self.kind, self.kind), self.parameters)


@dataclass(frozen=True)
class Recipe:
    """What a recipe file says; `dataclasses.replace` makes variants of one.

    Attributes:
        path: of the file.
        task_file: the Python file of the task.
        task_parameters: arguments of its function besides the seed.
        train: the training before the first step, or None.
        steps: in their order.
        compile: arguments of tvmtiny.compile.
    """

    path: Path
    task_file: Path
    task_parameters: Mapping[str, Any]
    train: Training | None
    steps: tuple[Step, ...]
    compile: Mapping[str, Any]

    def task(self, seed: int) -> Task:
        """The task for a seed; the front end that [compile] names is among its files, as steps calibrate with it.

        Raises:
            UserError: its function fails, or returns something else.
        """
        task = _call(self.task_file, _task_function(self.task_file), seed, self.task_parameters)
        return replace(task, files={**task.files, **self._front_end})

    @property
    def _front_end(self) -> dict[str, Path]:
        return {name: file for name, file in self.compile.items() if name == "features"}

    def key(self, seed: int, steps: int, task: Task | None = None) -> str:
        """Tells the state after so many steps from that of any other recipe, task, seed or version of this package.

        Files count by their contents: the front end, and the Python files beside the task's, which it may import.
        Parameters count whether they are written or left at their defaults.

        Args:
            task: of the seed, where it has been made: the files that it names count, too.

        Raises:
            UserError: a file that the task depends on cannot be read.
        """
        code = {file.name: _digest(file) for file in self.task_file.parent.glob("*.py")}
        depends = [] if task is None else [*task.depends]
        front_end = {**({} if task is None else task.files), **self._front_end}.get("features")
        state = {
            "version": __version__,
            "task": [self.task_file.name, code],
            "depends": [_digest(Path(file)) for file in (*depends, front_end) if file],
            "parameters": _bound(_task_function(self.task_file), self.task_parameters),
            "seed": seed,
            "train": self.train,
            "steps": [(step.kind, step.bound()) for step in self.steps[:steps]],
        }
        return hashlib.sha256(json.dumps(state, default=_plain, sort_keys=True).encode()).hexdigest()[:16]


def load_recipe(path: Path | str) -> Recipe:
    """Read and check a recipe file; the task's function is found but not called.

    Raises:
        UserError: no such file, no TOML, a name that nothing takes, a value that is not admitted.
    """
    path = Path(path)
    return parse_recipe(read_toml(path), path)


def parse_recipe(data: Mapping[str, Any], path: Path) -> Recipe:
    """As `load_recipe`, for what the file at `path` holds, or would hold."""
    for name in data:
        if name not in TABLES:
            raise unknown(name, list(TABLES), str(path))
    task = dict(_table(data, "task", path))
    if not isinstance(task.get("file"), str):
        raise UserError(f"{path}: [task] names no file.", 'Write file = "task.py", relative to the recipe.')
    task_file = path.parent / task.pop("file")
    parameters = read(_task_function(task_file), task, f"{path}: [task]", without=("seed",))
    train = _table(data, "train", path) if "train" in data else None
    steps = _steps(data.get("step", []), path)
    return Recipe(
        path=path,
        task_file=task_file,
        task_parameters=parameters,
        train=None if train is None else Training(**read(Training, train, f"{path}: [train]")),
        steps=steps,
        compile=_compile(_table(data, "compile", path), steps, path),
    )


def read_toml(path: Path) -> dict[str, Any]:
    """What a recipe file holds. Raises UserError when it cannot be read."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.", "Give the path of a recipe.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no TOML: {error}.", "docs/compression.md shows a recipe.") from error


def _table(data: Mapping[str, Any], name: str, path: Path) -> Mapping[str, Any]:
    found = data.get(name)
    if not isinstance(found, dict):
        what = "lacks the table" if found is None else "has something else in place of the table"
        raise UserError(f"{path} {what} [{name}].", "docs/compression.md shows a recipe.")
    return found


def _steps(rows: Any, path: Path) -> tuple[Step, ...]:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path}: steps are tables of their own.", "Write [[step]] above each.")
    steps = []
    for number, row in enumerate(rows, 1):
        where = f"{path}: [[step]] {number}"
        if not isinstance(row.get("kind"), str):
            raise UserError(f"{where} has no kind.", 'Write kind = "distil", for example.')
        function = step_function(row["kind"], where)
        table = {name: value for name, value in row.items() if name != "kind"}
        steps.append(Step(row["kind"], read(function, table, f"{where} ({row['kind']})", without=GIVEN)))
    return tuple(steps)


def _compile(table: Mapping[str, Any], steps: tuple[Step, ...], path: Path) -> dict[str, Any]:
    from tvmtiny.compiler import compile as function
    from tvmtiny.target import load_target

    found = read(function, table, f"{path}: [compile]", without=_OF_THE_RUN)
    load_target(table["target"])
    for number, step in enumerate(steps, 1):
        if decided := [name for name, value in table.items() if _decides(step.kind, name, value)]:
            raise UserError(
                f"{path}: [compile] sets {', '.join(decided)}, on which [[step]] {number} ({step.kind}) decides.",
                "Leave it out of [compile]; where the step has a parameter for it, set that.",
            )
    return {k: _beside(path, table[k]) if k in PATHS else v for k, v in found.items()}


def _decides(kind: str, name: str, value: Any) -> bool:
    """Whether a step leaves no effect to an argument of tvmtiny.compile; int16 is how int8 weights are stored."""
    typed = kind == "qat" and name == "weights" and value != "int16"
    return typed or name in DECIDES.get(kind, ())


def _beside(path: Path, files: Any) -> Any:
    """Paths, relative to the recipe, as they are from here."""
    if isinstance(files, dict):
        return {name: _beside(path, file) for name, file in files.items()}
    if not isinstance(files, str):
        return files
    if not (path.parent / files).is_file():
        raise UserError(
            f"{path}: [compile]: there is no file {path.parent / files}.", "Paths are relative to the recipe."
        )
    return path.parent / files


def _bound(function: Callable[..., Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a function, those left at their defaults among them."""
    signature = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in signature if p.default is not p.empty} | dict(parameters)


def _digest(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(
            f"Cannot read {file}, on which the task depends: {error.strerror}.",
            "Correct the task of the recipe, or make the file.",
        ) from error


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


def _task_function(file: Path) -> Callable[..., Any]:
    """The function `task` of a file, which is imported once."""
    function = getattr(load_module(file, "Correct `file` in [task], or the file."), "task", None)
    if not callable(function):
        raise UserError(f"{file} defines no function `task`.", "Define task(seed: int, ...) -> Task there.")
    return function


def _call(file: Path, function: Callable[..., Any], seed: int, parameters: Mapping[str, Any]) -> Task:
    try:
        task = function(seed=seed, **parameters)
    except UserError:
        raise
    except Exception as error:
        raise failure(file, error, "Correct the task of the recipe.") from error
    if not isinstance(task, Task):
        raise UserError(
            f"task() of {file} returns {type(task).__name__}.", "Return a tvmtiny.compress.task.Task."
        )
    return task

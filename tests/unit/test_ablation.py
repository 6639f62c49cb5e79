"""Ablations: variants of a recipe, runs that are kept, figures and where they are shown."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import statistics
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

torch = pytest.importorskip("torch")

from tvmtiny.ablate import execution  # noqa: E402  torch may be missing
from tvmtiny.ablate.chart import WIDTH, chart  # noqa: E402
from tvmtiny.ablate.page import page  # noqa: E402
from tvmtiny.ablate.run import Job, Run  # noqa: E402
from tvmtiny.ablate.session import Settings, ablate  # noqa: E402
from tvmtiny.ablate.summary import Stat, pareto_front, summarize  # noqa: E402
from tvmtiny.ablate.text import delta, markdown, markers, note, value, write_readme  # noqa: E402
from tvmtiny.ablate.variants import load_variants  # noqa: E402
from tvmtiny.cli import app  # noqa: E402
from tvmtiny.compress import steps  # noqa: E402
from tvmtiny.errors import EnvironmentProblem, UserError  # noqa: E402

TESTS = Path(__file__).parents[1]
RECIPE = f"""
[task]
file = "{(TESTS / "recipe_task.py").as_posix()}"
[train]
epochs = 3
[compile]
target = "stm32l4r5"
"""
STEPS = '[[step]]\nkind = "narrow"\nshare = 0.5\n[[step]]\nkind = "shorten"\n'
CHANGES = """
[[ablation.variant]]
name = "int4"
compile.weights = "int4"
[[ablation.variant]]
name = "wider, trained longer"
task.width = 24
train.epochs = 5
"""


def narrow(module: Any, task: Any, *, share: float = 0.5, progress: Any = None) -> Any:
    """A step as far as recipes look at one."""
    return module


def shorten(module: Any, task: Any, *, layers: int = 1, progress: Any = None) -> Any:
    """Another one."""
    return module


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


@pytest.fixture
def with_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("narrow", "shorten"):
        monkeypatch.setitem(steps.STEPS, name, __name__)


@pytest.mark.usefixtures("with_steps")
def test_variants_have_one_change_each(tmp_path: Path) -> None:
    more = '[[ablation.variant]]\nname = "a quarter"\nstep.1.share = 0.25\n'
    found = {v.name: v for v in load_variants(write(tmp_path, RECIPE + STEPS + CHANGES + more))}
    kinds = {name: [step.kind for step in variant.recipe.steps] for name, variant in found.items()}
    # What stands after the first step is the recipe without the second: it is run once.
    assert kinds == {
        "recipe": ["narrow", "shorten"],
        "before any step": [],
        "after 1 narrow": ["narrow"],
        "without 1 narrow": ["shorten"],
        "int4": ["narrow", "shorten"],
        "wider, trained longer": ["narrow", "shorten"],
        "a quarter": ["narrow", "shorten"],
    }
    whole = found["recipe"].recipe
    assert found["int4"].recipe == dataclasses.replace(
        whole, compile={"target": "stm32l4r5", "weights": "int4"}
    )
    assert found["wider, trained longer"].recipe.task_parameters == {"width": 24}
    assert found["wider, trained longer"].recipe.train == dataclasses.replace(whole.train, epochs=5)  # type: ignore[type-var]
    assert found["a quarter"].recipe.steps[0].parameters == {"share": 0.25}
    assert whole.steps[0].parameters == {"share": 0.5}


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("[ablation]\nleave_put = true\n", r"\[ablation\] has no 'leave_put'; did you mean leave_out"),
        ("[ablation]\nprefixes = 3\n", "prefixes = 3"),
        ("[[ablation.variant]]\ncompile.weights = 'int4'\n", "1 has no name"),
        ("[[ablation.variant]]\nname = 'a'\nsteps.1.x = 2\n", "has no 'steps'; did you mean step"),
        ("[[ablation.variant]]\nname = 'a'\nstep.2.x = 2\n", "there is no step 2"),
        ("[[ablation.variant]]\nname = 'a'\nstep = 2\n", "step = 2"),
        ("[[ablation.variant]]\nname = 'a'\ntask.widht = 2\n", r"1 \(a\): .*did you mean width"),
        ("[[ablation.variant]]\nname = 'recipe'\ntask.width = 8\n", "two variants are called 'recipe'"),
    ],
)
def test_wrong_changes_are_refused(table: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says):
        load_variants(write(tmp_path, RECIPE + table))


def fake(job: Job) -> Run:
    """A run in no time; wider models are better and larger."""
    width = int(job.variant.recipe.task_parameters.get("width", 16))
    if job.variant.recipe.compile.get("weights") == "int4":
        return Run(job.variant.name, job.variant.kind, job.seed, {}, {}, {}, "no <int4> here")
    metrics = {"accuracy": width / 32 + job.seed / 100}
    costs = (
        {}
        if job.on == "host"
        else {
            "flash_bytes": 100.0 * width,
            "ram_bytes": 64.0,
            "latency_p50_ms": 1.5,
            "instructions_p50": 900.0,
        }
    )
    return Run(job.variant.name, job.variant.kind, job.seed, metrics, dict(metrics), dict(costs))


def test_a_killed_ablation_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variants = load_variants(write(tmp_path, RECIPE + CHANGES))
    done: list[str] = []
    room = 3

    def until_the_disk_is_full(job: Job) -> Run:
        if len(done) == room:
            raise EnvironmentProblem("No space left on device.")
        done.append(f"{job.variant.name} {job.seed}")
        return fake(job)

    monkeypatch.setattr(execution, "perform", until_the_disk_is_full)
    with pytest.raises(EnvironmentProblem, match="No space"):
        ablate(variants, tmp_path / "out", Settings(seeds=2))
    assert done == ["recipe 0", "recipe 1", "int4 0"]  # the recipe first, for what the others share with it
    done.clear()
    room = 4
    told: list[int] = []
    runs = ablate(
        variants, tmp_path / "out", Settings(seeds=2), lambda _run, n, total: told.append(total - n)
    )
    # What failed is run again: int4 0 may be possible by now.
    assert done == ["int4 0", "int4 1", "wider, trained longer 0", "wider, trained longer 1"]
    assert told == [5, 4, 3, 2, 1, 0]
    assert [(run.variant, run.seed) for run in runs] == [(v.name, seed) for v in variants for seed in (0, 1)]

    # Another version, task or way to measure is another run; so is one that cannot be read.
    done.clear()
    ablate(variants[:1], tmp_path / "out", Settings(limit=8))
    damaged = sorted((tmp_path / "out" / "runs").glob("*.json"))
    for file in damaged:
        file.write_text(file.read_text()[:20])
    ablate(variants[:1], tmp_path / "out")
    assert done == ["recipe 0", "recipe 0"]


def test_a_change_of_a_file_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels, target = tmp_path / "labels.txt", tmp_path / "targets" / "own.toml"
    target.parent.mkdir()
    board = (TESTS.parent / "targets" / "stm32l4r5.toml").read_text()
    labels.write_text("yes\nno\n")
    target.write_text(board)
    monkeypatch.setenv("TVMTINY_TARGETS", str(target.parent))
    text = RECIPE.replace("stm32l4r5", "own") + f'labels = "{labels.as_posix()}"\n'

    def key() -> str:
        (whole, *_) = load_variants(write(tmp_path, text))
        return Job(whole, 0, tmp_path, "qemu", None).key

    keys = [key(), key()]
    labels.write_text("no\nyes\n")
    keys.append(key())
    target.write_text(board.replace("clock_hz = 120", "clock_hz = 80"))
    keys.append(key())
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_a_file_that_is_edited_amid_an_ablation_is_that_of_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, done = tmp_path / "labels.txt", []
    labels.write_text("yes\nno\n")
    variants = load_variants(write(tmp_path, RECIPE + f'labels = "{labels.as_posix()}"\n'))

    def edited(job: Job) -> Run:
        done.append(job.seed)
        labels.write_text(labels.read_text() + "perhaps\n")
        return fake(job)

    monkeypatch.setattr(execution, "perform", edited)
    assert len(ablate(variants, tmp_path / "out", Settings(seeds=2))) == 2 * len(variants)
    done.clear()
    ablate(variants, tmp_path / "out", Settings(seeds=2))
    assert len(done) == 2 * len(variants)  # none of those is taken for one with the edited file


def test_nothing_is_compared_with_a_recipe_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = lambda job: dataclasses.replace(fake(job), failure="no such file")  # noqa: E731
    monkeypatch.setattr(execution, "perform", failing)
    recipe, readme = write(tmp_path, RECIPE + CHANGES), tmp_path / "README.md"
    before = "\n".join(markers(recipe.name)) + "\n"
    readme.write_text(before)
    usual = (recipe, "-o", tmp_path / "out", "--jobs", 1, "--readme", readme)
    result = invoke(*usual)
    assert result.exit_code == 2
    assert "The recipe itself fails with seed 0: no such file" in result.stderr
    assert readme.read_text() == before
    monkeypatch.setattr(execution, "perform", fake)  # what was missing is there now
    assert invoke(*usual).exit_code == 0


@pytest.mark.ray
def test_ray_gives_what_one_process_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variants = load_variants(write(tmp_path, RECIPE + CHANGES))

    def there(job: Job) -> Run:  # pickled by value: workers cannot import this file
        import os

        from tvmtiny.ablate.run import Run
        from tvmtiny.errors import EnvironmentProblem

        if job.variant.name == "int4":
            raise EnvironmentProblem("The emulator is missing.", "Install it.")
        figures: dict[str, float | None] = {"worker": float(os.getpid())}
        return Run(job.variant.name, job.variant.kind, job.seed, {"seed": job.seed}, {}, figures)

    monkeypatch.setattr(execution, "perform", there)
    done: list[Run] = []
    with pytest.raises(EnvironmentProblem, match="The emulator is missing") as raised:
        ablate(variants, tmp_path / "out", Settings(seeds=2, jobs=2), lambda run, *_: done.append(run))
    assert raised.value.remedy == "Install it."
    recipes = sorted((run for run in done if run.kind == "recipe"), key=lambda run: run.seed)
    assert [run.metrics for run in recipes] == [{"seed": 0}, {"seed": 1}]
    assert os.getpid() not in {run.figures["worker"] for run in recipes}


def test_without_ray_only_one_job_is_possible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution.importlib.util, "find_spec", lambda _name: None)
    variants = load_variants(write(tmp_path, RECIPE))
    assert execution.default_jobs() == 1
    with pytest.raises(EnvironmentProblem, match="need Ray") as raised:
        ablate(variants, tmp_path / "out", Settings(seeds=2, jobs=2))
    assert "tvmtiny[ray]" in raised.value.remedy


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:port"])
def test_a_cluster_that_does_not_answer_is_named(address: str, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    variants = load_variants(write(tmp_path, RECIPE))
    with pytest.raises(EnvironmentProblem, match=f"Ray at {address} cannot be reached"):
        ablate(variants, tmp_path / "out", Settings(address=address))


def runs_of(tmp_path: Path, seeds: int) -> list[Run]:
    variants = load_variants(write(tmp_path, RECIPE + CHANGES))
    return [fake(Job(variant, seed, tmp_path, "qemu", None)) for variant in variants for seed in range(seeds)]


def test_figures_are_means_and_differences_seed_by_seed(tmp_path: Path) -> None:
    summary = summarize(runs_of(tmp_path, 3))
    whole, failed, wider = summary.rows
    accuracies = [0.5, 0.51, 0.52]
    assert whole.figures["accuracy"].mean == pytest.approx(statistics.mean(accuracies))
    assert whole.figures["accuracy"].stdev == pytest.approx(statistics.stdev(accuracies))
    assert wider.deltas["accuracy"].mean == pytest.approx(0.25)
    # Seed by seed, the seeds' own spread is no part of the difference.
    assert wider.deltas["accuracy"].stdev == pytest.approx(0, abs=1e-12)
    assert failed.failure == "no <int4> here"
    assert summarize(runs_of(tmp_path, 1)).rows[0].figures["accuracy"].stdev is None
    assert pareto_front(summary, "accuracy", "flash_bytes") == {"recipe", "wider, trained longer"}
    assert pareto_front(summary, "accuracy", "ram_bytes") == {"wider, trained longer"}


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12))
def test_no_variant_beats_one_on_the_front(points: list[tuple[int, int]]) -> None:
    runs = [
        Run(str(i), "change", 0, {"accuracy": float(a)}, {}, {"flash_bytes": float(c)})
        for i, (a, c) in enumerate(points)
    ]
    front = pareto_front(summarize(runs), "accuracy", "flash_bytes")
    for i, (a, c) in enumerate(points):
        beaten = any((x > a and y <= c) or (x >= a and y < c) for x, y in points)
        assert (str(i) in front) == (not beaten)


@given(
    st.lists(
        st.tuples(st.text("abc ", min_size=1, max_size=60), st.integers(0, 6), st.integers(0, 6)),
        min_size=1,
        max_size=12,
        unique_by=lambda row: row[0],
    )
)
def test_names_in_a_chart_hide_neither_points_nor_each_other(rows: list[tuple[str, int, int]]) -> None:
    runs = [Run(name, "change", 0, {"accuracy": a / 6}, {}, {"flash_bytes": c}) for name, a, c in rows]
    drawn = chart(summarize(runs), "accuracy", "flash_bytes")
    boxes = [(label.left, label.right, label.y - 9, label.y) for label in drawn.labels]
    for left, right, top, bottom in boxes:
        assert 0 <= left < right <= WIDTH
        assert not any(left <= p.x <= right and top <= p.y <= bottom for p in drawn.points)
    for (a, b, c, d), (e, f, g, h) in itertools.combinations(boxes, 2):
        assert b < e or f < a or d < g or h < c


def test_what_rounds_to_zero_is_not_shown() -> None:
    size, time = Stat(35204.0, 0.4), Stat(3.391, 0.0004)
    assert (value("flash_bytes", size), value("latency_p50_ms", time)) == ("35,204", "3.391")
    assert delta("flash_bytes", size, Stat(-6.0, 1.0)) == ""
    assert delta("flash_bytes", size, Stat(-60.0, 1.0)) == "-0.2 %"
    assert delta("accuracy", Stat(0.84, None), Stat(0.00004, None)) == ""
    assert value("accuracy", Stat(0.84, 0.001)) == "84.00 % ± 0.10"


def test_the_table_stands_between_the_markers_of_a_readme(tmp_path: Path) -> None:
    summary = summarize(runs_of(tmp_path, 2))
    table = markdown(summary, note(summary, "tvmtiny ablate recipe.toml", "stm32l4r5", "the test split"))
    begin, end = markers("recipe.toml")
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{begin}\nold\n{end}\nafter {end}\n")
    for _ in range(2):
        write_readme(readme, "recipe.toml", table)
        assert readme.read_text() == f"before\n{begin}\n\n{table}\n\n{end}\nafter {end}\n"
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| ")]
    assert {len(row) for row in rows if "*" not in row[0] or "**" in row[0]} == {len(rows[0])}
    assert "| wider, trained longer | 75.50 % ± 0.71 (+25.00) |" in table
    assert "2,400 (+50.0 %)" in table
    assert "| int4 | not possible: no <int4> here |" in table
    for broken in (f"{begin} {end}\n", f"{begin}\n", f"{begin}\n{begin}\n{end}\n", f"{end}\n{begin}\n"):
        (tmp_path / "BROKEN.md").write_text(broken)
        with pytest.raises(UserError, match="has no place for the table"):
            write_readme(tmp_path / "BROKEN.md", "recipe.toml", table)
        assert (tmp_path / "BROKEN.md").read_text() == broken
    readme.write_bytes(f"before\r\n{begin} \r\n{end}\r\n".encode())
    for _ in range(2):
        write_readme(readme, "recipe.toml", table)
        lines = "\r\n".join(["before", f"{begin} ", "", *table.split("\n"), "", end, ""])
        assert readme.read_bytes() == lines.encode()
    readme.write_text(f"{begin}\n{end}\n")
    with pytest.raises(UserError, match="has no place for the table") as raised:
        write_readme(readme, "other.toml", table)
    assert markers("other.toml")[0] in raised.value.remedy


class Page(HTMLParser):
    """Collects what a page loads, its open elements, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.open: list[str] = []
        self.circles = 0
        self.said = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [value or "" for name, value in attrs if name in {"src", "href"}]
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.circles += tag == "circle"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said += data


@pytest.mark.parametrize("seeds", [1, 2])
def test_the_page_is_whole_and_loads_nothing(seeds: int, tmp_path: Path) -> None:
    summary = summarize(runs_of(tmp_path, seeds))
    found = Page(page(summary, "recipe.toml", "About <it>."))
    assert found.open == []
    assert found.loaded == []
    assert found.circles == 3 * 2  # a chart each for flash, RAM and latency
    for text in ("About <it>.", "wider, trained longer", "no <int4> here", "One thing changed", "+50.0 %"):
        assert text in found.said
    failed = [run for run in runs_of(tmp_path, 1) if run.failure]
    assert "not possible" in Page(page(summarize(failed), "recipe.toml", "")).said


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["ablate", *map(str, arguments)], env={"NO_COLOR": "1", "COLUMNS": "140"})


def test_the_command_shows_and_writes_it_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "perform", fake)
    recipe, readme, out = write(tmp_path, RECIPE + CHANGES), tmp_path / "README.md", tmp_path / "out"
    listed = invoke(recipe, "--list")
    assert listed.exit_code == 0
    assert "wider, trained longer" in listed.stdout
    readme.write_text("no markers\n")
    refused = invoke(recipe, "-o", out, "--jobs", 1, "--readme", readme)
    assert refused.exit_code == 2
    assert not out.exists()  # before anything is run
    readme.write_text("\n".join(markers(recipe.name)) + "\n")
    shown = invoke(recipe, "-o", out, "--jobs", 1, "--seeds", 2, "--readme", readme)
    assert shown.exit_code == 0, shown.output
    assert "(+25.00)" in shown.stdout
    assert "int4 is not possible: no <int4> here" in shown.stdout
    assert "75.50 % ± 0.71 (+25.00)" in readme.read_text()
    assert "Pareto fronts" in (out / "index.html").read_text()
    found = json.loads(invoke(recipe, "-o", out, "--jobs", 1, "--seeds", 2, "--json").stdout)
    assert found["pareto_fronts"]["flash_bytes"] == ["recipe", "wider, trained longer"]
    assert len(found["runs"]) == 6
    assert f"By `tvmtiny ablate {recipe.as_posix()} --seeds 2`" in readme.read_text()
    only = json.loads(invoke(recipe, "-o", out, "--jobs", 1, "--only", "int4", "--json").stdout)
    assert [row["variant"] for row in only["rows"]] == ["recipe", "int4"]
    invoke(
        recipe, "-o", out, "--jobs", 1, "--on", "host", "--only", "wider, trained longer", "--readme", readme
    )
    assert "--seeds 1 --on host --only 'wider, trained longer'`" in readme.read_text()
    assert "are not measured" in readme.read_text()
    assert "Did you mean 'int4'?" in invoke(recipe, "--only", "in4").stderr

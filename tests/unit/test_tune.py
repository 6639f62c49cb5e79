"""The tuner without a compiler or an emulator: spaces, traces, store, choice of the best, records, search."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import GENERATORS, Dims
from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms
from typer.testing import CliRunner

from tvmtiny.artifact import Artifact
from tvmtiny.bench.catalog import EncoderBenchmark
from tvmtiny.bench.models import calibration, save
from tvmtiny.cli import app
from tvmtiny.compiler import compile as compile_model
from tvmtiny.errors import EnvironmentProblem, UserError
from tvmtiny.kernels import Blocking, Operands, kernels
from tvmtiny.resources import data_dir
from tvmtiny.runner import Sample
from tvmtiny.runner.build import BuildFailure
from tvmtiny.schedule import records, space
from tvmtiny.schedule.records import BORROWED, DEFAULT, RULES, TUNED, Figures, Record, TunedRule
from tvmtiny.schedule.rules import blocking
from tvmtiny.schedule.signature import Signature
from tvmtiny.schedule.variants import KNOBS, Variant
from tvmtiny.target import load_target
from tvmtiny.tune import results, whole
from tvmtiny.tune.engine import Built, Engine, Limits
from tvmtiny.tune.models import artifacts_of
from tvmtiny.tune.places import Image, Outcome, Serial
from tvmtiny.tune.search import InOrder, candidate, commit, context, fresh_database
from tvmtiny.tune.session import Options, Session
from tvmtiny.tune.store import DATABASE, MEASUREMENTS, Measurement, Store
from tvmtiny.tune.tasks import Task, Use, tasks_of

TARGETS = ("qemu-m0", "qemu-m4", "qemu-m7")
ENCODER = EncoderBenchmark(
    name="small", description="", tokens=8, embedding=16, heads=2, hidden=32, layers=1, classes=4
)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("small")
    return compile_model(
        save(ENCODER, folder),
        target="qemu-m4",
        calibration=calibration(ENCODER),
        tuned=RULES,
        output=folder / "small",
    )


@pytest.fixture(scope="module")
def tasks(compiled: Artifact) -> list[Task]:
    return tasks_of([compiled], load_target("qemu-m4"), wide_weights=True)


def test_kernels_with_equal_shapes_are_one_task(compiled: Artifact, tasks: list[Task]) -> None:
    once = tasks
    twice = tasks_of([compiled] * 2, load_target("qemu-m4"), wide_weights=True)
    assert [task.signature for task in twice] == [task.signature for task in once]
    assert [len(task.uses) for task in twice] == [2 * len(task.uses) for task in once]
    assert {"attention", "ffn"} <= {task.kernel.name for task in once}


@pytest.mark.parametrize("target", TARGETS)
def test_every_point_is_a_trace_that_replays(compiled: Artifact, target: str) -> None:
    board = load_target(target)
    for task in tasks_of([compiled], board, wide_weights=True):
        points = [point for design in task.designs for point in design.points()]
        assert len(points) == len(set(points)) == task.size
        assert points[0] == space.default_blocking(task.kernel, task.operands, board)
        for point in (points[0], points[len(points) // 2], points[-1]):
            trace = json.loads(json.dumps(results.trace(task, point)))
            assert space.replayed(trace, task.workload) == point


@pytest.mark.parametrize("target", TARGETS)
def test_loops_have_an_order_only_where_it_changes_them(compiled: Artifact, target: str) -> None:
    tasks = tasks_of([compiled], load_target(target), wide_weights=True)
    ordered = {task.kernel.name: ["tokens_outer" in one.choices for one in task.designs] for task in tasks}
    assert all(ordered.pop("attention"))
    assert not any(any(one) for one in ordered.values())
    (attention,) = (task for task in tasks if task.kernel.name == "attention")
    window = dataclasses.replace(
        attention.operands, attrs={**attention.operands.attrs, "before": 2, "after": 0}
    )
    designs = space.designs(attention.kernel, window, load_target(target), wide_weights=True)
    assert all("tokens_outer" not in design.choices for design in designs)


@pytest.mark.parametrize("name", ["attention", "attention_step"])
def test_metaschedule_takes_kernels_with_numbers_among_their_operands(name: str) -> None:
    rng = np.random.default_rng(0)
    instance = GENERATORS[name](Dims(S=4, E=8, N=8, F=16, heads=2, width=4, rows=2), rng)
    operands = Operands(instance.fill(rng), None, instance.attrs)
    function = space.workload(kernels()[name], operands)["main"]
    assert len(ms.arg_info.ArgInfo.from_prim_func(function)) == len(function.params)


@given(st.sampled_from(sorted(KNOBS)), st.data())
def test_a_variant_is_found_by_its_name(knob: str, data: st.DataObject) -> None:
    settings_of = {knob: data.draw(st.sampled_from(KNOBS[knob].choices))}
    variant = Variant.of("dual_issue", settings_of)
    assert Variant.parse(variant.name) == variant
    text = variant.headers({"tvmt_knobs"})["tvmt_knobs.h"]
    assert f"#define {KNOBS[knob].macro} {settings_of[knob]}\n" in text


# what is best


def measured(rows: int, cycles: int, code: int = 100, scratch: int = 100, **others: object) -> Measurement:
    point = Blocking(rows, 4, "pairs", "dsp")
    return Measurement(point, cycles, code_bytes=code, scratch_bytes=scratch, **others)  # type: ignore[arg-type]


def test_a_wrong_or_failed_candidate_is_never_the_best() -> None:
    default = measured(4, 1000)
    found = [default, measured(8, 10, wrong=1), measured(12, 10, error="fault"), measured(16, 900)]
    assert results.best(found, default, "latency").point.rows == 16
    assert [one.point.rows for one in results.pareto(found)] == [16]


def test_what_gains_next_to_nothing_is_not_worth_its_memory() -> None:
    default = measured(4, 1000)
    assert results.best([default, measured(32, 999, scratch=5000)], default, "latency") == default
    good = [default, measured(32, 900, scratch=5000), measured(8, 902, scratch=200)]
    assert results.best(good, default, "latency").point.rows == 8


def test_flash_and_balance_choose_otherwise_than_latency() -> None:
    default, fast, small = measured(4, 1000, 1000), measured(8, 900, 2000), measured(2, 1010, 500)
    chosen = {o: results.best([default, fast, small], default, o) for o in records.OBJECTIVES}
    assert chosen == {"latency": fast, "flash": small, "balanced": default}
    both = measured(2, 980, 500)
    assert results.best([default, fast, small, both], default, "balanced") == both


def test_balance_takes_nothing_that_costs_cycles_or_flash() -> None:
    """Compiles take these records by default."""
    default = measured(4, 1000, 1000, weight_bytes=9000)
    for rows, cycles, code in ((1, 995, 500), (2, 500, 1001)):
        worse = measured(rows, cycles, code, scratch=10, weight_bytes=9000)
        assert results.best([default, worse], default, "balanced") == default
    better = measured(3, 980, 1000, scratch=10, weight_bytes=9000)
    assert results.best([default, better], default, "balanced") == better


@given(st.lists(st.tuples(*[st.integers(1, 5)] * 3), min_size=1, max_size=12))
def test_the_front_is_what_nothing_dominates(figures: list[tuple[int, int, int]]) -> None:
    found = [measured(i + 1, 10 * c, f, s) for i, (c, f, s) in enumerate(figures)]
    front = {(m.cycles, m.flash_bytes, m.scratch_bytes) for m in results.pareto(found)}
    everything = {(m.cycles, m.flash_bytes, m.scratch_bytes) for m in found}
    expected = {
        one
        for one in everything
        if not any(
            other != one and all(a <= b for a, b in zip(other, one, strict=True)) for other in everything
        )
    }
    assert front == expected


# whole models


def of_all(tasks: list[Task], *variants: str) -> dict[Signature, list[Measurement]]:
    """The rules' schedule of each task, and one of each of some variants, which takes less of everything."""
    return {
        task.signature: [
            Measurement(task.default, 1000, code_bytes=1000, scratch_bytes=100),
            *(
                Measurement(dataclasses.replace(task.default, variant=variant), 900 - i, code_bytes=900 - i)
                for i, variant in enumerate(variants)
            ),
        ]
        for task in tasks
    }


@pytest.mark.parametrize("objective", ["flash", "balanced"])
def test_a_variant_is_chosen_for_all_products_by_what_the_models_take(
    tasks: list[Task], objective: str
) -> None:
    steps, large = "dsp-pair_steps_8", "dsp-pair_steps_32"  # large is the better one of each kernel alone
    known = of_all(tasks, steps, large)

    def cost(plan: whole.Plan) -> results.Cost:
        used = {found.point.variant for found in plan.values()}
        assert len(used) == 1
        flash = {"dsp": 5000, steps: smaller, large: 6000}[used.pop()]
        return results.Cost(sum(found.cycles for found in plan.values()), flash, 100)

    smaller = 4000
    choice = whole.chosen(tasks, known, objective, cost)
    assert {found.point.variant for found in choice.plan.values()} == {steps}
    assert (choice.cost.flash, choice.rules.flash) == (4000, 5000)
    smaller = 5200
    choice = whole.chosen(tasks, known, objective, cost)
    assert choice.cost == choice.rules
    assert choice.plan == {task.signature: known[task.signature][0] for task in tasks}


def test_a_variant_that_one_product_lacks_is_measured_before_it_can_be_chosen(tasks: list[Task]) -> None:
    (ffn,), others = (
        [task for task in tasks if (task.kernel.name == "ffn") is wanted] for wanted in (True, False)
    )
    variant = "dsp-pair_steps_8"
    known = of_all(others, variant) | of_all([ffn])
    ((task, point),) = whole.missing(tasks, known, "flash")
    assert (task, point) == (ffn, dataclasses.replace(ffn.default, variant=variant))
    plan = whole.chosen(tasks, known, "flash", lambda plan: results.Cost(0, 0, 0)).plan
    assert {found.point for found in plan.values()} == {task.default for task in tasks}
    known[ffn.signature].append(Measurement(point, 900))
    assert whole.missing(tasks, known, "flash") == []


def test_a_variant_that_is_missing_is_measured_with_the_loops_that_are_best_for_the_objective(
    tasks: list[Task],
) -> None:
    attention = next(task for task in tasks if task.kernel.name == "attention")
    others = [task for task in tasks if task is not attention]
    known = of_all(others, "dsp-pair_steps_8") | of_all([attention])
    fast, small = (dataclasses.replace(attention.default, rows=rows) for rows in (8, 2))
    known[attention.signature] += [
        Measurement(fast, 500, code_bytes=1001),
        Measurement(small, 980, code_bytes=500),
    ]
    loops = [whole.missing(tasks, known, one)[0][1].rows for one in ("latency", "flash", "balanced")]
    assert loops == [8, 2, 2]


def product_of_two_tensors() -> Task:
    rng = np.random.default_rng(0)
    instance = GENERATORS["matmul"](Dims(S=8, E=16, N=8, F=16, heads=2, width=8, rows=2), rng)
    kernel, operands = kernels()["matmul"], Operands(instance.fill(rng), None, instance.attrs)
    designs = space.designs(kernel, operands, load_target("qemu-m4"), wide_weights=False)
    signature, uses = Signature.of(kernel, operands), [Use("small", "product")]
    return Task(signature, kernel, operands, dict(operands.tensors), {"a", "b"}, 8, uses, designs)


def test_a_product_of_two_tensors_has_the_variant_of_all_others(tasks: list[Task], own_records: Path) -> None:
    product, variant = product_of_two_tensors(), "dsp-pair_steps_8"
    every = [*tasks, product]
    known = of_all(tasks, variant) | of_all([product], "dsp-inlined_1")
    plan = whole.chosen(every, known, "flash", lambda plan: results.Cost(0, 0, 0)).plan
    assert {found.point.variant for found in plan.values()} == {"dsp"}
    assert "dsp-inlined_1" in whole.promising(every, known, "flash")

    inlined = next(one for one in product.designs[0].points() if one.variant != product.default.variant)
    path = own_records / "cortex-m4" / "flash.json"
    records.write(path, "cortex-m4", "flash", [record_of(product, inlined)])
    ffn = next(task for task in tasks if task.kernel.name == "ffn")
    calls = [(task.name, task.kernel, task.operands) for task in (product, ffn)]
    kept = []
    for some in (calls[:1], calls):
        rule = TunedRule(load_target("qemu-m4"), "flash", "dsp")
        rule.settle(some)
        kept.append(rule.changes(some))
    assert kept == [True, False]


def test_a_plan_that_does_not_build_is_not_chosen(tasks: list[Task]) -> None:
    broken, good = "dsp-pair_steps_32", "dsp-pair_steps_8"
    known = of_all(tasks, good, broken)

    def cost(plan: whole.Plan) -> results.Cost:
        variants = {found.point.variant for found in plan.values()}
        if broken in variants:
            raise BuildFailure("tvmt_pairs.h:1: error: no such thing")
        return results.Cost(1000 - 100 * (good in variants), 1000, 100)

    plan = whole.chosen(tasks, known, "balanced", cost).plan
    assert {found.point.variant for found in plan.values()} == {good}


# the store


def test_measurements_outlive_a_run_that_was_cut_short(tasks: list[Task], tmp_path: Path) -> None:
    signature, found = tasks[0].signature, measured(4, 123)
    with Store(tmp_path, "m4").opened() as store:
        store.add([(signature, found)])
    (line,) = (tmp_path / MEASUREMENTS).read_text().splitlines()
    strange = (
        line.replace('"cycles"', '"loops"'),
        line.replace("123", '"many"'),
        line.replace('"rows": 4, ', ""),
    )
    with (tmp_path / MEASUREMENTS).open("a") as stream:
        stream.write("\n".join(["12", "{}", "[]", *strange, '{"condition": "cut sho']))
    with Store(tmp_path, "m4").opened() as store:
        assert store.find(signature, found.point) == found
        assert store.dropped_lines == 6  # a point without rows has the default's
    with Store(tmp_path, "another compiler").opened() as store:
        assert store.find(signature, found.point) is None
        assert store.dropped_lines == 0


def test_a_damaged_database_is_begun_anew_from_what_is_measured(tasks: list[Task], tmp_path: Path) -> None:
    for name in DATABASE:
        (tmp_path / name).write_text("{}\n")
    database = fresh_database(tmp_path)
    assert len(database) == 0
    task = tasks[0]
    candidates = [candidate(task, point) for point in itertools.islice(task.designs[0].points(), 2)]
    own = context(task, load_target("qemu-m4"), "random", 0)
    commit(database, own, candidates, [1.0, 0.5])
    (best,) = database.get_top_k(database.commit_workload(own.mod), 1)
    assert [float(value) for value in best.run_secs] == [0.5]


def test_an_error_names_the_file_that_it_is_about(tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "image"
    with pytest.raises(EnvironmentProblem, match=re.escape(f"{other}: No such file")):  # noqa: SIM117
        with Store(tmp_path / "store", "").opened():
            other.write_text("")


def test_a_second_tuner_is_refused(tmp_path: Path) -> None:
    refused = pytest.raises(UserError, match="Another tuner")
    with Store(tmp_path, "m4").opened(), refused, Store(tmp_path, "m4").opened():
        pass
    with Store(tmp_path, "m4").opened():
        pass


# candidates


class Everywhere:
    """A place where every candidate takes 100 cycles."""

    name, parallel = "everywhere", 1

    def run(self, image: Image, first: int, count: int) -> list[Outcome]:
        return [Outcome(cycles=100)] * count


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """An engine whose images are written but not compiled."""
    (tmp_path / "images").mkdir()
    monkeypatch.setattr("tvmtiny.tune.engine.require_tools", lambda target: None)
    monkeypatch.setattr("tvmtiny.tune.engine.build", lambda artifact, target, directory, **_: mock.Mock())
    monkeypatch.setattr("tvmtiny.tune.engine.code_bytes", lambda directory, index: 500)
    with Store(tmp_path / "store", "").opened() as store:
        yield Engine(load_target("qemu-m4"), Everywhere(), store, Limits(), tmp_path / "images")


def two_points(tasks: list[Task]) -> tuple[Task, Blocking, Blocking]:
    """A task, the rules' point, and one that takes more scratch memory."""
    task = next(task for task in tasks if task.kernel.name == "ffn")
    other = next(point for point in task.designs[0].points() if point.rows > task.default.rows)
    return task, task.default, other


def test_limits_bind_what_is_known_and_are_not_stored(tasks: list[Task], engine: Engine) -> None:
    task, default, other = two_points(tasks)
    engine.limits = Limits(scratch_bytes=1)
    first, refused = engine.measure([(task, default), (task, other)])
    assert first.valid  # the rules' own is exempt
    assert "> 1 bytes" in refused.error
    assert engine.store.find(task.signature, other) is None

    engine.limits = Limits()
    (free,) = engine.measure([(task, other)])
    assert free.valid
    for limits in (Limits(scratch_bytes=1), Limits(code_bytes=499)):
        engine.limits = limits
        (bound,) = engine.measure([(task, other)])
        assert not bound.valid
        assert (bound.cycles, bound.code_bytes) == (100, 500)


def test_an_environment_that_fails_is_no_candidates_fault(
    tasks: list[Task], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, default, other = two_points(tasks)
    for failure in (BuildFailure("No space left on device"), EnvironmentProblem("make is needed.")):
        monkeypatch.setattr("tvmtiny.tune.engine.build", mock.Mock(side_effect=failure))
        for points in ([default], [other], [default, other]):
            with pytest.raises(type(failure), match=re.escape(failure.message)):
                engine.measure([(task, point) for point in points])
    assert engine.store.known(task.signature) == []

    def build_default(artifact: Artifact, *_: object, **__: object) -> mock.Mock:
        if space.describe(other) in (artifact.directory / "candidate_0.c").read_text():
            raise BuildFailure("tvmt_pairs.h:1: error: no such thing")
        return mock.Mock()

    monkeypatch.setattr("tvmtiny.tune.engine.build", build_default)
    (found,) = engine.measure([(task, other)])
    assert found.error == "not built: tvmt_pairs.h:1: error: no such thing"
    assert engine.store.find(task.signature, other) == found


class Moody(Everywhere):
    """A place where the second candidate of an image never ends; or one that is gone."""

    def __init__(self) -> None:
        self.gone = False

    def run(self, image: Image, first: int, count: int) -> list[Outcome]:
        if self.gone or first <= 1 < first + count:
            raise EnvironmentProblem("QEMU did not end within 1 s.")
        return super().run(image, first, count)


def test_a_hanging_candidate_costs_no_other_its_result_and_a_dead_place_is_no_candidates_fault(
    tasks: list[Task], engine: Engine
) -> None:
    task = next(task for task in tasks if task.kernel.name == "ffn")
    points = list(task.designs[0].points())[:3]
    place = engine.place = Moody()
    found = engine.measure([(task, point) for point in points])
    assert [bool(one.error) for one in found] == [False, True, False]

    place.gone = True
    other = next(iter(task.designs[1].points()))
    with pytest.raises(EnvironmentProblem):
        engine.measure([(task, other)])
    assert engine.store.find(task.signature, other) is None


def test_without_tools_nothing_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentProblem, match="make is needed"):
        Engine(load_target("qemu-m4"), Everywhere(), Store(tmp_path, ""), Limits(), tmp_path)


def test_a_board_counts_the_kernel_alone(compiled: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels, around = (70, 5), (1000, 300)  # cycles of two candidates, and of preparing and comparing them

    def answer(artifact: Artifact, on: str, samples: list[Sample], *, repeat: int, **_: object) -> mock.Mock:
        requests = [tuple(sample.inputs["request"]) for sample in samples]
        cycles = [around[i] + (kernels[i] if count > 0 else 0) for i, count in requests]
        wrong = [{"wrong": [0 if count > 0 else 99] * 2} for _, count in requests]
        return mock.Mock(cycles=[[9999] + [one] * (repeat - 1) for one in cycles], outputs=wrong)

    monkeypatch.setattr("tvmtiny.tune.places.run", answer)
    board = Serial(load_target("qemu-m4"), "/dev/null", 1)
    monkeypatch.setattr(board, "_flash", lambda image: None)
    image = Image(compiled, compiled.directory, 2)
    assert board.run(image, 0, 2) == [Outcome(cycles=70), Outcome(cycles=5)]
    assert board.run(image, 0, 0) == []


def test_models_of_the_same_name_have_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = mock.Mock()
    monkeypatch.setattr("tvmtiny.tune.models.compile_model", compiler)
    artifacts_of(["a/model.onnx", "b/model.onnx"], "qemu-m4", None, tmp_path)
    outputs = [call.kwargs["output"] for call in compiler.call_args_list]
    assert [output.name for output in outputs] == ["model", "model"]
    assert outputs[0] != outputs[1]


# records


@pytest.fixture
def own_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder, and no records beside it."""
    monkeypatch.setenv(records.ENVIRONMENT_VARIABLE, str(tmp_path))
    monkeypatch.setattr(records, "folders", lambda: [records.user_folder()])
    return tmp_path


def record_of(task: Task, point: Blocking, cycles: int = 90) -> Record:
    trace = results.trace(task, point)
    before, after = Figures(100, 10, 10, 10), Figures(cycles, 10, 10, 10)
    return Record(task.signature, trace, space.describe(point), after, before, 9, 9, "qemu", "gcc")


def test_records_are_read_as_they_were_written(tasks: list[Task], tmp_path: Path) -> None:
    made = [record_of(task, list(task.designs[-1].points())[-1]) for task in tasks]
    records.write(tmp_path / "a.json", "cortex-m4", "latency", made)
    read = records.read(tmp_path / "a.json", "cortex-m4", "latency")
    assert {one.signature: one for one in read} == {one.signature: one for one in made}
    for path, cpu, objective in (
        (Path(__file__), "cortex-m4", "latency"),
        (tmp_path / "a.json", "cortex-m7", "latency"),
        (tmp_path / "a.json", "cortex-m4", "flash"),
    ):
        with pytest.raises(UserError, match="no records"):
            records.read(path, cpu, objective)


@pytest.mark.parametrize(
    "damage",
    [
        {"shapes": {"x": ["wide"]}},
        {"shapes": [8]},
        {"form": {"heads": [1]}},
        {"figures": 12},
        {"figures": {"cycles": "few", "code_bytes": 1, "weight_bytes": 1, "scratch_bytes": 1}},
        {"front": [3]},
    ],
)
def test_a_damaged_record_is_refused(tasks: list[Task], tmp_path: Path, damage: dict[str, object]) -> None:
    path = tmp_path / "a.json"
    records.write(path, "cortex-m4", "latency", [record_of(tasks[0], tasks[0].default)])
    data = json.loads(path.read_text())
    data["records"][0] |= damage
    for broken in (data, {**data, "records": [12]}, [], 12):
        path.write_text(json.dumps(broken))
        with pytest.raises(UserError, match="no records"):
            records.read(path, "cortex-m4", "latency")


def test_records_of_other_ranks_or_without_extent_are_at_some_distance(tasks: list[Task]) -> None:
    own = tasks[0].signature
    flat = dataclasses.replace(own, shapes=tuple((name, (*shape, 1)) for name, shape in own.shapes))
    empty = dataclasses.replace(own, shapes=tuple((name, (0,) * len(shape)) for name, shape in own.shapes))
    assert own.distance(flat) is None
    assert own.distance(empty) == empty.distance(own) > 0


@pytest.mark.parametrize("cpu", ["cortex-m0plus", "cortex-m33", "cortex-m4", "cortex-m55", "cortex-m7"])
def test_shipped_records_of_latency_take_no_more_cycles_than_the_rules(cpu: str) -> None:
    """What those of `balanced` promise is of whole models: tests/qemu/test_tuning.py."""
    shipped = {
        name: records.read(data_dir("schedules") / "tuned" / cpu / f"{name}.json", cpu, name)
        for name in records.OBJECTIVES
    }
    assert all(shipped.values())
    assert all(one.figures.cycles <= one.default.cycles for one in shipped["latency"])


@pytest.mark.parametrize(
    "broken",
    ["{}", "12", "no decisions", "decides nothing", "no such value", "no such family", "no such knob"],
)
def test_a_trace_that_cannot_be_used_is_said_with_its_file(
    tasks: list[Task], own_records: Path, broken: str
) -> None:
    task = next(task for task in tasks if task.kernel.name == "ffn")
    good = record_of(task, task.default)
    instructions, decisions = good.trace
    trace = {
        "{}": {},
        "12": 12,
        "no decisions": [instructions],
        "decides nothing": [instructions, [[99, 1]]],
        "no such value": [instructions, [[decisions[0][0], 99]]],
        "no such family": json.loads(json.dumps(good.trace).replace('\\"dsp', '\\"disp')),
        "no such knob": json.loads(json.dumps(good.trace).replace("pair_steps", "pair_leaps")),
    }[broken]
    path = own_records / "cortex-m4" / "flash.json"
    records.write(path, "cortex-m4", "flash", [dataclasses.replace(good, trace=trace)])
    with pytest.raises(UserError, match=re.escape(str(path))) as refused:
        TunedRule(load_target("qemu-m4"), "flash", "dsp")
    assert "--tuned none" in refused.value.remedy


def test_a_compile_does_not_pass_over_records_that_cannot_be_used(
    tasks: list[Task], own_records: Path, tmp_path: Path
) -> None:
    task = next(task for task in tasks if task.kernel.name == "ffn")
    path = own_records / "cortex-m4" / "flash.json"
    records.write(
        path, "cortex-m4", "flash", [dataclasses.replace(record_of(task, task.default), trace=[[], []])]
    )
    with pytest.raises(UserError, match=r"flash\.json holds no records"):
        compile_model(
            save(ENCODER, tmp_path / "model"),
            target="qemu-m4",
            calibration=calibration(ENCODER),
            tuned="flash",
            output=tmp_path / "out",
        )


def test_merging_waits_for_a_tuner_that_writes(tasks: list[Task], own_records: Path, tmp_path: Path) -> None:
    own = own_records / "cortex-m4" / "latency.json"
    records.write(tmp_path / "lab.json", "cortex-m4", "latency", [record_of(tasks[0], tasks[0].default)])
    arguments = [
        "tune",
        "--target",
        "qemu-m4",
        "--objective",
        "latency",
        "--merge",
        str(tmp_path / "lab.json"),
    ]
    with ThreadPoolExecutor(1) as pool:
        with records.locked(own):
            merging = pool.submit(CliRunner().invoke, app, arguments)
            assert not wait([merging], timeout=0.5).done
            records.write(own, "cortex-m4", "latency", [record_of(tasks[1], tasks[1].default)])
        assert merging.result(60).exit_code == 0
    assert len(records.read(own, "cortex-m4", "latency")) == 2


def test_records_of_another_core_are_not_imported(
    tasks: list[Task], own_records: Path, tmp_path: Path
) -> None:
    lab = tmp_path / "lab.json"
    records.write(lab, "cortex-m7", "latency", [record_of(tasks[0], tasks[0].default)])
    for option in ("--import", "--merge"):
        arguments = ["tune", "--target", "qemu-m4", "--objective", "latency", option, str(lab)]
        refused = CliRunner().invoke(app, arguments)
        assert refused.exit_code == 2
        assert "cpu cortex-m7 instead of cortex-m4" in " ".join(refused.stderr.split())
    assert not (own_records / "cortex-m4" / "latency.json").exists()


def test_merging_takes_the_faster_of_each(tasks: list[Task]) -> None:
    point = next(tasks[0].designs[0].points())
    slow, fast, other = (
        record_of(task, point, cycles)
        for task, cycles in zip([tasks[0], tasks[0], tasks[1]], (90, 80, 70), strict=True)
    )
    joined = records.merged([slow, other], [fast])
    assert sorted(one.figures.cycles for one in joined) == [70, 80]


def test_a_kernel_takes_its_record_then_the_nearest_then_the_rules(
    tasks: list[Task], own_records: Path
) -> None:
    ffn, attention = (next(t for t in tasks if t.kernel.name == name) for name in ("ffn", "attention"))
    point = Blocking(8, 4, "pairs", "dsp-pair_steps_32")
    own = record_of(ffn, point)
    doubled = tuple((name, (*shape[:-1], 2 * shape[-1])) for name, shape in ffn.signature.shapes)
    near = dataclasses.replace(own, signature=dataclasses.replace(ffn.signature, shapes=doubled))
    far = record_of(ffn, Blocking(4, 4, "pairs", "dsp"))
    farther = tuple((name, (*shape[:-1], 16 * shape[-1])) for name, shape in ffn.signature.shapes)
    far = dataclasses.replace(far, signature=dataclasses.replace(ffn.signature, shapes=farther))
    origins = []
    for made in ([own, far], [near, far]):
        records.write(own_records / "cortex-m4" / "flash.json", "cortex-m4", "flash", made)
        rule = TunedRule(load_target("qemu-m4"), "flash", "dsp")
        chosen = rule.choose(ffn.kernel, ffn.operands)
        none = rule.choose(attention.kernel, attention.operands)
        assert chosen.blocking == point
        assert none.origin == DEFAULT
        assert none.blocking == blocking("dsp")(attention.kernel, attention.operands)
        origins.append(chosen.origin)
    assert origins == [TUNED, BORROWED]


def test_a_borrowed_schedule_has_the_rows_of_the_rules_where_its_record_has(
    compiled: Artifact, own_records: Path
) -> None:
    board = load_target("qemu-m7")
    tasks = tasks_of([compiled], board, wide_weights=False)
    attention = next(task for task in tasks if task.kernel.name == "attention")
    design = attention.designs[0]
    assert attention.default.rows == 6
    long = tuple((name, (4 * shape[0], *shape[1:])) for name, shape in attention.signature.shapes)
    # Of long sequences the rules' choice is 4 rows: it comes first there.
    choices = {**design.choices, "rows": (4, 6, 8, 16)}
    recorded = dataclasses.replace(
        attention,
        signature=dataclasses.replace(attention.signature, shapes=long),
        designs=[dataclasses.replace(design, choices=choices)],
    )
    borrowed = {}
    for rows in choices["rows"]:
        point = Blocking(rows, 6, "plain", "dual_issue-staged_1")
        made = [record_of(recorded, point)]
        records.write(own_records / "cortex-m7" / "latency.json", "cortex-m7", "latency", made)
        chosen = TunedRule(board, "latency", "dual_issue").choose(attention.kernel, attention.operands)
        assert (chosen.origin, chosen.blocking.variant) == (BORROWED, "dual_issue-staged_1")
        borrowed[rows] = chosen.blocking.rows
    assert borrowed == {4: 6, 6: 6, 8: 8, 16: 8}  # there are 8 tokens


@pytest.mark.parametrize("heads", [1, 2, 8])
def test_a_borrowed_order_of_loops_is_kept_only_where_there_is_one(
    tasks: list[Task], own_records: Path, heads: int
) -> None:
    """One head leaves nothing to order; 8 heads of 16 columns are too narrow for keys in pairs."""
    attention = next(task for task in tasks if task.kernel.name == "attention")
    point = dataclasses.replace(attention.default, tokens_outer=True, variant="dsp")
    records.write(
        own_records / "cortex-m4" / "flash.json", "cortex-m4", "flash", [record_of(attention, point)]
    )
    one = attention.operands
    per_head = {name: np.zeros(heads, str(one[name].ty.dtype)) for name in ("score_multiplier", "ratio")}
    operands = Operands(one.tensors | per_head, one.n, {**one.attrs, "heads": heads})
    chosen = TunedRule(load_target("qemu-m4"), "flash", "dsp").choose(attention.kernel, operands)
    assert chosen.origin == (TUNED if heads == 2 else BORROWED)
    assert chosen.blocking.tokens_outer is (heads == 2)
    assert ("tokens outer" in space.describe(chosen.blocking)) is (heads == 2)


def test_wide_weights_are_for_latency_alone(tasks: list[Task], own_records: Path) -> None:
    task = next(task for task in tasks if task.kernel.name == "ffn")
    made = [record_of(task, Blocking(4, 4, "wide_pairs", "wide_weights"))]
    origins = {}
    for objective in ("latency", "balanced"):
        records.write(own_records / "cortex-m4" / f"{objective}.json", "cortex-m4", objective, made)
        rule = TunedRule(load_target("qemu-m4"), objective, "dsp")
        origins[objective] = rule.choose(task.kernel, task.operands).origin
    assert origins == {"latency": TUNED, "balanced": DEFAULT}


# search


def test_plain_searches_visit_every_point_once_beginning_with_the_rules(tasks: list[Task]) -> None:
    task = min(tasks, key=lambda task: task.size)
    for seed in (None, 1):
        search = InOrder(task, seed)
        search.pre_tuning(task.size, 4, [], None, None)
        seen = []
        while batch := search.generate_measure_candidates():
            seen += [space.blocking_of(one.sch.mod) for one in batch]
        assert seen[0] == next(task.designs[0].points())
        assert len(seen) == len(set(seen)) == task.size
    known = seen[:3]
    search = InOrder(task, 1, known)
    search.pre_tuning(task.size, task.size, [], None, None)
    left = [space.blocking_of(one.sch.mod) for one in search.generate_measure_candidates()]
    assert left == seen[3:]


class ByName(Engine):
    """Builds nothing: the cycles of a candidate follow from what it is."""

    def build(self, wanted: Sequence[tuple[Task, Blocking]]) -> list[Built]:
        return [Built(task, point) for task, point in wanted]

    def run(self, built: Sequence[Built]) -> list[Measurement]:
        found = [
            Measurement(one.point, 1000 + zlib.crc32(space.describe(one.point).encode()) % 1000)
            for one in built
        ]
        self.store.add([(one.task.signature, measured) for one, measured in zip(built, found, strict=True)])
        return found


def test_a_seed_gives_the_same_trials_and_records_again(
    tasks: list[Task], own_records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tvmtiny.tune.session.Engine", ByName)
    monkeypatch.setattr("tvmtiny.tune.engine.require_tools", lambda target: None)
    some = [task for task in tasks if task.kernel.name in {"ffn", "attention"}]

    def trials(seed: int, name: str) -> tuple[list[str], list[object]]:
        options = Options("latency", "xgb", 34, 8, seed, from_records=False)
        with Store(tmp_path / name, "").opened() as store:
            session = Session(some, load_target("qemu-m4"), Everywhere(), store, Limits(), options)
            session.run()
            made = [results.record(task, session.found(task), "latency", "", "") for task in some]
        lines = (tmp_path / name / MEASUREMENTS).read_text().splitlines()
        return lines, [one.to_json() for one in made if one is not None]

    first = trials(3, "first")
    assert len(first[0]) == len(set(first[0])) == 34
    assert trials(3, "again") == first
    assert trials(4, "other")[0] != first[0]


class Fits:
    """In the place of whole.Models: a variant of its own makes models smaller and faster, or it does not build."""

    small = True

    def __init__(self, *_: object) -> None: ...

    def cost(self, plan: whole.Plan) -> results.Cost:
        variants = {found.point.variant for found in plan.values()}
        if variants == {"dsp"} or not self.small:
            return results.Cost(1000, 1000 + len(variants) - ("dsp" in variants), 100)
        return results.Cost(900, 900, 100)


class Faster(ByName):
    """Every schedule of another variant than the rules' takes less of everything."""

    def run(self, built: Sequence[Built]) -> list[Measurement]:
        found = [
            Measurement(one.point, 1000 if one.point.variant == "dsp" else 900, code_bytes=900)
            for one in built
        ]
        self.store.add([(one.task.signature, measured) for one, measured in zip(built, found, strict=True)])
        return found


@pytest.mark.parametrize("objective", ["flash", "balanced"])
@pytest.mark.parametrize("small", [True, False])
def test_records_are_those_of_the_plan_that_is_best_for_whole_models(
    tasks: list[Task],
    compiled: Artifact,
    own_records: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    objective: str,
    small: bool,
) -> None:
    monkeypatch.setattr("tvmtiny.tune.session.Engine", Faster)
    monkeypatch.setattr("tvmtiny.tune.engine.require_tools", lambda target: None)
    monkeypatch.setattr(whole, "Models", Fits)
    monkeypatch.setattr(Fits, "small", small)
    options, target = Options(objective, "random", 24, 8, 0), load_target("qemu-m4")
    some = tasks_of([compiled], target, wide_weights=False)
    with Store(tmp_path / "store", "").opened() as store:
        session = Session(some, target, Everywhere(), store, Limits(), options, models=[compiled])
        assert not session.decided
        session.run()
        assert session.decided
        made = session.records("gcc")
    variants = {one.blocking.variant for one in made}
    assert len(variants) == 1
    assert (variants == {"dsp"}) is not small
    assert session.choice is not None
    assert session.choice.cost == (results.Cost(900, 900, 100) if small else session.choice.rules)
    if small:
        assert {one.signature for one in made} == {task.signature for task in some}


def test_a_run_that_is_stopped_leaves_complete_records_alone(
    compiled: Artifact, own_records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tvmtiny.tune.session.Engine", Faster)
    monkeypatch.setattr("tvmtiny.tune.engine.require_tools", lambda target: None)
    arguments = ["tune", str(compiled.directory), "--target", "qemu-m4", "--search", "random"]
    arguments += ["--trials", "8", "--batch", "8", "--work-dir", str(tmp_path / "work")]
    written = {}
    for objective in ("latency", "flash"):
        monkeypatch.setattr(whole, "Models", mock.Mock(side_effect=EnvironmentProblem("No gcc.")))
        stopped = CliRunner().invoke(app, [*arguments, "--objective", objective])
        written[objective] = (own_records / "cortex-m4" / f"{objective}.json").exists()
    assert written == {"latency": True, "flash": False}
    assert stopped.exit_code != 0
    assert "No records of flash were written" in " ".join(stopped.stderr.split())

    monkeypatch.setattr(whole, "Models", Fits)
    told = CliRunner().invoke(app, [*arguments, "--objective", "flash"], catch_exceptions=False)
    assert "Whole models" in told.stdout
    assert (own_records / "cortex-m4" / "flash.json").exists()


@derived_object
class LikesManyRows(ms.cost_model.PyCostModel):
    def load(self, path: str) -> None: ...

    def save(self, path: str) -> None: ...

    def update(self, context: object, candidates: object, results: object) -> None: ...

    def predict(self, context: object, candidates: list[Any]) -> np.ndarray:
        return np.array([float(space.blocking_of(one.sch.mod).rows) for one in candidates])


def test_a_ranked_search_measures_each_design_first_and_then_what_the_model_likes(tasks: list[Task]) -> None:
    task = next(task for task in tasks if task.kernel.name == "ffn")
    ranked = context(task, load_target("qemu-m4"), "xgb", 0, [task.default]).search_strategy
    ranked.pre_tuning(100, 8, [], None, LikesManyRows())
    batches = []
    while batch := ranked.generate_measure_candidates():
        batches.append([space.blocking_of(one.sch.mod) for one in batch])
    assert {point.weights for point in batches[0]} == {design.columns for design in task.designs}
    assert [point.rows for point in batches[1][:7]] == [8] * 7
    seen = [point for batch in batches for point in batch]
    assert len(seen) == len(set(seen)) == task.size - 1
    assert task.default not in seen


def test_signatures_tell_shapes_apart(tasks: list[Task]) -> None:
    for task in tasks:
        again = Signature.from_json(json.loads(json.dumps(task.signature.to_json())))
        assert again == task.signature
        assert task.signature.distance(again) == 0
        assert all(task.signature.distance(o.signature) != 0 for o in tasks if o is not task)

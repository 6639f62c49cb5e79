"""The tuner without a compiler or an emulator: spaces, traces, store, choice of the best, records, search."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvmtiny.artifact import Artifact
from tvmtiny.bench.catalog import EncoderBenchmark
from tvmtiny.bench.models import calibration, save
from tvmtiny.compiler import compile as compile_model
from tvmtiny.errors import UserError
from tvmtiny.kernels import Blocking
from tvmtiny.schedule import records, space
from tvmtiny.schedule.records import BORROWED, DEFAULT, RULES, TUNED, Figures, Record, TunedRule
from tvmtiny.schedule.rules import blocking
from tvmtiny.schedule.signature import Signature
from tvmtiny.schedule.variants import KNOBS, Variant
from tvmtiny.target import load_target
from tvmtiny.tune import results
from tvmtiny.tune.search import InOrder
from tvmtiny.tune.store import DATABASE, MEASUREMENTS, Measurement, Store
from tvmtiny.tune.tasks import Task, tasks_of

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
    good = [default, measured(32, 900, scratch=5000), measured(8, 901, scratch=200)]
    assert results.best(good, default, "latency").point.rows == 8


def test_flash_and_balance_choose_otherwise_than_latency() -> None:
    default, fast, small = measured(4, 1000, 1000), measured(8, 900, 2000), measured(2, 1010, 500)
    chosen = {o: results.best([default, fast, small], default, o) for o in records.OBJECTIVES}
    assert chosen == {"latency": fast, "flash": small, "balanced": small}


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


# the store


def test_measurements_outlive_a_run_that_was_cut_short(tasks: list[Task], tmp_path: Path) -> None:
    signature, found = tasks[0].signature, measured(4, 123)
    with Store(tmp_path, "m4").opened() as store:
        store.add([(signature, found)])
    for name in (MEASUREMENTS, *DATABASE):
        with (tmp_path / name).open("a") as stream:
            stream.write('{"condition": "cut sho')
    with Store(tmp_path, "m4").opened() as store:
        assert store.find(signature, found.point) == found
        assert store.dropped_lines == 3
    with Store(tmp_path, "another compiler").opened() as store:
        assert store.find(signature, found.point) is None


def test_a_second_tuner_is_refused(tmp_path: Path) -> None:
    refused = pytest.raises(UserError, match="Another tuner")
    with Store(tmp_path, "m4").opened(), refused, Store(tmp_path, "m4").opened():
        pass
    with Store(tmp_path, "m4").opened():
        pass


# records


@pytest.fixture
def own_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(records.ENVIRONMENT_VARIABLE, str(tmp_path))
    return tmp_path


def record_of(task: Task, point: Blocking, cycles: int = 90) -> Record:
    trace = results.trace(task, point)
    before, after = Figures(100, 10, 10, 10), Figures(cycles, 10, 10, 10)
    return Record(task.signature, trace, space.describe(point), after, before, 9, 9, "qemu", "gcc")


def test_records_are_read_as_they_were_written(tasks: list[Task], tmp_path: Path) -> None:
    made = [record_of(task, list(task.designs[-1].points())[-1]) for task in tasks]
    records.write(tmp_path / "a.json", "cortex-m4", "latency", made)
    read = records.read(tmp_path / "a.json")
    assert {one.signature: one for one in read} == {one.signature: one for one in made}
    with pytest.raises(UserError, match="no records"):
        records.read(Path(__file__))


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


def test_signatures_tell_shapes_apart(tasks: list[Task]) -> None:
    for task in tasks:
        again = Signature.from_json(json.loads(json.dumps(task.signature.to_json())))
        assert again == task.signature
        assert task.signature.distance(again) == 0
        assert all(task.signature.distance(o.signature) != 0 for o in tasks if o is not task)

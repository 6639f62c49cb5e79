"""The tuner on an emulated core: candidates are built, measured and checked there, and compiles use what it found."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tvmtiny.artifact import Artifact
from tvmtiny.bench.catalog import EncoderBenchmark
from tvmtiny.bench.models import INPUT, OUTPUT, calibration, save
from tvmtiny.cli import app
from tvmtiny.compiler import compile as compile_model
from tvmtiny.kernels import Blocking
from tvmtiny.runner import RunResult, Sample, run
from tvmtiny.schedule import records
from tvmtiny.schedule.records import RULES, Record
from tvmtiny.schedule.rules import family
from tvmtiny.target import load_target
from tvmtiny.tune import results, whole
from tvmtiny.tune.engine import Engine, Limits
from tvmtiny.tune.models import artifacts_of
from tvmtiny.tune.places import Qemu, request
from tvmtiny.tune.store import Measurement, Store
from tvmtiny.tune.tasks import Task, tasks_of
from tvmtiny.verify import expected_outputs

pytestmark = pytest.mark.qemu

ENCODER = EncoderBenchmark(
    name="small", description="", tokens=8, embedding=16, heads=2, hidden=32, layers=1, classes=4
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(ENCODER, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def artifact(model: Path) -> Artifact:
    return compile_model(
        model, target="qemu-m4", calibration=calibration(ENCODER), tuned=RULES, output=model.parent / "small"
    )


@pytest.fixture(scope="module")
def tasks(artifact: Artifact) -> list[Task]:
    return tasks_of([artifact], load_target("qemu-m4"), wide_weights=True)


def engine(store: Store, folder: Path, limits: Limits | None = None) -> Engine:
    target = load_target("qemu-m4")
    return Engine(target, Qemu(target, 60), store, limits or Limits(), folder)


def test_candidates_are_measured_and_other_bytes_found_out(
    tasks: list[Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ffn, attention = (next(t for t in tasks if t.kernel.name == name) for name in ("ffn", "attention"))
    points = [next(design.points()) for design in ffn.designs]
    expected = type(ffn).expected

    def altered(self: Task) -> np.ndarray:
        bytes_ = expected(self).copy()
        if self is attention:
            bytes_[0, 3] ^= 1
            bytes_[7, 15] ^= 1
        return bytes_

    monkeypatch.setattr(type(ffn), "expected", altered)
    with Store(tmp_path / "store", "").opened() as store:
        *found, wrong = engine(store, tmp_path).measure(
            [*((ffn, point) for point in points), (attention, attention.default)]
        )
    assert [(one.error, one.wrong) for one in found] == [("", 0)] * len(points)
    assert len({one.cycles for one in found}) == len(points)
    assert all(0 < one.instructions < one.cycles < 100_000 for one in found)
    assert all(one.code_bytes > 500 for one in found)
    wide, pairs = (next(m for m in found if m.point.weights == w) for w in ("wide_pairs", "pairs"))
    assert wide.weight_bytes - pairs.weight_bytes == 2 * 16 * 32  # both matrices, a byte more an element
    assert (wrong.wrong, wrong.valid) == (2, False)


def test_what_cannot_be_built_is_a_result_and_limits_hold_for_one_run(
    tasks: list[Task], tmp_path: Path
) -> None:
    task = next(task for task in tasks if task.kernel.name == "ffn")
    good = next(task.designs[0].points())
    broken = Blocking(4, 4, "pairs", "dsp-pair_steps_24")  # tvmt_pairs_loop.h refuses 24 steps
    with Store(tmp_path / "store", "").opened() as store:
        built, refused = engine(store, tmp_path).measure([(task, good), (task, broken)])
        assert built.valid
        assert refused.error.startswith("not built")
        tight = engine(store, tmp_path, Limits(scratch_bytes=64))
        other = next(point for point in task.designs[0].points() if point != good)
        exempt, large = tight.measure([(task, good), (task, other)])
        assert exempt.valid  # the rules' own
        assert "> 64 bytes" in large.error
        assert store.find(task.signature, other) is None


def test_requests_to_compare_only_run_nothing(tasks: list[Task], tmp_path: Path) -> None:
    task = next(task for task in tasks if task.kernel.name == "ffn")
    target = load_target("qemu-m4")
    with Store(tmp_path / "store", "").opened() as store:
        (built,) = engine(store, tmp_path).build([(task, task.default)])
    image = built.image
    assert image is not None
    samples = [request(0, -1), request(0, 1), request(0, 2), request(0, -2)]
    result = run(image.artifact, "qemu", samples, target=target, build_dir=image.build_dir)
    compared, ran = (outputs["wrong"][0] for outputs in result.outputs[:2])
    assert compared > 0  # the pattern that memory was filled with
    assert ran == 0
    assert result.status[2:] == [-1, -1]


def test_tuning_leaves_records_that_a_compile_uses(
    model: Path, artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(records.ENVIRONMENT_VARIABLE, str(tmp_path / "records"))
    arguments = ["tune", str(artifact.directory), "--target", "qemu-m4", "--objective", "latency"]
    arguments += ["--trials", "9", "--batch", "6", "--work-dir", str(tmp_path / "work"), "--json"]
    first = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert first.exit_code == 0, first.output
    report = json.loads(first.stdout)
    assert report["trials"] == 9  # the rules' three, then a batch
    assert report["wrong"] == report["failed"] == 0
    assert report["estimated_cycles"] <= report["estimated_cycles_rules"]

    tuned = compile_model(
        model, target="qemu-m4", calibration=calibration(ENCODER), tuned="latency", output=tmp_path / "tuned"
    )
    origins = {row["kernel"]: row["schedule_origin"] for row in tuned.metadata["operators"]}
    assert origins["ffn"] == origins["attention"] == "tuned"
    _check_bytes(tuned, "qemu")


def test_operators_of_several_variants_make_one_model(
    model: Path, tasks: list[Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(records.ENVIRONMENT_VARIABLE, str(tmp_path))
    chosen = {
        "ffn": Blocking(8, 4, "wide_pairs", "wide_weights-single_loads_1"),
        "attention": Blocking(3, 6, "plain", "dsp-strip_steps_16"),
    }
    zero = records.Figures(0, 0, 0, 0)
    made = []
    for task in tasks:
        if task.kernel.name in chosen:
            trace = results.trace(task, chosen[task.kernel.name])
            made.append(records.Record(task.signature, trace, "", zero, zero, 1, 1, "qemu", ""))
    records.write(tmp_path / "cortex-m4" / "latency.json", "cortex-m4", "latency", made)
    mixed = compile_model(
        model, target="qemu-m4", calibration=calibration(ENCODER), tuned="latency", output=tmp_path / "mixed"
    )
    assert {"mixed_dsp_strip_steps_16.c", "mixed_wide_weights_single_loads_1.c"} & set(mixed.sources)
    assert {row["microkernel_variant"] for row in mixed.metadata["operators"]} >= {
        "dsp",
        "dsp-strip_steps_16",
        "wide_weights-single_loads_1",
    }
    _check_bytes(mixed, "host")
    _check_bytes(mixed, "qemu")


def test_a_plan_costs_what_the_linked_model_does(
    model: Path, artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code that operators share counts once, and tokens outside take the memory that the planner says."""
    monkeypatch.setenv(records.ENVIRONMENT_VARIABLE, str(tmp_path))
    target, zero = load_target("qemu-m4"), records.Figures(0, 0, 0, 0)
    tasks = tasks_of([artifact], target, wide_weights=False)
    models = whole.Models(tasks, [artifact], target, tmp_path / "operators")
    costs, flash, arenas = [], [], []
    for variant, tokens_outer in (("dsp", False), ("dsp-inlined_1-pair_steps_8", True)):
        points = {
            task.signature: dataclasses.replace(
                task.default, variant=variant, tokens_outer=tokens_outer and task.kernel.name == "attention"
            )
            for task in tasks
        }
        costs.append(models.cost({own: Measurement(point) for own, point in points.items()}))
        made = [
            Record(
                task.signature, results.trace(task, points[task.signature]), "", zero, zero, 1, 1, "qemu", ""
            )
            for task in tasks
        ]
        records.write(tmp_path / "cortex-m4" / "flash.json", "cortex-m4", "flash", made)
        compiled = compile_model(
            model,
            target="qemu-m4",
            calibration=calibration(ENCODER),
            tuned="flash",
            output=tmp_path / "model",
        )
        _check_bytes(compiled, "host")
        sizes = _check_bytes(compiled, "qemu").sizes
        flash.append(sizes.code_bytes + sizes.table_bytes + sizes.weight_bytes)
        arenas.append(compiled.arena_bytes)
    assert abs((costs[1].flash - costs[0].flash) - (flash[1] - flash[0])) <= 32  # alignment of functions
    assert abs(flash[1] - flash[0]) > 1000
    assert [cost.memory for cost in costs] == arenas
    assert arenas[1] > arenas[0]


def test_stored_weights_count_as_they_are_stored(tmp_path: Path) -> None:
    target = load_target("qemu-m4")
    encoder = dataclasses.replace(ENCODER, embedding=64, hidden=256)
    model = save(encoder, tmp_path)
    for form, decode in (("huffman", "tile"), ("huffman", "boot")):
        stored = compile_model(
            model,
            target="qemu-m4",
            calibration=calibration(encoder),
            tuned=RULES,
            compress_weights=form,
            decode=decode,
            output=tmp_path / decode / "model",
        )
        saved = stored.metadata["storage"]["plain_bytes"] - stored.metadata["storage"]["stored_bytes"]
        assert saved > 2000
        tasks = tasks_of([stored], target, wide_weights=False)
        models = whole.Models(tasks, [stored], target, tmp_path / decode / "operators")
        cost = models.cost({task.signature: Measurement(task.default, 1) for task in tasks})
        assert cost is not None
        sizes = _check_bytes(stored, "qemu").sizes
        assert cost.memory == stored.arena_bytes
        flash = sizes.code_bytes + sizes.table_bytes + sizes.weight_bytes
        # Beside operators a model has code of its interface.
        assert 0 <= flash - cost.flash <= 1500


@pytest.fixture(scope="module")
def shipped_for(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """Models whose kernels have shipped records; their integer modules are the same for every core."""
    folder = tmp_path_factory.mktemp("shipped")
    examples = Path(__file__).parents[2] / "examples"
    compiled = {
        name: compile_model(
            examples / name / "model.onnx",
            target="qemu-m7",
            calibration=examples / name / "calibration.npz",
            tuned=RULES,
            output=folder / name,
        )
        for name in ("keyword", "motion")
    }
    return compiled | {"enc32": artifacts_of(["enc32"], "qemu-m7", None, folder)[0]}


@pytest.mark.parametrize("name", ["keyword", "motion", "enc32"])
@pytest.mark.parametrize("core", ["qemu-m7", "qemu-m55"])
def test_shipped_balanced_records_cost_a_model_neither_cycles_nor_flash(
    shipped_for: dict[str, Artifact], core: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(records.ENVIRONMENT_VARIABLE, str(tmp_path))
    artifact, target = shipped_for[name], load_target(core)
    tasks = tasks_of([artifact], target, wide_weights=False)
    rule = records.TunedRule(target, "balanced", family(target))
    rule.settle([(task.name, task.kernel, task.operands) for task in tasks])
    rules, tuned = whole.Plan(), whole.Plan()
    for task in tasks:
        found = rule.choose(task.kernel, task.operands)
        before, after = (found.record.default.cycles, found.record.figures.cycles) if found.record else (0, 0)
        rules[task.signature] = Measurement(task.default, before)
        tuned[task.signature] = Measurement(found.blocking, after)
    models = whole.Models(tasks, [artifact], target, tmp_path / "operators")
    costs = models.cost(rules), models.cost(tuned)
    assert costs[0] is not None
    assert costs[1] is not None
    assert costs[1].cycles < costs[0].cycles
    assert costs[1].flash < costs[0].flash


def _check_bytes(artifact: Artifact, place: str) -> RunResult:
    """On the host or on the emulated core, the bytes of the reference."""
    with np.load(artifact.directory / "reference" / "inputs.npz") as inputs:
        samples = [Sample({INPUT: row}, 8) for row in inputs[INPUT][:3]]
    result = run(artifact, place, samples)
    for one, other in zip(result.outputs, expected_outputs(artifact, samples), strict=True):
        np.testing.assert_array_equal(one[OUTPUT], other[OUTPUT])
    return result

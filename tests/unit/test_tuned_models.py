"""What records make of a whole model: of real models, with the records that tvmtiny ships."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import tvmtiny
from tvmtiny.bench.catalog import EncoderBenchmark, load_catalog
from tvmtiny.bench.models import calibration, save
from tvmtiny.frontend import import_model
from tvmtiny.frontend.data import input_specs
from tvmtiny.kernels import kernel_calls
from tvmtiny.lowering import Stages, build_tuned
from tvmtiny.options import ModelOptions
from tvmtiny.passes.quantize import QuantizedModel
from tvmtiny.quant.placeholder import placeholder_statistics
from tvmtiny.report.inspection import inspect
from tvmtiny.resources import data_dir
from tvmtiny.schedule import records
from tvmtiny.schedule.records import BORROWED, DEFAULT, TunedRule
from tvmtiny.schedule.signature import Signature
from tvmtiny.target import load_target

INTENT = Path(__file__).parents[2] / "examples" / "intent" / "model.onnx"
M4 = "qemu-m4"


@pytest.fixture(autouse=True)
def no_records_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TVMTINY_SCHEDULES", str(tmp_path))


@pytest.fixture(scope="module")
def intent() -> QuantizedModel:
    options = ModelOptions(range_method="minmax")
    fused = options.fuse(import_model(INTENT))
    specs, _, tokens = input_specs(fused)
    return options.quantize(fused, placeholder_statistics(fused, specs, tokens))


@pytest.fixture
def records_of_other_attention(
    intent: QuantizedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the shipped records those of attention in other models: the model's other products have none to borrow."""
    own = {Signature.of(kernel, operands) for _, kernel, operands in kernel_calls(intent.module)}
    cpu = load_target(M4).cpu
    for objective in records.OBJECTIVES:
        shipped = records.read(data_dir("schedules") / "tuned" / cpu / f"{objective}.json", cpu, objective)
        others = [
            record
            for record in shipped
            if record.signature.kernel == "attention" and record.signature not in own
        ]
        records.write(records.user_folder() / cpu / f"{objective}.json", cpu, objective, others)
    monkeypatch.setattr(records, "folders", lambda: [records.user_folder()])


@pytest.mark.usefixtures("records_of_other_attention")
@pytest.mark.parametrize("objective", ["flash", "balanced"])
def test_a_model_has_one_variant_where_flash_counts(intent: QuantizedModel, objective: str) -> None:
    program, _ = build_tuned(intent, load_target(M4), "model", "dsp", Stages(), objective)
    assert program.variants == ["dsp"]


@pytest.mark.usefixtures("records_of_other_attention")
def test_another_variant_is_kept_where_all_products_have_it(intent: QuantizedModel) -> None:
    calls = kernel_calls(intent.module)
    attention = next(call for call in calls if call[1].name == "attention")
    variants = []
    for some in ([attention], calls):
        rule = TunedRule(load_target(M4), "flash", "dsp")
        assert rule.choose(*attention[1:]).origin == BORROWED
        rule.settle(some)
        variants.append(rule.choose(*attention[1:]).blocking.variant)
        assert rule.changes(some) == (some != calls)
    assert variants[0] == "dsp-strip_steps_4"
    assert variants[1] == "dsp"


@pytest.mark.usefixtures("records_of_other_attention")
def test_balanced_borrows_nothing(intent: QuantizedModel) -> None:
    attention = next(call for _, *call in kernel_calls(intent.module) if call[0].name == "attention")
    rule = TunedRule(load_target(M4), "balanced", "dsp")
    assert rule.near(*attention)
    assert rule.choose(*attention).origin == DEFAULT


def test_far_shapes_and_other_forms_are_told_apart(intent: QuantizedModel) -> None:
    own = Signature.of(*next(call for _, *call in kernel_calls(intent.module) if call[0].name == "attention"))
    (name, (tokens, *rest)), *others = own.shapes

    def with_tokens(count: int) -> Signature:
        return dataclasses.replace(own, shapes=((name, (count, *rest)), *others))

    assert [own.resembles(with_tokens(factor * tokens)) for factor in (1, 4, 5)] == [True, True, False]
    form = dict(own.form)
    forms = [form | {"heads": form["heads"] * factor} for factor in (1, 2, 8)] + [form | {"stride": 1}]
    changed = [dataclasses.replace(own, form=tuple(sorted(one.items()))) for one in forms]
    assert [own.distance(other) for other in changed] == [0, 1, 3, 1]
    assert [other.distance(own) for other in changed] == [0, 1, 3, 1]
    assert [own.resembles(other) for other in changed] == [True, True, False, True]


def test_inspect_takes_the_records_that_a_compile_takes(tmp_path: Path) -> None:
    encoder = next(one for one in load_catalog() if one.name == "enc32")
    assert isinstance(encoder, EncoderBenchmark)
    model, board = save(encoder, tmp_path / "model"), load_target("qemu-m55")
    real = tvmtiny.compile(
        model, target=board.name, calibration=calibration(encoder), tuned="latency", output=tmp_path / "m"
    )
    sizes = {}
    for tuned in ("latency", "none"):
        (fit,) = inspect(model, [board], ModelOptions(tuned=tuned)).fits
        sizes[tuned] = fit.arena_bytes
    assert sizes["latency"] == real.arena_bytes
    assert sizes["none"] != real.arena_bytes

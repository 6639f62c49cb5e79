"""Quantization-aware training: the module's forward, ONNX Runtime, the compiled model and its own gradients."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch")

from quantized_families import (  # noqa: E402  torch may be missing
    MODELS,
    family_onnx,
    fused_family,
    quantized_family,
    tensors,
)
from recipe_task import task as recipe_task  # noqa: E402

import tvmtiny  # noqa: E402
from tvmtiny.cli.compress import _show  # noqa: E402
from tvmtiny.compress.export import check_export, to_onnx  # noqa: E402
from tvmtiny.compress.fused_module import FusedModule  # noqa: E402
from tvmtiny.compress.options import compile_options, with_options  # noqa: E402
from tvmtiny.compress.progress import Event, Progress  # noqa: E402
from tvmtiny.compress.qat import FineTuning, _distance, qat  # noqa: E402
from tvmtiny.compress.rounding import Round, Rounding  # noqa: E402
from tvmtiny.compress.runner import Result  # noqa: E402
from tvmtiny.compress.steps import DECIDES  # noqa: E402
from tvmtiny.frontend.data import load_samples  # noqa: E402
from tvmtiny.quant import qparams  # noqa: E402
from tvmtiny.quant.qparams import QuantParams  # noqa: E402
from tvmtiny.runner import run  # noqa: E402


@pytest.fixture(scope="module")
def trained() -> tuple[Any, Any, list[Event]]:
    """The task of the recipes' tests, its model after three epochs on int4, and what was reported."""
    task, events = recipe_task(0, width=8, heads=2, hidden=16, layers=1), []
    torch.manual_seed(0)
    train = FineTuning(epochs=3, learning_rate=5e-3)
    options = {
        "layer_weights": {"logits": "int4"},
        "rounding": "gptq",
        "bias_correction": True,
        "tuned": "none",
    }
    module = with_options(task.model(), **options)
    trained = qat(module, task, distil=0.0, train=train, progress=Progress(listener=events.append))
    assert compile_options(module) == options
    return task, trained, events


def test_training_lowers_the_loss_of_the_integers(trained: Any) -> None:
    losses = [event.values["loss"] for event in trained[2]]
    assert losses[-1] < 0.8 * losses[0]


def test_options_of_earlier_steps_stay_where_they_change_no_integers(trained: Any) -> None:
    options = compile_options(trained[1])
    assert options["tuned"] == "none"
    assert set(options) - {"tuned"} <= set(DECIDES["qat"])
    assert (options["rounding"], options["bias_correction"], options["residual"]) == (
        "nearest",
        False,
        "int8",
    )
    assert set(options["layer_weights"].values()) == {"int4"}
    assert "logits" in options["layer_weights"]


def test_the_c_gives_the_integers_of_the_trained_module(trained: Any, tmp_path: Any) -> None:
    task, module, _ = trained
    proto = to_onnx(module, task)
    assert check_export(proto, module, task) < 1e-4
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    artifact = tvmtiny.compile(
        tmp_path / "m.onnx", target="host", calibration=task.calibration, output=tmp_path / "m",
        **compile_options(module),
    )  # fmt: skip
    inputs = {name: values[:40] for name, values in task.test.inputs.items()}
    np.savez(tmp_path / "test.npz", **inputs)
    found = run(artifact, "host", load_samples(artifact, tmp_path / "test.npz"), target="host")
    integers = module.integers(*tensors(inputs).values())["logits"].numpy()[:, 0]
    assert np.array_equal(np.stack([row["logits"].reshape(-1) for row in found.outputs]), integers)
    scale = artifact.metadata["outputs"][0]["scale"]
    assert np.allclose(task.predict(module, inputs)["logits"], integers * scale, rtol=1e-6)


@pytest.mark.parametrize(
    "name", ["joint_bert", "bert_types", "id_mask", "llama_like", "local_text", "albert"]
)
def test_a_fused_module_is_the_model_it_was_made_of(name: str) -> None:
    family = MODELS[name]
    samples = family.samples()
    found = FusedModule(fused_family(name), family.inputs)(*tensors(samples).values())
    found = found if isinstance(found, tuple) else (found,)
    session = onnxruntime.InferenceSession(family_onnx(name), providers=["CPUExecutionProvider"])
    count = len(next(iter(samples.values())))
    rows = [session.run(None, {k: x[i : i + 1] for k, x in samples.items()}) for i in range(count)]
    (mask,) = [x for k, x in samples.items() if "mask" in k] or [np.ones((count, 1), int)]
    present = np.arange(mask.shape[1]) < mask.sum(1)[:, None]
    for place, values in enumerate(found):
        expected = np.concatenate([row[place] for row in rows])
        kept = present if expected.ndim == 3 else slice(None)
        assert np.allclose(values.detach().numpy()[kept], expected[kept], atol=1e-5)


def test_copies_and_pickles_compute_the_same() -> None:
    module, task = quantized_family("id_mask")
    inputs = tensors(task.calibration).values()
    expected = module.integers(*inputs)["logits"]
    other = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.05)
    assert not torch.equal(other.integers(*inputs)["logits"], expected)
    other.load_state_dict(module.state_dict())
    for copied in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), other):
        assert torch.equal(copied.integers(*inputs)["logits"], expected)


def test_figures_of_trained_integers_are_called_so(capsys: pytest.CaptureFixture[str]) -> None:
    module, task = quantized_family("id_mask")
    result = Result(
        module=module, task=task, stages=(), test={"accuracy": 0.5}, options={}, export_error=0.0, directory=Path()
    )  # fmt: skip
    for found, title in (
        (result, "The integers of the C"),
        (dataclasses.replace(result, module=module.float_form()), "Float model"),
    ):
        _show([], found, "host")
        assert f"{title}, on 40 test samples: accuracy 50.00 %" in capsys.readouterr().out


def test_batches_may_be_cut_to_their_longest_sequence() -> None:
    module, task = quantized_family("joint_bert")
    rows = np.flatnonzero(task.calibration["attention_mask"].sum(1) <= 6)
    whole = task.forward(module, tensors({k: x[rows] for k, x in task.calibration.items()}))
    cut = task.forward(module, tensors({k: x[rows, :6] for k, x in task.calibration.items()}))
    assert torch.equal(cut["intent"], whole["intent"])
    assert torch.equal(cut["slots"], whole["slots"][:, :6])


def test_gradients_are_those_of_learned_step_sizes() -> None:
    x = torch.tensor([[-9.0, 0.4, 1.24, 300.0]], dtype=torch.float64, requires_grad=True)
    step = torch.tensor([0.5], dtype=torch.float64, requires_grad=True)
    rounded = torch.tensor([[-18.0, 1.0, 2.0, 127.0]])
    y = Round.apply(x, step.expand(4), step.detach(), (-128, 127), 4, rounded)
    assert y.tolist() == [[-9.0, 0.5, 1.0, 63.5]]
    y.sum().backward()
    assert x.grad.tolist() == [[1.0, 1.0, 1.0, 0.0]]
    inside = (0.0, 1 - 0.8, 2 - 2.48)  # round(x / step) - x / step (Esser et al., equation 3)
    assert step.grad.item() == pytest.approx((sum(inside) + 127) / math.sqrt(4 * 127))


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_gradients_of_the_steps_of_weights_are_those_of_the_paper(kind: str) -> None:
    rng = np.random.default_rng(0)
    w, upstream = rng.normal(size=(3, 40)).astype(np.float32), rng.normal(size=(3, 40)).astype(np.float32)
    size, low, high = (32, -8, 7) if kind == "int4" else (40, -128, 127)
    x = QuantParams(np.geomspace(0.01, 0.02, 40), np.zeros(40))
    first = qparams.WEIGHTS[kind](w.astype(np.float64), np.zeros(3), x)
    made = qparams.WEIGHTS[kind](
        w.astype(np.float64), np.zeros(3), x, None, first.steps * 0.6
    )  # some are clipped
    quantized = SimpleNamespace(matrices={"layer.weight": made})
    weight, steps = torch.tensor(w, requires_grad=True), torch.tensor(made.steps, requires_grad=True)
    see = Rounding(quantized, None, {}, {"layer.weight": steps}, set(), None)
    (see.weight("layer", "weight", weight) * torch.tensor(upstream)).sum().backward()
    columns = x.scale / x.scale.max()
    v = w * columns / np.repeat(made.steps, size, axis=1)[:, :40]
    slope = np.where(v <= low - 0.5, low, np.where(v >= high + 0.5, high, np.round(v) - v))
    parts = np.add.reduceat(upstream / columns * slope, np.arange(0, 40, size), axis=1)
    assert np.allclose(steps.grad, parts / math.sqrt(min(size, 40) * high), rtol=1e-4)
    assert np.allclose(weight.grad, upstream * ((v > low - 0.5) & (v < high + 0.5)), rtol=1e-5)
    assert 0 < np.mean(np.abs(v) > -low) < 0.5


def test_steps_of_weights_are_learned_unless_they_are_to_follow_from_them(trained: Any) -> None:
    task, module, _ = trained
    scales = compile_options(module)["scales"]
    torch.manual_seed(0)
    start = with_options(task.model(), layer_weights={"logits": "int4"})
    untrained = qat(start, task, progress=Progress(dry=True))
    assert list(untrained.weight_steps) == list(module.weight_steps)
    for name, steps in module.weight_steps.items():
        moved = (steps - untrained.weight_steps[name]).abs().max().item()
        assert 1e-3 < moved < 1, name
    learned = module.weight_steps["logits/weight"].detach().exp().numpy()
    assert np.allclose(np.ravel(scales["logits.weight"]["scale"]), learned)
    train = FineTuning(epochs=1)
    fixed = qat(task.model(), task, train=train, learn_steps=False, progress=Progress(dry=True))
    assert not any(np.ndim(row["scale"]) == 2 for row in compile_options(fixed)["scales"].values())


def test_padding_has_no_part_in_the_distance_from_the_float_model() -> None:
    own, wanted, present = (
        torch.randn(4, 6, 3),
        torch.randn(4, 6, 3),
        torch.arange(6) < torch.tensor([[2], [6], [3], [1]]),
    )
    expected = np.square((own - wanted)[present].numpy()).mean() / wanted[present].numpy().var(ddof=1)
    wanted[~present] = 1e6
    assert _distance(own, wanted, present).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("shape", [(4, 1), (1, 1)])
def test_an_output_that_does_not_vary_has_a_distance(shape: tuple[int, int]) -> None:
    assert _distance(torch.full(shape, 3.0), torch.full(shape, 1.0), None).item() == 4.0

"""Quantization-aware training: the module's forward, ONNX Runtime, the compiled model and its own gradients."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch")

from family_models import FAMILIES  # noqa: E402  torch may be missing
from quantized_families import family_onnx, fused_family, quantized_family, tensors  # noqa: E402
from recipe_task import task as recipe_task  # noqa: E402

import tvmtiny  # noqa: E402
from tvmtiny.cli.compress import _show  # noqa: E402
from tvmtiny.compress.export import check_export, to_onnx  # noqa: E402
from tvmtiny.compress.fused_module import FusedModule  # noqa: E402
from tvmtiny.compress.options import compile_options, with_options  # noqa: E402
from tvmtiny.compress.progress import Event, Progress  # noqa: E402
from tvmtiny.compress.qat import FineTuning, _distance, qat  # noqa: E402
from tvmtiny.compress.rounding import Round  # noqa: E402
from tvmtiny.compress.runner import Result  # noqa: E402
from tvmtiny.compress.steps import DECIDES  # noqa: E402
from tvmtiny.frontend.data import load_samples  # noqa: E402
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


def test_a_fused_module_is_the_model_it_was_made_of() -> None:
    family = FAMILIES["joint_bert"]
    samples = family.samples()
    found = FusedModule(fused_family("joint_bert"), family.inputs)(*tensors(samples).values())
    session = onnxruntime.InferenceSession(family_onnx("joint_bert"), providers=["CPUExecutionProvider"])
    present = np.arange(samples["attention_mask"].shape[1]) < samples["attention_mask"].sum(1)[:, None]
    rows = [session.run(None, {k: x[i : i + 1] for k, x in samples.items()}) for i in range(len(present))]
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

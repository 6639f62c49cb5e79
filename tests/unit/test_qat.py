"""Quantization-aware training: the module's forward, the compiler's reference and its own gradients."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch")

from family_models import FAMILIES, onnx_file  # noqa: E402  torch may be missing
from recipe_task import task as recipe_task  # noqa: E402

import tvmtiny  # noqa: E402
from tvmtiny.compress.calibrated import batch, calibrate  # noqa: E402
from tvmtiny.compress.export import check_export, to_fused, to_onnx  # noqa: E402
from tvmtiny.compress.fused_module import FusedModule, fuse  # noqa: E402
from tvmtiny.compress.options import compile_options  # noqa: E402
from tvmtiny.compress.qat import FineTuning, qat  # noqa: E402
from tvmtiny.compress.quantized_module import QuantizedModule, _Round  # noqa: E402
from tvmtiny.compress.task import Split, Task  # noqa: E402
from tvmtiny.errors import UserError  # noqa: E402
from tvmtiny.frontend.data import input_specs  # noqa: E402
from tvmtiny.passes.quantize import quantize  # noqa: E402
from tvmtiny.passes.weight_types import weight_types  # noqa: E402
from tvmtiny.quant.calibrate import Statistics  # noqa: E402
from tvmtiny.quant.reference import IntegerModel, integer_inputs  # noqa: E402
from tvmtiny.quant.scales import read_scales  # noqa: E402

HANDED_OVER = ("bert_types", "joint_bert", "rms_norm", "id_mask")
REFUSED = {"conv1d_stem": "convolution", "local_text": "with after", "query_pooling": "softmax"}


def family_task(name: str) -> Task:
    """A task around the inputs of a family: what matters here is how it is called."""
    family = FAMILIES[name]
    split = Split(family.samples(), {"labels": np.zeros(40)})
    return Task(
        model=family.module, outputs=family.outputs, batches=lambda: iter(()), steps=0,
        loss=lambda outputs, targets: next(iter(outputs.values())).sum(), metrics=lambda outputs, targets: {},
        selection=split, test=split, calibration=family.samples(),
    )  # fmt: skip


def quantized_family(name: str, tmp_path: Any, weights: str = "int4") -> tuple[QuantizedModule, Task]:
    """A family after a step of training, so that nothing is as calibration left it."""
    made, task = FAMILIES[name], family_task(name)
    fused = fuse(onnx_file(made, made.module(), tmp_path / "model.onnx"))
    _, statistics = calibrate(fused, task)
    types = weight_types(fused, weights)
    start = quantize(fused, statistics, "minmax", weights=types, rounding="nearest")
    module = QuantizedModule(fused, list(task.calibration), start.chosen, types).train()
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    outputs = task.forward(module, tensors(task.calibration))
    sum((x**2).mean() for x in outputs.values()).backward()
    optimizer.step()
    return module.eval(), task


def tensors(arrays: Any) -> dict[str, Any]:
    return {name: torch.from_numpy(values) for name, values in arrays.items()}


@pytest.mark.parametrize("name", HANDED_OVER)
def test_what_is_exported_quantizes_to_the_integers_of_the_forward(name: str, tmp_path: Any) -> None:
    module, task = quantized_family(name, tmp_path)
    exported = to_fused(module, task)
    options = module.options(exported)
    given = read_scales(options["scales"], options["scales"])
    again = quantize(
        exported, Statistics([], given), weights=weight_types(exported, "int8", options["layer_weights"]),
        rounding=options["rounding"],
    )  # fmt: skip
    samples, specs, reference = batch(exported, task.calibration), input_specs(exported)[0], None
    reference = IntegerModel(again.module)
    found = module.integers(*tensors(task.calibration).values())
    for index in range(len(samples)):
        rows = integer_inputs(again, specs, {k: a[index] for k, a in samples.arrays.items()})
        results = reference.run(rows, int(samples.n_tokens[index]))
        for ours, theirs in zip(module.quantized().outputs, again.outputs, strict=True):
            assert np.array_equal(found[ours][index].numpy(), results[theirs]), (index, theirs)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_trained_is_refused_by_name(name: str, tmp_path: Any) -> None:
    family = FAMILIES[name]
    fused = fuse(onnx_file(family, family.module(), tmp_path / "model.onnx"))
    with pytest.raises(UserError, match=REFUSED[name]):
        FusedModule(fused, family.inputs)


def test_a_fused_module_is_the_model_it_was_made_of(tmp_path: Any) -> None:
    family = FAMILIES["joint_bert"]
    path, samples = onnx_file(family, family.module(), tmp_path / "model.onnx"), family.samples()
    found = FusedModule(fuse(path), family.inputs)(*tensors(samples).values())
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    present = np.arange(samples["attention_mask"].shape[1]) < samples["attention_mask"].sum(1)[:, None]
    rows = [session.run(None, {k: x[i : i + 1] for k, x in samples.items()}) for i in range(len(present))]
    for place, values in enumerate(found):
        expected = np.concatenate([row[place] for row in rows])
        kept = present if expected.ndim == 3 else slice(None)
        assert np.allclose(values.detach().numpy()[kept], expected[kept], atol=1e-5)


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_the_trained_module_is_what_the_compiled_model_computes(weights: Any, tmp_path: Any) -> None:
    task = recipe_task(0)
    torch.manual_seed(0)
    trained = qat(task.model(), task, weights=weights, train=FineTuning(epochs=1, learning_rate=2e-3))
    proto = to_onnx(trained, task)
    assert check_export(proto, trained, task) < 1e-4
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    artifact = tvmtiny.compile(
        tmp_path / "m.onnx", target="host", calibration=task.calibration, output=tmp_path / "m",
        **compile_options(trained),
    )  # fmt: skip
    stored = dict(np.load(tmp_path / "m" / "reference" / "outputs.npz"))["logits"]
    chosen = np.linspace(0, 63, 64).astype(int)[: len(stored)]
    inputs = {name: values[chosen] for name, values in task.calibration.items()}
    integers = trained.integers(*tensors(inputs).values())["logits"]
    assert np.array_equal(stored, integers.numpy())
    scale = artifact.metadata["outputs"][0]["scale"]
    assert np.allclose(task.predict(trained, inputs)["logits"], integers.numpy()[:, 0] * scale, rtol=1e-6)
    assert {row["weights"] for row in artifact.metadata["operators"] if row["weights"]} >= {weights}


def test_training_lowers_the_loss_of_the_integers() -> None:
    task = recipe_task(0)
    torch.manual_seed(0)
    module = task.model()
    before = qat(module, task, train=FineTuning(epochs=1, learning_rate=1e-9))
    after = qat(module, task, distil=0.0, train=FineTuning(epochs=3, learning_rate=5e-3))

    def loss(found: Any) -> float:
        outputs = {"logits": torch.from_numpy(task.predict(found, task.selection.inputs)["logits"])}
        return float(task.loss(outputs, tensors(task.selection.targets)))

    assert loss(after) < 0.8 * loss(before)


def test_copies_and_pickles_compute_the_same(tmp_path: Any) -> None:
    module, task = quantized_family("bert_types", tmp_path)
    inputs = tensors(task.calibration).values()
    expected = module.integers(*inputs)["logits"]
    other, _ = quantized_family("bert_types", tmp_path)
    other.load_state_dict(module.state_dict())
    for copied in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), other):
        assert torch.equal(copied.integers(*inputs)["logits"], expected)


def test_batches_may_be_cut_to_their_longest_sequence(tmp_path: Any) -> None:
    module, task = quantized_family("joint_bert", tmp_path)
    rows = np.flatnonzero(task.calibration["attention_mask"].sum(1) <= 6)
    whole = task.forward(module, tensors({k: x[rows] for k, x in task.calibration.items()}))
    cut = task.forward(module, tensors({k: x[rows, :6] for k, x in task.calibration.items()}))
    assert torch.equal(cut["intent"], whole["intent"])
    assert torch.equal(cut["slots"], whole["slots"][:, :6])


def test_gradients_are_those_of_learned_step_sizes() -> None:
    x = torch.tensor([[-9.0, 0.4, 1.24, 300.0]], dtype=torch.float64, requires_grad=True)
    step = torch.tensor([0.5], dtype=torch.float64, requires_grad=True)
    y = _Round.apply(x, step.expand(4), step.detach(), 0, 8, None)
    assert y.tolist() == [[-9.0, 0.5, 1.0, 63.5]]
    y.sum().backward()
    assert x.grad.tolist() == [[1.0, 1.0, 1.0, 0.0]]
    inside = (0.0, 1 - 0.8, 2 - 2.48)  # round(x / step) - x / step (Esser et al., equation 3)
    assert step.grad.item() == pytest.approx((sum(inside) + 127) / math.sqrt(4 * 127))


def test_a_loss_that_is_not_finite_is_reported() -> None:
    task = recipe_task(0, flaw="loss")
    with pytest.raises(UserError, match="The loss is"):
        qat(task.model(), task, distil=0.0, train=FineTuning(epochs=4, learning_rate=5e-3))


def test_another_model_is_not_taken_for_the_trained_one(tmp_path: Any) -> None:
    module, _ = quantized_family("bert_types", tmp_path)
    other, task = quantized_family("joint_bert", tmp_path)
    with pytest.raises(UserError, match="not the one that was trained"):
        module.options(to_fused(other, task))

"""A model that was trained with quantization on an emulated Cortex-M4: the bytes of the trained module's forward."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from quantized_families import quantized_family, tensors

from tvmtiny.compiler import compile as compile_model
from tvmtiny.compress.export import to_fused, to_onnx
from tvmtiny.frontend.data import load_samples
from tvmtiny.runner import run


@pytest.mark.qemu
def test_int4_weights_and_steps_that_were_learned_give_the_bytes_of_the_forward(tmp_path: Path) -> None:
    module, task = quantized_family("id_mask")
    (tmp_path / "model.onnx").write_bytes(to_onnx(module, task).SerializeToString())
    options = module.options(to_fused(module, task))
    assert "int4" in options["layer_weights"].values()
    made = compile_model(
        tmp_path / "model.onnx",
        target="qemu-m4",
        calibration=task.calibration,
        output=tmp_path / "c",
        **options,
    )
    inputs = {name: values[:8] for name, values in task.test.inputs.items()}
    np.savez(tmp_path / "test.npz", **inputs)
    result = run(made, "qemu", load_samples(made, tmp_path / "test.npz"), target="qemu-m4")
    assert result.status == [0] * 8
    integers = module.integers(*tensors(inputs).values())["logits"].numpy()
    found = np.stack([row["logits"] for row in result.outputs]).reshape(integers.shape)
    assert np.array_equal(found, integers)

"""The models of the slots example, as they ship: compiled from their directories they keep their memory and sense."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tvmtiny.compiler import compile as compile_model
from tvmtiny.compress.directory import read_options
from tvmtiny.evaluate import Evaluation, evaluate, load_dataset, metrics_of

onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.qemu

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    ("name", "flash_bytes", "ram_bytes"),
    [("intent_24k", 24 * 1024, 8 * 1024), ("slots_64k", 64 * 1024, 11 * 1024)],
)
def test_a_shipped_model_keeps_its_memory_and_sense(
    name: str, flash_bytes: int, ram_bytes: int, tmp_path: Path
) -> None:
    """On utterances that were not trained on, with text on the device, all code and tables counted."""
    directory = EXAMPLES / "slots" / name
    artifact = compile_model(**read_options(directory), output=tmp_path / "model")
    table = tmp_path / "own.tsv"
    table.write_bytes((EXAMPLES / "intent" / "sample_utterances.txt").read_bytes())
    data = load_dataset(artifact, table)
    found = evaluate(artifact, data, metrics_of(artifact, data), on="qemu", jobs=1)
    assert found.flash is not None
    assert found.flash.tokenizer_bytes > 0
    assert found.flash.flash_bytes <= flash_bytes
    assert found.ram_bytes is not None
    assert found.ram_bytes <= ram_bytes
    intent = "intent.accuracy" if len(artifact.outputs) > 1 else "accuracy"
    assert found.metrics[intent] >= 0.85
    for output, same in _same_classes(found, directory / "model.onnx").items():
        assert same >= 0.95, output


def _same_classes(found: Evaluation, model: Path) -> dict[str, float]:
    """By output, for how many results (one a present token, or one a sample) ONNX Runtime's largest logit is ours."""
    session = onnxruntime.InferenceSession(model)
    names = [value.name for value in session.get_outputs()]
    same: dict[str, list[bool]] = {name: [] for name in names}
    for index, sample in enumerate(found.samples):
        ids = sample.inputs["input_ids"].reshape(1, -1).astype(np.int64)
        mask = (np.arange(ids.shape[1]) < sample.n_tokens).astype(np.int64)[None]
        for name, logits in zip(
            names, session.run(names, {"input_ids": ids, "attention_mask": mask}), strict=True
        ):
            rows = slice(sample.n_tokens) if logits.ndim == 3 else slice(None)
            ours = found.outputs[name][index].argmax(-1)
            same[name] += np.atleast_1d(ours == logits[0].argmax(-1))[rows].tolist()
    return {name: float(np.mean(values)) for name, values in same.items()}

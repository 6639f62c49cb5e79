"""Models of Hugging Face and torch as their own tools export them: torch's results, and the same bytes everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm

from tvmtiny.artifact import Artifact
from tvmtiny.errors import UserError
from tvmtiny.frontend import import_model
from tvmtiny.frontend.supported import check_fused
from tvmtiny.passes.graph import Graph
from tvmtiny.passes.operators import kind
from tvmtiny.passes.pipeline import fusion_passes
from tvmtiny.runner import run
from tvmtiny.verify import expected_outputs

LEAST_DB = 20
"""Least signal-to-quantization-noise ratio of an output beside torch's."""

_ENCODER = ["attention", "ffn"]
_PRE = ["layer_norm", "attention", "layer_norm", "ffn"]
_CLASSIFIER = ["first", "dense", "dense"]

FUSED: dict[str, list[str] | None] = {
    "bert_types": ["segment_embed", *_ENCODER, *_CLASSIFIER],
    "distilbert": ["embed", *_ENCODER, *_CLASSIFIER],
    "electra": ["segment_embed", "dense", *_ENCODER, *_CLASSIFIER],
    "roberta": ["embed", *_ENCODER, *_CLASSIFIER],
    "albert": ["segment_embed", "dense", *_ENCODER, *_ENCODER, *_CLASSIFIER],
    "mobilebert": None,
    "mobilebert_trigram": None,
    "joint_bert": ["embed", *_ENCODER, *_CLASSIFIER, "dense"],
    "sentence_embedding": ["embed", *_ENCODER, "mean", "rms_norm"],
    "torch_causal": ["dense", *_ENCODER, "mean", "dense"],
    "multihead_no_bias": ["dense", *_ENCODER, "mean", "dense"],
    "rms_norm": ["embed", "rms_norm", "attention", "rms_norm", "ffn", "mean", "dense"],
    "local_text": ["embed", *_PRE, "mean", "dense"],
    "grouped_query": ["embed", *_PRE, "mean", "dense"],
    "llama_like": ["embed", "rms_norm", "rotary_attention", "rms_norm", "glu", "mean", "dense"],
    "vit_cls": None,
    "conv1d_stem": None,
    "conv2d_stem": None,
    "id_mask": ["embed", *_PRE, "mean", "dense"],
    "attention_pooling": None,
    "query_pooling": None,
    "ds_cnn": None,
    "conformer": None,
    "grouped_stem": None,
}
"""What families fuse to; None where plain operators stand among the fused ones."""

COMPILED = (
    "bert_types", "albert", "mobilebert", "joint_bert", "sentence_embedding", "local_text", "llama_like", "conv1d_stem",
    "ds_cnn", "conformer", "grouped_stem", "id_mask", "attention_pooling", "query_pooling",
)  # fmt: skip
"""Each has something that no other has: these are compiled to C. benchmarks/families.py compiles all."""


def family(name: str) -> tuple[Any, Any]:
    """The module of the families' models, and one of them."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    import family_models

    return family_models, family_models.FAMILIES[name]


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.filterwarnings("ignore")
def test_both_formats_come_in_as_the_same_operators(name: str, tmp_path: Path) -> None:
    models, chosen = family(name)
    module = chosen.module()
    found = []
    for model in (models.exported(chosen, module), models.onnx_file(chosen, module, tmp_path / "m.onnx")):
        fused = tvm.transform.Sequential(fusion_passes())(import_model(model))
        check_fused(fused)
        found.append([kind(value) for _, value in Graph(fused["main"]) if kind(value)])
    assert found[0] == found[1]
    assert FUSED[name] in (None, found[0])


@pytest.fixture(scope="module", params=COMPILED)
def compiled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Artifact]:
    models, _ = family(request.param)
    return request.param, models.compiled(request.param, "torch.export", tmp_path_factory.mktemp("families"))


def test_is_close_to_torch(compiled: tuple[str, Artifact], tmp_path: Path) -> None:
    name, made = compiled
    models, _ = family(name)
    assert made.metadata["quality"]["source"]["largest_error"] < 1e-4
    assert min(models.agreement(name, made, tmp_path)) >= LEAST_DB


@pytest.mark.qemu
@pytest.mark.parametrize("where", ["host", "qemu-m4"])
def test_gives_the_bytes_of_the_reference(compiled: tuple[str, Artifact], where: str, tmp_path: Path) -> None:
    name, made = compiled
    models, chosen = family(name)
    samples = models.in_arena(made, chosen.samples(seed=7), tmp_path)[:4]
    result = run(made, "host" if where == "host" else "qemu", samples, target=where)
    assert result.status == [0] * len(samples)
    for actual, expected in zip(result.outputs, expected_outputs(made, samples), strict=True):
        for key, values in expected.items():
            np.testing.assert_array_equal(actual[key], values)


def test_layers_that_share_their_weights_share_the_flash(tmp_path: Path) -> None:
    models, _ = family("albert")
    made = models.compiled("albert", "torch.export", tmp_path)
    text = (made.directory / f"{made.name}_weights.c").read_text()
    for part in ("wq", "wk", "wv", "wo", "w1", "w2"):
        assert text.count(f"_{part}[") == 1


def test_padding_among_the_tokens_of_a_counted_position_is_refused(tmp_path: Path) -> None:
    models, chosen = family("roberta")
    from tvmtiny.compiler import compile as compile_model

    data = chosen.samples()
    data["input_ids"][2, 0] = models.PADDING
    program = models.exported(chosen, chosen.module())
    with pytest.raises(UserError, match="sample 2 has the id of padding, 1, among its 10 present tokens"):
        compile_model(program, target="host", calibration=data, output=tmp_path / "model")


@pytest.mark.parametrize("name", ["roberta", "id_mask"])
def test_padding_among_the_tokens_is_an_error_in_c(name: str, tmp_path: Path) -> None:
    """And in data that says how long it is; without, the length follows from the padding behind."""
    models, chosen = family(name)
    made = models.compiled(name, "torch.export", tmp_path)
    data = {"input_ids": chosen.samples(count=3)["input_ids"]}
    data["input_ids"][0, 4:] = models.PADDING
    (first, whole, _) = models.in_arena(made, data, tmp_path)
    assert (first.n_tokens, whole.n_tokens) == (4, models.S)
    whole.inputs["input_ids"][2] = models.PADDING
    assert run(made, "host", [first, whole]).status == [0, -5]
    data["input_ids"][1, 2] = models.PADDING
    with pytest.raises(UserError, match="sample 1 has the id of padding"):
        models.in_arena(made, data, tmp_path)


def test_neighbouring_tokens_beside_a_mask_are_refused() -> None:
    models, _ = family("bert")
    trigram = models.Family(lambda: models.mobilebert(trigram=True), models.TYPED)
    module = tvm.transform.Sequential(fusion_passes())(
        import_model(models.exported(trigram, trigram.module()))
    )
    with pytest.raises(UserError, match="mixes tokens without regard to the mask"):
        check_fused(module)


def test_a_constant_mask_that_is_no_window_is_refused() -> None:
    models, _ = family("bert")

    def strided() -> Any:
        attention = models.Attention(window=2)
        attention.near[0, -1] = True
        return models.SensorClassifier(models.Layer(attention), features=6)

    chosen = models.Family(strided, models.SENSOR)
    module = import_model(models.exported(chosen, chosen.module()))
    with pytest.raises(UserError, match="adds a constant mask that is no window"):
        check_fused(tvm.transform.Sequential(fusion_passes())(module))


def test_a_depthwise_convolution_beside_a_mask_is_refused() -> None:
    models, _ = family("bert")
    import torch

    class Conformer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = models.ConvolutionModule()

        def forward(self, x: Any, keep: Any) -> Any:
            return self.block(x)

    chosen = models.Family(lambda: models.TextClassifier(Conformer()))
    module = import_model(models.exported(chosen, chosen.module()))
    with pytest.raises(UserError, match="mixes tokens without regard to the mask"):
        check_fused(tvm.transform.Sequential(fusion_passes())(module))

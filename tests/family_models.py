"""Small models of the families that people train, from their own classes; import it behind `pytest.importorskip`.

Weights are random with a fixed seed. `tests/qemu/test_model_families.py` and `benchmarks/families.py` take them, and
export them as their authors' users do: without a change.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tvmtiny.artifact import Artifact
from tvmtiny.compiler import compile as compile_model
from tvmtiny.frontend.data import load_samples
from tvmtiny.runner import Sample
from tvmtiny.verify import expected_outputs

S, E, H, F, V, CLASSES, TAGS = 10, 16, 2, 24, 40, 5, 3
PADDING = 1
"""The id of padding in RoBERTa's vocabulary."""

TEXT = ("input_ids", "attention_mask")
TYPED = (*TEXT, "token_type_ids")
FORMS = ("torch.export", "onnx")


@dataclasses.dataclass(frozen=True)
class Family:
    """A model family in one small configuration.

    Attributes:
        build: makes the module, with random weights.
        inputs: names of its arguments, in order: `input_ids`, `attention_mask`, `token_type_ids`, or `x` (features).
        outputs: names for its results.
        features: shape of `x` without the batch axis.
    """

    build: Callable[[], nn.Module]
    inputs: tuple[str, ...] = TEXT
    outputs: tuple[str, ...] = ("logits",)
    features: tuple[int, ...] = (S, 6)

    def module(self) -> nn.Module:
        """The module in evaluation mode; random biases and factors, where initialization leaves zeros and ones."""
        torch.manual_seed(0)
        module = self.build().eval()
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.ndim == 1:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
                elif float(parameter.abs().max()) < 0.15:  # Hugging Face's 0.02 makes attention uniform
                    parameter.mul_(8)
        return module

    def samples(self, count: int = 16, seed: int = 1) -> dict[str, np.ndarray]:
        """Inputs (count, ...) by name, as calibration data."""
        rng = np.random.default_rng(seed)
        lengths = rng.integers(1, S + 1, count)
        lengths[:3] = [1, (S // 2) | 1, S]
        makers: dict[str, Callable[[], np.ndarray]] = {
            "input_ids": lambda: rng.integers(PADDING + 1, V, (count, S)),
            "attention_mask": lambda: (np.arange(S) < lengths[:, None]).astype(np.int64),
            "token_type_ids": lambda: rng.integers(0, 2, (count, S)),
            "x": lambda: rng.normal(size=(count, *self.features)).astype(np.float32),
        }
        return {name: makers[name]() for name in self.inputs}

    def example(self) -> dict[str, torch.Tensor]:
        """One sample in torch."""
        return {name: torch.from_numpy(values[1:2]) for name, values in self.samples().items()}


def exported(family: Family, module: nn.Module) -> Any:
    """The module by torch.export."""
    return torch.export.export(module, (), kwargs=family.example())


def onnx_file(family: Family, module: nn.Module, path: Path) -> Path:
    """The module by torch.onnx.export."""
    with torch.no_grad():
        torch.onnx.export(
            module,
            (),
            path,
            kwargs=family.example(),
            input_names=list(family.inputs),
            output_names=list(family.outputs),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    return path


def results(module: nn.Module, samples: dict[str, np.ndarray]) -> list[np.ndarray]:
    """What torch computes, (count, ...) for each output."""
    with torch.no_grad():
        found = module(**{name: torch.from_numpy(values) for name, values in samples.items()})
    return [value.numpy() for value in torch.utils._pytree.tree_leaves(found)]


def compiled(name: str, form: str, directory: Path, target: str = "qemu-m4") -> Artifact:
    """Family `name` imported by one of FORMS and compiled to `directory`/<name>."""
    family = FAMILIES[name]
    module = family.module()
    directory.mkdir(parents=True, exist_ok=True)
    model = (
        exported(family, module)
        if form == "torch.export"
        else onnx_file(family, module, directory / f"{name}.onnx")
    )
    return compile_model(model, target=target, calibration=family.samples(), output=directory / name)


def in_arena(made: Artifact, samples: dict[str, np.ndarray], directory: Path) -> list[Sample]:
    """Samples in the types of a compiled model's arena."""
    path = directory / "samples.npz"
    np.savez(path, **samples)  # type: ignore[arg-type]
    return load_samples(made, path)


def agreement(name: str, made: Artifact, directory: Path) -> list[float]:
    """The signal-to-quantization-noise ratio (dB) of each output of the integer model beside torch's results.

    Over samples that calibration has not seen, and over present tokens.
    """
    family = FAMILIES[name]
    samples = family.samples(seed=7)
    chosen = in_arena(made, samples, directory)
    found = expected_outputs(made, chosen)
    ratios = []
    for info, real in zip(made.outputs, results(family.module(), samples), strict=True):
        signal = noise = 0.0
        for sample, row, wanted in zip(chosen, found, real, strict=True):
            rows = sample.n_tokens if info.shape[0] == made.max_tokens else None
            value = (row[info.name].astype(np.float64) - np.asarray(info.zero_point)) * np.asarray(info.scale)
            value, expected = value.reshape(info.shape)[:rows], wanted.reshape(info.shape)[:rows]
            signal, noise = (
                signal + float(np.sum(expected**2)),
                noise + float(np.sum((value - expected) ** 2)),
            )
        ratios.append(10 * float(np.log10(signal / noise)))
    return ratios


# Hugging Face


_BERT = {
    "vocab_size": V, "hidden_size": E, "num_hidden_layers": 1, "num_attention_heads": H, "intermediate_size": F,
    "max_position_embeddings": S, "num_labels": CLASSES,
}  # fmt: skip


def bert() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(BertConfig(**_BERT))


def distilbert() -> nn.Module:
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    config = DistilBertConfig(
        vocab_size=V,
        dim=E,
        n_layers=1,
        n_heads=H,
        hidden_dim=F,
        max_position_embeddings=S,
        num_labels=CLASSES,
    )
    return DistilBertForSequenceClassification(config)


def electra() -> nn.Module:
    from transformers import ElectraConfig, ElectraForSequenceClassification

    return ElectraForSequenceClassification(ElectraConfig(**_BERT, embedding_size=12))


def roberta() -> nn.Module:
    from transformers import RobertaConfig, RobertaForSequenceClassification

    config = {**_BERT, "max_position_embeddings": S + PADDING + 1}
    return RobertaForSequenceClassification(RobertaConfig(**config, pad_token_id=PADDING, type_vocab_size=1))


def albert() -> nn.Module:
    from transformers import AlbertConfig, AlbertForSequenceClassification

    config = {**_BERT, "num_hidden_layers": 3}
    return AlbertForSequenceClassification(AlbertConfig(**config, embedding_size=12))


def mobilebert(trigram: bool) -> nn.Module:
    from transformers import MobileBertConfig, MobileBertForSequenceClassification

    config = MobileBertConfig(
        **_BERT,
        embedding_size=12,
        intra_bottleneck_size=8,
        true_hidden_size=8,
        num_feedforward_networks=2,
        trigram_input=trigram,
    )
    return MobileBertForSequenceClassification(config)


def bert_tokens() -> nn.Module:
    from transformers import BertConfig, BertForTokenClassification

    return BertForTokenClassification(BertConfig(**{**_BERT, "num_labels": TAGS}))


class JointBert(nn.Module):
    """An intent and a slot for each token, from one encoder."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        self.encoder = BertModel(BertConfig(**_BERT))
        self.intent, self.slots = nn.Linear(E, CLASSES), nn.Linear(E, TAGS)

    def forward(self, input_ids: Any, attention_mask: Any) -> tuple[Any, Any]:
        found = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        return self.intent(found.pooler_output), self.slots(found.last_hidden_state)


class SentenceEmbedding(nn.Module):
    """Mean over present tokens, of length 1."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        self.encoder = BertModel(BertConfig(**_BERT), add_pooling_layer=False)

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        x = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weight = attention_mask.unsqueeze(-1).expand(x.size()).float()
        pooled = torch.sum(x * weight, 1) / torch.clamp(weight.sum(1), min=1e-9)
        return nn.functional.normalize(pooled, p=2, dim=1)


FAMILIES: dict[str, Family] = {
    "bert": Family(bert),
    "bert_types": Family(bert, TYPED),
    "distilbert": Family(distilbert),
    "electra": Family(electra, TYPED),
    "roberta": Family(roberta),
    "albert": Family(albert, TYPED),
    "mobilebert": Family(lambda: mobilebert(trigram=False), TYPED),
    "mobilebert_trigram": Family(lambda: mobilebert(trigram=True), ("input_ids",)),
    "bert_tokens": Family(bert_tokens),
    "joint_bert": Family(JointBert, outputs=("intent", "slots")),
    "sentence_embedding": Family(SentenceEmbedding, outputs=("sentence",)),
}

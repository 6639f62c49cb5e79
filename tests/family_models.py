"""Small models of the families that people train, from their own classes; import it behind `pytest.importorskip`.

Weights are random with a fixed seed. `tests/qemu/test_model_families.py` and `benchmarks/families.py` take them, and
export them as their authors' users do: without a change.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import efficient_attention
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
HF = "hf"
"""The third form, of models that have a Hugging Face directory."""


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

    def samples(self, count: int = 40, seed: int = 1) -> dict[str, np.ndarray]:
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
    rows = []
    with torch.no_grad():
        for i in range(len(next(iter(samples.values())))):
            row = module(**{name: torch.from_numpy(values[i : i + 1]) for name, values in samples.items()})
            rows.append([value.numpy() for value in torch.utils._pytree.tree_leaves(row)])
    return [np.concatenate(parts) for parts in zip(*rows, strict=True)]


def compiled(name: str, form: str, directory: Path, target: str = "qemu-m4") -> Artifact:
    """Family `name` imported by one of FORMS and compiled to `directory`/<name>."""
    family = FAMILIES[name]
    module = family.module()
    directory.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {}
    if form == HF:
        model: Any = f"hf:{hf_directory(module, directory / f'{name}_hf')}"
        shapes = {key: (1, *value.shape[1:]) for key, value in family.samples().items()}
        options["shapes"] = shapes
    else:
        path = directory / f"{name}.onnx"
        model = exported(family, module) if form == "torch.export" else onnx_file(family, module, path)
    return compile_model(
        model, target=target, calibration=family.samples(), output=directory / name, **options
    )


def has_directory(name: str) -> bool:
    """Whether a family is a class of transformers."""
    return hasattr(FAMILIES[name].module(), "save_pretrained")


def hf_directory(module: Any, path: Path) -> Path:
    """The module as its owner saves it."""
    module.save_pretrained(path)
    return path


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

    config = {**_BERT, "num_hidden_layers": 2}
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


# torch


class Classifier(nn.Module):
    """An encoder `body(x, mask)` of ids or features, mean over (present) tokens, a classifier."""

    def __init__(self, body: nn.Module, positions: str = "learned", features: int = 0) -> None:
        super().__init__()
        self.tokens = nn.Linear(features, E) if features else nn.Embedding(V, E)
        self.positions = nn.Embedding(S, E) if positions == "learned" else None
        if positions == "sinusoidal":
            self.register_buffer("table", sinusoids(S, E))
        self.body, self.head = body, nn.Linear(E, CLASSES)

    def embed(self, inputs: torch.Tensor) -> torch.Tensor:
        x = self.tokens(inputs)
        if self.positions is not None:
            return x + self.positions(torch.arange(inputs.shape[1], device=inputs.device))
        return x * E**0.5 + self.table[: inputs.shape[1]] if hasattr(self, "table") else x


class TextClassifier(Classifier):
    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        x = self.body(self.embed(input_ids), attention_mask)
        weight = attention_mask.unsqueeze(-1).to(x.dtype)
        return self.head((x * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1e-9))


class IdMaskClassifier(TextClassifier):
    """Makes its mask of the ids."""

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return super().forward(input_ids, (input_ids != PADDING).long())


class AttentionPooling(Classifier):
    """A learned weight for each token, softmax over the present ones, the weighted sum."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__(body)
        self.weigh = nn.Sequential(nn.Linear(E, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        x = self.body(self.embed(input_ids), attention_mask)
        scores = self.weigh(x).squeeze(-1).masked_fill(attention_mask == 0, float("-inf"))
        return self.head((torch.softmax(scores, dim=-1).unsqueeze(-1) * x).sum(dim=1))


class QueryPooling(Classifier):
    """A learned query attends to the tokens (Set Transformer's pooling, Lee et al., 2019)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__(body)
        self.query, self.pool = (
            nn.Parameter(torch.randn(1, 1, E)),
            nn.MultiheadAttention(E, H, batch_first=True),
        )

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        x = self.body(self.embed(input_ids), attention_mask)
        pooled, _ = self.pool(self.query, x, x, key_padding_mask=attention_mask == 0, need_weights=False)
        return self.head(pooled[:, 0])


class SensorClassifier(Classifier):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.embed(x), None).mean(dim=1))


def sinusoids(tokens: int, width: int) -> torch.Tensor:
    """The table of "Attention Is All You Need", (tokens, width)."""
    angle = torch.arange(tokens)[:, None] / 10000 ** (torch.arange(0, width, 2) / width)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).reshape(tokens, width)


class TorchEncoder(nn.Module):
    """nn.TransformerEncoder."""

    def __init__(self, norm_first: bool, activation: str, mask: torch.Tensor | None = None) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            E, H, F, batch_first=True, norm_first=norm_first, activation=activation
        )
        final = nn.LayerNorm(E) if norm_first else None
        self.encoder = nn.TransformerEncoder(layer, 1, norm=final, enable_nested_tensor=False)
        self.register_buffer("mask", mask)

    def forward(self, x: torch.Tensor, keep: torch.Tensor | None) -> torch.Tensor:
        removed = None if keep is None else keep == 0
        return self.encoder(x, mask=self.mask, src_key_padding_mask=removed, is_causal=self.mask is not None)


class MultiheadLayer(nn.Module):
    """nn.MultiheadAttention and a feed-forward block, each with a residual and a LayerNorm."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(E, H, batch_first=True, bias=bias)
        self.up, self.down = nn.Linear(E, F, bias=bias), nn.Linear(F, E, bias=bias)
        self.norms = nn.ModuleList([nn.LayerNorm(E), nn.LayerNorm(E)])

    def forward(self, x: torch.Tensor, keep: torch.Tensor | None) -> torch.Tensor:
        removed = None if keep is None else keep == 0
        x = self.norms[0](x + self.attention(x, x, x, key_padding_mask=removed, need_weights=False)[0])
        return self.norms[1](x + self.down(nn.functional.gelu(self.up(x))))


class Attention(nn.Module):
    """scaled_dot_product_attention, written by hand.

    Args:
        fused: one layer makes Q, K and V.
        kv_heads: heads of K and V, each of which serves several of Q (grouped-query attention).
        rotary: Q and K are turned by an angle a position.
        causal, window: each token attends to those before it; to those at most `window` away.
    """

    def __init__(
        self,
        *,
        fused: bool = False,
        bias: bool = True,
        kv_heads: int = H,
        rotary: bool = False,
        causal: bool = False,
        window: int = 0,
    ) -> None:
        super().__init__()
        self.width, self.kv_heads, self.causal = E // H, kv_heads, causal
        kv = kv_heads * self.width
        self.qkv = nn.ModuleList(
            [nn.Linear(E, E + 2 * kv, bias=bias)]
            if fused
            else [nn.Linear(E, size, bias=bias) for size in (E, kv, kv)]
        )
        self.out, self.rotary = nn.Linear(E, E, bias=bias), rotary
        place = torch.arange(S)
        near = (place[:, None] - place).abs() <= window if window else None
        self.register_buffer("near", near)
        angle = place[:, None] / 10000 ** (torch.arange(0, self.width, 2) / self.width)
        self.register_buffer("angle", torch.cat([angle, angle], dim=-1))

    def turned(self, x: torch.Tensor) -> torch.Tensor:
        """RoFormer's rotation, in the form of Llama: halves of a head."""
        low, high = x.chunk(2, dim=-1)
        return x * self.angle.cos() + torch.cat([-high, low], dim=-1) * self.angle.sin()

    def forward(self, x: torch.Tensor, keep: torch.Tensor | None) -> torch.Tensor:
        kv = self.kv_heads * self.width
        parts = (
            self.qkv[0](x).split([E, kv, kv], dim=-1)
            if len(self.qkv) == 1
            else [layer(x) for layer in self.qkv]
        )
        q, k, v = (part.view(1, S, -1, self.width).transpose(1, 2) for part in parts)
        if self.rotary:
            q, k = self.turned(q), self.turned(k)
        if self.kv_heads != H:
            k, v = (part.repeat_interleave(H // self.kv_heads, dim=1) for part in (k, v))
        mask = None if keep is None else keep[:, None, None, :].bool()
        if self.near is not None:
            mask = self.near if mask is None else mask & self.near
        y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=self.causal)
        return self.out(y.transpose(1, 2).reshape(1, S, E))


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)), Shazeer 2020."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(E, F, bias=False), nn.Linear(E, F, bias=False)
        self.down = nn.Linear(F, E, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(nn.functional.silu(self.gate(x)) * self.up(x))


class Layer(nn.Module):
    """A pre-norm layer of `attention` and `ffn`, and a last norm."""

    def __init__(self, attention: nn.Module, ffn: nn.Module | None = None, norm: type = nn.LayerNorm) -> None:
        super().__init__()
        self.attention = attention
        self.ffn = ffn or nn.Sequential(nn.Linear(E, F), nn.SiLU(), nn.Linear(F, E))
        self.norms = nn.ModuleList([norm(E) for _ in range(3)])

    def forward(self, x: torch.Tensor, keep: torch.Tensor | None) -> torch.Tensor:
        x = x + self.attention(self.norms[0](x), keep)
        return self.norms[2](x + self.ffn(self.norms[1](x)))


def _causal() -> torch.Tensor:
    return nn.Transformer.generate_square_subsequent_mask(S)


class VisionTransformer(nn.Module):
    """Patches by a strided convolution, a learned CLS token and positions, an encoder; CLS token or mean."""

    def __init__(self, cls: bool) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, E, kernel_size=4, stride=4)
        self.cls = nn.Parameter(torch.randn(1, 1, E)) if cls else None
        self.positions = nn.Parameter(torch.randn(1, 9 + cls, E))
        self.body, self.head = TorchEncoder(norm_first=True, activation="gelu"), nn.Linear(E, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        if self.cls is not None:
            x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], dim=1)
        x = self.body(x + self.positions, None)
        return self.head(x[:, 0] if self.cls is not None else x.mean(dim=1))


class ConvolutionStem(nn.Module):
    """A signal (1, channels, samples) through two convolutions, an encoder, a mean: sensors, audio."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv1d(3, 8, kernel_size=5, stride=2, padding=2),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.Conv1d(8, E, kernel_size=3, stride=2, padding=1),
            nn.GELU(),
        )
        self.body, self.head = TorchEncoder(norm_first=False, activation="relu"), nn.Linear(E, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.stem(x).transpose(1, 2), None).mean(dim=1))


class SpectrogramStem(nn.Module):
    """A spectrogram (1, 1, frames, bands) through a 2-D convolution; a token a frame."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, kernel_size=3, stride=2, padding=1), nn.ReLU())
        self.project, self.body = nn.Linear(16, E), TorchEncoder(norm_first=False, activation="relu")
        self.head = nn.Linear(E, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).permute(0, 2, 1, 3).flatten(2)
        return self.head(self.body(self.project(x), None).mean(dim=1))


class ConvolutionModule(nn.Module):
    """The convolution module of Conformer (Gulati et al., 2020): a gate, a depthwise convolution over time, SiLU."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.gate = nn.LayerNorm(E), nn.Conv1d(E, 2 * E, kernel_size=1)
        self.depthwise = nn.Conv1d(E, E, kernel_size=5, padding=2, groups=E)
        self.batch_norm, self.out = nn.BatchNorm1d(E), nn.Conv1d(E, E, kernel_size=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = nn.functional.glu(self.gate(self.norm(x).transpose(1, 2)), dim=1)
        y = nn.functional.silu(self.batch_norm(self.depthwise(y)))
        return x + self.out(y).transpose(1, 2)


class Conformer(nn.Module):
    """Attention, then the convolution module."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.convolution = Layer(Attention()), ConvolutionModule()

    def forward(self, x: torch.Tensor, keep: torch.Tensor | None) -> torch.Tensor:
        return self.convolution(self.attention(x, keep))


class SeparableNetwork(nn.Module):
    """DS-CNN for keyword spotting (Zhang et al., 2017): depthwise and pointwise convolutions on a spectrogram."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 8, (5, 4), stride=2, padding=(2, 1), bias=False), nn.BatchNorm2d(8), nn.ReLU()
        )
        self.body = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
        )
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.stem(x)).mean((2, 3)))


class GroupedStem(nn.Module):
    """A signal through a convolution in groups, one for each sensor."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(6, E, kernel_size=4, stride=4, groups=2)
        self.body, self.head = TorchEncoder(norm_first=False, activation="relu"), nn.Linear(E, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.stem(x).transpose(1, 2), None).mean(dim=1))


SENSOR = ("x",)

FAMILIES |= {
    "torch_post_norm": Family(lambda: TextClassifier(TorchEncoder(False, "gelu"))),
    "torch_pre_norm": Family(lambda: TextClassifier(TorchEncoder(True, "relu"), "sinusoidal")),
    "torch_causal": Family(
        lambda: SensorClassifier(TorchEncoder(False, "relu", _causal()), features=6), SENSOR
    ),
    "multihead": Family(lambda: TextClassifier(MultiheadLayer(bias=True))),
    "multihead_no_bias": Family(lambda: SensorClassifier(MultiheadLayer(bias=False), features=6), SENSOR),
    "sdpa_fused": Family(lambda: TextClassifier(Layer(Attention(fused=True)))),
    "sdpa_no_bias": Family(lambda: TextClassifier(Layer(Attention(bias=False)), "none")),
    "rms_norm": Family(lambda: TextClassifier(Layer(Attention(), norm=nn.RMSNorm))),
    "causal": Family(lambda: SensorClassifier(Layer(Attention(causal=True)), features=6), SENSOR),
    "local": Family(lambda: SensorClassifier(Layer(Attention(window=2)), features=6), SENSOR),
    "local_text": Family(lambda: TextClassifier(Layer(Attention(window=2)))),
    "rotary": Family(lambda: TextClassifier(Layer(Attention(rotary=True)), "none")),
    "swiglu": Family(lambda: TextClassifier(Layer(Attention(), SwiGLU()))),
    "grouped_query": Family(lambda: TextClassifier(Layer(Attention(kv_heads=1)))),
    "vit_cls": Family(lambda: VisionTransformer(cls=True), SENSOR, features=(1, 12, 12)),
    "vit_mean": Family(lambda: VisionTransformer(cls=False), SENSOR, features=(1, 12, 12)),
    "conv1d_stem": Family(ConvolutionStem, SENSOR, features=(3, 32)),
    "conv2d_stem": Family(SpectrogramStem, SENSOR, features=(1, 16, 8)),
    "id_mask": Family(lambda: IdMaskClassifier(Layer(Attention())), ("input_ids",)),
    "attention_pooling": Family(lambda: AttentionPooling(Layer(Attention()))),
    "query_pooling": Family(lambda: QueryPooling(Layer(Attention()))),
    "ds_cnn": Family(SeparableNetwork, SENSOR, features=(1, 16, 8)),
    "conformer": Family(lambda: SensorClassifier(Conformer(), features=6), SENSOR),
    "grouped_stem": Family(GroupedStem, SENSOR, features=(6, 32)),
    "llama_like": Family(
        lambda: TextClassifier(
            Layer(Attention(bias=False, kv_heads=1, rotary=True), SwiGLU(), nn.RMSNorm), "none"
        )
    ),
}

FAMILIES |= {
    f"{name}_attention": Family(
        functools.partial(efficient_attention.build, name),
        SENSOR,
        features=(efficient_attention.S, efficient_attention.CHANNELS),
    )
    for name in ("linear", "performer", "linformer", "hashed")
}

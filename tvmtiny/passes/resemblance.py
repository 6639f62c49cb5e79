"""Which model family an operator that cannot be compiled belongs to, and the nearest form that can.

An error that only names a node leaves the user to guess. docs/model-families.md has the same rows as a table.
"""

from __future__ import annotations

import dataclasses
import re

from tvmtiny.errors import Unsupported, UserError


@dataclasses.dataclass(frozen=True)
class Resemblance:
    """A family of models by its telling operators.

    Attributes:
        family: what such models are.
        nearest: a sentence: the form that compiles.
        operators: names as ONNX, Relax and torch have them, reduced by `_plain`.
    """

    family: str
    nearest: str
    operators: tuple[str, ...]


RESEMBLANCES = (
    Resemblance(
        "a recurrent network",
        "The nearest supported forms are an encoder with causal attention and a depthwise convolution over time.",
        ("rnn", "gru", "lstm", "rnntanh", "rnnrelu", "mkldnnrnnlayer", "sequencelens", "reversesequence"),
    ),
    Resemblance(
        "a detector, whose number of results depends on the data",
        "The nearest supported form is its network without the selection of boxes; select them in C.",
        ("nonzero", "nonmaxsuppression", "allclassnms", "roialign", "maxroipool", "visionnonmaxsuppression",
         "visionallclassnonmaxsuppression", "compress", "maskedselect"),
    ),
    Resemblance(
        "a mixture of experts or a search, which choose by the order of values",
        "The nearest supported form is a network that computes all branches and weighs them by a softmax.",
        ("topk", "sort", "argsort", "unique", "unique2", "uniquedim", "uniqueconsecutive"),
    ),
    Resemblance(
        "hashed (LSH, Reformer) attention, or a choice of classes inside of the model",
        "The nearest supported form is attention whose weights are multiplied by one_hot @ one_hot^T, where one_hot is "
        "hash >= max(hash); of classes, the scores.",
        ("argmax", "argmin", "hardmax", "onehot"),
    ),
    Resemblance(
        "memory or attention with gathers and scatters by computed indices (Reformer, DeBERTa)",
        "The nearest supported form is attention with constant indices, such as relative positions as a bias (T5).",
        ("scatter", "scatterelements", "scatternd", "scatteradd", "scatterreduce",
         "indexput", "gatherelements", "gathernd", "indextensor"),
    ),
    Resemblance(
        "a network of Fourier transforms (FNet, or a spectrogram inside of the model)",
        "The nearest supported forms are self-attention, a product with a constant matrix over tokens, and features "
        "that are computed before the model.",
        ("dft", "stft", "fft", "fftc2c", "fftr2c", "fftc2r", "viewasreal", "viewascomplex", "istft", "melweightmatrix"),
    ),
    Resemblance(
        "a convolutional network for images, with pooling over windows",
        "The nearest supported forms are a convolution with a stride and the mean over all places.",
        ("maxpool", "averagepool", "maxpool1d", "maxpool2d", "avgpool1d", "avgpool2d", "lppool", "adaptiveavgpool2d",
         "adaptiveavgpool1d", "globalmaxpool", "lrn", "maxpool2dwithindices", "maxpool3dwithindices"),
    ),
    Resemblance(
        "an encoder for speech or images that normalizes groups of channels (wav2vec 2.0)",
        "The nearest supported forms are LayerNorm over the last axis and BatchNorm in evaluation mode.",
        ("groupnorm", "nativegroupnorm", "groupnormalization", "instancenorm", "instancenormalization",
         "variance", "var", "std"),
    ),
    Resemblance(
        "a generator or a segmentation network, which enlarge what they read",
        "The nearest supported form is the encoder in front of it.",
        ("convtranspose", "conv1dtranspose", "conv2dtranspose", "resize", "imageresize2d", "upsample",
         "upsamplenearest1d", "upsamplenearest2d",
         "upsamplelinear1d", "upsamplebilinear2d", "upsamplebicubic2d", "gridsample", "gridsampler2d",
         "imagegridsample"),
    ),
    Resemblance(
        "a decoder that loops or branches",
        "The nearest supported form is one step of it, exported for one shape.",
        ("if", "loop", "scan", "cond", "whileloop"),
    ),
)  # fmt: skip

MIXING = Resemblance(
    "token mixing (MLP-Mixer, linear attention) or a convolution over tokens, beside a mask",
    "The nearest supported form is softmax attention; without a mask these compile, at full length.",
    (),
)
SPARSE = Resemblance(
    "sparse attention (Longformer, BigBird: strided or global beside local)",
    "The nearest supported forms are causal and local attention: each token attends to those from some number before "
    "it to some number after it, itself included, in all heads.",
    (),
)
UNUSUAL_MASK = Resemblance(
    "attention with a mask of its own kind (prefixes, packed sequences, DeBERTa's masked embeddings)",
    "The nearest supported form is one mask 1..10..0 that removes keys before a softmax or weighs a mean over tokens.",
    (),
)
TWO_MASKS = Resemblance(
    "an encoder and a decoder with cross-attention, or XLNet and its segments",
    "The nearest supported form is an encoder with one mask input; cross-attention compiles without a mask.",
    (),
)
BY_USE = (MIXING, SPARSE, UNUSUAL_MASK, TWO_MASKS)
"""Families that are told by how an operator is used, not by which it is."""


def _plain(operator: str) -> str:
    """`aten.lstm.input`, `scatter.src`, `relax.nn.max_pool2d` and `MaxPool` by the name that the rows have."""
    parts = [part for part in operator.lower().split(".") if part not in ("relax", "nn", "tvmtiny", "aten")]
    words = 2 if parts[:1] in (["image"], ["vision"]) else 1  # what follows names an overload of torch
    return re.sub(r"[^a-z0-9]", "", "".join(parts[:words]))


def resemblance(operator: str) -> Resemblance | None:
    """The family that an operator tells, or None for one that is common to many."""
    name = _plain(operator)
    return next((row for row in RESEMBLANCES if name in row.operators), None)


def unsupported(node: str, operator: str, remedy: str) -> Unsupported:
    """The row of an error; the nearest form takes the place of `remedy` where the operator tells a family."""
    found = resemblance(operator)
    if found is None:
        return Unsupported(node, operator, remedy)
    return Unsupported(node, operator, found.nearest, found.family)


def of_family(row: Unsupported) -> str:
    """The end of a sentence about a row: what the operator belongs to, if that is known."""
    return f", as in {row.family}" if row.family else ""


def refusal(what: str, family: Resemblance, remedy: str = "") -> UserError:
    """An error about how operators are used: `what` was found (no full stop), and what such models are."""
    return UserError(f"{what}, as in {family.family}.", f"{remedy} {family.nearest}".strip())

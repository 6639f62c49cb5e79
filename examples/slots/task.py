"""Intent and slots of an utterance, for recipes: SNIPS 2017, seven intents and 39 slots.

The environment variable SNIPS names a directory with train.tsv and validation.tsv (header line, then
`intent<TAB>text<TAB>slots`; a slot is `start:end:label`, characters of the text). Nothing is downloaded. A tenth of
train.tsv is the selection split, validation.tsv the test split.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import torch
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import common  # noqa: E402  the line above makes it importable
from common import EncoderShape  # noqa: E402
from corpus import Corpus, load  # noqa: E402
from metrics import TAGS, metrics  # noqa: E402
from model import SlotModel, batches  # noqa: E402

from tvmtiny.compress.task import Split, Task, Tensors  # noqa: E402
from tvmtiny.errors import UserError  # noqa: E402
from tvmtiny.evaluate.metrics import IGNORED  # noqa: E402


def loss(outputs: Tensors, targets: Tensors, smoothing: float) -> Tensor:
    """Cross entropy of the intent and of the tags of words."""
    intent = nn.functional.cross_entropy(outputs["intent"], targets["labels"], label_smoothing=smoothing)
    if "slots" not in outputs:
        return intent
    tags = nn.functional.cross_entropy(
        outputs["slots"].flatten(0, 1),
        targets["slots"].flatten(),
        ignore_index=IGNORED,
        label_smoothing=smoothing,
    )
    return intent + 2 * tags


def task(
    seed: int,
    vocabulary: int = 1000,
    tokens: int = 32,
    embedding: int = 48,
    heads: int = 3,
    feed_forward: int = 96,
    layers: int = 2,
    dropout: float = 0.1,
    word_dropout: float = 0.1,
    mixing: float = 0.5,
    smoothing: float = 0.0,
    batch: int = 64,
    slots: bool = True,
    rotary: bool = False,
    teacher: str = "",
) -> Task:
    """The task for a shape of the student.

    Args:
        mixing: share of rows with other fillings of their slots.
        slots: whether there are tags, or intents alone.
        rotary: whether positions are turned into queries and keys, or a table of positions is added to the words.
        teacher: directory of the result of teacher.toml, relative to the working directory. It learnt from the same
            word pieces: `vocabulary` and `tokens` must be its own.
    """
    corpus = load(vocabulary, tokens)
    sizes = (len(corpus.intents), len(TAGS) if slots else 0)
    labels = {"intent": corpus.intents} | ({"slots": TAGS} if slots else {})
    shape = EncoderShape(tokens, embedding, heads, feed_forward, layers)
    return Task(
        model=lambda: SlotModel(shape, vocabulary, *sizes, dropout, rotary=rotary),
        outputs=tuple(labels),
        batches=lambda: batches(corpus, batch, word_dropout, mixing),
        steps=-(-len(corpus.fitting) // batch),
        loss=lambda outputs, targets: loss(outputs, targets, smoothing),
        metrics=metrics,
        selection=Split(*corpus.encode(corpus.selection)),
        test=Split(*corpus.encode(corpus.validation)),
        calibration=corpus.calibration,
        teacher=(lambda: load_teacher(Path(teacher), corpus, vocabulary)) if teacher else None,
        files={"tokenizer": corpus.tokenizer_file, "labels": labels},
        depends=(Path(common.__file__), *([Path(teacher) / "module.pt"] if teacher else [])),
    )


def load_teacher(directory: Path, corpus: Corpus, vocabulary: int) -> nn.Module:
    """The model that teacher.toml trained, with this corpus's pieces."""
    if not (directory / "module.pt").is_file():
        raise UserError(
            f"There is no teacher in {directory}.",
            f"tvmtiny compress examples/slots/teacher.toml -o {directory}",
        )
    shape = tomllib.loads((HERE / "teacher.toml").read_text())["task"]
    own, given = (shape["vocabulary"], shape["tokens"]), (vocabulary, corpus.tokens)
    if own != given:
        raise UserError(
            f"The teacher has a vocabulary of {own[0]} and {own[1]} tokens, the student {given[0]} and {given[1]}.",
            "Give the student the vocabulary and tokens of teacher.toml: both must read the same word pieces.",
        )
    encoder = EncoderShape(
        corpus.tokens, *(shape[k] for k in ("embedding", "heads", "feed_forward", "layers"))
    )
    sizes = (shape["vocabulary"], len(corpus.intents), len(TAGS))
    model = SlotModel(encoder, *sizes, dropout=0.0, rotary=shape["rotary"])
    model.load_state_dict(torch.load(directory / "module.pt", weights_only=True))
    return model.eval()

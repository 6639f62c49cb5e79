"""Intents of utterances, for recipes: the data and the network of the slots example, without slots.

The environment variable SNIPS names the directory of the data (examples/slots/corpus.py). Nothing is downloaded.
"""

from __future__ import annotations

import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(EXAMPLES), str(EXAMPLES / "slots")]

from common import EncoderShape, accuracy, classification_loss  # noqa: E402  the line above makes these importable
from corpus import Corpus, Example, load  # noqa: E402
from model import SlotModel, batches  # noqa: E402

from tvmtiny.compress.task import Split, Task  # noqa: E402


def split(corpus: Corpus, rows: list[Example]) -> Split:
    """Rows as inputs and intents."""
    inputs, targets = corpus.encode(rows)
    return Split(inputs, {"labels": targets["labels"]})


def task(
    seed: int,
    vocabulary: int = 1000,
    tokens: int = 32,
    embedding: int = 48,
    heads: int = 3,
    feed_forward: int = 96,
    layers: int = 2,
    dropout: float = 0.2,
    word_dropout: float = 0.2,
    smoothing: float = 0.05,
    batch: int = 64,
) -> Task:
    """The task for a shape of the model.

    Args:
        word_dropout: share of the word pieces that become the unknown one, so that titles and names do not decide.
        smoothing: of the labels in the loss.
    """
    shape = EncoderShape(tokens, embedding, heads, feed_forward, layers)
    return task_of(load(vocabulary, tokens), shape, dropout, word_dropout, smoothing, batch)


def task_of(
    corpus: Corpus, shape: EncoderShape, dropout: float, word_dropout: float, smoothing: float, batch: int
) -> Task:
    """The task for utterances of any intents."""
    vocabulary = corpus.tokenizer.get_vocab_size()
    return Task(
        model=lambda: SlotModel(shape, vocabulary, len(corpus.intents), 0, dropout),
        outputs=("logits",),
        batches=lambda: batches(corpus, batch, word_dropout, mixing=0.0),
        steps=-(-len(corpus.fitting) // batch),
        loss=classification_loss(smoothing),
        metrics=accuracy,
        selection=split(corpus, corpus.selection),
        test=split(corpus, corpus.validation),
        calibration=corpus.calibration,
        files={"tokenizer": corpus.tokenizer_file, "labels": corpus.intents},
    )

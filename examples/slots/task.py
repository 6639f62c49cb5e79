"""Intent and slots of an utterance, for recipes: SNIPS 2017, seven intents and 39 slots.

The environment variable SNIPS names a directory with train.tsv and validation.tsv (header line, then
`intent<TAB>text<TAB>slots`; a slot is `start:end:label`, characters of the text). Nothing is downloaded. A tenth of
train.tsv is the selection split, validation.tsv the test split.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from common import EncoderLayer, EncoderShape  # noqa: E402  the line above makes it importable
from corpus import Corpus, load  # noqa: E402
from metrics import TAGS, metrics  # noqa: E402

from tvmtiny.compress.task import Split, Task, Tensors  # noqa: E402
from tvmtiny.errors import UserError  # noqa: E402
from tvmtiny.evaluate.metrics import IGNORED  # noqa: E402

UNKNOWN = 1
SPECIALS = 4


class SlotModel(nn.Module):
    """Embeddings and LayerNorm, encoder layers, an intent of the mean token, a tag of each token if there are tags."""

    def __init__(self, shape: EncoderShape, vocabulary: int, intents: int, tags: int, dropout: float) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, shape.embedding)
        self.positions = nn.Parameter(torch.empty(shape.tokens, shape.embedding))
        self.norm = nn.LayerNorm(shape.embedding)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(EncoderLayer(shape, dropout) for _ in range(shape.layers))
        self.intent = nn.Linear(shape.embedding, intents)
        self.tags = nn.Linear(shape.embedding, tags) if tags else None
        nn.init.normal_(self.words.weight, std=0.1)
        nn.init.normal_(self.positions, std=0.1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """input_ids, attention_mask int64 [B, S]; returns intents [B, 7] and tags [B, S, 79], as logits."""
        keep = attention_mask.bool()[:, None, None, :]
        x = self.words(input_ids) + self.positions[: input_ids.shape[1]]
        x = self.dropout(self.norm(x))
        for layer in self.layers:
            x = layer(x, keep)
        x = self.dropout(x)
        present = attention_mask.to(x.dtype)[:, :, None]
        intent = self.intent((x * present).sum(1) / present.sum(1))
        return (intent,) if self.tags is None else (intent, self.tags(x))


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


def by_length(lengths: Tensor, batch: int) -> list[Tensor]:
    """Rows of each batch: shuffled, and of about equal length, for less padding."""
    pools = torch.randperm(len(lengths)).split(16 * batch)
    found = [rows for pool in pools for rows in pool[lengths[pool].argsort(stable=True)].split(batch)]
    return [found[at] for at in torch.randperm(len(found))]


def batches(
    corpus: Corpus, batch: int, word_dropout: float, mixing: float
) -> Iterator[tuple[Tensors, Tensors]]:
    """One shuffled epoch, cut to the longest row of each batch.

    `mixing` of the rows have their slots filled with others of the same label; some pieces become the unknown one.
    """
    rows = corpus.epoch(mixing)
    for chosen in by_length(torch.from_numpy(rows[0]["attention_mask"]).sum(1), batch):
        inputs, targets = ({k: torch.from_numpy(v)[chosen] for k, v in part.items()} for part in rows)
        longest = int(inputs["attention_mask"].sum(1).max())
        inputs = {k: v[:, :longest] for k, v in inputs.items()}
        targets["slots"] = targets["slots"][:, :longest]
        ids = inputs["input_ids"]
        drop = (torch.rand(ids.shape) < word_dropout) & (ids >= SPECIALS)
        yield inputs | {"input_ids": ids.masked_fill(drop, UNKNOWN)}, targets


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
    teacher: str = "",
) -> Task:
    """The task for a shape of the student.

    Args:
        mixing: share of rows with other fillings of their slots.
        slots: whether there are tags, or intents alone.
        teacher: directory of the result of teacher.toml, relative to the working directory. It learnt from the same
            word pieces: `vocabulary` and `tokens` must be its own.
    """
    corpus = load(vocabulary, tokens)
    sizes = (len(corpus.intents), len(TAGS) if slots else 0)
    labels = {"intent": corpus.intents} | ({"slots": TAGS} if slots else {})
    shape = EncoderShape(tokens, embedding, heads, feed_forward, layers)
    return Task(
        model=lambda: SlotModel(shape, vocabulary, *sizes, dropout),
        outputs=tuple(labels),
        batches=lambda: batches(corpus, batch, word_dropout, mixing),
        steps=-(-len(corpus.fitting) // batch),
        loss=lambda outputs, targets: loss(outputs, targets, smoothing),
        metrics=metrics,
        selection=Split(*corpus.encode(corpus.selection)),
        test=Split(*corpus.encode(corpus.validation)),
        calibration=corpus.calibration,
        teacher=(lambda: load_teacher(Path(teacher), corpus)) if teacher else None,
        files={"tokenizer": corpus.tokenizer_file, "labels": labels},
    )


def load_teacher(directory: Path, corpus: Corpus) -> nn.Module:
    """The model that teacher.toml trained, with this corpus's pieces."""
    if not (directory / "module.pt").is_file():
        raise UserError(
            f"There is no teacher in {directory}.",
            f"tvmtiny compress examples/slots/teacher.toml -o {directory}",
        )
    shape = tomllib.loads((HERE / "teacher.toml").read_text())["task"]
    encoder = EncoderShape(
        corpus.tokens, *(shape[k] for k in ("embedding", "heads", "feed_forward", "layers"))
    )
    model = SlotModel(encoder, shape["vocabulary"], len(corpus.intents), len(TAGS), 0.0)
    model.load_state_dict(torch.load(directory / "module.pt", weights_only=True))
    return model.eval()

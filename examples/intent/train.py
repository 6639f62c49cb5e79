"""Train the intent model: a two-layer BERT-style encoder over WordPiece tokens, seven intents.

    python examples/intent/train.py --data DIR

DIR holds train.tsv and validation.tsv of the SNIPS 2017 intents (header line, then `intent<TAB>text` and
further columns). Nothing is downloaded. A tenth of train.tsv selects the seed that ships; validation.tsv is
measured once a seed, after training. Writes tokenizer.json, labels.txt, model.onnx, calibration.npz,
sample.npz and figures.json.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from common import (  # noqa: E402  the line above makes it importable
    EncoderLayer,
    EncoderShape,
    Recipe,
    accuracy,
    export_onnx,
    fit,
    parser,
    set_seed,
    train_seeds,
    write_figures,
)
from encode import encode, label_indices, read_rows  # noqa: E402
from wordpiece import learn  # noqa: E402

SHAPE = EncoderShape(tokens=32, embedding=48, heads=3, feed_forward=96, layers=2)
RECIPE = Recipe(
    epochs=12, batch=64, learning_rate=3e-3, weight_decay=0.05, dropout=0.2, label_smoothing=0.05, warmup=0.1
)
VOCABULARY = 1000
ALPHABET = 56
WORD_DROPOUT = 0.2
SPLIT_SEED = 2017
PAD, UNKNOWN, FIRST, LAST = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
SPECIALS = [PAD, UNKNOWN, FIRST, LAST]  # the first token ids, in this order

Rows = list[tuple[str, str]]


class IntentModel(nn.Module):
    """Embeddings and LayerNorm, encoder layers, mean over the tokens that are present, linear classifier."""

    def __init__(self, vocabulary: int, classes: int, shape: EncoderShape, dropout: float) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, shape.embedding)
        self.positions = nn.Parameter(torch.empty(shape.tokens, shape.embedding))
        self.norm = nn.LayerNorm(shape.embedding)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(EncoderLayer(shape, dropout) for _ in range(shape.layers))
        self.classifier = nn.Linear(shape.embedding, classes)
        nn.init.normal_(self.words.weight, std=0.1)
        nn.init.normal_(self.positions, std=0.1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """input_ids, attention_mask int64 [B, S], S up to SHAPE.tokens; returns logits [B, classes]."""
        keep = attention_mask.bool()[:, None, None, :]
        x = self.dropout(self.norm(self.words(input_ids) + self.positions[: input_ids.shape[1]]))
        for layer in self.layers:
            x = layer(x, keep)
        present = attention_mask.to(x.dtype)[:, :, None]
        pooled = (x * present).sum(1) / present.sum(1)
        return self.classifier(self.dropout(pooled))


def distinct(rows: Rows, known: Sequence[tuple[str, str]] = ()) -> Rows:
    """Rows whose text, ignoring case, is neither in `known` nor on an earlier row."""
    seen = {text.lower() for _, text in known}
    result = []
    for intent, text in rows:
        if text.lower() not in seen:
            seen.add(text.lower())
            result.append((intent, text))
    return result


def split(rows: Rows) -> tuple[Rows, Rows]:
    """(nine tenths to train on, one tenth to select on); the same for every seed."""
    shuffled = rows.copy()
    random.Random(SPLIT_SEED).shuffle(shuffled)
    tenth = len(shuffled) // 10
    return shuffled[tenth:], shuffled[:tenth]


def train_tokenizer(texts: list[str]) -> Tokenizer:
    """A lower-casing WordPiece tokenizer that truncates and pads to SHAPE.tokens."""
    normalizer = normalizers.BertNormalizer(lowercase=True)
    splitter = pre_tokenizers.BertPreTokenizer()
    words = Counter(w for text in texts for w, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    tokenizer = Tokenizer(models.WordPiece(learn(words, SPECIALS, VOCABULARY, ALPHABET), unk_token=UNKNOWN))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    tokenizer.add_special_tokens(SPECIALS)
    ids = [(name, tokenizer.token_to_id(name)) for name in (FIRST, LAST)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{FIRST} $A {LAST}", special_tokens=ids)
    tokenizer.enable_truncation(SHAPE.tokens)
    tokenizer.enable_padding(length=SHAPE.tokens, pad_id=tokenizer.token_to_id(PAD), pad_token=PAD)
    return tokenizer


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """The arrays as tensors, in order."""
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def batches(data: dict[str, Tensor]) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
    """One shuffled epoch, cut to the longest row of each batch; some words become the unknown token."""
    order = torch.randperm(len(data["labels"]))
    for rows in order.split(RECIPE.batch):
        ids, mask = data["input_ids"][rows], data["attention_mask"][rows]
        ids, mask = ids[:, : mask.sum(1).max()], mask[:, : mask.sum(1).max()]
        drop = (torch.rand(ids.shape) < WORD_DROPOUT) & (ids >= len(SPECIALS))
        yield (ids.masked_fill(drop, SPECIALS.index(UNKNOWN)), mask), data["labels"][rows]


def train_one(seed: int, data: dict[str, dict[str, Tensor]]) -> tuple[nn.Module, float, float]:
    """Train one seed; returns (model, accuracy on selection, accuracy on validation)."""
    set_seed(seed)
    fitting = data["fit"]
    model = IntentModel(VOCABULARY, int(fitting["labels"].max()) + 1, SHAPE, RECIPE.dropout)
    steps = -(-len(fitting["labels"]) // RECIPE.batch)
    fit(model, lambda: batches(fitting), steps, RECIPE)
    scores = [
        accuracy(model, (rows["input_ids"], rows["attention_mask"]), rows["labels"])
        for rows in (data["selection"], data["validation"])
    ]
    return model, scores[0], scores[1]


def write_inputs(tokenizer: Tokenizer, table: Path, path: Path, taken: Rows) -> dict[str, Tensor]:
    """Encode the utterances that were written for this project; none of them may stand in the data set."""
    rows = read_rows(table)
    copied = sorted(set(rows) - set(distinct(rows, taken)))
    if copied:
        raise SystemExit(f"{table}: in the data set, or twice in the file: {copied}")
    arrays = encode(tokenizer, [text for _, text in rows])
    np.savez_compressed(path, **arrays)
    return tensors(arrays)


def encode_rows(rows: Rows, tokenizer: Tokenizer, labels: list[str]) -> dict[str, Tensor]:
    """The model's inputs and `labels` of some rows."""
    inputs = encode(tokenizer, [text for _, text in rows])
    return tensors(inputs | {"labels": label_indices([intent for intent, _ in rows], labels)})


def run(data_directory: Path, output: Path, seeds: int) -> None:
    """Train, choose, export and write everything that the example ships."""
    validation = read_rows(data_directory / "validation.tsv")
    everything = read_rows(data_directory / "train.tsv")
    fitting, selection = split(distinct(everything, validation))
    labels = sorted({intent for intent, _ in fitting})
    tokenizer = train_tokenizer([text for _, text in fitting])
    tokenizer.save(str(output / "tokenizer.json"))
    (output / "labels.txt").write_text("\n".join(labels) + "\n")
    taken = everything + validation
    calibration = write_inputs(tokenizer, HERE / "utterances.txt", output / "calibration.npz", taken)
    write_inputs(tokenizer, HERE / "sample_utterances.txt", output / "sample.npz", taken)

    parts = {"fit": fitting, "selection": selection, "validation": validation}
    data = {name: encode_rows(rows, tokenizer, labels) for name, rows in parts.items()}
    model, results = train_seeds(seeds, lambda seed: train_one(seed, data))
    error, size = export_onnx(model, calibration, output / "model.onnx")
    own = encode_rows(read_rows(HERE / "utterances.txt"), tokenizer, labels)
    facts: dict[str, Any] = {
        "test_data": "SNIPS 2017 validation.tsv",
        "own_utterances_accuracy": accuracy(model, (own["input_ids"], own["attention_mask"]), own["labels"]),
        "rows": {name: len(rows) for name, rows in parts.items()},
        "parameters": sum(p.numel() for p in model.parameters()),
        "model_bytes": size,
        "export_error": error,
        "shape": vars(SHAPE) | {"classes": len(labels), "vocabulary": VOCABULARY},
        "recipe": vars(RECIPE) | {"word_dropout": WORD_DROPOUT},
    }
    write_figures(output / "figures.json", results, facts)
    print(f"model.onnx: {size:,} bytes, onnxruntime differs from torch by {error:.1e}")


def main() -> None:
    """Command line."""
    arguments = parser((__doc__ or "").splitlines()[0])
    arguments.add_argument(
        "--data", type=Path, required=True, help="directory of train.tsv and validation.tsv"
    )
    args = arguments.parse_args()
    output: Path = args.output or HERE
    output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    run(args.data, output, args.seeds)


if __name__ == "__main__":
    main()

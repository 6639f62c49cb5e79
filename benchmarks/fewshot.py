"""Few-shot intents with the device's own embeddings and store: how many utterances of an unseen intent are found.

    python benchmarks/fewshot.py --data DIR [--left-out INTENT ...] [--epochs N]

DIR holds train.tsv and validation.tsv of the SNIPS 2017 intents (examples/intent/README.md). For each intent that is
left out, the encoder of examples/intent is trained on the others, with a cosine classifier that is thrown away: the
exported model ends in the mean over tokens, divided by its length. It is compiled to int8. Then five utterances
(`SHOTS`) of each of the seven intents are drawn from train.tsv and enrolled, and all of validation.tsv is classified,
over EPISODES draws. Columns: accuracy over all rows, and share of the rows of the left-out intent that are found
(recall), with float embeddings and cosines, and with int8 embeddings and the integer store, by nearest example and by
class mean.
The embeddings are those of the integer reference, whose bytes the C gives; the store is the twin of tvmt_fewshot.h.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from tvmtiny.compiler import compile as compile_model
from tvmtiny.fewshot import Store
from tvmtiny.frontend.data import load_samples
from tvmtiny.verify import expected_outputs

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES))
sys.path.insert(0, str(EXAMPLES / "intent"))

import train  # noqa: E402  the lines above make these importable
from common import fit, set_seed  # noqa: E402
from encode import encode, read_rows  # noqa: E402

SHOTS, EPISODES, SHARPNESS = 5, 10, 12.0
TITLES = ("left out", "form", "float, all", "float, left out", "int8, all", "int8, left out")

Rows = list[tuple[str, str]]


class Embedder(nn.Module):
    """The encoder of the intent example up to its mean over tokens, of length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = train.IntentModel(train.VOCABULARY, 1, train.SHAPE, train.RECIPE.dropout)
        self.encoder.classifier = nn.Identity()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Rows of length 1 [B, E]."""
        return nn.functional.normalize(self.encoder(input_ids, attention_mask), dim=-1)


class CosineClassifier(nn.Module):
    """Sharpened cosines between an embedding and a direction a class."""

    def __init__(self, embedder: Embedder, classes: int) -> None:
        super().__init__()
        self.embedder = embedder
        self.directions = nn.Parameter(torch.randn(classes, train.SHAPE.embedding))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits [B, classes]."""
        directions = nn.functional.normalize(self.directions, dim=-1)
        return SHARPNESS * self.embedder(input_ids, attention_mask) @ directions.T


def trained(rows: Rows, tokenizer: Any, epochs: int) -> Embedder:
    """An embedder that tells the intents of the rows apart."""
    set_seed(0)
    labels = sorted({intent for intent, _ in rows})
    data = train.encode_rows(rows, tokenizer, labels)
    embedder = Embedder()
    model = CosineClassifier(embedder, len(labels))
    steps = -(-len(rows) // train.RECIPE.batch)
    fit(model, lambda: train.batches(data), steps, dataclasses.replace(train.RECIPE, epochs=epochs))
    return embedder.eval()


def integer_embeddings(
    embedder: Embedder,
    parts: dict[str, dict[str, np.ndarray]],
    calibration: dict[str, np.ndarray],
    folder: Path,
) -> dict[str, np.ndarray]:
    """The int8 embeddings of the compiled model for each part, by its integer reference."""
    example = {name: torch.from_numpy(values[:1]) for name, values in calibration.items()}
    program = torch.export.export(embedder, (), kwargs=example)
    made = compile_model(
        program, target="qemu-m4", calibration=calibration, name="embedder", output=folder / "model"
    )
    info = made.outputs[0]
    assert tuple(info.zero_point) == (0,), "rows of length 1 are symmetric"
    found = {}
    for name, arrays in parts.items():
        np.savez(folder / f"{name}.npz", **arrays)  # type: ignore[arg-type]
        rows = expected_outputs(made, load_samples(made, folder / f"{name}.npz"))
        found[name] = np.stack([row[info.name].reshape(-1) for row in rows])
    return found


def float_embeddings(embedder: Embedder, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """The embeddings of torch."""
    with torch.no_grad():
        return embedder(**{name: torch.from_numpy(values) for name, values in arrays.items()}).numpy()


def float_labels(known: np.ndarray, labels: np.ndarray, rows: np.ndarray, by_mean: bool) -> np.ndarray:
    """Labels by the cosine of float embeddings of length 1."""
    if by_mean:
        names = np.unique(labels)
        known = np.stack([known[labels == name].mean(axis=0) for name in names])
        known, labels = known / np.linalg.norm(known, axis=1, keepdims=True), names
    return labels[(rows @ known.T).argmax(axis=1)]


def integer_labels(known: np.ndarray, labels: np.ndarray, rows: np.ndarray, by_mean: bool) -> np.ndarray:
    """Labels by the integer store."""
    store = Store(len(known), known.shape[1])
    for label, row in zip(labels, known, strict=True):
        store.enrol(int(label), row)
    return np.array([store.classify(row, by_mean=by_mean).label for row in rows])


def main() -> None:
    """Train, compile and measure one model for each left-out intent."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--left-out", nargs="*")
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    validation = read_rows(options.data / "validation.tsv")
    everything = train.distinct(read_rows(options.data / "train.tsv"), validation)
    intents = sorted({intent for intent, _ in validation})
    table = Table(box=box.SIMPLE)
    for number, title in enumerate(TITLES):
        table.add_column(title, justify="left" if number < 2 else "right")
    for left_out in options.left_out or intents:
        for row in measured(left_out, intents, everything, validation, options.epochs):
            table.add_row(*row)
            print("\t".join(row), file=sys.stderr, flush=True)
    Console(width=110).print(table)


def measured(
    left_out: str, intents: list[str], everything: Rows, validation: Rows, epochs: int
) -> list[list[str]]:
    """Rows of the table for one left-out intent."""
    seen = [row for row in everything if row[0] != left_out]
    tokenizer = train.train_tokenizer([text for _, text in seen])
    embedder = trained(seen, tokenizer, epochs)
    rng = np.random.default_rng(1)
    own = np.array([intents.index(intent) for intent, _ in everything])
    drawn = [
        np.concatenate(
            [rng.choice(np.flatnonzero(own == label), SHOTS, replace=False) for label in range(len(intents))]
        )
        for _ in range(EPISODES)
    ]
    used = np.concatenate(drawn)
    texts = {"known": [everything[i][1] for i in used], "test": [text for _, text in validation]}
    parts = {name: encode(tokenizer, rows) for name, rows in texts.items()}
    some = [seen[i][1] for i in rng.choice(len(seen), 200, replace=False)]
    with tempfile.TemporaryDirectory() as folder:
        integers = integer_embeddings(embedder, parts, encode(tokenizer, some), Path(folder))
    reals = {name: float_embeddings(embedder, arrays) for name, arrays in parts.items()}
    wanted = np.array([intents.index(intent) for intent, _ in validation])
    rows = []
    for form, by_mean in (("nearest example", False), ("class mean", True)):
        figures = []
        for embeddings, labels_of in ((reals, float_labels), (integers, integer_labels)):
            right = []
            for known, labels in zip(
                np.split(embeddings["known"], EPISODES), np.split(own[used], EPISODES), strict=True
            ):
                right.append(labels_of(known, labels, embeddings["test"], by_mean) == wanted)
            hits = np.array(right)
            figures += [hits.mean(), hits[:, wanted == intents.index(left_out)].mean()]
        rows.append([left_out, form, *(f"{100 * figure:.1f} %" for figure in figures)])
    return rows


if __name__ == "__main__":
    main()

"""Few-shot intents with the device's own embeddings and store: how many utterances of an unseen intent are found.

    SNIPS=DIR python benchmarks/fewshot.py [--left-out INTENT ...] [--epochs N]

DIR is as in examples/intent/README.md. For each intent that is left out, the network of examples/intent is trained on
the others, with a cosine classifier that is thrown away: the exported model ends in the mean over tokens, divided by
its length. It is compiled to int8. Then five utterances (`SHOTS`) of each of the seven intents are drawn from train.tsv
and enrolled, and all of validation.tsv is classified, over EPISODES draws. Columns: accuracy over all rows, and share
of the rows of the left-out intent that are found (recall), with float embeddings and cosines, and with int8 embeddings
and the integer store, by nearest example and by class mean.
The embeddings are those of the integer reference, whose bytes the C gives; the store is the twin of tvmt_fewshot.h.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from tvmtiny.compiler import compile as compile_model
from tvmtiny.compress.progress import Progress
from tvmtiny.compress.recipe import load_recipe
from tvmtiny.compress.training import fit, set_seed
from tvmtiny.fewshot import Store
from tvmtiny.frontend.data import load_samples
from tvmtiny.verify import expected_outputs

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path[:0] = [str(EXAMPLES), str(EXAMPLES / "intent"), str(EXAMPLES / "slots")]

from common import EncoderShape  # noqa: E402  the line above makes these importable
from corpus import Corpus, inputs_of, load, train_tokenizer  # noqa: E402
from task import task_of  # noqa: E402

SHOTS, EPISODES, SHARPNESS = 5, 10, 12.0
TITLES = ("left out", "form", "float, all", "float, left out", "int8, all", "int8, left out")

RECIPE = load_recipe(EXAMPLES / "intent" / "recipe.toml")
PARAMETERS = RECIPE.task_parameters
TOKENS = 32
SHAPE = EncoderShape(TOKENS, *(PARAMETERS[name] for name in ("embedding", "heads", "feed_forward", "layers")))


class Embedder(nn.Module):
    """The network of the intent example up to its mean over tokens, of length 1."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.encoder = network
        self.encoder.intent = nn.Identity()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Rows of length 1 [B, E]."""
        (pooled,) = self.encoder(input_ids, attention_mask)
        return nn.functional.normalize(pooled, dim=-1)


class CosineClassifier(nn.Module):
    """Sharpened cosines between an embedding and a direction a class."""

    def __init__(self, embedder: Embedder, classes: int) -> None:
        super().__init__()
        self.embedder = embedder
        self.directions = nn.Parameter(torch.randn(classes, SHAPE.embedding))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits [B, classes]."""
        directions = nn.functional.normalize(self.directions, dim=-1)
        return SHARPNESS * self.embedder(input_ids, attention_mask) @ directions.T


def without(everything: Corpus, left_out: str) -> Corpus:
    """The utterances of the other intents, all of them to train on, and word pieces learnt from them alone."""
    rows = [row for row in (*everything.fitting, *everything.selection) if row.intent != left_out]
    return dataclasses.replace(
        everything,
        fitting=rows,
        selection=rows,
        validation=rows,
        intents=[intent for intent in everything.intents if intent != left_out],
        tokenizer=train_tokenizer([row.text for row in rows], PARAMETERS["vocabulary"], TOKENS),
    )


def trained(seen: Corpus, epochs: int) -> Embedder:
    """An embedder that tells the intents of a corpus apart."""
    set_seed("0")
    task = task_of(seen, SHAPE, *(PARAMETERS[k] for k in ("dropout", "word_dropout", "smoothing", "batch")))
    embedder = Embedder(task.model())
    model = CosineClassifier(embedder, len(seen.intents))
    assert RECIPE.train is not None
    fit(model, task, dataclasses.replace(RECIPE.train, epochs=epochs), progress=Progress())
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
    parser.add_argument("--left-out", nargs="*")
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    everything = load(PARAMETERS["vocabulary"], TOKENS)
    table = Table(box=box.SIMPLE)
    for number, title in enumerate(TITLES):
        table.add_column(title, justify="left" if number < 2 else "right")
    for left_out in options.left_out or everything.intents:
        for row in measured(left_out, everything, options.epochs):
            table.add_row(*row)
            print("\t".join(row), file=sys.stderr, flush=True)
    Console(width=110).print(table)


def measured(left_out: str, everything: Corpus, epochs: int) -> list[list[str]]:
    """Rows of the table for one left-out intent."""
    intents, rows = everything.intents, [*everything.fitting, *everything.selection]
    seen = without(everything, left_out)
    embedder = trained(seen, epochs)
    rng = np.random.default_rng(1)
    own = np.array([intents.index(row.intent) for row in rows])
    drawn = [
        np.concatenate(
            [rng.choice(np.flatnonzero(own == label), SHOTS, replace=False) for label in range(len(intents))]
        )
        for _ in range(EPISODES)
    ]
    used = np.concatenate(drawn)
    texts = {"known": [rows[i].text for i in used], "test": [row.text for row in everything.validation]}
    parts = {name: inputs_of(seen.tokenizer, part) for name, part in texts.items()}
    some = [seen.fitting[i].text for i in rng.choice(len(seen.fitting), 200, replace=False)]
    with tempfile.TemporaryDirectory() as folder:
        integers = integer_embeddings(embedder, parts, inputs_of(seen.tokenizer, some), Path(folder))
    reals = {name: float_embeddings(embedder, arrays) for name, arrays in parts.items()}
    wanted = np.array([intents.index(row.intent) for row in everything.validation])
    found = []
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
        found.append([left_out, form, *(f"{100 * figure:.1f} %" for figure in figures)])
    return found


if __name__ == "__main__":
    main()

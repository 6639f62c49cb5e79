"""Turn utterances into the inputs of the intent model: a table of `intent<TAB>text` lines to an .npz file.

    python examples/intent/encode.py --data DIR/validation.tsv -o build/validation.npz

Needs only numpy and tokenizers, not torch.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

HERE = Path(__file__).resolve().parent


def read_rows(path: Path) -> list[tuple[str, str]]:
    """(intent, text) of every line, without further columns and without a header line `intent<TAB>text`."""
    rows = [tuple(line.split("\t")[:2]) for line in path.read_text(encoding="utf-8").splitlines() if line]
    return [(row[0], row[1]) for row in rows if row != ("intent", "text")]


def read_labels(path: Path = HERE / "labels.txt") -> list[str]:
    """The intents, in the order of the model's logits."""
    return path.read_text(encoding="utf-8").split()


def encode(tokenizer: Tokenizer, texts: list[str]) -> dict[str, np.ndarray]:
    """input_ids and attention_mask, int64 [N, 32] each; the mask is a run of ones, then zeros.

    Truncation and padding are part of tokenizer.json.
    """
    encodings = tokenizer.encode_batch(texts)
    return {
        "input_ids": np.array([e.ids for e in encodings], np.int64),
        "attention_mask": np.array([e.attention_mask for e in encodings], np.int64),
    }


def label_indices(intents: list[str], labels: list[str]) -> np.ndarray:
    """Index of every intent in `labels`, int64 [N].

    Raises:
        SystemExit: an intent that the model does not know.
    """
    unknown = sorted(set(intents) - set(labels))
    if unknown:
        raise SystemExit(f"unknown intents {', '.join(unknown)}; the model knows {', '.join(labels)}")
    return np.array([labels.index(intent) for intent in intents], np.int64)


def encode_table(path: Path, tokenizer: Tokenizer, labels: list[str]) -> dict[str, np.ndarray]:
    """The inputs of every row of a table, and `labels` int64 [N]."""
    rows = read_rows(path)
    inputs = encode(tokenizer, [text for _, text in rows])
    return inputs | {"labels": label_indices([intent for intent, _ in rows], labels)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="table of intent<TAB>text lines")
    parser.add_argument("--tokenizer", type=Path, default=HERE / "tokenizer.json")
    parser.add_argument("--labels", type=Path, default=HERE / "labels.txt")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the .npz file to write")
    args = parser.parse_args()
    arrays = encode_table(args.data, Tokenizer.from_file(str(args.tokenizer)), read_labels(args.labels))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(args.output, **arrays)
    print(f"{args.output}: {len(arrays['labels'])} rows")


if __name__ == "__main__":
    main()

"""SNIPS utterances as arrays: rows, word pieces, tags of words, and mixtures of utterances."""

from __future__ import annotations

import functools
import os
import random
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

HERE = Path(__file__).resolve().parent
INTENT = HERE.parent / "intent"
BUILD = HERE.parents[1] / "build" / "slots"
sys.path.append(str(HERE))

from metrics import TAGS  # noqa: E402  the line above makes it importable
from wordpiece import learn  # noqa: E402

from tvmtiny.errors import UserError  # noqa: E402
from tvmtiny.evaluate.metrics import IGNORED  # noqa: E402

PAD, UNKNOWN, FIRST, LAST = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
SPECIAL = [PAD, UNKNOWN, FIRST, LAST]  # the first ids, in this order
ALPHABET = 56
SPLIT_SEED = 2017

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Example:
    """An utterance: its slots are (first character, character behind the last, label), in order."""

    intent: str
    text: str
    slots: tuple[tuple[int, int, str], ...]


@dataclass(frozen=True)
class Corpus:
    """Rows to train on, to select on and to test on, and what turns them into arrays."""

    fitting: list[Example]
    selection: list[Example]
    validation: list[Example]
    intents: list[str]
    tokenizer: Tokenizer
    tokenizer_file: Path
    tokens: int
    calibration: Arrays

    def encode(self, rows: list[Example]) -> tuple[Arrays, Arrays]:
        """The model's inputs, and the targets: `labels` [N] of intents, `slots` [N, S] at the first piece of words."""
        codes = self.tokenizer.encode_batch([row.text for row in rows])
        tags = np.full((len(rows), self.tokens), IGNORED, np.int64)
        place = {tag: index for index, tag in enumerate(TAGS)}
        for index, (row, code) in enumerate(zip(rows, codes, strict=True)):
            for at, tag in _word_tags(row, code):
                tags[index, at] = place[tag]
        labels = np.array([self.intents.index(row.intent) for row in rows], np.int64)
        return _inputs(codes), {"labels": labels, "slots": tags}

    def epoch(self, mixing: float) -> tuple[Arrays, Arrays]:
        """The rows to train on, encoded, a share of them mixed."""
        return self.encode(self.mixed(self.fitting, mixing)) if mixing else self._encoded

    def mixed(self, rows: list[Example], share: float) -> list[Example]:
        """The rows, a share of them with each slot filled by one of the same label from any row."""
        fillings = self._fillings
        return [_refill(row, fillings) if random.random() < share else row for row in rows]

    @functools.cached_property
    def _encoded(self) -> tuple[Arrays, Arrays]:
        return self.encode(self.fitting)

    @functools.cached_property
    def _fillings(self) -> dict[str, list[str]]:
        found = defaultdict(list)
        for row in self.fitting:
            for start, end, label in row.slots:
                found[label].append(row.text[start:end])
        return found


def _refill(row: Example, fillings: dict[str, list[str]]) -> Example:
    text, slots, done = "", [], 0
    for start, end, label in row.slots:
        text += row.text[done:start]
        filling = random.choice(fillings[label])
        slots.append((len(text), len(text) + len(filling), label))
        text, done = text + filling, end
    return Example(row.intent, text + row.text[done:], tuple(slots))


def _word_tags(row: Example, code: object) -> list[tuple[int, str]]:
    """(token, tag) of the first piece of each word."""
    found, previous, inside = [], None, None
    for at, (word, (start, _)) in enumerate(zip(code.word_ids, code.offsets, strict=True)):
        if word is None or word == previous:
            continue
        previous = word
        slot = next((s for s in row.slots if s[0] <= start < s[1]), None)
        prefix = "" if slot is None else "I-" if slot is inside else "B-"
        found.append((at, TAGS[0] if slot is None else prefix + slot[2]))
        inside = slot
    return found


def inputs_of(tokenizer: Tokenizer, texts: list[str]) -> Arrays:
    """`input_ids` and `attention_mask`, int64 [N, S] each; cutting and padding are part of the tokenizer."""
    return _inputs(tokenizer.encode_batch(texts))


def _inputs(codes: list[object]) -> Arrays:
    return {
        "input_ids": np.array([code.ids for code in codes], np.int64),
        "attention_mask": np.array([code.attention_mask for code in codes], np.int64),
    }


def read_rows(path: Path) -> list[Example]:
    """The rows of a table below its header line."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        intent, text, slots = [*line.split("\t"), ""][:3]
        parts = [slot.split(":", 2) for slot in slots.split()]
        rows.append(Example(intent, text, tuple(sorted((int(s), int(e), name) for s, e, name in parts))))
    return rows


def _distinct(rows: list[Example], known: list[Example]) -> list[Example]:
    """Rows whose text, ignoring case, is neither in `known` nor on an earlier row."""
    seen, kept = {row.text.lower() for row in known}, []
    for row in rows:
        if row.text.lower() not in seen:
            seen.add(row.text.lower())
            kept.append(row)
    return kept


@functools.cache
def load(vocabulary: int, tokens: int) -> Corpus:
    """The data of the directory that SNIPS names, with word pieces learnt from the rows to train on."""
    directory = Path(os.environ.get("SNIPS", "."))
    if not (directory / "train.tsv").is_file():
        raise UserError(
            f"{directory} has no train.tsv.", "Let the environment variable SNIPS name the data's directory."
        )
    validation = read_rows(directory / "validation.tsv")
    rows = _distinct(read_rows(directory / "train.tsv"), validation)
    random.Random(SPLIT_SEED).shuffle(rows)
    tenth = len(rows) // 10
    fitting = rows[tenth:]
    tokenizer = train_tokenizer([row.text for row in fitting], vocabulary, tokens)
    BUILD.mkdir(parents=True, exist_ok=True)
    file = BUILD / f"tokenizer-{vocabulary}-{tokens}.json"
    tokenizer.save(str(file))
    own = [
        line.split("\t")[1] for line in (INTENT / "utterances.txt").read_text("utf-8").splitlines() if line
    ]
    return Corpus(
        fitting=fitting,
        selection=rows[:tenth],
        validation=validation,
        intents=sorted({row.intent for row in rows}),
        tokenizer=tokenizer,
        tokenizer_file=file,
        tokens=tokens,
        calibration=inputs_of(tokenizer, own),
    )


def train_tokenizer(texts: list[str], vocabulary: int, tokens: int) -> Tokenizer:
    """A lower-casing WordPiece tokenizer that cuts and pads to `tokens`."""
    normalizer = normalizers.BertNormalizer(lowercase=True)
    splitter = pre_tokenizers.BertPreTokenizer()
    words = Counter(w for text in texts for w, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    tokenizer = Tokenizer(models.WordPiece(learn(words, SPECIAL, vocabulary, ALPHABET), unk_token=UNKNOWN))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.add_special_tokens(SPECIAL)
    ids = [(name, tokenizer.token_to_id(name)) for name in (FIRST, LAST)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{FIRST} $A {LAST}", special_tokens=ids)
    tokenizer.enable_truncation(tokens)
    tokenizer.enable_padding(length=tokens, pad_id=0, pad_token=PAD)
    return tokenizer

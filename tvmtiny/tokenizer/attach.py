"""A tokenizer for a compiled model: whether the two belong together, and what it adds to the model directory."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tvmtiny.codegen.c_sources import TEXT_BYTES
from tvmtiny.errors import UserError
from tvmtiny.frontend.data import InputSpec
from tvmtiny.frontend.names import listed
from tvmtiny.tokenizer.emit import tokenizer_sources
from tvmtiny.tokenizer.spec import parse_spec, read_json
from tvmtiny.tokenizer.tables import Tables, build_tables

TOKENIZER_FILE = "tokenizer.json"
SEGMENT_INPUT = "token_type_ids"
"""An input that is zero for a single text."""

_REMEDY = "Give the tokenizer that the model was trained with."


@dataclasses.dataclass(frozen=True)
class AttachedTokenizer:
    """A tokenizer that fits a model.

    Attributes:
        input: name of the model's input that takes the ids.
        data: contents of tokenizer.json.
    """

    input: str
    tables: Tables
    data: dict[str, Any]

    def files(self, name: str) -> dict[str, str]:
        """What is added to the directory of the model `name`."""
        text = json.dumps(self.data, indent=1, ensure_ascii=False) + "\n"
        return tokenizer_sources(self.tables, name).files | {TOKENIZER_FILE: text}

    def metadata(self, name: str, sources: Sequence[str]) -> dict[str, Any]:
        """Fields of metadata.json that change; `sources`: of the model without its tokenizer."""
        return {
            "tokenizer": {
                "file": TOKENIZER_FILE,
                "kind": self.tables.spec.kind,
                "input": self.input,
                "vocabulary": self.tables.spec.size,
                "max_tokens": self.tables.max_tokens,
                "text_bytes": TEXT_BYTES,
                "character_table_bytes": self.tables.characters.bytes,
                "vocabulary_table_bytes": self.tables.vocabulary_bytes,
                "work_bytes": 2 * self.tables.work_words,
            },
            "sources": [*sources, f"{name}_tokenizer.c", *self.tables.sources],
        }


def attach_tokenizer(
    path: Path | str | None, specs: Sequence[InputSpec], max_tokens: int, *, has_length: bool
) -> AttachedTokenizer | None:
    """Read a tokenizer for a model with these inputs; None for no tokenizer.

    Args:
        max_tokens: S of the model, where texts are cut.
        has_length: whether a run takes fewer tokens.

    Raises:
        UserError: the tokenizer cannot be used, or does not belong to the model.
    """
    if path is None:
        return None
    data = read_json(Path(path))
    spec = parse_spec(data)
    chosen = _ids_input(specs)
    if not has_length:
        raise UserError(
            "The model takes a fixed number of tokens; texts have any number.",
            "Export the model with a mask input (attention_mask), which becomes the number of tokens.",
        )
    if spec.size != chosen.limit:
        raise UserError(
            f"The tokenizer {path} has ids up to {spec.size - 1}; the embedding table of '{chosen.name}' has "
            f"{chosen.limit} rows.",
            f"{_REMEDY} `tvmtiny tokenizer prune` shrinks both together.",
        )
    return AttachedTokenizer(chosen.name, build_tables(spec, max_tokens), data)


def _ids_input(specs: Sequence[InputSpec]) -> InputSpec:
    ids = [spec for spec in specs if spec.kind == "tokens" and spec.name != SEGMENT_INPUT]
    others = [spec.name for spec in specs if spec.kind != "tokens"]
    if len(ids) != 1 or others:
        raise UserError(
            f"A tokenizer fills one input of token ids; the model's inputs are {listed(s.name for s in specs)}.",
            "Compile it without --tokenizer and write the inputs yourself.",
        )
    return ids[0]

"""Smaller vocabularies: the same pieces on the corpus, and the embedding rows that belong to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizer_cases import EXAMPLE, case

from tvmtiny.errors import UserError
from tvmtiny.tokenizer.library import LibraryTokenizer
from tvmtiny.tokenizer.prune import prune
from tvmtiny.tokenizer.prune_model import prune_embedding, prune_files
from tvmtiny.tokenizer.spec import parse_spec
from tvmtiny.tokenizer.tables import build_tables

TEXTS = ["play some jazz in Zürich", "will it rain tomorrow?", "a b c", "[SEP] jazz"]


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("name", ["shipped", "byte_level", "metaspace_never", "characters"])
def test_a_pruned_tokenizer_finds_the_same_pieces(name: str, keep: bool) -> None:
    data = case(name)
    pruned = prune(data, TEXTS, keep_characters=keep)
    spec, smaller = parse_spec(data), parse_spec(pruned.data)
    assert smaller.size == len(pruned.old_ids)
    assert smaller.size < spec.size or (keep and name == "characters")
    raw = [text.encode() for text in TEXTS]
    before = LibraryTokenizer(data, build_tables(spec)).encode(raw)
    after = LibraryTokenizer(pruned.data, build_tables(smaller)).encode(raw)
    assert [[pruned.old_ids[index] for index in row] for row in after] == before


def test_pieces_that_occur_less_often_can_be_left_out() -> None:
    every = prune(case("shipped"), ["jazz jazz rain"], keep_characters=False)
    often = prune(case("shipped"), ["jazz jazz rain"], minimum=2, keep_characters=False)
    assert {"jazz", "rain"} <= set(every.data["model"]["vocab"])
    assert set(every.data["model"]["vocab"]) - set(often.data["model"]["vocab"]) == {"rain"}


def model(rows: int, *, tied: bool = False) -> onnx.ModelProto:
    table = numpy_helper.from_array(np.arange(rows * 2, dtype=np.float32).reshape(rows, 2), "table")
    nodes = [helper.make_node("Gather", ["table", "ids"], ["y"])]
    if tied:
        nodes.append(helper.make_node("Transpose", ["table"], ["z"]))
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, [1, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 2])
    return helper.make_model(helper.make_graph(nodes, "g", [ids], [y], [table]))


def test_embedding_rows_follow_their_pieces() -> None:
    pruned = prune_embedding(model(10), [0, 3, 9], 10)
    assert numpy_helper.to_array(pruned.graph.initializer[0]).tolist() == [[0, 1], [6, 7], [18, 19]]


def test_embeddings_that_cannot_be_pruned() -> None:
    with pytest.raises(UserError, match="0 embedding tables of 9 rows"):
        prune_embedding(model(10), [0], 9)
    with pytest.raises(UserError, match="also used by Transpose"):
        prune_embedding(model(10, tied=True), [0], 10)


def test_the_example_keeps_its_accuracy(tmp_path: Path) -> None:
    report = prune_files(
        EXAMPLE / "model.onnx",
        EXAMPLE / "tokenizer.json",
        EXAMPLE / "utterances.txt",
        tmp_path,
        labels=EXAMPLE / "labels.txt",
    )
    assert report.vocabulary_after < 800 < report.vocabulary_before == 1000
    assert report.embedding_after == 48 * report.vocabulary_after
    assert report.accuracy_before is not None
    assert report.accuracy_before > 0.9
    assert report.accuracy_after == report.accuracy_before  # the corpus gives the same pieces


def test_a_strange_label_is_quoted(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.tsv"
    corpus.write_text("Nonsense\tplay\n")
    with pytest.raises(UserError, match="'play' has the label 'Nonsense'"):
        prune_files(
            EXAMPLE / "model.onnx",
            EXAMPLE / "tokenizer.json",
            corpus,
            tmp_path / "out",
            labels=EXAMPLE / "labels.txt",
        )
    assert not (tmp_path / "out").exists()

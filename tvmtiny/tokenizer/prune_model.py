"""The embedding table of an ONNX model with fewer rows, and the accuracy of a model on texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from tvmtiny.codegen.directory import to_json
from tvmtiny.errors import UserError
from tvmtiny.tokenizer.attach import attach_tokenizer
from tvmtiny.tokenizer.corpus import Row, read_corpus
from tvmtiny.tokenizer.host import HostTokenizer
from tvmtiny.tokenizer.prune import prune
from tvmtiny.tokenizer.spec import parse_spec, read_json


@dataclasses.dataclass(frozen=True)
class PruneReport:
    """Before and after: pieces, values of the embedding table, and accuracies (0 to 1) where there are labels."""

    model: Path
    tokenizer: Path
    vocabulary_before: int
    vocabulary_after: int
    embedding_before: int
    embedding_after: int
    accuracy_before: float | None
    accuracy_after: float | None


def prune_files(
    model: Path,
    tokenizer: Path,
    corpus: Path,
    output: Path,
    *,
    data: Path | None = None,
    labels: Path | None = None,
    minimum: int = 1,
    keep_characters: bool = True,
) -> PruneReport:
    """Write output/model.onnx and output/tokenizer.json, which know what the corpus uses.

    Args:
        data: labelled texts on which both models are measured; the corpus if it has labels.
        labels: class names, in the order of the first output; without them no accuracy is measured.
        minimum, keep_characters: as `prune`.

    Raises:
        UserError: files that cannot be used or do not belong together.
    """
    whole, rows = read_json(tokenizer), read_corpus(corpus)
    judged = _judged(rows if data is None else read_corpus(data), labels)
    pruned = prune(whole, [row.text for row in rows], minimum=minimum, keep_characters=keep_characters)
    spec, network = parse_spec(whole), _load_onnx(model)
    smaller = prune_embedding(network, pruned.old_ids, spec.size)
    places = output / "model.onnx", output / "tokenizer.json"
    try:
        output.mkdir(parents=True, exist_ok=True)
        onnx.save(smaller, str(places[0]))
        places[1].write_text(to_json(pruned.data), encoding="utf-8")
    except OSError as error:
        raise UserError(f"Cannot write {output}: {error.strerror or error}.", "Give another -o.") from error
    return PruneReport(
        *places,
        vocabulary_before=spec.size,
        vocabulary_after=len(pruned.old_ids),
        embedding_before=_embedding_values(network, spec.size),
        embedding_after=_embedding_values(smaller, len(pruned.old_ids)),
        accuracy_before=accuracy(model, tokenizer, *judged) if judged else None,
        accuracy_after=accuracy(*places, *judged) if judged else None,
    )


def _judged(rows: Sequence[Row], labels: Path | None) -> tuple[Sequence[Row], Sequence[str]] | None:
    if labels is None:
        return None
    if not labels.is_file():
        raise UserError(f"There is no label file {labels}.", "Give a text file with one class name a line.")
    names = labels.read_text("utf-8").split("\n")
    known = [name.strip() for name in names if name.strip()]
    strange = next((row for row in rows if row.label not in known), None)
    if strange is not None:
        raise UserError(
            f"The text {strange.text!r} has the label {strange.label!r}.",
            f"The labels are {', '.join(known)}.",
        )
    return rows, known


def _load_onnx(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(str(path))
    except Exception as error:  # protobuf raises its own
        raise UserError(f"{path} is not an ONNX model: {error}.", "Give the model's .onnx file.") from error


def _embedding_values(model: onnx.ModelProto, rows: int) -> int:
    table = _embedding_table(model, rows)
    return int(table.dims[0] * table.dims[1])


def _embedding_table(model: onnx.ModelProto, rows: int) -> onnx.TensorProto:
    """The one table of `rows` rows that ids select from."""
    tables = {
        item.name: item for item in model.graph.initializer if len(item.dims) == 2 and item.dims[0] == rows
    }
    found = {
        node.input[0] for node in model.graph.node if node.op_type == "Gather" and node.input[0] in tables
    }
    if len(found) != 1:
        raise UserError(
            f"The model has {len(found)} embedding tables of {rows} rows, the size of the vocabulary; one is needed.",
            "Give the tokenizer that the model was trained with.",
        )
    return tables[found.pop()]


def prune_embedding(model: onnx.ModelProto, old_ids: Sequence[int], rows: int) -> onnx.ModelProto:
    """A copy of `model` whose embedding table has the rows `old_ids`, in this order.

    Args:
        rows: of the table, the size of the whole vocabulary.

    Raises:
        UserError: there is no such table, or several, or it is used for something else too.
    """
    pruned = onnx.ModelProto()
    pruned.CopyFrom(model)
    table = _embedding_table(pruned, rows)
    users = [node.op_type for node in pruned.graph.node if table.name in node.input]
    others = [kind for kind in users if kind != "Gather"]
    if others:
        raise UserError(
            f"The embedding table {table.name!r} is also used by {others[0]}, so that it cannot be pruned."
        )
    values = numpy_helper.to_array(table)[np.asarray(old_ids)]
    table.CopyFrom(numpy_helper.from_array(values, table.name))
    return pruned


def accuracy(model: Path, tokenizer: Path, rows: Sequence[Row], labels: Sequence[str]) -> float:
    """Share of the rows, 0 to 1, of which the float model's first output is largest at the label.

    Raises:
        UserError: model and tokenizer do not belong together.
    """
    import tvm

    from tvmtiny.frontend import import_model
    from tvmtiny.frontend.data import input_specs
    from tvmtiny.passes.pipeline import fusion_passes
    from tvmtiny.quant.calibrate import FloatModel

    fused = tvm.transform.Sequential(fusion_passes())(import_model(str(model)))
    specs, length_input, tokens = input_specs(fused)
    attached = attach_tokenizer(tokenizer, specs, tokens, has_length=length_input is not None)
    assert attached is not None
    encoder, network = HostTokenizer(attached.tables), FloatModel(fused)
    right = 0
    for row in rows:
        ids = encoder.encode([row.text.encode("utf-8", "replace")], tokens)
        if isinstance(ids, int) or not ids:
            continue
        inputs = {spec.name: np.zeros(spec.shape, np.int64) for spec in specs}
        inputs[attached.input][: len(ids)] = ids
        scores = network.run(inputs, len(ids)).outputs[0]
        right += labels[int(np.argmax(scores))] == row.label
    return right / len(rows)

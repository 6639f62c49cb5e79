"""Class names of a model's outputs, from files or given as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import tvm

from tvmtiny.errors import UserError
from tvmtiny.frontend.names import listed, suggestion
from tvmtiny.frontend.text_file import read_lines
from tvmtiny.passes.graph import Graph, shape_of
from tvmtiny.passes.views import trace

LabelSource: TypeAlias = Path | str | Sequence[str]
"""A text file with a class name a line, or the names."""


def read_labels(
    labels: LabelSource | Mapping[str, LabelSource] | None, fused: tvm.IRModule
) -> dict[str, tuple[str, ...]]:
    """Class names by output, checked against the width of that output.

    Args:
        labels: of the first output, or of several outputs by name.
        fused: the module after the fusion passes; its results bear the names of the model's outputs.

    Raises:
        UserError: no such file or output, not text, or not as many names as classes.
    """
    if labels is None:
        return {}
    graph = Graph(fused["main"])
    classes = {trace(graph, result).root.name: shape_of(result)[-1] for result in graph.results}
    if not isinstance(labels, Mapping):
        labels = {next(iter(classes)): labels}
    found = {}
    for output, source in labels.items():
        if output not in classes:
            raise UserError(
                f"There are labels for '{output}', which is no output of the model.",
                f"{suggestion(output, list(classes))} The outputs are {listed(classes)}.",
            )
        found[output] = _names(source)
        if len(found[output]) != classes[output]:
            raise UserError(
                f"The output '{output}' has {classes[output]} classes, the labels are {len(found[output])}.",
                "Give one label for each class, in order; labels of another output are given as OUTPUT=FILE.",
            )
    return found


def _names(source: LabelSource) -> tuple[str, ...]:
    if not isinstance(source, str | Path):
        return tuple(source)
    path = Path(source)
    if not path.is_file():
        raise UserError(f"There is no label file {path}.", "Give a text file with one class name a line.")
    return tuple(line.strip() for line in read_lines(path) if line.strip())

"""Metrics of a model's outputs: the built-in ones by name, and functions of the user.

A metric takes the outputs by name, real numbers (N, C) or (N, S, C), and the targets by name, one entry a sample.
It gives values by name, larger is better. `Task.metrics` of a recipe has the same form: one function serves both.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmtiny.artifact import Artifact, TensorInfo
from tvmtiny.errors import UserError
from tvmtiny.evaluate.data import Dataset
from tvmtiny.evaluate.spans import is_bio, span_f1
from tvmtiny.frontend.data import LABELS_KEY, LENGTH_KEY
from tvmtiny.frontend.names import listed
from tvmtiny.user_code import load_module

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]
Metrics = Callable[[Arrays, Arrays], dict[str, float]]

IGNORED = -100
"""Class number of a token that does not count, as in PyTorch: the further pieces of a word."""

_TOP = re.compile(r"top([1-9]\d*)")
_OF_ROWS, _OF_TOKENS = "one row of class scores", "a row of class scores for each token"
_TOKENWISE = ("token_accuracy", "span_f1")
BUILT_IN = ("accuracy", "top3 (or any other number)", *_TOKENWISE)


def accuracy(scores: Array, classes: Array, *, top: int = 1) -> float:
    """Share of samples whose class is among the `top` largest scores; scores (N, C), classes (N,)."""
    own = np.take_along_axis(scores, classes[:, None], axis=1)
    earlier = np.arange(scores.shape[1]) < classes[:, None]
    rank = np.sum((scores > own) | ((scores == own) & earlier), axis=1)
    return float(np.mean(rank < top))


def counted_tokens(classes: Array, n_tokens: Array) -> npt.NDArray[np.bool_]:
    """The tokens (N, S) that are present and not IGNORED."""
    present: npt.NDArray[np.bool_] = np.arange(classes.shape[1]) < n_tokens[:, None]
    return present & (classes != IGNORED)


def token_accuracy(scores: Array, classes: Array, n_tokens: Array) -> float:
    """Share of counted tokens with the right class; scores (N, S, C), classes (N, S), n_tokens (N,)."""
    counted = counted_tokens(classes, n_tokens)
    return float(np.mean(scores.argmax(axis=-1)[counted] == classes[counted]))


def bio_f1(scores: Array, classes: Array, n_tokens: Array, labels: Sequence[str]) -> float:
    """F1 of the spans that the counted tokens' tags make; arrays as for `token_accuracy`, `labels` the tags."""
    counted, best = counted_tokens(classes, n_tokens), scores.argmax(axis=-1)

    def tags(numbers: Array) -> list[list[str]]:
        return [[labels[i] for i in row[keep]] for row, keep in zip(numbers, counted, strict=True)]

    return span_f1(tags(best), tags(classes))


def metrics_of(artifact: Artifact, data: Dataset, wanted: Sequence[str] = ()) -> Metrics:
    """The metrics that a user names, as one function.

    Args:
        wanted: NAME or NAME:OUTPUT with NAME of BUILT_IN, or FILE.py:FUNCTION. Without any: accuracy of each output of
            class scores for which there are targets, span F1 where its classes are BIO tags.

    Raises:
        UserError: an unknown name, an output that the metric is not for, or one without targets.
    """
    names = list(wanted) or _usual(artifact, data)
    parts = [_user(name) if ".py:" in name else _built_in(artifact, data, name) for name in names]

    def all_of_them(outputs: Arrays, targets: Arrays) -> dict[str, float]:
        found: dict[str, float] = {}
        for part in parts:
            found |= part(outputs, targets)
        return found

    return all_of_them


def _usual(artifact: Artifact, data: Dataset) -> list[str]:
    found = []
    for info in artifact.outputs:
        if target_key(artifact, data.targets, info.name) is not None:
            if _is_row(info):
                found.append(f"accuracy:{info.name}")
            else:
                found.append(f"token_accuracy:{info.name}")
                found += [f"span_f1:{info.name}"] if is_bio(info.labels) else []
    return found


def target_key(artifact: Artifact, targets: Mapping[str, Any], output: str) -> str | None:
    """Under which name the true classes of an output lie: its own, or `labels` for the first one."""
    if output in targets:
        return output
    return LABELS_KEY if output == artifact.outputs[0].name and LABELS_KEY in targets else None


def output_shape(info: TensorInfo) -> tuple[int, ...]:
    """The shape of an output of one sample, as metrics see it: (C,) for one row, else as in the arena."""
    return info.shape[-1:] if _is_row(info) else info.shape


def _is_row(info: TensorInfo) -> bool:
    return int(np.prod(info.shape[:-1])) == 1


def _built_in(artifact: Artifact, data: Dataset, spec: str) -> Metrics:
    name, _, output = spec.partition(":")
    top = _TOP.fullmatch(name)
    if name not in ("accuracy", *_TOKENWISE) and not top:
        raise UserError(
            f"There is no metric '{name}'.", f"Built in: {', '.join(BUILT_IN)}; your own: FILE.py:FUNCTION."
        )
    info = _output(artifact, output)
    key = target_key(artifact, data.targets, info.name)
    if key is None:
        raise UserError(
            f"{data.source} has no true classes for the metric '{spec}'.",
            f"Give them under the key '{info.name}', those of the first output under '{LABELS_KEY}'.",
        )
    _check(info, data, key, name, tokens=name in _TOKENWISE)
    title = name if len(artifact.outputs) == 1 else f"{info.name}.{name}"

    def metric(outputs: Arrays, targets: Arrays) -> dict[str, float]:
        scores, classes = outputs[info.name], targets[key]
        if name == "token_accuracy":
            return {title: token_accuracy(scores, classes, targets[LENGTH_KEY])}
        if name == "span_f1":
            return {title: bio_f1(scores, classes, targets[LENGTH_KEY], info.labels)}
        return {title: accuracy(scores, classes, top=int(top[1]) if top else 1)}

    return metric


def _output(artifact: Artifact, name: str) -> TensorInfo:
    found = [info for info in artifact.outputs if not name or info.name == name]
    if not found:
        raise UserError(
            f"The model has no output '{name}'.",
            f"Its outputs are {listed(i.name for i in artifact.outputs)}.",
        )
    return found[0]


def _check(info: TensorInfo, data: Dataset, key: str, name: str, *, tokens: bool) -> None:
    """Raise UserError unless an output and its true classes are what a metric needs."""
    classes, width = data.targets[key], info.shape[-1]
    if _is_row(info) == tokens:
        raise UserError(
            f"{name} is for an output of {_OF_TOKENS if tokens else _OF_ROWS}; '{info.name}' has the shape "
            f"{'x'.join(map(str, info.shape))}.",
            "Name another output: NAME:OUTPUT.",
        )
    shape = (len(data), info.shape[-2]) if tokens else (len(data),)
    if classes.dtype.kind not in "iu" or classes.shape != shape:
        raise UserError(
            f"'{key}' in {data.source} is {classes.dtype} of shape {'x'.join(map(str, classes.shape))}.",
            f"Numbers or names of classes of shape {'x'.join(map(str, shape))} are needed.",
        )
    outside = (classes >= width) | ((classes < 0) & ((classes != IGNORED) | (not tokens)))
    if np.any(outside):
        raise UserError(
            f"'{key}' in {data.source} has the class {classes[outside][0]}; the output has 0 to {width - 1}.",
            f"{IGNORED} leaves a token out." if tokens else "Number classes as the model's output does.",
        )
    if name == "span_f1" and not is_bio(info.labels):
        raise UserError(
            f"span_f1 needs the names of the classes of '{info.name}' to be BIO tags (O, B-x, I-x).",
            f"Compile the model with --labels {info.name}=FILE.",
        )


def _user(spec: str) -> Metrics:
    """FILE.py:FUNCTION; what it returns is a number, or numbers by name."""
    file, _, function = spec.rpartition(":")
    remedy = "Correct the file, or give another: --metric FILE.py:FUNCTION."
    own = getattr(load_module(Path(file), remedy), function, None)
    if not callable(own):
        raise UserError(f"{file} has no function '{function}'.", remedy)

    def metric(outputs: Arrays, targets: Arrays) -> dict[str, float]:
        try:
            found = own(outputs, targets)
            named = found if isinstance(found, Mapping) else {function: found}
            values = {str(name): float(value) for name, value in named.items()}
        except Exception as error:  # the user's own code may raise anything
            raise UserError(
                f"The metric {spec} failed: {type(error).__name__}: {error}",
                "It is called as FUNCTION(outputs, targets), both arrays by name, and returns a number or numbers by "
                f"name. Outputs are {listed(outputs)}, targets {listed(targets)}.",
            ) from error
        _check_finite(spec, values)
        return values

    return metric


def _check_finite(spec: str, values: Mapping[str, float]) -> None:
    for name, value in values.items():
        if not math.isfinite(value):
            raise UserError(
                f"The metric {spec} gives {name} = {value}.",
                "Return numbers that can be compared: no NaN, no infinity.",
            )

"""Outlier columns of activations moved into weights: SmoothQuant.

One int8 scale serves all columns of a tensor, so a column much larger than the others costs them their steps. Weights
have a scale a row and bear large columns better. Column j of what a matrix reads is divided by s_j where it is written
(gamma and beta of a normalization, rows of a matrix), and column j of the matrix multiplied by it: the model computes
the same function.

s_j = max|x_j|^a / max|w_j|^(1 - a): G. Xiao, J. Lin, M. Seznec, H. Wu, J. Demouth, S. Han, "SmoothQuant: Accurate and
Efficient Post-Training Quantization for Large Language Models" (ICML 2023, arXiv:2211.10438), equation 4. There a model
has one a. Here each place has its own, or stays as it is: whatever gives its products the least error on calibration
data, after the rounding that the compiler does.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import tvm
from tvm import relax

from tvmtiny.errors import UserError
from tvmtiny.passes.graph import Emit, Graph, array_of, as_array, constant, function_pass, rebuild, shape_of
from tvmtiny.passes.operators import NORMS, attributes, kind, parts
from tvmtiny.passes.residual_stream import POOLS
from tvmtiny.passes.strip_quantization import GIVEN_ATTRIBUTE
from tvmtiny.passes.views import trace
from tvmtiny.quant import qparams, ranges
from tvmtiny.quant.calibrate import Statistics
from tvmtiny.quant.qparams import QuantParams

Array = npt.NDArray[Any]
Argument: TypeAlias = tuple[str, int]
"""A layer and the place of a constant among its arguments."""

STRENGTHS = (0.25, 0.5, 0.75)
"""Values of a. With a = 1 all columns would fill int8, and none could be larger than in calibration."""

LEAST_GAIN = 0.9
"""A place stays as it is unless its error falls below this part: less would be the accident of a sample."""

_ROWS = 256
"""Rows of calibration data over which errors are measured."""

_HOMOGENEOUS = ("none", "relu")
"""Activations with f(x / s) = f(x) / s."""

_READS = {"dense": (1,), "attention": (1, 3, 5), "rotary_attention": (1, 3, 5), "ffn": (1,), "glu": (1, 3)}
"""Operators that read x as their first argument -> the places of the matrices by which they multiply it.

The tokens are the keys of a folded attention, too: what its matrix would take over is multiplied by them again.
"""

_INNER = {
    "attention": ("context", (5, 6), 7),
    "rotary_attention": ("context", (5, 6), 7),
    "folded_attention": ("context", (3, 4), 5),
    "ffn": ("hidden", (1, 2), 3),
    "glu": ("hidden", (3, 4), 5),
}
"""Operators with two matrices in a row -> the value between, the places of what writes it, the one that reads it."""


@dataclasses.dataclass(frozen=True)
class Place:
    """A tensor whose columns can be scaled.

    Attributes:
        value: its name in statistics, `<layer>.<value>`.
        writers: constants of which the first axis are its columns.
        readers: matrices of which the second axis are its columns.
        heads: of the tensor, where each has a symmetric scale of its own; else 0.
        sharing: how many neighbouring heads have the columns of one head of their writer.
    """

    value: str
    writers: tuple[Argument, ...]
    readers: tuple[Argument, ...]
    heads: int = 0
    sharing: int = 1


def smooth(
    fused: tvm.IRModule, statistics: Statistics, weights: Mapping[str, str], method: str = "auto"
) -> tvm.IRModule:
    """The same function with smoother tensors. What calibration has found no longer holds for the result.

    Args:
        fused: a fused float module. statistics: of its tensors. weights: type of each layer's (`weight_types`).
        method: one of `quant.ranges.METHODS`.

    Raises:
        UserError: scales have been given, by the author of the model or the user.
    """
    if statistics.given or GIVEN_ATTRIBUTE in dict(fused["main"].attrs or {}):
        raise UserError(
            "--smooth changes what tensors hold, and scales of this model have been given.",
            "Leave out --smooth, or let calibration find all scales.",
        )
    graph = Graph(fused["main"])
    changed: dict[Argument, Array] = {}
    for place in places(graph):
        rows = statistics.get(place.value)
        if rows is not None:
            matrices = [
                (changed.get(a, _constant(graph, a)).astype(np.float64), weights[a[0]]) for a in place.readers
            ]
            _scale(graph, changed, place, factors(rows, matrices, method, place.heads, place.sharing))

    def rewrite(_: Graph, var: relax.Var, value: Any, emit: Emit) -> Any | None:
        if not any(name == var.name for name, _ in changed):
            return None
        args = [
            constant(changed[var.name, i].astype(np.float32)) if (var.name, i) in changed else arg
            for i, arg in enumerate(value.args)
        ]
        return relax.Call(value.op, args, value.attrs, value.ty_args)

    return function_pass("Smooth", lambda function: rebuild(function, rewrite))(fused)


def _scale(graph: Graph, changed: dict[Argument, Array], place: Place, s: Array | None) -> None:
    if s is None:
        return
    for argument in place.writers:
        array = changed.get(argument, _constant(graph, argument))
        changed[argument] = array / (s[:, np.newaxis] if array.ndim > 1 else s)
    for argument in place.readers:
        array = changed.get(argument, _constant(graph, argument))
        changed[argument] = array * _of_readers(s, place.heads, place.sharing)


def _constant(graph: Graph, argument: Argument) -> Array:
    name, index = argument
    value = next(value for var, value in graph if var.name == name)
    return array_of(graph.producer(value.args[index]))


# where


def places(graph: Graph) -> list[Place]:
    """Those where nothing but matrices reads a tensor, and none of these is another layer's too.

    Layers that share their weights have them in flash once; with factors of their own they would not.
    """
    uses = Counter(
        array.tobytes()
        for _, value in graph
        if kind(value)
        for array in map(as_array, map(graph.producer, value.args))
        if array is not None and array.ndim > 1
    )
    return [
        place
        for place in _candidates(graph)
        if all(
            array.ndim == 1 or uses[array.tobytes()] == 1
            for array in (_constant(graph, argument) for argument in (*place.writers, *place.readers))
        )
    ]


def _candidates(graph: Graph) -> Iterator[Place]:
    results = [trace(graph, result).root for result in graph.results]
    for var, value in graph:
        if kind(value) in _INNER and (
            kind(value) != "ffn" or attributes(value)["activation"] in _HOMOGENEOUS
        ):
            yield _inner(var, value)
        writers, readers = _writers(var, value), _readers(graph, var, results)
        if writers and readers:
            yield Place(f"{var.name}.out", writers, readers)


def _inner(var: Any, value: Any) -> Place:
    key, writers, reader = _INNER[kind(value)]
    heads = attributes(value).get("heads", 0)
    return Place(
        f"{var.name}.{key}",
        tuple((var.name, index) for index in writers),
        ((var.name, reader),),
        heads,
        heads // attributes(value).get("kv_heads", heads) if heads else 1,
    )


def _writers(var: Any, value: Any) -> tuple[Argument, ...]:
    """What can take a factor a column of an operator's result; nothing where it is a sum or an activation."""
    if not kind(value):
        return ()
    _, residual, norm = parts(value)
    if norm is not None:
        last = len(value.args)
        return (var.name, last - 2), (var.name, last - 1)
    linear = kind(value) == "dense" and residual is None and attributes(value)["activation"] in _HOMOGENEOUS
    return ((var.name, 1), (var.name, 2)) if linear or kind(value) in NORMS else ()


def _readers(graph: Graph, var: Any, results: list[Any]) -> tuple[Argument, ...]:
    """The matrices that a tensor, or its mean or first row, is multiplied by; () when anything else reads it."""
    found: list[Argument] = []
    if any(var.same_as(result) for result in results):
        return ()
    for user in graph.users(var):
        value = graph.bound(user)
        if _keeps_columns(graph, user, var):
            inner = _readers(graph, user, results)
        else:
            first = kind(value) in _READS and sum(var.same_as(arg) for arg in value.args) == 1
            own = first and var.same_as(value.args[0])
            inner = tuple((user.name, index) for index in _READS[kind(value)]) if own else ()
        if not inner:
            return ()
        found += inner
    return tuple(found)


def _keeps_columns(graph: Graph, user: Any, var: Any) -> bool:
    if kind(graph.bound(user)) in POOLS:
        return True
    return graph.is_call(user, "reshape") and shape_of(user)[-1] == shape_of(var)[-1]


# how much


def factors(
    rows: Array, matrices: list[tuple[Array, str]], method: str, heads: int = 0, sharing: int = 1
) -> Array | None:
    """s of each column of the writers; None where smoothing gains too little.

    Args:
        rows: values of the tensor (R, K). matrices: those that read it (N, K), each with its type of weights.
        heads, sharing: as in `Place`.
    """
    x = rows[np.linspace(0, len(rows) - 1, min(len(rows), _ROWS)).astype(int)].astype(np.float64)
    wanted = [x @ w.T for w, _ in matrices]
    large = _of_writers(np.abs(rows).max(axis=0).astype(np.float64), heads, sharing)
    heavy = _of_writers(np.max([np.abs(w).max(axis=0) for w, _ in matrices], axis=0), heads, sharing)
    live = (large > 0) & (heavy > 0)
    if not live.any():
        return None
    best, least = None, LEAST_GAIN * _error(x, matrices, wanted, method, heads)
    for strength in STRENGTHS:
        s = np.ones(len(live))
        s[live] = large[live] ** strength / heavy[live] ** (1 - strength)
        s[~live] = np.exp(np.log(s[live]).mean())
        columns = _of_readers(s, heads, sharing)
        error = _error(x / columns, [(w * columns, t) for w, t in matrices], wanted, method, heads)
        if error < least:
            best, least = s, error
    return best


def _of_writers(columns: Array, heads: int, sharing: int) -> Array:
    """The largest values of columns (K,) over the heads that share those of a writer."""
    return columns if sharing == 1 else columns.reshape(heads // sharing, sharing, -1).max(axis=1).reshape(-1)


def _of_readers(s: Array, heads: int, sharing: int) -> Array:
    """Factors of the columns of a writer as those of its readers."""
    return s if sharing == 1 else np.repeat(s.reshape(heads // sharing, 1, -1), sharing, axis=1).reshape(-1)


def _error(
    x: Array, matrices: list[tuple[Array, str]], wanted: list[Array], method: str, heads: int
) -> float:
    """The squared error of the products when tensor and weights are integers, each relative to its own."""
    params = _params(x, method, heads)
    integers = qparams.quantize(x, params).astype(np.float64) - params.zero_point
    total = 0.0
    for (w, weights), exact in zip(matrices, wanted, strict=True):
        rounded = qparams.WEIGHTS[weights](w, np.zeros(len(w)), params, None)
        found = integers @ rounded.values.T.astype(np.float64) * rounded.unit
        total += float(np.sum((found - exact) ** 2)) / max(float(np.sum(exact**2)), 1e-30)
    return total


def _params(x: Array, method: str, heads: int) -> QuantParams:
    if not heads:
        return qparams.asymmetric(*ranges.choose(x, method, symmetric=False))
    split = np.split(x, heads, axis=1)
    scales = [float(qparams.symmetric(*ranges.choose(part, method, symmetric=True)).scale) for part in split]
    return QuantParams(np.repeat(scales, x.shape[1] // heads), 0)

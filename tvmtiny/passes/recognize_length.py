"""A mask input becomes `n_tokens`, the number of tokens that are present.

What a mask does is found by evaluating the exporter's arithmetic on the masks 1..10..0 of several lengths n: in front
of a softmax it must leave the columns below n alone and remove those from n on; in front of a sum over tokens it must
weigh rows below n equally and drop the others. How it was written does not matter.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import relax

from tvmtiny.passes.graph import Emit, Graph, constant, function_pass, op_name, rebuild, shape_of
from tvmtiny.passes.numeric import evaluate, literal
from tvmtiny.passes.operators import MAX_TOKENS_ATTRIBUTE, call
from tvmtiny.passes.resemblance import TWO_MASKS, UNUSUAL_MASK, refusal
from tvmtiny.passes.views import as_matrix, reshaped

Array = npt.NDArray[Any]

LENGTH_PARAMETER = "n_tokens"
LENGTH_INPUT_ATTRIBUTE = "tvmtiny.length_input"
REMOVED = -1e4
"""Logits at or below this are taken as removed by a mask (fp16 exporters use -1e4, others -3.4e38 or -inf)."""

_HOLES = "A mask must mark the first n tokens (1..10..0), with no holes."


def RecognizeLength() -> tvm.transform.Pass:  # noqa: N802
    """The pass. Softmax over tokens and mean over tokens take `n` afterwards, with or without a mask input."""
    return function_pass("RecognizeLength", _recognize)


def _recognize(function: relax.Function) -> relax.Function:
    graph = Graph(function)
    mask = _mask_parameter(graph)
    if mask is None:
        finder = _MaskFinder(graph, None, None)
        return rebuild(function, finder.rewrite)
    length = relax.Var(LENGTH_PARAMETER, relax.TensorType((), "int64"))
    finder = _MaskFinder(graph, mask, length)
    params = [param for param in graph.params if not param.same_as(mask)] + [length]
    _require_replaced(function, finder, mask, [*graph.params, length])
    result = rebuild(function, finder.rewrite, params)
    return result.with_attrs({LENGTH_INPUT_ATTRIBUTE: mask.name, MAX_TOKENS_ATTRIBUTE: shape_of(mask)[-1]})


def _require_replaced(
    function: relax.Function, finder: _MaskFinder, mask: relax.Var, params: list[relax.Var]
) -> None:
    trial = Graph(rebuild(function, finder.rewrite, params))
    left = [var for var, value in trial if _uses(value, mask)]
    if left:
        raise refusal(
            f"The mask input '{mask.name}' is used in a way that is not a length (at node '{left[0].name}')",
            UNUSUAL_MASK,
            _HOLES,
        )


def _uses(value: Any, var: relax.Var) -> bool:
    return isinstance(value, relax.Call) and any(var.same_as(arg) for arg in value.args)


def _mask_parameter(graph: Graph) -> relax.Var | None:
    """The input that is no token id and no feature matrix: at most one; a model's only input is data."""
    used = [param for param in graph.params if graph.users(param)]
    if len(used) < 2:
        return None
    candidates = [param for param in used if len(shape_of(param)) <= 2 and not is_gathered(graph, param)]
    if len(candidates) > 1:
        names = ", ".join(f"'{param.name}'" for param in candidates)
        raise refusal(f"More than one input looks like a mask: {names}", TWO_MASKS)
    return candidates[0] if candidates else None


def is_gathered(graph: Graph, param: relax.Var) -> bool:
    """Whether `param`, perhaps through casts and reshapes, is the index of a gather."""
    frontier = [param]
    while frontier:
        var = frontier.pop()
        for user in graph.users(var):
            value = graph.bound(user)
            if op_name(value) == "take" and var.same_as(value.args[1]):
                return True
            if op_name(value) in ("astype", "reshape", "squeeze", "expand_dims"):
                frontier.append(user)
    return False


class _MaskFinder:
    """Rewrites what consumes the mask; with `mask` None every token is present."""

    def __init__(self, graph: Graph, mask: relax.Var | None, length: relax.Var | None) -> None:
        self.mask = mask
        self.length = length
        self.probes: list[tuple[int, dict[Any, Array | None]]] = []
        if mask is not None:
            shape = shape_of(mask)
            tokens = shape[-1]
            for n in sorted({1, 2, tokens // 2, tokens - 1, tokens} - {0}):
                row = (np.arange(tokens) < n).astype(str(mask.ty.dtype))
                self.probes.append((n, {mask: np.broadcast_to(row, shape).copy()}))

    def rewrite(self, graph: Graph, var: relax.Var, value: Any, emit: Emit) -> Any | None:
        if not isinstance(value, relax.Call):
            return None
        name = op_name(value)
        if name == "nn.softmax":
            return self._softmax(graph, var, value, emit)
        if name in ("divide", "sum", "mean"):
            return self._mean(graph, value, emit)
        return None

    def _n(self, tokens: int) -> Any:
        return constant(np.asarray(tokens, np.int64)) if self.length is None else self.length

    def _values(self, graph: Graph, expr: Any) -> list[tuple[int, Array]] | None:
        """(n, value) of an expression for every probed length, or None when it is not a function of the mask."""
        values = []
        for n, known in self.probes:
            value = evaluate(graph, expr, known)
            if value is None:
                return None
            values.append((n, value))
        return values

    def _softmax(self, graph: Graph, var: relax.Var, value: relax.Call, emit: Emit) -> Any:
        scores = value.args[0]
        tokens = shape_of(scores)[-1]
        one_row = _is_one_row(shape_of(scores))
        if int(value.attrs.axis) not in (-1, len(shape_of(scores)) - 1) or (one_row and self.mask is None):
            return None
        if self.mask is None:
            return call("softmax", [scores, self._n(tokens)])
        unmasked = self._unmasked_scores(graph, scores, emit)
        if unmasked is None and one_row:
            return None
        if unmasked is None:
            raise refusal(
                f"The softmax at node '{var.name}' does not take the model's mask '{self.mask.name}' as a length",
                UNUSUAL_MASK,
                _HOLES,
            )
        return call("softmax", [unmasked, self._n(tokens)])

    def _unmasked_scores(self, graph: Graph, scores: Any, emit: Emit) -> Any | None:
        producer = graph.producer(scores)
        if not isinstance(producer, relax.Call):
            return None
        args = list(producer.args)
        shape = shape_of(scores)
        name = op_name(producer)
        if name == "add":
            for other, mask in ((args[0], args[1]), (args[1], args[0])):
                values = self._values(graph, mask)
                if values is not None and _removes_absent_keys(values, shape):
                    return _with_constant_mask(other, values, shape, emit)
        if name == "where":
            return self._where_scores(graph, args, shape, emit)
        if name in ("reshape", "squeeze", "expand_dims") and shape_of(args[0])[-1] == shape[-1]:
            inner = self._unmasked_scores(graph, args[0], emit)
            return None if inner is None else emit(relax.op.reshape(inner, shape))
        return None

    def _where_scores(self, graph: Graph, args: list[Any], shape: tuple[int, ...], emit: Emit) -> Any | None:
        """`where(keep, scores, -inf)` or `where(drop, -inf, scores)`."""
        keep = self._values(graph, args[0])
        for scores, removed, kept_when in ((args[1], args[2], True), (args[2], args[1], False)):
            fill = literal(graph.producer(removed))
            if keep is None or fill is None or np.any(np.asarray(fill) > REMOVED):
                continue
            masks = [(n, np.where(v == kept_when, 0.0, fill)) for n, v in keep]
            if _removes_absent_keys(masks, shape):
                return _with_constant_mask(scores, masks, shape, emit)
        return None

    def _mean(self, graph: Graph, value: relax.Call, emit: Emit) -> Any | None:
        """mean(x), or sum(x * mask) / sum(mask) in any spelling, over the tokens of x (1, S, E)."""
        if self.mask is None:
            return self._plain_mean(graph, value, emit)
        numerator, weights = value, None
        if op_name(value) == "divide":
            numerator, weights = graph.producer(value.args[0]), self._values(graph, value.args[1])
            if weights is None:
                return None
        if not graph.is_call(numerator, "sum") or not graph.is_call(numerator.args[0], "multiply"):
            return None
        product = graph.producer(numerator.args[0])
        for x, factor in ((product.args[0], product.args[1]), (product.args[1], product.args[0])):
            values = self._values(graph, factor)
            if (
                values is None
                or len(shape_of(x)) != 3
                or list(map(int, numerator.attrs.axis)) not in ([1], [-2])
            ):
                continue
            divisors = [np.asarray(1.0)] * len(values) if weights is None else [w for _, w in weights]
            if all(_is_mean(v, d, n, shape_of(x)) for (n, v), d in zip(values, divisors, strict=True)):
                return self._emit_mean(graph, x, value, emit)
        return None

    def _plain_mean(self, graph: Graph, value: relax.Call, emit: Emit) -> Any | None:
        if op_name(value) != "mean" or len(shape_of(value.args[0])) != 3:
            return None
        if list(map(int, value.attrs.axis)) not in ([1], [-2]):
            return None
        return self._emit_mean(graph, value.args[0], value, emit)

    def _emit_mean(self, graph: Graph, x: Any, like: Any, emit: Emit) -> Any:
        matrix = as_matrix(graph, x, emit)
        return reshaped(call("mean", [matrix, self._n(shape_of(matrix)[0])]), like, emit)


def _is_one_row(shape: tuple[int, ...]) -> bool:
    """Whether a softmax has the shape of one over classes; one of attention pooling has it, too, and a mask."""
    return len(shape) <= 2 and int(np.prod(shape[:-1])) == 1


def _removes_absent_keys(masks: list[tuple[int, Array]], shape: tuple[int, ...]) -> bool:
    """Whether an additive mask, for each probed n, removes the keys from n on, for the queries below n.

    To keys below n it may add the same whatever n is: it may remove some, but not a query's own (causal and local
    attention), and weigh others (relative positions).
    """
    whole = np.broadcast_to(masks[-1][1], shape)
    square = shape[-1] == shape[-2]
    if np.any(np.diagonal(whole, axis1=-2, axis2=-1) <= REMOVED):
        return False
    for n, mask in masks:
        rows = np.broadcast_to(mask, shape)[..., : min(n, shape[-2]), :]
        expected = whole[..., : min(n, shape[-2]), :n]
        kept = expected > REMOVED if square else np.ones_like(expected, bool)
        if np.any(rows[..., :n][kept] != expected[kept]) or np.any(rows[..., :n][~kept] > REMOVED):
            return False
        if np.any(rows[..., n:] > REMOVED):
            return False
    return True


def _with_constant_mask(
    scores: Any, masks: list[tuple[int, Array]], shape: tuple[int, ...], emit: Emit
) -> Any:
    """Scores with what a mask adds and removes whatever the length is."""
    whole = np.broadcast_to(masks[-1][1], shape)
    if not np.any(whole):
        return scores
    return emit(
        relax.op.add(scores, constant(np.where(whole > REMOVED, whole, 10 * REMOVED).astype(np.float32)))
    )


def _is_mean(weight: Array, divisor: Array, n: int, shape: tuple[int, ...]) -> bool:
    """Whether weight / divisor is 1/n for the tokens below n and 0 for the others; x is (1, S, E)."""
    full = np.broadcast_to(
        np.broadcast_to(weight, shape)
        / np.reshape(divisor, (-1, 1, np.shape(divisor)[-1] if np.ndim(divisor) else 1)),
        shape,
    )
    expected = (np.arange(shape[1]) < n)[None, :, None] / n
    return bool(np.allclose(full, expected, rtol=1e-5, atol=1e-7))

"""ONNX operators that stand for several: attention of opset 23, einsum, and what ONNX Runtime fuses in files it saves.

Each is taken apart into the plain operators that the passes know. A form that is not covered raises
NotImplementedError, which the importer reports with the node's name.

Sources: ONNX operator specification (Attention, Einsum), ONNX Runtime contrib operators (docs/ContribOperators.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import relax

from tvmtiny.passes.graph import constant, shape_of

op = relax.op
MICROSOFT = "com.microsoft"

_CACHE = "a cache of keys and values (past, present) belongs to a decoder"
_ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "Relu": op.nn.relu,
    "Tanh": op.tanh,
    "Sigmoid": op.sigmoid,
}


def _attention(inputs: Any, attributes: dict[str, Any]) -> Any:
    """softmax(Q K^T scale + mask) V; Q (1, H, S, P) or (1, S, H P)."""
    q, k, v, mask = (inputs[index] for index in range(4))
    if any(inputs[index] is not None for index in range(4, 7)):
        raise NotImplementedError(_CACHE)
    if attributes.get("softcap"):
        raise NotImplementedError("softcap bounds the scores by a tanh, which is not supported")
    flat = len(shape_of(q)) == 3
    heads = [int(attributes[name]) for name in ("q_num_heads", "kv_num_heads")] if flat else []
    parts, shapes = [], []
    for x, count in zip((q, k, v), [*heads, *heads[1:]] if flat else [0, 0, 0], strict=True):
        part, shape = _split_heads(x, count) if flat else (x, shape_of(x))
        parts.append(part)
        shapes.append(shape)
    (batch, count, rows, width), (_, kv_count, columns, _), (*_, v_width) = shapes
    k, v = (_repeated(x, shape, count // kv_count) for x, shape in zip(parts[1:], shapes[1:], strict=True))
    scale = float(attributes.get("scale") or 1 / math.sqrt(width))
    scores = op.multiply(op.matmul(parts[0], op.permute_dims(k, [0, 1, 3, 2])), relax.const(scale, "float32"))
    scores = _masked(scores, mask, columns)
    if attributes.get("is_causal"):
        later = np.arange(columns) > np.arange(rows)[:, None]
        scores = op.add(scores, constant(np.where(later, -np.inf, 0.0).astype(np.float32)))
    context = op.matmul(op.nn.softmax(scores, axis=-1), v)
    if not flat:
        return context
    return op.reshape(op.permute_dims(context, [0, 2, 1, 3]), (batch, rows, count * v_width))


def _split_heads(x: Any, heads: int) -> tuple[Any, tuple[int, int, int, int]]:
    """(1, S, H P) as (1, H, S, P), with this shape."""
    batch, rows, columns = shape_of(x)
    width = columns // heads
    split = op.reshape(x, (batch, rows, heads, width))
    return op.permute_dims(split, [0, 2, 1, 3]), (batch, heads, rows, width)


def _repeated(x: Any, shape: tuple[int, ...], times: int) -> Any:
    """Each head of K or V (1, H, S, P) `times` times in a row: grouped queries."""
    if times == 1:
        return x
    batch, heads, rows, width = shape
    wide = op.broadcast_to(op.expand_dims(x, 2), (batch, heads, times, rows, width))
    return op.reshape(wide, (batch, heads * times, rows, width))


def _masked(scores: Any, mask: Any, columns: int) -> Any:
    if mask is None:
        return scores
    if shape_of(mask)[-1] != columns:
        raise NotImplementedError("a mask for fewer keys than there are")
    if str(mask.ty.dtype) == "bool":
        mask = op.where(mask, relax.const(0.0, "float32"), relax.const(-np.inf, "float32"))
    return op.add(scores, mask)


def _rms_norm(inputs: Any, attributes: dict[str, Any]) -> Any:
    """x / sqrt(mean(x x) + epsilon) gamma over the axes from `axis` on."""
    x, gamma = inputs[0], inputs[1]
    rank = len(shape_of(x))
    axes = list(range(int(attributes.get("axis", -1)) % rank, rank))
    mean = op.mean(op.multiply(x, x), axis=axes, keepdims=True)
    epsilon = relax.const(float(attributes.get("epsilon", 1e-5)), "float32")
    return op.multiply(op.multiply(x, op.rsqrt(op.add(mean, epsilon))), gamma)


def _einsum(inputs: Any, attributes: dict[str, Any]) -> Any:
    """Two operands without repeated or one-sided labels: a matrix product with transposes."""
    equation = attributes["equation"]
    equation = (equation if isinstance(equation, str) else equation.decode()).replace(" ", "")
    terms, _, result = equation.partition("->")
    labels = terms.split(",")
    refused = NotImplementedError(
        f"the equation '{equation}' is no product of two matrices, such as 'bhid,bhjd->bhij', where every label is of "
        "both operands, or of one operand and the result"
    )
    if len(labels) != 2 or "." in equation or "->" not in equation:
        raise refused
    left, right = labels
    if any(len(set(term)) != len(term) for term in (left, right, result)):
        raise refused
    extents = {
        label: extent
        for term, x in zip(labels, (inputs[0], inputs[1]), strict=True)
        for label, extent in zip(term, shape_of(x), strict=True)
    }
    both = [label for label in left if label in right]
    outer = [label for label in both if label in result]
    inner = [label for label in both if label not in result]
    rows, columns = ([label for label in term if label not in both] for term in (left, right))
    if set(result) != {*outer, *rows, *columns} or not inner:
        raise refused

    def matrix(x: Any, term: str, order: list[list[str]]) -> Any:
        sizes = [math.prod(extents[label] for label in group) for group in order]
        axes = [term.index(label) for group in order for label in group]
        return op.reshape(op.permute_dims(x, axes), sizes)

    product = op.matmul(
        matrix(inputs[0], left, [outer, rows, inner]), matrix(inputs[1], right, [outer, inner, columns])
    )
    found = [*outer, *rows, *columns]
    unfolded = op.reshape(product, [extents[label] for label in found])
    return op.permute_dims(unfolded, [found.index(label) for label in result])


def _fused_matmul(inputs: Any, attributes: dict[str, Any]) -> Any:
    """alpha op(A) op(B); op moves the first axis behind the batch (transBatch), then swaps the last two (trans)."""
    a, b = (_transposed(inputs[index], attributes, side) for index, side in enumerate("AB"))
    return op.multiply(op.matmul(a, b), relax.const(float(attributes.get("alpha", 1.0)), "float32"))


def _transposed(x: Any, attributes: dict[str, Any], side: str) -> Any:
    axes = list(range(len(shape_of(x))))
    if attributes.get(f"transBatch{side}"):
        axes = [*axes[1:-1], 0, axes[-1]]
    if attributes.get(f"trans{side}"):
        axes = [*axes[:-2], axes[-1], axes[-2]]
    return op.permute_dims(x, axes)


def _fused_gemm(inputs: Any, attributes: dict[str, Any]) -> Any:
    """activation(alpha op(A) op(B) + beta C)."""
    name = attributes.get("activation", b"")
    name = name if isinstance(name, str) else name.decode()
    if name not in _ACTIVATIONS:
        raise NotImplementedError(f"the activation '{name}' of a fused layer")
    result = _fused_matmul(inputs, attributes)
    if inputs[2] is not None:
        beta = relax.const(float(attributes.get("beta", 1.0)), "float32")
        result = op.add(result, op.multiply(inputs[2], beta))
    return _ACTIVATIONS[name](result)


def _quick_gelu(inputs: Any, attributes: dict[str, Any]) -> Any:
    """x sigmoid(alpha x); SiLU where alpha is 1."""
    alpha = float(attributes.get("alpha", 1.702))
    if alpha == 1.0:
        return op.nn.silu(inputs[0])
    return op.multiply(inputs[0], op.sigmoid(op.multiply(inputs[0], relax.const(alpha, "float32"))))


def _skip_layer_norm(inputs: Any, attributes: dict[str, Any]) -> Any:
    """LayerNorm(x + skip + bias); the fourth result is the sum, the second and third are never used."""
    x, skip, gamma, beta, bias = (inputs[index] for index in range(5))
    total = op.add(x, skip)
    total = total if bias is None else op.add(total, bias)
    beta = beta if beta is not None else constant(np.zeros(shape_of(gamma), np.float32))
    norm = op.nn.layer_norm(total, gamma, beta, axes=-1, epsilon=float(attributes.get("epsilon", 1e-12)))
    unused = relax.const(0.0, "float32")
    return relax.Tuple([norm, unused, unused, total])


FUSED: dict[str, Callable[[Any, dict[str, Any]], Any | None]] = {
    "Attention": _attention,
    "Einsum": _einsum,
    "RMSNormalization": _rms_norm,
    f"{MICROSOFT}.FusedGemm": _fused_gemm,
    f"{MICROSOFT}.FusedMatMul": _fused_matmul,
    f"{MICROSOFT}.QuickGelu": _quick_gelu,
    f"{MICROSOFT}.SkipLayerNormalization": _skip_layer_norm,
}
"""Converters as `onnx_importer.OVERRIDES`."""

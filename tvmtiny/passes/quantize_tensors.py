"""Plain Relax operators that no fusion has taken become integer operators: what lets unusual models compile.

Every tensor is int8 with one scale. A chain of functions of one tensor is one table; transposes and slices are copies,
made once and only where an operator needs the other order; a product of two activations needs symmetric operands.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import ir, relax

from tvmtiny.errors import UserError
from tvmtiny.kernels import emit_call
from tvmtiny.passes.graph import Graph, as_array, constant, op_name, shape_of
from tvmtiny.passes.numeric import ELEMENTWISE, VIEWS, evaluate, literal
from tvmtiny.passes.operators import kind
from tvmtiny.passes.quantization import Quantization
from tvmtiny.passes.views import is_identity, trace
from tvmtiny.quant import qparams
from tvmtiny.quant.qparams import QuantParams
from tvmtiny.quant.tensor_arithmetic import EXPONENTIAL_ONE

_BINARY = {
    "add": "add",
    "subtract": "add",
    "multiply": "multiply",
    "divide": "divide",
    "maximum": "maximum",
    "minimum": "minimum",
}
_REDUCTIONS = ("sum", "mean", "max", "min")
_MOST_PARTS = 4
"""Operands of a concatenation."""

_FACTOR_BITS = 14
"""Factors that bring the operands of a sum to one unit have at most this many bits."""


def is_tensor_operator(graph: Graph, var: Any, value: Any, needed: set[Any]) -> bool:
    """Whether `quantize_tensor` takes the binding; what no integer tensor is made of needs to be a view or function.

    Args:
        needed: `materialized(graph)`.
    """
    if kind(value) == "softmax":
        return True
    if kind(value) or not isinstance(value, relax.Call):
        return False
    name = op_name(value)
    if var not in needed:
        return name in ELEMENTWISE or name in VIEWS
    if not function_root(graph, var).same_as(var):
        return True
    if name == "nn.softmax":
        return int(value.attrs.axis) % len(shape_of(var)) == len(shape_of(var)) - 1
    if name in _REDUCTIONS:
        axes = _axes(value)
        return axes == list(range(axes[0], axes[-1] + 1))
    return name in _BINARY or (name in _OPERATORS and len(_operands(graph, value)) <= _MOST_PARTS)


def materialized(graph: Graph) -> set[Any]:
    """The variables that an integer tensor is made of: results, and what operators read through views and functions."""
    found: set[Any] = set()
    pending = [trace(graph, result).root for result in graph.results]
    pending += [arg for _, value in graph if kind(value) for arg in value.args]
    while pending:
        root = trace(graph, pending.pop()).root
        value = graph.producer(root) if isinstance(root, ir.Var) else None
        if not isinstance(value, relax.Call) or root in found or kind(value) not in ("", "softmax"):
            continue
        found.add(root)
        source = function_root(graph, root)
        pending += [source] if not source.same_as(root) else _operands(graph, value)
    return found


def symmetric_operands(graph: Graph) -> set[str]:
    """Names of the variables that a product of two activations reads."""
    names = set()
    for _, value in graph:
        if isinstance(value, relax.Call) and graph.is_call(value, "matmul"):
            roots = (trace(graph, arg).root for arg in value.args)
            names |= {root.name for root in roots if isinstance(root, ir.Var)}
    return names


def _operands(graph: Graph, value: relax.Call) -> list[Any]:
    args = [field for arg in value.args for field in (arg.fields if isinstance(arg, relax.Tuple) else [arg])]
    return [arg for arg in args if isinstance(arg, ir.Var) and hasattr(arg.ty, "dtype") and arg.ty.ndim > 0]


def function_root(graph: Graph, var: Any) -> Any:
    """The variable (perhaps a view) of which `var` is an elementwise function; `var` itself when there is none."""
    value = graph.producer(var)
    own = graph.producer_variable(var)
    if not isinstance(value, relax.Call) or kind(value) or op_name(value) not in ELEMENTWISE:
        return own
    roots = []
    for arg in value.args:
        scalar = literal(graph.producer(arg))
        if scalar is not None:
            if np.size(scalar) != 1:
                return own
            continue
        if int(np.prod(shape_of(arg))) != int(np.prod(shape_of(var))):
            return own
        view = trace(graph, arg)
        roots.append(function_root(graph, view.root) if is_identity(view) else graph.producer_variable(arg))
    unique = [root for i, root in enumerate(roots) if not any(root.same_as(other) for other in roots[:i])]
    return unique[0] if len(unique) == 1 else own


def quantize_tensor(c: Quantization, var: relax.Var, value: relax.Call) -> tuple[Any, QuantParams]:
    """The integer operator of a plain Relax operator and the parameters of its result."""
    root = function_root(c.graph, var)
    if not root.same_as(var):
        return _function(c, var, root)
    name = "softmax" if kind(value) == "softmax" else op_name(value)
    if name in _BINARY:
        return _binary(c, var, value, name)
    if name in _REDUCTIONS:
        return _reduce(c, var, value, name)
    return _OPERATORS[name](c, var, value)


def _function(c: Quantization, var: relax.Var, root: Any) -> tuple[Any, QuantParams]:
    x = c.operand(root)
    grid = ((np.arange(-128, 128) - x.params.zero_point) * x.params.scale).astype(np.float32)
    known: dict[Any, Any] = {root: grid, c.graph.producer(root): grid}
    _spread(c.graph, var, root, grid, known)
    values = evaluate(c.graph, var, known)
    assert values is not None, f"{var.name} is no function of {root.name}"
    out = c.range_of(var.name, "out")
    with np.errstate(all="ignore"):
        table = qparams.quantize(np.nan_to_num(values.astype(np.float64), posinf=1e30, neginf=-1e30), out)
    size = int(np.prod(shape_of(var)))
    tensors = {"x": c.shaped(x.expr, (1, size)), "table": constant(table)}
    return emit_call("lookup", tensors, c.n), out


def _spread(graph: Graph, var: Any, root: Any, grid: npt.NDArray[Any], known: dict[Any, Any]) -> None:
    """Reshapes between the root and the function have the root's values, too."""
    pending = [var]
    while pending:
        value = graph.producer(pending.pop())
        if not isinstance(value, relax.Call) or value.same_as(graph.producer(root)):
            continue
        if op_name(value) in VIEWS:
            known[value] = grid
            continue
        pending += [arg for arg in value.args if isinstance(arg, ir.Var)]


def _extents(shape: tuple[int, ...], what: str) -> tuple[int, ...]:
    if len(shape) > 4:
        raise UserError(
            f"'{what}' has {len(shape)} axes; at most 4 are supported.", "Reshape it in the model."
        )
    return (1,) * (4 - len(shape)) + shape


def _strides(shape: tuple[int, ...], result: tuple[int, ...]) -> list[int]:
    """Elements to the next along each of four axes of the result; 0 where the operand is broadcast."""
    padded = (1,) * (len(result) - len(shape)) + shape
    strides, step = [0] * len(result), 1
    for axis in reversed(range(len(result))):
        strides[axis] = step if padded[axis] != 1 else 0
        step *= padded[axis]
    return strides


def _binary(c: Quantization, var: relax.Var, value: relax.Call, name: str) -> tuple[Any, QuantParams]:
    operands = [c.tensor(arg) for arg in value.args]
    shapes = [shape_of(arg) for arg in value.args]
    result = _extents(shape_of(var), var.name)
    scales = [float(operand.params.scale) for operand in operands]
    out = c.range_of(var.name, "out")
    factors, unit = (1, 1), scales[0] * scales[1]
    if name in ("add", "subtract", "maximum", "minimum"):
        unit = max(scales) / 2**_FACTOR_BITS
        second = round(scales[1] / unit)
        factors = (round(scales[0] / unit), -second if name == "subtract" else second)
    if name == "divide":
        real = scales[0] / scales[1]
        out = dataclasses.replace(out, scale=max(float(out.scale), real / 2.0**20))
        (multiplier,), shift = qparams.ratio(real / float(out.scale), 1)
        bound = 255.0
    else:
        out = dataclasses.replace(out, scale=max(float(out.scale), unit / qparams.MAX_REAL_MULTIPLIER))
        (multiplier,), shift = qparams.fixed_point(unit / float(out.scale))
        bound = 255.0 * 255 if name == "multiply" else 255.0 * (abs(factors[0]) + abs(factors[1]))
    qparams.check_shift(bound, shift, var.name)
    attrs: dict[str, Any] = {
        "kind": _BINARY[name], "fa": factors[0], "fb": factors[1], "multiplier": int(multiplier), "shift": shift,
        "za": int(operands[0].params.zero_point), "zb": int(operands[1].params.zero_point),
        "zero_point": int(out.zero_point),
    }  # fmt: skip
    attrs |= {f"d{axis}": extent for axis, extent in enumerate(result)}
    for letter, shape in zip("ab", shapes, strict=True):
        attrs |= {f"{letter}{axis}": step for axis, step in enumerate(_strides(shape, result))}
    tensors = {
        letter: c.shaped(operand.expr, (int(np.prod(shape)),))
        for letter, operand, shape in zip("ab", operands, shapes, strict=True)
    }
    return emit_call("binary", tensors, c.n, **attrs), out


def _matmul(c: Quantization, var: relax.Var, value: relax.Call) -> tuple[Any, QuantParams]:
    left, right = value.args
    *outer, M, N = (1, *shape_of(var)) if len(shape_of(left)) > 1 else (1, 1, *shape_of(var))
    K, B = shape_of(left)[-1], int(np.prod(outer))
    a = c.symmetric(c.broadcast(left, (*outer, M, K)))
    b = c.symmetric(c.broadcast(right, (*outer, K, N), swap=True))
    unit = float(a.params.scale) * float(b.params.scale)
    out = c.range_of(var.name, "out")
    out = dataclasses.replace(out, scale=max(float(out.scale), unit / qparams.MAX_REAL_MULTIPLIER))
    (multiplier,), shift = qparams.fixed_point(unit / float(out.scale))
    qparams.check_shift(128.0 * 128 * K, shift, var.name)
    tensors = {"a": c.shaped(a.expr, (B, M, K)), "b": c.shaped(b.expr, (B, N, K))}
    attrs = {"multiplier": int(multiplier), "shift": shift, "zero_point": int(out.zero_point)}
    return emit_call("matmul", tensors, c.n, **attrs), out


def _softmax(c: Quantization, var: relax.Var, value: relax.Call) -> tuple[Any, QuantParams]:
    shape = shape_of(var)
    x = c.tensor(value.args[0])
    out = c.range_of(var.name, "out")
    distances = np.arange(256) * float(x.params.scale)
    table = np.round(EXPONENTIAL_ONE * np.exp(-distances)).astype(np.uint16)
    (ratio,), shift = qparams.ratio(1.0 / float(out.scale), EXPONENTIAL_ONE)
    qparams.check_shift(float(EXPONENTIAL_ONE), shift, var.name)
    rows = int(np.prod(shape[:-1]))
    tensors = {"x": c.shaped(x.expr, (rows, shape[-1])), "table": constant(table)}
    attrs = {
        "ratio": int(ratio), "shift": shift, "zero_point": int(out.zero_point),
        "by_length": int(kind(value) == "softmax" and c.has_length),
    }  # fmt: skip
    return emit_call("softmax", tensors, c.n, **attrs), out


def _axes(value: relax.Call) -> list[int]:
    """The axes of a reduction, in order."""
    rank = len(shape_of(value.args[0]))
    return sorted(int(axis) % rank for axis in (value.attrs.axis or range(rank)))


def _reduce(c: Quantization, var: relax.Var, value: relax.Call, name: str) -> tuple[Any, QuantParams]:
    shape = shape_of(value.args[0])
    axes = _axes(value)
    extents = (
        int(np.prod(shape[: axes[0]], dtype=np.int64)),
        int(np.prod(shape[axes[0] : axes[-1] + 1])),
        int(np.prod(shape[axes[-1] + 1 :], dtype=np.int64)),
    )
    x = c.tensor(value.args[0])
    attrs: dict[str, Any] = {"kind": name, "zero_point_in": int(x.params.zero_point)}
    if name in ("max", "min"):
        attrs |= {"multiplier": 0, "shift": 0, "zero_point": 0}
        return emit_call("reduce", {"x": c.shaped(x.expr, extents)}, c.n, **attrs), x.params
    unit = float(x.params.scale) / (extents[1] if name == "mean" else 1)
    out = c.range_of(var.name, "out")
    out = dataclasses.replace(out, scale=max(float(out.scale), unit / qparams.MAX_REAL_MULTIPLIER))
    (multiplier,), shift = qparams.fixed_point(unit / float(out.scale))
    qparams.check_shift(255.0 * extents[1], shift, var.name)
    attrs |= {
        "kind": "sum", "multiplier": int(multiplier), "shift": shift, "zero_point": int(out.zero_point)
    }  # fmt: skip
    return emit_call("reduce", {"x": c.shaped(x.expr, extents)}, c.n, **attrs), out


def _is_zero(expr: Any) -> bool:
    array = as_array(expr)
    return array is not None and not np.any(array)


def _concat(c: Quantization, var: relax.Var, value: relax.Call) -> tuple[Any, QuantParams]:
    fields = list(value.args[0].fields)
    shape = shape_of(var)
    axis = int(value.attrs.axis) % len(shape)
    rows = int(np.prod(shape[:axis], dtype=np.int64))
    parts = [c.tensor(field) for field in fields]
    out = c.range_of(var.name, "out")
    scales = [0.0 if _is_zero(part.expr) else float(part.params.scale) for part in parts]
    largest = max(scales)
    out = dataclasses.replace(out, scale=max(float(out.scale), largest / qparams.MAX_REAL_MULTIPLIER))
    attrs: dict[str, Any] = {"zero_point": int(out.zero_point)}
    tensors = {}
    for i in range(_MOST_PARTS):
        part = parts[i] if i < len(parts) else None
        real = scales[i] / float(out.scale) if part else 0.0
        (multiplier,), shift = qparams.fixed_point(real)
        zero = int(part.params.zero_point) if part else 0
        attrs |= {f"z{i}": zero, f"m{i}": int(multiplier), f"s{i}": shift}
        if part is not None:
            tensors[f"x{i}"] = c.shaped(part.expr, (rows, int(np.prod(shape_of(fields[i])[axis:]))))
    return emit_call("concat", tensors, c.n, **attrs), out


_OPERATORS: dict[str, Callable[[Quantization, relax.Var, relax.Call], tuple[Any, QuantParams]]] = {
    "matmul": _matmul,
    "softmax": _softmax,
    "nn.softmax": _softmax,
    "concat": _concat,
}

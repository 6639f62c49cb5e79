"""Embeddings become integer operators: the tables, and the factors that bring them to the unit of their sum.

A table that is the weights of a dense layer, too (the last one of a language model, usually), lies in flash once: it
has the layer's integers, with a scale a row, and a factor a row brings them to the unit of the sum.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import relax

from tvmtiny.kernels import emit_call
from tvmtiny.kernels.epilogue import Epilogue
from tvmtiny.passes.graph import Graph, array_of, constant, shape_of
from tvmtiny.passes.operators import EMBEDDINGS, LAYER_NORM, attributes, kind, parts
from tvmtiny.passes.quantization import Quantization
from tvmtiny.quant import qparams
from tvmtiny.quant.integer import NORM_MAX_BITS
from tvmtiny.quant.qparams import QuantParams

Array = npt.NDArray[Any]

_FACTOR_BITS = 12
"""Factors of rows have at most so many bits: finer than the rows themselves, and the sum stays small."""


def is_tied(graph: Graph, weight: Any) -> bool:
    """Whether the weights of a dense layer are the table of an embedding."""
    return any(_is_table(value, weight) for _, value in graph)


def _is_table(value: Any, weight: Any) -> bool:
    return kind(value) in EMBEDDINGS and _equal(value.args[1], weight)


def _equal(one: Any, other: Any) -> bool:
    return shape_of(one) == shape_of(other) and bool(np.array_equal(array_of(one), array_of(other)))


def quantize_embedding(c: Quantization, var: relax.Var, call: relax.Call) -> tuple[Any, QuantParams]:
    """The integer operator of an embedding and the parameters of its result."""
    (ids, tokens, positions, *second), _, norm = parts(call)
    tied = any(kind(value) == "dense" and _equal(value.args[1], tokens) for _, value in c.graph)
    tables = {"positions": positions} if np.any(array_of(positions)) else {}
    tables |= {"segments": second[1]} if second else {}
    # A zero point adds the same to all elements of a row, which a LayerNorm takes off again.
    centred = norm is not None and attributes(call)["norm"] == LAYER_NORM
    tensors, attrs, unit = (
        _by_row(tokens, tables) if tied else _by_table(c, call, tokens, tables, offset=centred)
    )
    tensors["ids"] = c.operand(ids).expr
    if second:
        tensors["segment_ids"] = c.operand(second[0]).expr
    epilogue, operands, out = c.finish(var, call, Epilogue(), unit)
    attrs |= epilogue.attrs()
    return emit_call("embed", {**tensors, **operands}, c.length(var, call), **attrs), out


def _by_table(
    c: Quantization, call: relax.Call, tokens: Any, others: dict[str, Any], *, offset: bool
) -> tuple[dict[str, Any], dict[str, int], float]:
    """Tables with one scale each; operands, factors and the unit of their sum."""
    arrays = {"tokens": array_of(tokens), **{name: array_of(table) for name, table in others.items()}}
    tables, factors, unit = qparams.embedding_tables(list(arrays.values()), c.sum_bits(call), offset=offset)
    tensors = {name: constant(table) for name, table in zip(arrays, tables, strict=True)}
    return (
        tensors,
        {f"{name[:-1]}_factor": factor for name, factor in zip(arrays, factors, strict=True)},
        unit,
    )


def _by_row(tokens: Any, others: dict[str, Any]) -> tuple[dict[str, Any], dict[str, int], float]:
    """As `_by_table`, with the token table as a dense layer has it: a scale a row."""
    table = array_of(tokens).astype(np.float64)
    rows = qparams.int8_weights(table, np.zeros(len(table)), QuantParams(1.0))
    needed = {name: float(np.abs(array_of(other)).max()) / 127 for name, other in others.items()}
    room = NORM_MAX_BITS - 8 - math.ceil(math.log2(table.shape[1] * (1 + len(others))))
    largest = max(float(rows.unit.max()), *needed.values(), 0.0) or 1.0  # tables of zeros have any unit
    unit = largest / 2.0 ** min(_FACTOR_BITS, room)
    tensors = {
        "tokens": constant(rows.stored),
        "row_factors": constant(np.maximum(1, np.round(rows.unit / unit)).astype(np.uint16)),
    }
    attrs = {}
    for name, other in others.items():
        steps = max(1.0, needed[name] / unit)
        shift = max(0, math.ceil(math.log2(steps) - 1e-9))
        tensors[name] = constant(qparams.quantize(array_of(other), QuantParams(unit * 2**shift)))
        key, value = ("position_shift", shift) if name == "positions" else ("segment_factor", 2**shift)
        attrs[key] = value
    return tensors, attrs, unit

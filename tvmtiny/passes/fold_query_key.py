"""The projections of queries and keys folded into one matrix a head: fused-weight self-attention.

A row of scores of one head is (x Wq^T + bq)(X Wk^T + bk)^T = (x A^T + c) X^T + (x Wq^T + bq) bk^T with
A = Wk^T Wq (E, E) and c = Wk^T bq (E,). The last term is the same for every key, so the softmax cancels it. One
projection is left of two, and the keys are the tokens.

Source: V. J. B. Jung, A. Burrello, M. Scherer, F. Conti, L. Benini, "Optimizing the Deployment of Tiny Transformers on
Low-Power MCUs", arXiv:2404.02945, "Fused-Weight Self-Attention".
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import relax

from tvmtiny.kernels.attention import macs
from tvmtiny.passes.graph import Emit, Graph, array_of, constant, function_pass, rebuild, shape_of
from tvmtiny.passes.operators import attributes, call, kind
from tvmtiny.passes.strip_quantization import GIVEN_ATTRIBUTE

Array = npt.NDArray[Any]

MODES = ("auto", "never", "always")
"""Which attention operators to fold; auto: those that take fewer multiply-accumulates then."""


def FoldQueryKey(mode: str = "auto") -> tvm.transform.Pass:  # noqa: N802
    """`tvmtiny.attention` becomes `tvmtiny.folded_attention`.

    Passes that follow must know both kinds: `operators.WEIGHTED`. The weights of a model that its author has quantized
    are not touched by "auto": a product of two of them has no integers.
    """
    assert mode in MODES, mode

    def transform(function: relax.Function) -> relax.Function:
        given = GIVEN_ATTRIBUTE in dict(function.attrs or {})
        return function if mode == "auto" and given else rebuild(function, rewrite)

    def rewrite(graph: Graph, var: relax.Var, value: Any, emit: Emit) -> Any | None:
        if (
            kind(value) != "attention"
            or "kv_heads" in attributes(value)
            or mode == "never"
            or not (mode == "always" or _pays(value))
        ):
            return None
        x, wq, bq, wk, _, *rest = value.args
        weight, bias = fold(array_of(wq), array_of(bq), array_of(wk), attributes(value)["heads"])
        return call("folded_attention", [x, constant(weight), constant(bias), *rest], **attributes(value))

    return function_pass("FoldQueryKey", transform)


def fold(wq: Array, bq: Array, wk: Array, heads: int) -> tuple[Array, Array]:
    """Weight (H*E, E) and bias (H*E,) of the one projection, computed in float64.

    Args:
        wq, wk: (H*P, E). bq: (H*P,).
    """
    queries, biases, keys = (np.split(array.astype(np.float64), heads) for array in (wq, bq, wk))
    weight = np.concatenate([key.T @ query for key, query in zip(keys, queries, strict=True)])
    bias = np.concatenate([key.T @ bias for key, bias in zip(keys, biases, strict=True)])
    return weight.astype(np.float32), bias.astype(np.float32)


def _pays(attention: relax.Call) -> bool:
    """Whether folding saves multiply-accumulates at the most tokens; then it does at fewer, too.

    That is P / E > (E + S) / (2 E + S), which grows with S. It is above 1/2, so weights become fewer as well.
    """
    tokens, embedding = shape_of(attention.args[0])
    columns, heads = shape_of(attention.args[1])[0], attributes(attention)["heads"]
    folded = macs(tokens, embedding, embedding, heads * embedding, 0, columns)
    return folded < macs(tokens, embedding, embedding, columns, columns, columns)

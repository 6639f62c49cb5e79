"""What must hold after `fusion_passes()`: only operators that have kernels, and inputs that they take."""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import ir, relax

from tvmtiny.errors import Unsupported, UnsupportedOperators, UserError
from tvmtiny.frontend.data import LABELS_KEY, LENGTH_KEY
from tvmtiny.passes.fuse_dense import ACTIVATIONS
from tvmtiny.passes.graph import Graph, as_array, op_name
from tvmtiny.passes.numeric import ELEMENTWISE, VIEWS
from tvmtiny.passes.operators import attributes, id_tables, kind
from tvmtiny.passes.quantize_tensors import is_tensor_operator, materialized
from tvmtiny.passes.recognize_length import LENGTH_INPUT_ATTRIBUTE, REMOVED
from tvmtiny.passes.resemblance import SPARSE, of_family, refusal, unsupported
from tvmtiny.passes.token_axes import token_axes
from tvmtiny.passes.views import trace

_ATTENTION = (
    "Attention is softmax(Q K^T * scale + mask) V before a dense layer, with Q, K and V dense layers of one "
    "tensor. Leave out a softmax over classes at a model's end: the largest score stays the largest."
)
_POOLING = "Pooling is the mean over the tokens that are present, or the first token."
_CONVOLUTION = (
    "A convolution is supported in one or two dimensions with constant weights, with groups or depthwise, where at "
    "every place a tap meets the input."
)
_ACTIVATION = f"An activation stands behind a dense layer and is one of {', '.join(sorted(ACTIVATIONS))}."
_TYPES = "All values between the inputs and the result are float32: export the model without casts."
_REMEDIES = {
    "tvmtiny.softmax": _ATTENTION,
    "nn.softmax": _ATTENTION,
    "nn.log_softmax": _ATTENTION,
    "add": "A sum of two tensors is supported behind an attention, feed-forward or dense layer (a residual), "
    "and of embeddings with constants.",
    "matmul": "A matrix product needs constant weights, except inside self-attention.",
    "take": "Token ids select from one embedding table; token types and positions must be constants.",
    "nn.layer_norm": "LayerNorm is supported over the last axis, with constant gamma and beta.",
    "astype": _TYPES,
    "mean": _POOLING,
    "sum": _POOLING,
    "max": _POOLING,
    "nn.conv1d": _CONVOLUTION,
    "nn.conv2d": _CONVOLUTION,
    "nn.conv3d": _CONVOLUTION,
}
_OTHERWISE = "Replace it in the model by dense layers, self-attention, LayerNorm and activations."


def check_types(module: tvm.IRModule) -> None:
    """Require that products with, and gathers by, what comes from the inputs are float32.

    Constants may be of any type on their way to it (tables of positions often are), and so may masks.

    Args:
        module: as imported.

    Raises:
        UserError: names the node.
    """
    graph = Graph(module["main"])
    computed = set(graph.params)
    for var, value in graph:
        if not any(read in computed for read in relax.analysis.free_vars(value)):
            continue
        computed.add(var)
        if not graph.is_call(var, "matmul", "take"):
            continue
        dtype = str(var.ty.dtype)
        if "float" in dtype and dtype != "float32":
            raise UserError(
                f"Node '{var.name}' computes in {dtype}; float32 is needed.",
                "Export the model in float32 (in torch: model.float()).",
            )


def check_fused(module: tvm.IRModule) -> None:
    """Require that every value of `main` is a fused operator and every input one that they take.

    Args:
        module: after `fusion_passes()`.

    Raises:
        UnsupportedOperators: names the operators, their nodes and what to do.
        UserError: an input or a weight cannot be used.
    """
    graph = Graph(module["main"])
    needed = materialized(graph)
    left = [(var, value) for var, value in graph if not _is_supported(graph, var, value, needed)]
    if left:
        raise _unsupported(left)
    if not any(kind(value) for _, value in graph) and not needed:
        raise UserError("The model computes nothing of its input.", "Check how it was exported.")
    _check_inputs(graph, dict(module["main"].attrs or {}))
    if LENGTH_INPUT_ATTRIBUTE in dict(module["main"].attrs or {}):
        token_axes(graph, needed)
    for var, value in graph:
        if graph.is_call(value, "add"):
            _check_mask(graph, var)
        if kind(value):
            _check_constants(var, value)
            _check_activation(var, value)


def _is_supported(graph: Graph, var: Any, value: Any, needed: set[Any]) -> bool:
    if isinstance(value, ir.Var) or (isinstance(value, relax.Tuple) and var.same_as(graph.body)):
        return True
    if kind(value):
        return True
    if is_tensor_operator(graph, var, value, needed):
        return True
    if not graph.is_call(value, "reshape"):
        return False
    of_parameter = graph.bound(graph.producer_variable(value.args[0])) is None
    return of_parameter or any(var.same_as(graph.producer_variable(result)) for result in graph.results)


def _unsupported(left: list[tuple[Any, Any]]) -> UnsupportedOperators:
    """All of the most telling of what is left: views around an attention that was not recognised say little."""
    least = min(_rank(value) for _, value in left)
    rows = [_row(var, value) for var, value in left if _rank(value) == least]
    first = rows[0]
    return UnsupportedOperators(
        f"The operator {first.operator} at node '{first.node}' is not supported there{of_family(first)}.",
        first.remedy,
        rows,
    )


def _row(var: Any, value: Any) -> Unsupported:
    if not isinstance(value, relax.Call):
        return Unsupported(var.name, type(value).__name__, _OTHERWISE)
    name = op_name(value)
    remedy = _REMEDIES.get(name) or (_ACTIVATION if name in ELEMENTWISE else _OTHERWISE)
    return unsupported(var.name, name.removeprefix("tvmtiny.").removeprefix("nn."), remedy)


def _rank(value: Any) -> int:
    name = op_name(value) if isinstance(value, relax.Call) else ""
    if name in ("tvmtiny.softmax", "nn.softmax"):
        return 0
    return 2 if name in VIEWS or not name else 1


def _check_inputs(graph: Graph, attributes: dict[str, Any]) -> None:
    has_length = LENGTH_INPUT_ATTRIBUTE in attributes
    ids = {trace(graph, expr).root for _, value in graph for expr, _ in id_tables(value)}
    data = graph.params[:-1] if has_length else graph.params
    _check_names(
        [param.name for param in data] + ([attributes[LENGTH_INPUT_ATTRIBUTE]] if has_length else [])
    )
    for param in data:
        dtype = str(param.ty.dtype)
        if not _is_used(graph, param):
            raise UserError(
                f"The input '{param.name}' has no effect on the model's result.",
                "Export the model without it.",
            )
        if param not in ids and dtype != "float32":
            raise UserError(
                f"The input '{param.name}' has elements of type {dtype}.",
                "Inputs are token ids (integers, for an embedding), a mask of tokens, or features (float32).",
            )


def _check_names(inputs: list[str]) -> None:
    for name in inputs:
        if name in (LENGTH_KEY, LABELS_KEY):
            meaning = "number of tokens" if name == LENGTH_KEY else "true classes"
            raise UserError(
                f"An input of the model is named '{name}', which in data files is the {meaning}.",
                "Rename the input and export the model again.",
            )


def _check_mask(graph: Graph, var: Any) -> None:
    """A mask that no attention has taken in would leave int8 scores no precision beside its large values."""
    for arg in getattr(graph.producer(var), "args", []):
        array = as_array(graph.producer(arg))
        if array is not None and np.any(array <= REMOVED):
            raise refusal(
                f"Node '{var.name}' adds a constant mask that is no window of keys around each token", SPARSE
            )


def _check_constants(var: Any, value: relax.Call) -> None:
    for arg in value.args:
        array = as_array(arg)
        if array is not None and not np.all(np.isfinite(array)):
            raise UserError(
                f"A weight of node '{var.name}' is NaN or infinite.",
                "Check the training: the model has diverged.",
            )


def _check_activation(var: Any, value: relax.Call) -> None:
    if kind(value) != "dense" or attributes(value)["activation"] == "none":
        return
    if attributes(value)["residual"] or attributes(value)["norm"]:
        raise UserError(
            f"The dense layer '{var.name}' has an activation before a residual or a LayerNorm.",
            "Put the activation after the sum or inside a feed-forward block.",
        )


def _is_used(graph: Graph, param: Any) -> bool:
    results = [graph.producer_variable(result) for result in graph.results]
    return bool(graph.users(param)) or any(result.same_as(param) for result in results)

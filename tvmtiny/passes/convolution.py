"""A convolution becomes a dense layer on patches: the stem of a vision transformer, of a sensor or an audio model.

Which input element each weight meets is found by applying the strides, dilation and padding to element indices. The
patches are then a view of the input: free where a dense layer can read them in place, else one copy.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import relax

from tvmtiny.passes.graph import Emit, Graph, as_array, constant, function_pass, op_name, rebuild, shape_of
from tvmtiny.passes.views import trace

Array = npt.NDArray[Any]

_ACTIVATIONS = ("nn.relu", "nn.gelu", "nn.gelu_tanh", "nn.silu", "tanh", "sigmoid", "clip")
_LAYOUTS = {"nn.conv1d": ("NCW", "OIW"), "nn.conv2d": ("NCHW", "OIHW")}
_ANCHORS = (*_LAYOUTS, *_ACTIVATIONS, "add", "subtract", "multiply", "divide", "strided_slice")


def PatchConvolution() -> tvm.transform.Pass:  # noqa: N802
    """`conv1d` and `conv2d` with constant weights and one group; others are left, and refused by name.

    Bias and BatchNorm go into the layer, and an activation behind it moves in front of the channels' transposition. Of
    a result whose end is cut off (causal convolutions that pad both ends) only the rest is computed.
    """
    return function_pass("PatchConvolution", lambda function: rebuild(function, _rewrite))


def _rewrite(graph: Graph, var: relax.Var, value: Any, emit: Emit) -> Any | None:
    if not isinstance(value, relax.Call) or op_name(value) not in _ANCHORS:
        return None
    activated = graph.is_call(value, *_ACTIVATIONS)
    found = _convolution(graph, value.args[0] if activated else var)
    if found is None:
        return None
    convolution, weight, bias = found
    patches = _patches(convolution, weight, shape_of(value)[2:], emit)
    matrix = emit(relax.op.matmul(patches, constant(_columns(weight))))
    if np.any(bias):
        matrix = emit(relax.op.add(matrix, constant(bias)))
    if activated:
        matrix = emit(relax.Call(value.op, [matrix, *value.args[1:]], value.attrs))
    return relax.op.reshape(emit(relax.op.permute_dims(matrix)), shape_of(value))


def _convolution(graph: Graph, expr: Any) -> tuple[relax.Call, Array, Array] | None:
    """The convolution behind `expr`, with its weight (N, C, ...) and bias (N,), in which what follows it is folded."""
    view = trace(graph, expr, affine=True)
    value = graph.producer(view.root)
    if not graph.is_call(value, *_LAYOUTS):
        return None
    weight = as_array(graph.producer(value.args[1]))
    layouts = (str(value.attrs.data_layout), str(value.attrs.kernel_layout))
    in_order = np.array_equal(view.index, _beginning(shape_of(value), view.index.shape))
    if weight is None or layouts != _LAYOUTS[op_name(value)] or int(value.attrs.groups) != 1:
        return None
    if not in_order or shape_of(value)[0] != 1:
        return None
    scale, offset = (part.reshape(len(weight), -1) for part in (view.scale, view.offset))
    if np.any(scale != scale[:, :1]) or np.any(offset != offset[:, :1]):
        return None
    scaled = weight * scale[:, 0].reshape(-1, *[1] * (weight.ndim - 1))
    return value, scaled.astype(np.float32), offset[:, 0].astype(np.float32)


def _beginning(shape: tuple[int, ...], part: tuple[int, ...]) -> Array:
    """Element indices of a tensor, of the first ones along its last axis: all, or fewer."""
    index = np.arange(int(np.prod(shape))).reshape(shape)
    return index[..., : part[-1]]


def _columns(weight: Array) -> Array:
    """(C * kernel, N), as a product takes it."""
    return np.ascontiguousarray(weight.reshape(len(weight), -1).T)


def _patches(convolution: relax.Call, weight: Array, results: tuple[int, ...], emit: Emit) -> Any:
    """(patches, C * kernel): the elements of the input that the weights meet, place by place of the results."""
    attrs = convolution.attrs
    before, after = np.split(np.asarray([int(width) for width in attrs.padding]), 2)
    x, extents = _padded(convolution.args[0], before, after, emit)
    steps = [[int(step) for step in steps] for steps in (attrs.strides, attrs.dilation)]
    places = _places(weight.shape[1], extents, weight.shape[2:], results, *steps)
    flat = emit(relax.op.reshape(x, (weight.shape[1] * int(np.prod(extents)),)))
    return emit(relax.op.take(flat, constant(places), axis=0, mode="clip"))


def _padded(x: Any, before: Array, after: Array, emit: Emit) -> tuple[Any, list[int]]:
    """The input (1, C, ...) with zeros around it, and its extents behind the channels."""
    shape = list(shape_of(x))
    for axis, widths in enumerate(zip(before, after, strict=True), start=2):
        zeros = [
            constant(np.zeros([*shape[:axis], width, *shape[axis + 1 :]], np.float32)) for width in widths
        ]
        parts = [part for part, width in ((zeros[0], widths[0]), (x, 1), (zeros[1], widths[1])) if width]
        x = emit(relax.op.concat(parts, axis)) if len(parts) > 1 else x
        shape[axis] += int(sum(widths))
    return x, shape[2:]


def _places(
    channels: int, extents: list[int], kernel: Any, results: Any, strides: list[int], dilation: list[int]
) -> Array:
    """Element indices (patches, channels * kernel) of an input (channels, *extents), in the order of the weights."""
    index = np.arange(channels * int(np.prod(extents))).reshape(channels, *extents)
    rows = []
    for place in itertools.product(*map(range, results)):
        starts = [p * s for p, s in zip(place, strides, strict=True)]
        window = tuple(
            slice(start, start + d * (k - 1) + 1, d)
            for start, k, d in zip(starts, kernel, dilation, strict=True)
        )
        rows.append(index[(slice(None), *window)].reshape(-1))
    return np.stack(rows).astype(np.int64)

"""A convolution becomes a dense layer on patches: the stem of a vision transformer, of a sensor or an audio model.

One with groups becomes such a layer a group; a depthwise one, whose groups have one channel, an operator of its own.

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
from tvmtiny.passes.operators import call
from tvmtiny.passes.views import trace

Array = npt.NDArray[Any]

_ACTIVATIONS = ("nn.relu", "nn.gelu", "nn.gelu_tanh", "nn.silu", "tanh", "sigmoid", "clip")
_LAYOUTS = {"nn.conv1d": ("NCW", "OIW"), "nn.conv2d": ("NCHW", "OIHW")}
_MOST_PARTS = 4
"""Operands of a concatenation."""
_ANCHORS = (*_LAYOUTS, *_ACTIVATIONS, "add", "subtract", "multiply", "divide", "strided_slice")


def PatchConvolution() -> tvm.transform.Pass:  # noqa: N802
    """`conv1d` and `conv2d` with constant weights; others are left, and refused by name.

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
    places = shape_of(value)[2:]
    if weight.shape[1] == 1 and int(convolution.attrs.groups) > 1:
        relu = activated and op_name(value) == "nn.relu"
        matrix = emit(_depthwise(convolution, weight, bias, places, "relu" if relu else "none", emit))
        activated = activated and not relu
    else:
        matrix = _grouped(convolution, weight, bias, places, emit)
    if activated:
        matrix = emit(relax.Call(value.op, [matrix, *value.args[1:]], value.attrs))
    return relax.op.reshape(emit(relax.op.permute_dims(matrix)), shape_of(value))


def _grouped(convolution: relax.Call, weight: Array, bias: Array, places: tuple[int, ...], emit: Emit) -> Any:
    """(places, N): a product of patches for each group, side by side."""
    groups, channels = int(convolution.attrs.groups), weight.shape[1]
    parts = []
    for group, (own, offset) in enumerate(zip(np.split(weight, groups), np.split(bias, groups), strict=True)):
        x = convolution.args[0]
        if groups > 1:
            x = emit(relax.op.strided_slice(x, [1], [group * channels], [(group + 1) * channels]))
        part = emit(relax.op.matmul(_patches(x, convolution, own, places, emit), constant(_columns(own))))
        parts.append(emit(relax.op.add(part, constant(offset))) if np.any(offset) else part)
    while len(parts) > 1:
        blocks = [parts[start : start + _MOST_PARTS] for start in range(0, len(parts), _MOST_PARTS)]
        parts = [emit(relax.op.concat(block, 1)) if len(block) > 1 else block[0] for block in blocks]
    return parts[0]


def _depthwise(
    convolution: relax.Call,
    weight: Array,
    bias: Array,
    results: tuple[int, ...],
    activation: str,
    emit: Emit,
) -> relax.Call:
    """The operator on rows, columns and channels; one dimension is a single row."""
    attrs, x = convolution.attrs, convolution.args[0]
    _, channels, *extents = shape_of(x)
    before = np.split(np.asarray([int(width) for width in attrs.padding]), 2)[0]
    lines = {
        "stride": [int(step) for step in attrs.strides],
        "before": [int(width) for width in before],
        "step": [int(step) for step in attrs.dilation],
    }
    places, taps = list(results), list(weight.shape[2:])
    if len(extents) == 1:
        extents, places, taps = [1, *extents], [1, *places], [1, *taps]
        lines = {name: [0 if name == "before" else 1, *values] for name, values in lines.items()}
    options = {
        f"{name}_{axis}": value
        for name, values in lines.items()
        for axis, value in zip("yx", values, strict=True)
    }
    image = emit(relax.op.reshape(x, (channels, *extents)))
    image = emit(relax.op.permute_dims(image, [1, 2, 0]))
    by_tap = np.ascontiguousarray(np.moveaxis(weight.reshape(len(weight), *taps), 0, -1))
    return call(
        "depthwise", [image, constant(by_tap), constant(bias)],
        activation=activation, rows=places[0], cols=places[1], **options,
    )  # fmt: skip


def _convolution(graph: Graph, expr: Any) -> tuple[relax.Call, Array, Array] | None:
    """The convolution behind `expr`, with its weight (N, C, ...) and bias (N,), in which what follows it is folded."""
    view = trace(graph, expr, affine=True)
    value = graph.producer(view.root)
    if not graph.is_call(value, *_LAYOUTS):
        return None
    weight = as_array(graph.producer(value.args[1]))
    layouts = (str(value.attrs.data_layout), str(value.attrs.kernel_layout))
    in_order = np.array_equal(view.index, _beginning(shape_of(value), view.index.shape))
    if weight is None or layouts != _LAYOUTS[op_name(value)] or not _meets_the_input(value, weight):
        return None
    if not in_order or shape_of(value)[0] != 1:
        return None
    scale, offset = (part.reshape(len(weight), -1) for part in (view.scale, view.offset))
    if np.any(scale != scale[:, :1]) or np.any(offset != offset[:, :1]):
        return None
    scaled = weight * scale[:, 0].reshape(-1, *[1] * (weight.ndim - 1))
    return value, scaled.astype(np.float32), offset[:, 0].astype(np.float32)


def _meets_the_input(convolution: relax.Call, weight: Array) -> bool:
    """Whether at every place a tap lies inside of the input (padding may be wider than the taps reach)."""
    attrs, extents, places = convolution.attrs, shape_of(convolution.args[0])[2:], shape_of(convolution)[2:]
    before = [int(width) for width in attrs.padding][: len(extents)]
    for extent, count, taps, width, stride, step in zip(
        extents, places, weight.shape[2:], before, attrs.strides, attrs.dilation, strict=True
    ):
        reached = np.arange(count)[:, None] * int(stride) - width + np.arange(taps) * int(step)
        if not np.all(np.any((reached >= 0) & (reached < extent), axis=1)):
            return False
    return True


def _beginning(shape: tuple[int, ...], part: tuple[int, ...]) -> Array:
    """Element indices of a tensor, of the first ones along its last axis: all, or fewer."""
    index = np.arange(int(np.prod(shape))).reshape(shape)
    return index[..., : part[-1]]


def _columns(weight: Array) -> Array:
    """(C * kernel, N), as a product takes it."""
    return np.ascontiguousarray(weight.reshape(len(weight), -1).T)


def _patches(x: Any, convolution: relax.Call, weight: Array, results: tuple[int, ...], emit: Emit) -> Any:
    """(patches, C * kernel): the elements of the input that the weights meet, place by place of the results."""
    attrs = convolution.attrs
    before, after = np.split(np.asarray([int(width) for width in attrs.padding]), 2)
    x, extents = _padded(x, before, after, emit)
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

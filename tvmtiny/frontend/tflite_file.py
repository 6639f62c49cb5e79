"""A .tflite file as TVM's importer reads it, but in float32: what is quantized shows its real numbers.

TVM's importer takes few of the operators that a fully quantized model has, and all of a float one. So tensors are shown
to it as float32: constants as the numbers that their integers stand for, computed tensors as such, with their scale
kept apart. Field names are those of the TensorFlow Lite schema.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmtiny.errors import EnvironmentProblem, UserError

Array = npt.NDArray[Any]

IDENTIFIER = b"TFL3"
MOST = 1 << 14
"""Operators, tensors and buffers that a model may have: a damaged file may claim any number."""

MOST_ELEMENTS = 1 << 24
MOST_AXES = 6
_DAMAGED = "Convert the model again, or copy the file again."
_TYPES = {2: "int32", 3: "uint8", 4: "int64", 7: "int16", 9: "int8"}
_FLOAT32 = 0
_REMEDY = (
    "Convert with full integer quantization to int8 (representative_dataset, TFLITE_BUILTINS_INT8), or convert the "
    "float model and give --calibration."
)


def read_tflite(path: Path) -> Any:
    """The root table of a .tflite file, its extents checked.

    Raises:
        UserError: no such file, or not one of TensorFlow Lite.
        EnvironmentProblem: the package tflite is missing.
    """
    try:
        import tflite
    except ImportError as error:
        raise EnvironmentProblem(
            "Importing a .tflite file needs the package tflite, which is not installed.",
            "pip install tvmtiny[tflite]",
        ) from error
    if not path.is_file():
        raise UserError(f"There is no file {path}.", "Give the path of a .tflite file.")
    data = path.read_bytes()
    if data[4:8] != IDENTIFIER:
        raise UserError(f"{path} is not a TensorFlow Lite model, or is damaged.", _DAMAGED)
    model = tflite.Model.GetRootAsModel(data, 0)
    if model.SubgraphsLength() != 1:
        count = model.SubgraphsLength()
        raise UserError(
            f"{path} has {count} subgraphs: control flow is not supported.",
            "Convert one function without loops.",
        )
    graph = model.Subgraphs(0)
    for what, count in (
        ("operators", graph.OperatorsLength()),
        ("tensors", graph.TensorsLength()),
        ("buffers", model.BuffersLength()),
        ("operator codes", model.OperatorCodesLength()),
    ):
        if not 0 < count <= min(MOST, len(data) // 4):
            raise UserError(f"{path} has {count} {what}: it is damaged.", _DAMAGED)
    for index in range(graph.TensorsLength()):
        _check_tensor(graph.Tensors(index), model.BuffersLength())
    return model


def tensor_name(tensor: Any) -> str:
    """A tensor's name without what a converter puts around it."""
    name = (tensor.Name() or b"").decode("utf-8", "replace").partition(";")[0]
    return name.removeprefix("serving_default_").partition(":")[0] or "tensor"


def _check_tensor(tensor: Any, buffers: int) -> None:
    name, rank = tensor_name(tensor), tensor.ShapeLength()
    extents = [tensor.Shape(axis) for axis in range(min(rank, MOST_AXES + 1))]
    positive = all(extent > 0 for extent in extents)
    if rank > MOST_AXES or not positive or int(np.prod(extents, dtype=object)) > MOST_ELEMENTS:
        raise UserError(
            f"The tensor '{name}' has the shape {'x'.join(map(str, extents))}.",
            "Shapes are static and have at most 6 axes: convert the model for a batch of 1.",
        )
    if not 0 <= tensor.Buffer() < buffers:
        raise UserError(f"The tensor '{name}' has no buffer: the file is damaged.", _DAMAGED)


@dataclasses.dataclass(frozen=True)
class _Grid:
    scale: Array
    zero_point: Array
    axis: int


class FloatTensor:
    """A tensor of the schema; a quantized one is float32 and has no quantization.

    Attributes:
        given: scale and zero point in int8 of a tensor that is quantized with one scale, else None.
        values: the numbers of a constant, else None.
    """

    def __init__(self, tensor: Any, buffer: Any, index: int) -> None:
        self._tensor, self._index = tensor, index
        self._stored = buffer
        grid = _grid(tensor)
        self._real = grid is not None
        self.values = None if grid is None or not buffer.DataLength() else self._dequantized(grid)
        self.given = None if grid is None or self.values is not None else self._int8(grid)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tensor, name)

    def Name(self) -> bytes:  # noqa: N802
        """The name and the number: names need not differ, and TVM knows tensors by them. `tensor_name` has neither."""
        return (self._tensor.Name() or b"") + b";%d" % self._index

    def Type(self) -> int:  # noqa: N802 - the schema's names
        """The element type."""
        return _FLOAT32 if self._real else int(self._tensor.Type())

    def Quantization(self) -> None:  # noqa: N802
        """None: the numbers are real."""

    def Buffer(self) -> int:  # noqa: N802
        """The buffer, which is the tensor's own: two tensors may read the same bytes with two scales."""
        return self._index

    @property
    def buffer(self) -> Any:
        """What `Buffer` stands for."""
        return self._stored if self.values is None else _FloatBuffer(self.values)

    def _dequantized(self, grid: _Grid) -> Array:
        dtype = _TYPES[int(self._tensor.Type())]
        shape = [int(extent) for extent in self._tensor.ShapeAsNumpy()] if self._tensor.ShapeLength() else []
        integers = np.frombuffer(self._stored.DataAsNumpy().tobytes(), dtype).reshape(shape)
        axes = [-1 if axis == grid.axis else 1 for axis in range(len(shape))]
        scale, zero = (p if p.size == 1 else p.reshape(axes) for p in (grid.scale, grid.zero_point))
        real = (integers.astype(np.int64) - zero) * scale.astype(np.float64)
        return np.asarray(real.reshape(shape), np.float32)

    def _int8(self, grid: _Grid) -> tuple[float, int]:
        dtype = _TYPES[int(self._tensor.Type())]
        if dtype not in ("int8", "uint8") or grid.scale.size != 1:
            raise UserError(f"The tensor '{tensor_name(self._tensor)}' is quantized to {dtype}.", _REMEDY)
        return float(grid.scale[0]), int(grid.zero_point[0]) - (128 if dtype == "uint8" else 0)


def _grid(tensor: Any) -> _Grid | None:
    found = tensor.Quantization()
    if found is None or not found.ScaleLength() or int(tensor.Type()) not in _TYPES:
        if int(tensor.Type()) in (3, 9):
            raise UserError(f"The tensor '{tensor_name(tensor)}' has 8-bit elements and no scale.", _REMEDY)
        return None
    scale = np.array(found.ScaleAsNumpy(), np.float32)
    zero_point = np.array(found.ZeroPointAsNumpy() if found.ZeroPointLength() else [0], np.int64)
    if not np.all((scale > 0) & np.isfinite(scale)):
        raise UserError(f"The tensor '{tensor_name(tensor)}' has a scale that is not positive.", _DAMAGED)
    return _Grid(scale, zero_point, int(found.QuantizedDimension()))


class _FloatBuffer:
    """A buffer of the schema that holds float32 numbers."""

    def __init__(self, values: Array) -> None:
        self._data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)

    def DataAsNumpy(self) -> Array:  # noqa: N802
        """The bytes."""
        return self._data

    def DataLength(self) -> int:  # noqa: N802
        """How many."""
        return len(self._data)

    def Data(self, index: int) -> int:  # noqa: N802
        """One of them."""
        return int(self._data[index])


class FloatGraph:
    """The subgraph of a model whose tensors are `FloatTensor`s."""

    def __init__(self, model: Any) -> None:
        self._graph = model.Subgraphs(0)
        stored = [self._graph.Tensors(index) for index in range(self._graph.TensorsLength())]
        self._tensors = [
            FloatTensor(tensor, model.Buffers(tensor.Buffer()), index) for index, tensor in enumerate(stored)
        ]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._graph, name)

    def Tensors(self, index: int) -> FloatTensor:  # noqa: N802
        """A tensor by its number."""
        if not 0 <= index < len(self._tensors):
            raise UserError(
                f"An operator reads the tensor {index}, which is none: the file is damaged.", _DAMAGED
            )
        return self._tensors[index]


class FloatModel:
    """A model whose buffers are those of a `FloatGraph`."""

    def __init__(self, model: Any, graph: FloatGraph) -> None:
        self._model, self._graph = model, graph

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def Buffers(self, index: int) -> Any:  # noqa: N802
        """The buffer of the tensor of this number."""
        return self._graph.Tensors(index).buffer

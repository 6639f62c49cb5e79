"""TVM's ONNX importer, made to name every Relax variable after its ONNX node and to say where it failed."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
from tvm import ir, relax, tirx
from tvm.relax.frontend.onnx import onnx_frontend

from tvmtiny.errors import UserError
from tvmtiny.frontend.naming_builder import NamingBuilder
from tvmtiny.frontend.onnx_fused import FUSED, MICROSOFT
from tvmtiny.passes.graph import constant
from tvmtiny.passes.name_layers import identifier
from tvmtiny.passes.numeric import literal


def node_title(node: onnx.NodeProto) -> str:
    """How messages call a node: its name, or that of its first output where it has none."""
    return node.name or next(iter(node.output), "") or node.op_type


def operator_title(node: onnx.NodeProto) -> str:
    """An operator's name, behind its domain where that is not ONNX's own."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


def is_known(node: onnx.NodeProto) -> bool:
    """Whether the importer converts an operator: ours, or TVM's, which does not look at domains."""
    # Private, but the pin of apache-tvm is exact; there is no public list.
    table = onnx_frontend._get_convert_map()
    own = node.domain in ("", "ai.onnx", MICROSOFT) and table.get(node.op_type) is not None
    return own or operator_title(node) in OVERRIDES


def _clip(inputs: Any, _attributes: dict[str, Any]) -> Any:
    """TVM makes an opaque TIR function of it, which no pass sees through."""
    result, low, high = (inputs[index] for index in range(3))
    if low is not None:
        result = relax.op.maximum(result, low)
    return result if high is None else relax.op.minimum(result, high)


def _constant_of_shape(inputs: Any, attributes: dict[str, Any]) -> Any | None:
    """TVM fails where the shape is the constant [], which is a scalar; other shapes are left to it."""
    shape = inputs[0]
    if not isinstance(shape, ir.GenericConst) or shape.value.numpy().size:
        return None
    value = attributes.get("value")
    array = np.float32(0) if value is None else onnx.numpy_helper.to_array(value).reshape(())
    return relax.const(np.asarray(array))


def _constant(_inputs: Any, attributes: dict[str, Any]) -> Any | None:
    """Numbers given as such, which TVM does not read; a tensor is left to it."""
    for name, dtype in (("value_float", np.float32), ("value_int", np.int64)):
        for form in (name, f"{name}s"):
            if form in attributes:
                return constant(np.asarray(attributes[form], dtype))
    return None


def _pad(inputs: Any, attributes: dict[str, Any]) -> Any | None:
    """A constant around a tensor; of TVM's converter comes an opaque TIR function. Other modes are left to it."""
    data, pads, value = (inputs[index] for index in range(3))
    widths, filling = literal(pads), 0 if value is None else literal(value)
    mode = attributes.get("mode", b"constant")
    if widths is None or filling is None or np.any(widths < 0) or inputs[3] is not None:
        return None
    if mode not in (b"constant", "constant"):
        return None
    pairs = np.asarray(widths).reshape(2, -1).T.reshape(-1)
    return relax.op.nn.pad(data, [int(width) for width in pairs], pad_value=float(np.asarray(filling).item()))


OVERRIDES: dict[str, Callable[[Any, dict[str, Any]], Any | None]] = {
    "Clip": _clip,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Pad": _pad,
    **FUSED,
}
"""Converters (inputs, attributes) in place of TVM's, by `operator_title`; None leaves the node to TVM."""


class Importer(onnx_frontend.ONNXGraphImporter):
    """Converts node by node; any failure becomes a UserError that names the node."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        super().__init__({name: list(shape) for name, shape in shapes.items()}, {}, sanitize=False)
        self.bb = NamingBuilder()
        self._title = ""

    def _check_for_unsupported_ops(self, graph: onnx.GraphProto) -> None:
        """Nothing: `tvmtiny.frontend.onnx` has checked, with names of nodes, and knows of converters that TVM lacks."""

    def _convert_operator(self, op_name: str, inputs: Any, attrs: dict[str, Any], opset: int) -> Any:
        override = OVERRIDES.get(self._title)
        result = override(inputs, attrs) if override is not None else None
        if result is not None:
            return self.bb.normalize(result)
        return super()._convert_operator(op_name, inputs, attrs, opset)

    def _construct_nodes(self, graph: onnx.GraphProto) -> None:
        for node in graph.node:
            self.bb.start(identifier(node_title(node)))
            self._title = operator_title(node)
            try:
                super()._construct_nodes(SimpleNamespace(node=[node]))
            except UserError:
                raise
            except Exception as error:
                raise _failed(node, error) from error
            for output in node.output:
                if output in self._nodes:
                    self._nodes[output] = _shape_as_tensor(self.bb.bind(self._nodes[output]))


def _shape_as_tensor(value: Any) -> Any:
    """Shapes and sizes are int64 constants in ONNX; many of TVM's converters do not take its own forms."""
    if isinstance(value, relax.ShapeExpr | tirx.IntImm):
        array = literal(value)
        return value if array is None else constant(np.asarray(array, np.int64))
    return value


def _failed(node: onnx.NodeProto, error: Exception) -> UserError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[-1][:300]
    return UserError(
        f"Node '{node_title(node)}' ({node.op_type}) cannot be imported: {reason}",
        "Check that the given shapes fit the model (--shape, --max-tokens), and that onnxruntime runs it.",
    )

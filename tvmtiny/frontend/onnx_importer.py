"""TVM's ONNX importer, made to name every Relax variable after its ONNX node and to say where it failed."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
from tvm import ir, relax
from tvm.relax.frontend.onnx import onnx_frontend

from tvmtiny.errors import UserError
from tvmtiny.frontend.names import identifier
from tvmtiny.passes.graph import Builder, constant
from tvmtiny.passes.numeric import fold


def node_title(node: onnx.NodeProto) -> str:
    """How messages call a node: its name, or that of its first output where it has none."""
    return node.name or next(iter(node.output), "") or node.op_type


def known_operators() -> frozenset[str]:
    """The ONNX operators that TVM's importer converts."""
    # Private, but the pin of apache-tvm is exact; there is no public list.
    table = onnx_frontend._get_convert_map()
    return frozenset(name for name, converter in table.items() if converter is not None)


class NamingBuilder(Builder):
    """Binds every call, also those nested in another's arguments, to a variable named after the current node.

    TVM's own builder would bind nested calls anonymously, and again for each user of an expression. Calls of
    constants become constants at once: converters need bounds and axes to be known, however they were computed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.current = ""
        self._bound: dict[Any, Any] = {}

    def start(self, name: str) -> None:
        """Name what follows."""
        self.current = name
        self._bound.clear()

    def emit(self, expr: Any, name_hint: str = "") -> Any:
        """As in TVM, with the current node's name unless another is given."""
        if isinstance(expr, relax.Expr):
            expr = self._with_bound_arguments(expr, self._part)
        return super().emit(expr, name_hint or self.current)

    def normalize(self, expr: Any) -> Any:
        """As in TVM; the importer calls it on what a converter returns."""
        name = self.current if isinstance(expr, relax.Tuple) else self._part
        return super().normalize(self._with_bound_arguments(expr, name))

    def bind(self, expr: Any, name: str = "") -> Any:
        """A variable for a call; tuples field by field; anything else as it is."""
        if isinstance(expr, relax.Call | relax.TupleGetItem):
            if expr not in self._bound:
                self._bound[expr] = self._folded(expr) or self.emit(expr, name)
            return self._bound[expr]
        return self._with_bound_arguments(expr, name)

    def _folded(self, expr: Any) -> Any | None:
        """The constant tensor or shape that a call of constants gives."""
        expr = super().normalize(self._with_bound_arguments(expr, self._part))
        array = fold(expr) if isinstance(expr, relax.Call) else None
        if array is None:
            return None
        if isinstance(expr.ty, relax.ShapeType):
            return relax.ShapeExpr([int(extent) for extent in array])
        return constant(array)

    @property
    def _part(self) -> str:
        """What a value inside the current node is called: the node's result has the plain name."""
        return f"{self.current}_part"

    def _with_bound_arguments(self, expr: Any, name: str) -> Any:
        if isinstance(expr, relax.Call):
            args = [self.bind(arg, name) for arg in expr.args]
            changed = any(not new.same_as(old) for new, old in zip(args, expr.args, strict=True))
            return relax.Call(expr.op, args, expr.attrs, expr.ty_args) if changed else expr
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([self.bind(field, name) for field in expr.fields])
        return expr


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


OVERRIDES: dict[str, Callable[[Any, dict[str, Any]], Any | None]] = {
    "Clip": _clip,
    "ConstantOfShape": _constant_of_shape,
}
"""Converters (inputs, attributes) in place of TVM's; None leaves the node to TVM."""


class Importer(onnx_frontend.ONNXGraphImporter):
    """Converts node by node; any failure becomes a UserError that names the node."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        super().__init__({name: list(shape) for name, shape in shapes.items()}, {}, sanitize=False)
        self.bb = NamingBuilder()

    def _convert_operator(self, op_name: str, inputs: Any, attrs: dict[str, Any], opset: int) -> Any:
        override = OVERRIDES.get(op_name)
        result = override(inputs, attrs) if override is not None else None
        if result is not None:
            return self.bb.normalize(result)
        return super()._convert_operator(op_name, inputs, attrs, opset)

    def _construct_nodes(self, graph: onnx.GraphProto) -> None:
        for node in graph.node:
            self.bb.start(identifier(node_title(node)))
            try:
                super()._construct_nodes(SimpleNamespace(node=[node]))
            except UserError:
                raise
            except Exception as error:
                raise _failed(node, error) from error
            for output in node.output:
                if output in self._nodes:
                    self._nodes[output] = self.bb.bind(self._nodes[output])


def _failed(node: onnx.NodeProto, error: Exception) -> UserError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
    return UserError(
        f"Node '{node_title(node)}' ({node.op_type}) cannot be imported: {reason}",
        "Check that the given shapes fit the model (--shape, --max-tokens), and that onnxruntime runs it.",
    )

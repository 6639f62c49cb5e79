"""TVM's importer of torch.export programs, made to name every Relax variable after its torch module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx
from tvm import relax
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

from tvmtiny.errors import UnsupportedOperators
from tvmtiny.frontend.naming_builder import NamingBuilder
from tvmtiny.passes.name_layers import identifier
from tvmtiny.passes.resemblance import of_family, unsupported

_REMEDY = "Export the model to ONNX instead: torch.onnx.export(module, example_inputs, 'model.onnx')."

_UNROLLED = ("lstm", "gru", "rnn")
"""Operators that torch decomposes into thousands of small ones: they are refused by their own name instead."""


def refuse_unrolled(program: Any) -> None:
    """Raise UnsupportedOperators for recurrent layers of a program that is not yet decomposed."""
    _refuse(list(program.graph.nodes), lambda operator: operator.startswith(_UNROLLED))


def _refuse(nodes: list[fx.Node], is_refused: Callable[[str], bool]) -> None:
    rows = [
        unsupported(layer_name(node), node.target.__name__, _REMEDY)
        for node in nodes
        if node.op == "call_function" and is_refused(getattr(node.target, "__name__", ""))
    ]
    if rows:
        first = rows[0]
        message = f"The operator {first.operator} at '{first.node}' is not supported{of_family(first)}."
        raise UnsupportedOperators(message, first.remedy, rows)


class Importer(ExportedProgramImporter):
    """The pin of apache-tvm is exact, so that its internals may be relied upon."""

    @property
    def block_builder(self) -> NamingBuilder:
        """The builder; TVM assigns its own for each program, and a naming one takes its place."""
        return self._builder

    @block_builder.setter
    def block_builder(self, _plain: Any) -> None:
        self._builder = NamingBuilder()

    def create_convert_map(self) -> dict[str, Callable[[fx.Node], Any]]:
        """TVM's converters and those of PT2E, each telling the builder first which node it is at."""
        converters = super().create_convert_map() | {"amax.default": self._largest}
        for form, takes_axis in (("per_tensor", False), ("per_channel", True)):
            for name in ("quantize", "dequantize"):
                convert = self._quantization(getattr(relax.op, name), takes_axis=takes_axis)
                converters[f"{name}_{form}.default"] = convert
        return {name: self._named(convert) for name, convert in converters.items()}

    def _quantization(self, operator: Any, *, takes_axis: bool) -> Callable[[fx.Node], Any]:
        """A converter of quantized_decomposed: (x, scale, zero point, [axis,] least, most, type of the integers)."""

        def convert(node: fx.Node) -> Any:
            x, scale, zero_point = self.retrieve_args(node)[:3]
            axis = node.args[3] if takes_axis else 0
            integers = str(node.args[6 if takes_axis else 5]).removeprefix("torch.")
            parts = self._as_tensor(scale, "float32"), self._as_tensor(zero_point, "int32")
            result = "float32" if operator is relax.op.dequantize else integers
            return self.block_builder.emit(operator(x, *parts, axis=int(axis), out_dtype=result))

        return convert

    def _as_tensor(self, value: Any, dtype: str) -> Any:
        """A scale or zero point, a Python number or a tensor of the program."""
        if isinstance(value, int | float):
            return relax.const(value, dtype)
        return self.block_builder.emit(relax.op.astype(value, dtype))

    def _largest(self, node: fx.Node) -> Any:
        """`x.amax(axes, keepdim)`; TVM has no converter."""
        x, axes, keepdims = (*self.retrieve_args(node), [], False)[:3]
        return self.block_builder.emit(relax.op.max(x, list(axes) or None, bool(keepdims)))

    def _check_unsupported_func_type(self, nodes: list[fx.Node]) -> None:
        """Raise UnsupportedOperators with every node that TVM has no converter for."""
        _refuse(nodes, lambda operator: operator not in self.convert_map)

    def _named(self, convert: Callable[[fx.Node], Any]) -> Callable[[fx.Node], Any]:
        def convert_named(node: fx.Node) -> Any:
            self.block_builder.start(layer_name(node))
            return convert(node)

        return convert_named


def layer_name(node: fx.Node) -> str:
    """The path of the innermost module that a node belongs to, e.g. encoder_layers_0_linear1."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = stack[-1][0] if stack else ""
    return identifier(path or node.name)

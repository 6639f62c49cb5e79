"""TensorFlow Lite models through TVM's importer, quantized ones with their scales. Needs the package tflite."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import tvm
from tvm import relax
from tvm.relax.frontend.tflite import tflite_frontend

from tvmtiny.errors import Unsupported, UnsupportedOperators, UserError
from tvmtiny.frontend.names import listed
from tvmtiny.frontend.naming_builder import NamingBuilder
from tvmtiny.frontend.shapes import DeclaredInput, require_static, resolve_shapes
from tvmtiny.frontend.tflite_file import FloatGraph, FloatModel, read_tflite, tensor_name
from tvmtiny.passes.name_layers import OUTPUTS_ATTRIBUTE, identifier
from tvmtiny.passes.strip_quantization import GIVEN_ATTRIBUTE

_REMEDY = "Replace it in the model by dense layers, self-attention, LayerNorm and activations, and convert it again."
_PADDINGS = {0: "SAME", 1: "VALID"}


def import_tflite(
    path: Path, *, shapes: dict[str, tuple[int, ...]] | None = None, max_tokens: int | None = None
) -> tvm.IRModule:
    """Read a .tflite file as a Relax module in float32, its variables named after the tensors of the file.

    The scales of a quantized model are in the attribute of `passes.strip_quantization`.

    Args:
        shapes, max_tokens: must agree with the file, whose shapes are static.

    Raises:
        UserError: no such model, damaged, or without an int8 form.
        UnsupportedOperators: an operator is not known.
        EnvironmentProblem: the package tflite is missing.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = read_tflite(Path(path))
            graph = FloatGraph(model)
            module = _convert(Importer(FloatModel(model, graph), graph), graph, shapes, max_tokens)
    except UserError:
        raise
    except Exception as error:  # nothing of the file is verified: its readers raise what they like
        raise UserError(
            f"{path} cannot be imported, or is damaged: {_first_line(error)}",
            "Check that the LiteRT interpreter runs it, or convert the model again.",
        ) from error
    require_static(module)
    return module


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


class Importer(tflite_frontend.OperatorConverter):
    """Converts operator by operator; the pin of apache-tvm is exact, so that its internals may be relied upon."""

    def __init__(self, model: FloatModel, graph: FloatGraph) -> None:
        self.given: dict[str, list[float | int]] = {}
        super().__init__(model, graph, tflite_frontend.ExprTable(), NamingBuilder())
        self.convert_map |= {
            "QUANTIZE": self._same_numbers,
            "DEQUANTIZE": self._same_numbers,
            "CONV_2D": self._convolution,
        }

    def check_unsupported_ops(self) -> None:
        """Raise UnsupportedOperators that names what has no converter."""
        operators = [self.subgraph.Operators(index) for index in range(self.subgraph.OperatorsLength())]
        found = [(self._title(op), self._operator(op)) for op in operators]
        rows = [Unsupported(node, name, _REMEDY) for node, name in found if name not in self.convert_map]
        if rows:
            names = listed(sorted({row.operator for row in rows}))
            raise UnsupportedOperators(
                f"The model uses operators that are not supported: {names}.", _REMEDY, rows
            )

    def convert_op_to_relax(self) -> None:
        """Bind the result of each operator to a variable named after its tensor."""
        for index in range(self.subgraph.OperatorsLength()):
            op = self.subgraph.Operators(index)
            self.bb.start(identifier(self._title(op)))
            try:
                result = self.convert_map[self.get_op_code_str(op)](op=op)
            except UserError:
                raise
            except Exception as error:
                raise UserError(
                    f"The operator {self.get_op_code_str(op)} at '{self._title(op)}' cannot be imported: "
                    f"{_first_line(error)}",
                    _REMEDY,
                ) from error
            outputs = self.get_output_tensors(op)
            if result is None:
                continue
            bound = self.bb.bind(self.bb.normalize(result))
            for place, output in enumerate(outputs):
                self.define(output.tensor_idx, bound if len(outputs) == 1 else self.bb.bind(bound[place]))

    def define(self, index: int, expr: Any) -> None:
        """Set what a tensor of the file is; a quantized one gets a variable of its own."""
        tensor = self.subgraph.Tensors(index)
        if tensor.given is not None:
            expr = self.bb.emit(expr, f"{identifier(tensor_name(tensor))}_given")
            self.given[expr.name] = list(tensor.given)
        self.exp_tab.set_expr(
            tflite_frontend.get_tensor_name(self.subgraph, index), expr, force_override=True
        )

    def _title(self, op: Any) -> str:
        return tensor_name(self.subgraph.Tensors(op.Outputs(0))) if op.OutputsLength() else "operator"

    def _operator(self, op: Any) -> str:
        """The name of an operator; CUSTOM for those that are not of TensorFlow Lite."""
        try:
            return str(self.get_op_code_str(op))
        except NotImplementedError:
            return "CUSTOM"

    def _same_numbers(self, op: Any) -> Any:
        (source,) = self.get_input_tensors(op)
        return self.get_tensor_expr(source)

    def _convolution(self, op: Any) -> Any:
        """Channels in front of the axes of the image, as the passes know it; TVM leaves them behind."""
        from tflite.Conv2DOptions import Conv2DOptions

        options = self._get_builtin_options(op, Conv2DOptions)
        data, kernel, *bias = self.get_input_tensors(op)
        x = relax.op.permute_dims(self.get_tensor_expr(data), [0, 3, 1, 2])
        weight = self.get_tensor_expr(kernel)  # (N, height, width, C)
        extents = [int(extent) for extent in self.get_tensor_shape(kernel)]
        sizes = [int(extent) for extent in self.get_tensor_shape(data)]
        strides = [options.StrideH(), options.StrideW()]
        dilation = [options.DilationHFactor(), options.DilationWFactor()]
        pads = [(0, 0), (0, 0)]
        if _PADDINGS[options.Padding()] == "SAME":
            spans = [d * (k - 1) + 1 for d, k in zip(dilation, extents[1:3], strict=True)]
            pads = [
                tflite_frontend.get_pad_value(*row) for row in zip(sizes[1:3], spans, strides, strict=True)
            ]
        result = relax.op.nn.conv2d(
            x,
            relax.op.permute_dims(weight, [0, 3, 1, 2]),
            strides=strides,
            padding=[pads[0][0], pads[1][0], pads[0][1], pads[1][1]],
            dilation=dilation,
            groups=sizes[3] // extents[3],
        )
        if bias and bias[0].tensor_idx >= 0:
            row = relax.op.reshape(self.get_tensor_expr(bias[0]), (1, extents[0], 1, 1))
            result = relax.op.add(result, row)
        result = self.convert_fused_activation_function(result, options.FusedActivationFunction())
        return relax.op.permute_dims(result, [0, 2, 3, 1])


def _convert(
    importer: Importer,
    graph: FloatGraph,
    shapes: dict[str, tuple[int, ...]] | None,
    max_tokens: int | None,
) -> tvm.IRModule:
    importer.check_unsupported_ops()
    builder = importer.bb
    numbers = [int(graph.Inputs(index)) for index in range(graph.InputsLength())]
    params = [_parameter(graph.Tensors(number)) for number in numbers]
    declared = [DeclaredInput(param.name, tuple(int(e) for e in param.ty.shape)) for param in params]
    resolve_shapes(declared, shapes, max_tokens)
    with builder.function("main", params):
        with builder.dataflow():
            for number, param in zip(numbers, params, strict=True):
                importer.define(number, param)
            importer.convert_op_to_relax()
            results = [int(graph.Outputs(index)) for index in range(graph.OutputsLength())]
            values = [importer.get_tensor_expr(tensor) for tensor in importer.get_tensors(results)]
            output = builder.emit_output(values[0] if len(values) == 1 else relax.Tuple(values))
        builder.emit_func_output(output)
    module = builder.get()
    names = [tensor_name(graph.Tensors(number)) for number in results]
    module["main"] = module["main"].with_attr(OUTPUTS_ATTRIBUTE, names)
    if importer.given:
        module["main"] = module["main"].with_attr(GIVEN_ATTRIBUTE, importer.given)
    return module


def _parameter(tensor: Any) -> relax.Var:
    dtype = tflite_frontend._decode_type(tensor.Type())
    shape = [int(tensor.Shape(axis)) for axis in range(tensor.ShapeLength())]
    return relax.Var(tensor_name(tensor), relax.TensorType(shape, dtype))

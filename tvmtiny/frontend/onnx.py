"""ONNX files, from opset 13 to the newest that onnx knows, through TVM's importer. torch is not needed."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx.inliner
import tvm

from tvmtiny.errors import Unsupported, UnsupportedOperators, UserError
from tvmtiny.frontend.names import listed
from tvmtiny.frontend.onnx_functions import inline_standard_functions
from tvmtiny.frontend.onnx_fused import MICROSOFT
from tvmtiny.frontend.onnx_importer import Importer, is_known, node_title, operator_title
from tvmtiny.frontend.shapes import DeclaredInput, require_static, resolve_shapes
from tvmtiny.passes.name_layers import OUTPUTS_ATTRIBUTE
from tvmtiny.passes.resemblance import of_family, unsupported

OPSETS = range(13, onnx.defs.onnx_opset_version() + 1)
CONTROL_FLOW = ("If", "Loop", "Scan")
NODES_SHOWN = 4
_CONTROL_FLOW_REMEDY = (
    "Export the model for one shape (torch.onnx.export with dynamo=True), or fold it: onnxsim."
)
_OPERATOR_REMEDY = "Replace them in the model by standard ONNX operators, or compute them outside of it."
_FUSED_REMEDY = (
    "ONNX Runtime put them in when it saved the model. Save it again with SessionOptions.graph_optimization_level = "
    "ORT_ENABLE_BASIC, or give the model as it was exported."
)
INTEGER_OPERATORS = (
    "ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "MatMulInteger16", "QAttention", "QGemm", "QLinearAdd",
    "QLinearConv", "QLinearMatMul",
)  # fmt: skip
_INTEGER_REMEDY = (
    "Quantize in QDQ format with static scales (ONNX Runtime: quantize_static with quant_format=QuantFormat.QDQ), "
    "or give the float model and --calibration."
)


def import_onnx(
    path: Path, *, shapes: dict[str, tuple[int, ...]] | None = None, max_tokens: int | None = None
) -> tvm.IRModule:
    """Read an ONNX file as a Relax module with static shapes, its variables named after the ONNX nodes.

    Args:
        path: the file; weights may lie in external files beside it.
        shapes: sizes of dynamic inputs by name, batch included.
        max_tokens: the size of a dynamic axis 1.

    Raises:
        UserError: no such model, damaged, of an opset that is not supported, or dynamic.
        UnsupportedOperators: an operator is not known.
    """
    model = _load(Path(path))
    opset = _check_opset(model)
    with _quiet():
        model = _inline_functions(model, opset)
        _check_operators(model)
        static = resolve_shapes(_declared_inputs(model), shapes, max_tokens)
        return _convert(model, opset, static)


def _load(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise UserError(f"There is no file {path}.", "Give the path of an ONNX file.")
    remedy = "Export the model again, or copy the file again."
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's errors have no common base but Exception
        raise UserError(
            f"{path} is not an ONNX model, or is damaged: {_first_line(error)}", remedy
        ) from error
    if not model.graph.node:
        raise UserError(f"{path} is not an ONNX model, or is damaged: it has no nodes.", remedy)
    try:
        onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
    except Exception as error:  # missing, too short, or outside the directory: ONNX raises a type for each
        raise UserError(
            f"The weights of {path} lie in another file that cannot be read: {_first_line(error)}",
            "Put the external data file beside the model, or export with external_data=False.",
        ) from error
    try:
        onnx.checker.check_model(model)
    except Exception as error:
        raise UserError(f"{path} is not a valid ONNX model: {_first_line(error)}", remedy) from error
    return model


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _check_opset(model: onnx.ModelProto) -> int:
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            if entry.version in OPSETS:
                return int(entry.version)
            raise UserError(
                f"The model uses ONNX opset {entry.version}; {OPSETS[0]} to {OPSETS[-1]} are supported.",
                "Export it with opset_version=18, or convert it with onnx.version_converter.",
            )
    raise UserError("The model imports no ONNX operator set.", "Export it with opset_version=18.")


def _inline_functions(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Local functions (some exporters write one a module), and standard ones, become plain nodes."""
    try:
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
        return inline_standard_functions(model, opset)
    except Exception as error:
        raise UserError(
            f"The functions inside the model cannot be inlined: {_first_line(error)}",
            "Export it without local functions (export_modules_as_functions=False).",
        ) from error


def _check_operators(model: onnx.ModelProto) -> None:
    unknown = []
    for node in model.graph.node:
        if node.op_type in CONTROL_FLOW:
            unknown.append(unsupported(node_title(node), node.op_type, _CONTROL_FLOW_REMEDY))
        elif node.op_type in INTEGER_OPERATORS:
            unknown.append(Unsupported(node_title(node), node.op_type, _INTEGER_REMEDY))
        elif not is_known(node):
            remedy = _FUSED_REMEDY if node.domain.startswith(MICROSOFT) else _OPERATOR_REMEDY
            unknown.append(unsupported(node_title(node), operator_title(node), remedy))
    if unknown:
        raise _unsupported(unknown)


def _unsupported(unknown: list[Unsupported]) -> UnsupportedOperators:
    for row in unknown:
        if row.operator in CONTROL_FLOW:
            message = (
                f"Node '{row.node}' is control flow ({row.operator}){of_family(row)}, which is not supported."
            )
            return UnsupportedOperators(message, f"{_CONTROL_FLOW_REMEDY} {row.remedy}", unknown)
    found = []
    for operator in sorted({row.operator for row in unknown}):
        rows = [row for row in unknown if row.operator == operator]
        nodes = [row.node for row in rows]
        more = f" and {len(nodes) - NODES_SHOWN} more" if len(nodes) > NODES_SHOWN else ""
        found.append(f"{operator} (node {listed(nodes[:NODES_SHOWN])}{more}){of_family(rows[0])}")
    return UnsupportedOperators(
        f"The model uses operators that are not supported: {'; '.join(found)}.", unknown[0].remedy, unknown
    )


def _declared_inputs(model: onnx.ModelProto) -> list[DeclaredInput]:
    initialized = {tensor.name for tensor in model.graph.initializer}
    inputs = []
    for value in model.graph.input:
        if value.name in initialized:
            continue
        if value.type.WhichOneof("value") != "tensor_type":
            raise UserError(f"Input '{value.name}' is not a tensor.", "Export the model with tensor inputs.")
        tensor = value.type.tensor_type
        if tensor.elem_type not in onnx.TensorProto.DataType.values()[1:]:  # the first is UNDEFINED
            raise UserError(
                f"Input '{value.name}' has no element type that ONNX knows.", "Export the model again."
            )
        axes = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param for d in tensor.shape.dim)
        inputs.append(DeclaredInput(value.name, axes if tensor.HasField("shape") else None))
    return inputs


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """TVM's importer prints and warns about what is reported here in full."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _convert(model: onnx.ModelProto, opset: int, shapes: dict[str, tuple[int, ...]]) -> tvm.IRModule:
    try:
        module = Importer(shapes).from_onnx(model.graph, opset)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"The model cannot be imported: {_first_line(error)}", "Check that onnxruntime runs it."
        ) from error
    require_static(module)
    module["main"] = module["main"].with_attr(OUTPUTS_ATTRIBUTE, [value.name for value in model.graph.output])
    return module

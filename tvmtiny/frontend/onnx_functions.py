"""Standard ONNX operators that TVM lacks and ONNX defines by others (RotaryEmbedding, Swish) are replaced by those."""

from __future__ import annotations

from typing import Any

import onnx
import onnx.inliner

from tvmtiny.frontend.onnx_importer import is_known, node_title


def inline_standard_functions(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """A model without them; every node of their bodies has the name of the node that it comes from."""
    found = [(node, schema) for node in model.graph.node if (schema := _function(node, opset)) is not None]
    if not found:
        return model
    for node, schema in found:
        _fill_in_defaults(node, schema)
    names = {output: node_title(node) for node in model.graph.node for output in node.output}
    functions = sorted({("", node.op_type) for node, _ in found})
    inlined = onnx.inliner.inline_selected_functions(model, functions, inline_schema_functions=True)
    # From the end to the beginning, a body's nodes are those without a name before the one that makes the result.
    for node in reversed(inlined.graph.node):
        node.name = node.name or next((names[output] for output in node.output if output in names), "")
        for source in node.input:
            names.setdefault(source, node.name)
    return inlined


def _function(node: onnx.NodeProto, opset: int) -> Any | None:
    """The schema of an operator that is to be replaced."""
    if node.domain not in ("", "ai.onnx") or is_known(node):
        return None
    try:
        schema: Any = onnx.defs.get_schema(node.op_type, opset)
    except onnx.defs.SchemaError:
        return None
    return schema if schema.has_function or schema.has_context_dependent_function else None


def _fill_in_defaults(node: onnx.NodeProto, schema: Any) -> None:
    """The inliner leaves an attribute of the body empty where the node does not give it."""
    given = {attribute.name for attribute in node.attribute}
    for name, attribute in schema.attributes.items():
        if name not in given and attribute.default_value.name:
            node.attribute.append(attribute.default_value)

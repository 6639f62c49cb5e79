"""Run the model as the user gave it, outside of TVM, and compare: what import and fusion must not change."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tvmtiny.errors import ResultMismatch
from tvmtiny.frontend.data import Batch

if TYPE_CHECKING:
    import onnx

Array = npt.NDArray[Any]
Runner = Callable[[dict[str, Array]], list[Array]]

SAMPLES = 4
_ORDERED = ("ReduceMax", "ReduceMin")
_MOVES = (
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)
"""ONNX operators that give the same of real numbers as of the quantized integers that stand for them."""

TOLERANCE = 1e-3
"""Of the largest value of the output; import and fusion only reorder float32 arithmetic."""


class _CannotRun(Exception):
    """Why a model gives no float results by itself."""


def check_source(
    model: Any, batch: Batch, length_input: str | None, max_tokens: int, outputs: Sequence[Sequence[Array]]
) -> dict[str, Any]:
    """Compare the float module's outputs with those of the model that the user gave.

    ONNX files run by ONNX's own reference evaluator, torch programs by torch.

    Args:
        outputs: of the float module: for each sample of `batch` its results, batch axis removed.

    Returns:
        `samples` and `largest_error`, or `not_run`, the reason why the model could not be run by itself.

    Raises:
        ResultMismatch: an output differs.
    """
    if isinstance(model, str | Path) and Path(model).suffix.lower() == ".tflite":
        return {"not_run": "interpreters of TensorFlow Lite give rounded results only"}
    try:
        run = (
            _onnx(model) if isinstance(model, str | Path) and Path(model).suffix == ".onnx" else _torch(model)
        )
        chosen = np.unique(np.linspace(0, len(batch) - 1, SAMPLES).astype(int))
        found = [run(_inputs(batch, int(row), length_input, max_tokens)) for row in chosen]
    except _CannotRun as reason:
        return {"not_run": str(reason)}
    except Exception as error:  # an evaluator may lack an operator; that is no fault of the model
        return {
            "not_run": f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
        }
    largest = 0.0
    for row, source in zip(chosen, found, strict=True):
        difference = _difference(source, outputs[row], int(batch.n_tokens[row]), max_tokens)
        largest = max(largest, difference)
        if not difference <= TOLERANCE:
            raise ResultMismatch(
                f"After import and fusion the model differs from its source by {difference:.2g} on sample {row}.",
                "A part of it was misread: this is a defect of tvmtiny; please report it with the model.",
            )
    return {"samples": len(chosen), "largest_error": float(f"{largest:.2g}")}


def _difference(source: Sequence[Array], outputs: Sequence[Array], n: int, max_tokens: int) -> float:
    """The largest difference of any output, in parts of that output's largest value (at least 1)."""
    largest = 0.0
    for wanted, result in zip(source, outputs, strict=True):
        rows = n if result.ndim > 1 and result.shape[0] == max_tokens else None
        expected, actual = wanted.reshape(result.shape)[:rows], result[:rows]
        error = float(np.abs(expected - actual).max()) / max(1.0, float(np.abs(expected).max()))
        largest = max(largest, error if np.isfinite(error) else np.inf)
    return largest


def _inputs(batch: Batch, row: int, length_input: str | None, max_tokens: int) -> dict[str, Array]:
    arrays = {name: values[row : row + 1] for name, values in batch.arrays.items()}
    if length_input is not None:
        arrays[length_input] = (np.arange(max_tokens) < batch.n_tokens[row])[None]
    return arrays


def _onnx(path: Any) -> Runner:
    import onnx
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    graph = onnx.load(path, load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    constants |= {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    _require_real_operators(graph.node, constants)
    evaluator = ReferenceEvaluator(str(path), new_ops=_without_rounding(constants))
    dtypes: dict[str, Any] = {
        str(name): helper.tensor_dtype_to_np_dtype(value.tensor_type.elem_type)
        for name, value in zip(evaluator.input_names, evaluator.input_types_ or [], strict=True)
    }

    def run(arrays: dict[str, Array]) -> list[Array]:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            values = {name: arrays[name].astype(dtype) for name, dtype in dtypes.items()}
            results: Any = evaluator.run(None, values)
            return [np.asarray(result) for result in results]

    return run


def _require_real_operators(nodes: Iterable[onnx.NodeProto], constants: set[str]) -> None:
    """Raise _CannotRun where an operator reads quantized integers together with others, such as bounds of a clamp:
    without rounding, it would get real numbers beside integers.
    """
    integers: set[str] = set()
    for node in nodes:  # in the order of computation
        if node.op_type == "QuantizeLinear" and node.input[0] not in constants:
            integers.update(node.output)
        elif node.op_type != "DequantizeLinear" and integers.intersection(node.input):
            if node.op_type not in (*_MOVES, *_ORDERED) and not (
                node.op_type == "Concat" and integers.issuperset(node.input)
            ):
                raise _CannotRun(f"the operator {node.op_type} at '{node.name}' reads quantized integers")
            integers.update(node.output)


def _without_rounding(constants: set[str]) -> list[Any]:
    """Evaluators with which a quantized model gives the float results that it stands for, as the importer does.

    Args:
        constants: names of values that are rounded all the same: weights whose QuantizeLinear is in the graph.
    """
    from onnx.reference.ops import op_dequantize_linear, op_quantize_linear

    class QuantizeLinear(op_quantize_linear.QuantizeLinear_23):
        def _run(self, *args: Any, **attributes: Any) -> Any:
            is_constant = self.onnx_node.input[0] in constants
            return super()._run(*args, **_set(attributes)) if is_constant else args[:1]

    class DequantizeLinear(op_dequantize_linear.DequantizeLinear_23):
        def _run(self, *args: Any, **attributes: Any) -> Any:
            return args[:1] if args[0].dtype.kind == "f" else super()._run(*args, **_set(attributes))

    return [QuantizeLinear, DequantizeLinear]


def _set(attributes: dict[str, Any]) -> dict[str, Any]:
    """Attributes that a node has."""
    return {name: value for name, value in attributes.items() if value is not None}


def _torch(model: Any) -> Runner:
    import torch

    from tvmtiny.frontend.torch import load_program

    program = load_program(model)
    module = program.module()
    _remove_rounding(module)
    keywords = list((program.example_inputs or ((), {}))[1])
    inputs = set(program.graph_signature.user_inputs)
    dtypes = {node.name: node.meta["val"].dtype for node in program.graph.nodes if node.name in inputs}

    def run(arrays: dict[str, Array]) -> list[Array]:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = [torch.from_numpy(arrays[name]).to(dtype) for name, dtype in dtypes.items()]
            named = dict(zip(keywords, values[len(values) - len(keywords) :], strict=True))
            result = module(*values[: len(values) - len(keywords)], **named)
        return [np.asarray(value) for value in torch.utils._pytree.tree_leaves(result)]

    return run


def _remove_rounding(module: Any) -> None:
    """Take the pairs of quantize and dequantize out of a torch.fx module: what it computes in float."""
    for node in list(module.graph.nodes):
        source: Any = node.args[0] if node.args else None
        pair = (str(node.target), str(getattr(source, "target", "")))
        if all(
            name.startswith(f"quantized_decomposed.{what}") for name, what in zip(pair, _PAIR, strict=True)
        ):
            node.replace_all_uses_with(source.args[0])
    module.graph.eliminate_dead_code()
    for node in module.graph.nodes:
        if str(node.target).startswith("quantized_decomposed.quantize"):
            raise _CannotRun(f"an operator reads the quantized integers '{node.name}'")
    module.recompile()


_PAIR = ("dequantize", "quantize")
"""An operator of PT2E and the one that it reads."""

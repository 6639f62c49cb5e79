"""From a model file or object to Relax, float32, static shapes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvmtiny.errors import UserError
from tvmtiny.frontend.opening import HF_PREFIX, open_model

if TYPE_CHECKING:
    import tvm


def import_model(
    model: Any, shapes: dict[str, tuple[int, ...]] | None = None, max_tokens: int | None = None
) -> tvm.IRModule:
    """Import an ONNX, .pt2 or .tflite file, a Hugging Face directory or a torch ExportedProgram, in float32.

    Of a model that its author has quantized comes the float model, with its scales in an attribute
    (`passes.strip_quantization`).

    Args:
        model: a path (.onnx, .pt2, .tflite), `hf:DIR`, or an ExportedProgram.
        shapes: sizes of dynamic inputs by name, batch included.
        max_tokens: the size of a dynamic axis 1.

    Raises:
        UserError: not one of these, or a model that cannot be used.
        EnvironmentProblem: torch is needed and missing.
    """
    from tvmtiny.frontend.supported import check_types
    from tvmtiny.passes.strip_quantization import StripQuantization

    opened = open_model(model, shapes, max_tokens)
    module = StripQuantization()(_import(opened.model, shapes, max_tokens))
    check_types(module)
    return module


def _import(model: Any, shapes: dict[str, tuple[int, ...]] | None, max_tokens: int | None) -> tvm.IRModule:
    if isinstance(model, str | Path):
        path = Path(model)
        if path.suffix.lower() == ".onnx":
            from tvmtiny.frontend.onnx import import_onnx

            return import_onnx(path, shapes=shapes, max_tokens=max_tokens)
        if path.suffix.lower() == ".tflite":
            from tvmtiny.frontend.tflite import import_tflite

            return import_tflite(path, shapes=shapes, max_tokens=max_tokens)
        if path.suffix.lower() != ".pt2":
            raise UserError(
                f"{path} is no ONNX file (.onnx), TensorFlow Lite model (.tflite) or ExportedProgram (.pt2).",
                "Export the model with torch.onnx.export or torch.export.save; a Hugging Face model directory is "
                f"{HF_PREFIX}DIR.",
            )
    elif type(model).__name__ != "ExportedProgram":  # by name: looking at the type must not import torch
        raise UserError(
            f"A model is a path (.onnx, .pt2, .tflite), {HF_PREFIX}DIR or an ExportedProgram, "
            f"not {type(model).__name__}.",
            "Export a torch module first: torch.export.export(module, example_inputs).",
        )
    from tvmtiny.frontend.torch import import_exported

    return import_exported(model, shapes=shapes, max_tokens=max_tokens)

"""torch.export programs, through TVM's importer. Needs torch: `pip install tvmtiny[train]`."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvmtiny.errors import EnvironmentProblem, UserError
from tvmtiny.frontend.shapes import DeclaredInput, require_static, resolve_shapes
from tvmtiny.passes.name_layers import OUTPUTS_ATTRIBUTE

if TYPE_CHECKING:
    import tvm


def import_exported(
    program: Any, *, shapes: dict[str, tuple[int, ...]] | None = None, max_tokens: int | None = None
) -> tvm.IRModule:
    """Read a torch ExportedProgram as a Relax module with static shapes and constant weights.

    Args:
        program: an ExportedProgram, or the path of a .pt2 file.
        shapes: sizes of dynamic inputs by name, batch included.
        max_tokens: the size of a dynamic axis 1.

    Raises:
        UserError: no such program, dynamic, or with an operator that TVM does not import.
        EnvironmentProblem: torch is missing.
    """
    program = load_program(program)
    module = _fix_shapes(_convert(program), shapes, max_tokens)
    names = _output_names(program)
    if names:
        module["main"] = module["main"].with_attr(OUTPUTS_ATTRIBUTE, names)
    return module


def load_program(program: Any) -> Any:
    """An ExportedProgram, read from a .pt2 file when given its path; errors as `import_exported`."""
    try:
        import torch
    except ImportError as error:
        raise EnvironmentProblem(
            "Importing a torch program needs torch, which is not installed.",
            "pip install tvmtiny[train], or export the model to ONNX where torch is.",
        ) from error
    if isinstance(program, str | Path):
        program = _load(Path(program))
    if not isinstance(program, torch.export.ExportedProgram):
        raise UserError(
            f"A torch program is an ExportedProgram, not {type(program).__name__}.",
            "Export the module: torch.export.export(module, example_inputs).",
        )
    return program


def _load(path: Path) -> Any:
    import torch

    if not path.is_file():
        raise UserError(f"There is no file {path}.", "Give the path of a .pt2 file.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Registers the operators of programs that PT2E has quantized.
            importlib.import_module("torch.ao.quantization.fx._decomposed")
            return torch.export.load(path)
    except Exception as error:  # zip, pickle, JSON: each of its readers raises its own
        raise UserError(
            f"{path} is not an ExportedProgram, or is damaged: {_first_line(error)}",
            "Write it with torch.export.save(torch.export.export(module, example_inputs), path), "
            "with the same release of torch.",
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _convert(program: Any) -> tvm.IRModule:
    from tvmtiny.frontend.torch_importer import Importer, refuse_unrolled

    refuse_unrolled(program)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Importer().from_exported_program(
                program.run_decompositions(),
                keep_params_as_input=False,
                unwrap_unit_return_tuple=True,
                no_bind_return_tuple=False,
                custom_convert_map=None,
            )
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"The torch program cannot be imported: {_first_line(error)}",
            "Export the model to ONNX instead: torch.onnx.export(module, example_inputs, 'model.onnx').",
        ) from error


def _output_names(program: Any) -> list[str]:
    """The keys of a dict, or the fields of a Hugging Face output, that the module returns; [] for a plain tuple."""
    spec = program.call_spec.out_spec
    names = spec.context if spec is not None and isinstance(spec.context, list) else []
    plain = len(names) == len(program.graph_signature.user_outputs)
    return list(names) if plain and all(isinstance(name, str) for name in names) else []


def _fix_shapes(
    module: tvm.IRModule, shapes: dict[str, tuple[int, ...]] | None, max_tokens: int | None
) -> tvm.IRModule:
    """Put numbers in for the symbols that torch.export made of dynamic axes."""
    from tvm import relax

    params = list(module["main"].params)
    axes = {param.name: list(param.ty.shape) for param in params}
    declared = [
        DeclaredInput(name, tuple(int(e) if hasattr(e, "value") else str(e) for e in extents))
        for name, extents in axes.items()
    ]
    static = resolve_shapes(declared, shapes, max_tokens)
    sizes: dict[str, int] = {}
    for name, extents in axes.items():
        for symbol, size in zip(extents, static[name], strict=True):
            if hasattr(symbol, "value"):
                continue
            if sizes.setdefault(str(symbol), size) != size:
                raise UserError(
                    f"The dynamic axis {symbol} gets two sizes, {sizes[str(symbol)]} and {size} ('{name}').",
                    "The inputs share this axis: give them the same size.",
                )
    if sizes:
        module = relax.transform.BindSymbolicVars(sizes)(module)
    require_static(module)
    return module

"""The float model on the same samples: what the integer model is compared with."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmtiny.artifact import Artifact
from tvmtiny.errors import UserError
from tvmtiny.evaluate.data import Dataset
from tvmtiny.evaluate.metrics import output_shape
from tvmtiny.frontend.names import listed
from tvmtiny.frontend.opening import hf_directory
from tvmtiny.runner import Sample

Array = npt.NDArray[Any]

ONNX_RUNTIME, TVM = "ONNX Runtime", "TVM"


@dataclasses.dataclass(frozen=True)
class FloatOutputs:
    """Results of the float model.

    Attributes:
        outputs: by the compiled model's name of an output, in the shapes of `metrics.output_shape`.
        engine: what computed them.
    """

    outputs: dict[str, Array]
    engine: str


def real_inputs(artifact: Artifact, data: Dataset, samples: Sequence[Sample]) -> dict[str, Array]:
    """What a float model takes, by name, (N, *model shape).

    Inputs of a file are taken as they are; those that the device made (ids of texts, features of recordings), and the
    model's own reference inputs, from their integers.
    """
    if data.inputs:
        return dict(data.inputs)
    shapes = {row["name"]: tuple(row["model_shape"]) for row in artifact.metadata["inputs"]}
    found = {}
    for info in artifact.inputs:
        values = np.stack([sample.inputs[info.name] for sample in samples])
        if info.kind == "features":
            values = info.real(values)
        found[info.name] = values.reshape(len(samples), *shapes[info.name])
    return found


def float_outputs(
    artifact: Artifact, model: Any, inputs: Mapping[str, Array], n_tokens: Array
) -> FloatOutputs:
    """Run the float model, one sample at a time as on the device.

    An ONNX file runs by ONNX Runtime where that is installed; all else as TVM imports it.

    Args:
        model: what `artifact` was compiled from: a path, or `hf:DIR`.
        inputs: of `real_inputs`. n_tokens: present tokens of each sample (N,).

    Raises:
        UserError: the model cannot be read, or has other inputs or outputs than `artifact`.
    """
    path = Path(str(model))
    if hf_directory(model) is None and not path.is_file():
        raise UserError(f"There is no file {path}.", "Give the model that was compiled with --float MODEL.")
    if path.suffix.lower() == ".onnx" and importlib.util.find_spec("onnxruntime") is not None:
        rows, engine = _by_onnx_runtime(artifact, path, inputs, n_tokens), ONNX_RUNTIME
    else:
        rows, engine = _by_tvm(artifact, model, inputs, n_tokens), TVM
    outputs = {}
    for info, values in zip(artifact.outputs, map(np.stack, zip(*rows, strict=True)), strict=True):
        if values[0].size != np.prod(info.shape):
            raise UserError(
                f"The output '{info.name}' has the shape {'x'.join(map(str, info.shape))}; that of {model} has "
                f"{values[0].size} values.",
                "Give the model that was compiled with --float MODEL.",
            )
        outputs[info.name] = values.reshape(len(values), *output_shape(info))
    return FloatOutputs(outputs, engine)


def _by_onnx_runtime(
    artifact: Artifact, path: Path, inputs: Mapping[str, Array], n_tokens: Array
) -> list[Sequence[Array]]:
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(path)
    except Exception as error:  # ONNX Runtime has an exception for every status, with no common base
        raise UserError(f"ONNX Runtime cannot read {path}: {error}") from error
    mask_name = artifact.metadata.get("length_input")
    mask = (np.arange(artifact.max_tokens) < n_tokens[:, None]).astype(np.int64)
    given = dict(inputs) if mask_name is None else {**inputs, mask_name: mask}
    wanted = {value.name: _dtype(value.type) for value in session.get_inputs()}
    names = [info.name for info in artifact.outputs]
    found = [value.name for value in session.get_outputs()]
    if set(wanted) - set(given) or set(names) - set(found):
        raise UserError(
            f"{path} takes {listed(wanted)} and gives {listed(found)}; the compiled model takes {listed(given)} and "
            f"gives {listed(names)}.",
            "Give the model that was compiled with --float MODEL.",
        )
    return [
        session.run(names, {name: given[name][row : row + 1].astype(dtype) for name, dtype in wanted.items()})
        for row in range(len(n_tokens))
    ]


def _dtype(kind: str) -> Any:
    """ONNX Runtime's name of an input's type, such as tensor(int64), as NumPy's."""
    return {"float": np.float32, "double": np.float64, "bool": np.bool_}.get(kind[7:-1]) or np.dtype(
        kind[7:-1]
    )


def _by_tvm(
    artifact: Artifact, model: Any, inputs: Mapping[str, Array], n_tokens: Array
) -> list[Sequence[Array]]:
    import tvm

    from tvmtiny.frontend import import_model
    from tvmtiny.frontend.data import input_specs
    from tvmtiny.passes.pipeline import fusion_passes
    from tvmtiny.quant.calibrate import FloatModel

    module = import_model(model, max_tokens=artifact.max_tokens)
    fused = tvm.transform.Sequential(fusion_passes())(module)
    taken = {spec.name: spec.shape for spec in input_specs(fused)[0]}
    if taken != {name: values.shape[1:] for name, values in inputs.items()}:
        raise UserError(
            f"{model} takes {listed(taken)}, the compiled model {listed(inputs)}, or other shapes of them.",
            "Give the model that was compiled with --float MODEL.",
        )
    reference = FloatModel(fused)
    return [
        reference.run({name: values[row] for name, values in inputs.items()}, int(n)).outputs
        for row, n in enumerate(n_tokens)
    ]


def agreement(real: Array, integer: Array, rows: npt.NDArray[np.bool_]) -> float:
    """Share of `rows` with the same largest element."""
    width = real.shape[-1]
    same = real.reshape(*rows.shape, width).argmax(-1) == integer.reshape(*rows.shape, width).argmax(-1)
    return float(np.mean(same[rows]))

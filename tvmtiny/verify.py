"""The bytes that a compiled model must give, by its NumPy reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from tvmtiny.artifact import Artifact
from tvmtiny.errors import UserError
from tvmtiny.runner import Sample

INTEGER_MODULE = "reference/integer.json"
"""The integer module (Relax, TVM's JSON) in a model directory: of whole sequences, also of a model that runs in steps."""

STEP_MODULE = "reference/step.json"
"""The integer module of a step, where the model runs in steps."""


def expected_outputs(artifact: Artifact, samples: Sequence[Sample]) -> list[dict[str, npt.NDArray[Any]]]:
    """The outputs of every sample, computed in NumPy from the integer module in the model's directory.

    Of a model that runs in steps a sample is a whole sequence, and the outputs have a row for each of its tokens, from
    the integer module that takes it at once.

    Raises:
        UserError: the directory lacks the module.
    """
    import tvm

    from tvmtiny.kernels import kernels
    from tvmtiny.quant.reference import IntegerModel

    path = artifact.directory / INTEGER_MODULE
    if not path.is_file():
        raise UserError(f"{artifact.directory} lacks {INTEGER_MODULE}.", "Compile the model again.")
    kernels()  # registers the operators that the module uses
    model = IntegerModel(tvm.ir.load_json(path.read_text("utf-8")))
    expected = []
    for sample in samples:
        results = model.run(sample.inputs, sample.n_tokens)
        expected.append(
            {
                info.name: _present(artifact, results[info.name].reshape(-1, *info.shape[1:]), sample.n_tokens)
                for info in artifact.outputs
            }
        )
    return expected


def _present(artifact: Artifact, rows: npt.NDArray[Any], n: int) -> npt.NDArray[Any]:
    """An output as C leaves it."""
    from tvmtiny.quant.reference import without_absent_rows

    if artifact.metadata.get("step") is not None:
        return rows[:n]
    return without_absent_rows(rows, n, artifact.max_tokens)

"""The bytes that a compiled model must give, by its NumPy reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from tvmtiny.artifact import Artifact
from tvmtiny.errors import UserError
from tvmtiny.runner import Sample

if TYPE_CHECKING:
    from tvmtiny.quant.reference import IntegerModel

INTEGER_MODULE = "reference/integer.json"
"""The integer module (Relax, TVM's JSON) in a model directory."""


def expected_outputs(artifact: Artifact, samples: Sequence[Sample]) -> list[dict[str, npt.NDArray[Any]]]:
    """The outputs of every sample, computed in NumPy from the integer module in the model's directory.

    Raises:
        UserError: the directory lacks the module.
    """
    from tvmtiny.quant.reference import without_absent_rows

    model = integer_model(artifact)
    expected = []
    for sample in samples:
        results = model.run(sample.inputs, sample.n_tokens)
        expected.append(
            {
                info.name: without_absent_rows(
                    results[info.name].reshape(info.shape), sample.n_tokens, artifact.max_tokens
                )
                for info in artifact.outputs
            }
        )
    return expected


def integer_model(artifact: Artifact) -> IntegerModel:
    """The integer module in the model's directory, to be run in NumPy; raises UserError when it is not there."""
    import tvm

    from tvmtiny.kernels import kernels
    from tvmtiny.quant.reference import IntegerModel

    path = artifact.directory / INTEGER_MODULE
    if not path.is_file():
        raise UserError(f"{artifact.directory} lacks {INTEGER_MODULE}.", "Compile the model again.")
    kernels()  # registers the operators that the module uses
    return IntegerModel(tvm.ir.load_json(path.read_text("utf-8")))

"""The bytes that a compiled model must give, by its NumPy reference."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tvmtiny.artifact import Artifact
from tvmtiny.errors import UserError
from tvmtiny.runner import Sample
from tvmtiny.sampling import Sampler

if TYPE_CHECKING:
    from tvmtiny.quant.reference import IntegerModel

INTEGER_MODULE = "reference/integer.json"
"""The integer module (Relax, TVM's JSON) in a model directory: of whole sequences, also where the model steps."""

STEP_MODULE = "reference/step.json"
"""The integer module of a step, where the model runs in steps."""


def expected_outputs(artifact: Artifact, samples: Sequence[Sample]) -> list[dict[str, npt.NDArray[Any]]]:
    """The outputs of every sample, computed in NumPy from the integer module in the model's directory.

    Of a model that runs in steps a sample is a whole sequence, and the outputs have a row for each of its tokens, from
    the integer module that takes it at once.

    Raises:
        UserError: the directory lacks the module.
    """
    model = integer_model(artifact)
    expected = []
    for sample in samples:
        results = model.run(sample.inputs, sample.n_tokens)
        expected.append(
            {
                info.name: _present(
                    artifact, results[info.name].reshape(-1, *info.shape[1:]), sample.n_tokens
                )
                for info in artifact.outputs
            }
        )
    return expected


def expected_generation(
    artifact: Artifact, prompt: Sequence[int], count: int, sampler: Sampler, *, end: int = -1
) -> list[int]:
    """The ids with which a model continues a prompt, computed in NumPy.

    Args:
        sampler: how to choose; it is not changed.
    """
    import tvm

    from tvmtiny.kernels import kernels
    from tvmtiny.quant.stepped_reference import SteppedReference

    kernels()  # registers the operators that the module uses
    step, ids, logits = artifact.metadata["step"], artifact.inputs[0], artifact.outputs[0]
    module = tvm.ir.load_json((artifact.directory / STEP_MODULE).read_text("utf-8"))
    model = SteppedReference(module, {row["name"]: row["fill"] for row in step["state"]})
    own, written = dataclasses.replace(sampler), list(prompt)
    token = np.zeros(ids.shape, np.uint16)
    for place in itertools.count():
        if place == (step["positions"] or -1) or len(written) == len(prompt) + count:
            break
        token[0] = written[place]
        row = model.run({ids.name: token}, 1)[logits.name].reshape(-1, logits.shape[-1])[0]
        if place >= len(prompt) - 1:
            chosen = own.choose(row, round(logits.scale[0] * 2**32))
            if chosen == end:
                break
            written.append(chosen)
    return written[len(prompt) :]


def _present(artifact: Artifact, rows: npt.NDArray[Any], n: int) -> npt.NDArray[Any]:
    """An output as C leaves it."""
    from tvmtiny.quant.reference import without_absent_rows

    if artifact.metadata.get("step") is not None:
        return rows[:n]
    return without_absent_rows(rows, n, artifact.max_tokens)


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

"""Whole sequences on a model that runs in steps: a step is a sample of the harness, one without tokens begins anew."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from tvmtiny.artifact import Artifact
from tvmtiny.errors import UserError
from tvmtiny.runner.api import RunResult, run
from tvmtiny.runner.protocol import Sample


def steps_of(artifact: Artifact, sequence: Sample) -> list[Sample]:
    """What the harness gets for a sequence: its beginning, then step after step.

    Args:
        sequence: inputs with the rows of at least `n_tokens` tokens.

    Raises:
        UserError: a model of steps of a fixed size gets another number of tokens.
    """
    step = artifact.metadata["step"]
    size, total = int(step["tokens"]), sequence.n_tokens
    if not step["any_number"] and total % size:
        raise UserError(
            f"{artifact.name} takes {size} tokens a step; a sequence of {total} is no multiple.",
            "Cut the sequence.",
        )
    empty = {info.name: np.zeros(info.shape, info.dtype) for info in artifact.inputs}
    samples = [Sample(empty, 0)]
    for first in range(0, total, size):
        inputs = {}
        for info in artifact.inputs:
            rows = info.shape[0]
            part = sequence.inputs[info.name][first * rows // size :][:rows]
            inputs[info.name] = np.zeros(info.shape, info.dtype)
            inputs[info.name][: len(part)] = part
        samples.append(Sample(inputs, min(size, total - first)))
    return samples


def count_of_runs(artifact: Artifact, samples: Sequence[Sample], repeat: int = 1) -> int:
    """How often the firmware runs the model on samples, or on the steps of sequences; beginning one is no run."""
    if artifact.metadata.get("step") is None:
        return len(samples) * repeat
    size = int(artifact.metadata["step"]["tokens"])
    return sum(-(-sample.n_tokens // size) for sample in samples)


def run_sequences(artifact: Artifact, on: str, sequences: Sequence[Sample], **options: Any) -> RunResult:
    """Run sequences, one after another; options and errors as of `run`.

    Returns:
        the result with the rows of all tokens of a sequence in its outputs, and the first status of it that is not 0.
        Instructions are those of the first step, and of all steps.
    """
    parts = [steps_of(artifact, sequence) for sequence in sequences]
    result = run(artifact, on, [sample for part in parts for sample in part], jobs=1, **options)
    outputs, status, place = [], [], 0
    for part in parts:
        found = range(place + 1, place + len(part))
        failed = [value for value in result.status[place : place + len(part)] if value != 0]
        status.append(failed[0] if failed else 0)
        outputs.append(
            {} if failed else _rows([(result.outputs[i], part[i - place].n_tokens) for i in found])
        )
        place += len(part)
    return dataclasses.replace(result, outputs=outputs, status=status)


def _rows(steps: Sequence[tuple[dict[str, Any], int]]) -> dict[str, Any]:
    """The outputs of steps one after another, present tokens only."""
    return {name: np.concatenate([output[name][:n] for output, n in steps]) for name in steps[0][0]}

"""Layer by layer on the device: the arena after each operator, beside what the integer reference has there.

For firmware that was built for debugging (`tvmtiny project --debug`); it gives away raw inputs.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tvmtiny.artifact import Artifact
from tvmtiny.errors import EnvironmentProblem
from tvmtiny.link.client import Client
from tvmtiny.runner.protocol import Sample, sample_bytes
from tvmtiny.storage.choice import DECODER_BYTES
from tvmtiny.verify import integer_model


@dataclasses.dataclass(frozen=True)
class Layer:
    """The result of one operator.

    Attributes:
        found, expected: on the device and by the reference, of the tokens that are present.
    """

    name: str
    kernel: str
    found: np.ndarray
    expected: np.ndarray

    @property
    def different(self) -> int:
        """How many values differ."""
        return int(np.count_nonzero(self.found != self.expected))


def dump_layers(client: Client, artifact: Artifact, sample: Sample, timeout_s: float) -> list[Layer]:
    """Run `sample` once for each operator, up to its end, and read what that wrote.

    Raises EnvironmentProblem when the firmware was not built for debugging.
    """
    if not client.info.debug:
        raise EnvironmentProblem(
            f"The firmware of {artifact.name} does not show its arena.",
            "Build it for that: tvmtiny project DIR --debug --flash.",
        )
    expected = integer_model(artifact).run(sample.inputs, sample.n_tokens)
    data = sample_bytes(artifact, sample, 0)
    places = {row["name"]: row for row in artifact.metadata["arena"]["plan"]}
    layers = []
    for index, operator in enumerate(artifact.metadata["operators"]):
        if operator["kernel"] in DECODER_BYTES:
            continue  # its result are weights
        reference = np.ascontiguousarray(_present(expected[operator["name"]], sample, artifact))
        client.run_until(data, sample.n_tokens, index, timeout_s)
        raw = client.peek(places[operator["name"]]["offset"], reference.nbytes, timeout_s)
        found = np.frombuffer(raw, reference.dtype.newbyteorder("<")).reshape(reference.shape)
        layers.append(Layer(operator["name"], operator["kernel"], found, reference))
    return layers


def _present(values: Any, sample: Sample, artifact: Artifact) -> np.ndarray:
    """Rows of the tokens that are there: what the others hold is nobody's business."""
    array = np.asarray(values)
    return array[: sample.n_tokens] if array.ndim > 1 and len(array) == artifact.max_tokens else array

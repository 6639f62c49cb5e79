"""Requests in, answers out, by the two files in a program's working directory (the file transports)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tvmtiny.errors import EnvironmentProblem
from tvmtiny.runner.base import Job
from tvmtiny.runner.process import Finished, TimeLimitExceeded, quoted, run_program
from tvmtiny.runner.protocol import (
    REQUEST_FILE,
    RESPONSE_FILE,
    Sample,
    answered_samples,
    encode_batch,
)


def exchange(
    job: Job, command: Sequence[str], samples: Sequence[Sample], folder: Path, timeout_s: float
) -> tuple[Finished, bytes]:
    """Run `command` in `folder` on `samples`; returns how it ended and its answers (empty if it wrote none).

    Raises EnvironmentProblem after `timeout_s` seconds, which says how many samples had been answered.
    """
    (folder / REQUEST_FILE).write_bytes(encode_batch(job.artifact, samples))
    path = folder / RESPONSE_FILE
    try:
        finished = run_program(command, cwd=folder, timeout_s=timeout_s)
    except TimeLimitExceeded as error:
        done = answered_samples(path.read_bytes()) if path.is_file() else 0
        program = Path(command[0]).name
        raise EnvironmentProblem(
            f"{job.artifact.name} did not finish: {program} did not end within {timeout_s:g} s and was "
            f"stopped, with about {done} samples answered." + quoted(error.said),
            "Allow more time, or run fewer samples.",
        ) from error
    return finished, path.read_bytes() if path.is_file() else b""

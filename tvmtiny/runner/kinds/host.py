"""Runs a program on the developer's machine: the target of the name "host", or the model of any target."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tvmtiny.errors import EnvironmentProblem
from tvmtiny.runner.base import Answer, Job
from tvmtiny.runner.build import build
from tvmtiny.runner.exchange import exchange
from tvmtiny.runner.process import Finished
from tvmtiny.runner.project import Project
from tvmtiny.runner.protocol import EXIT_MEANINGS, Sample, decode_batch
from tvmtiny.target import HOST, load_target

PARALLEL = True


def prepare(job: Job) -> Project:
    """Build with the machine's own compiler, whatever the job's target is."""
    target = job.target if job.target.cpu == HOST else load_target(HOST)
    return build(job.artifact, target, job.build_dir)


def execute(job: Job, project: Project, samples: Sequence[Sample], timeout_s: float) -> Answer:
    """Run the program in a working directory of its own."""
    with tempfile.TemporaryDirectory(prefix="tvmtiny-") as folder:
        command = [str(project.run_elf.resolve())]
        finished, response = exchange(job, command, samples, Path(folder), timeout_s)
    if finished.status != 0:
        raise EnvironmentProblem(_explain(job, project, finished))
    return Answer(decode_batch(job.artifact, response, len(samples)))


def _explain(job: Job, project: Project, finished: Finished) -> str:
    if finished.status < 0:
        reason = f"crashed with {signal.Signals(-finished.status).name}"
    else:
        reason = EXIT_MEANINGS.get(finished.status, f"ended with status {finished.status}")
    said = f":\n{finished.tail}" if finished.tail else "."
    return f"{job.artifact.name} on the host {reason} ({project.run_elf}){said}"

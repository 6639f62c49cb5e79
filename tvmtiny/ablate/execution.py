"""Where runs are done: one after another in this process, or by Ray on several processors or a cluster."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
from collections.abc import Callable, Iterator, Sequence

from tvmtiny.ablate.run import Job, Run, perform
from tvmtiny.errors import EnvironmentProblem

SECONDS = 10
"""Until a cluster that does not answer counts as unreachable."""

Execute = Callable[[Sequence[Job]], Iterator[tuple[Job, Run]]]
"""Does runs and yields each when it has finished. Raises EnvironmentProblem when a run does."""


def default_jobs() -> int:
    """As many as there are processors where Ray is installed, else one."""
    return (os.cpu_count() or 1) if importlib.util.find_spec("ray") else 1


@contextlib.contextmanager
def executor(at_once: int, address: str | None) -> Iterator[Execute]:
    """Yields what does runs.

    Args:
        at_once: how many at a time on this computer. address: of a Ray cluster, which decides by itself.

    Raises:
        EnvironmentProblem: Ray is needed and missing or cannot be reached.
    """
    if address is None and at_once == 1:
        yield _in_turn
        return
    if importlib.util.find_spec("ray") is None:
        raise EnvironmentProblem(
            "Several runs at once need Ray, which was not found.",
            "Install it: pip install 'tvmtiny[ray]', or give --jobs 1.",
        )
    import ray

    _connect(at_once, address)
    try:
        yield _by_ray
    finally:
        ray.shutdown()


def _in_turn(jobs: Sequence[Job]) -> Iterator[tuple[Job, Run]]:
    for job in jobs:
        yield job, perform(job)


def _by_ray(jobs: Sequence[Job]) -> Iterator[tuple[Job, Run]]:
    import ray

    remote = ray.remote(num_cpus=1, max_retries=1)(perform)
    pending = {remote.remote(job): job for job in jobs}
    while pending:
        ready, _ = ray.wait(list(pending), num_returns=1)
        yield pending.pop(ready[0]), _fetch(ready[0])


def _connect(at_once: int, address: str | None) -> None:
    import ray

    # Ray's future default, without its warning.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    quiet = {"logging_level": "ERROR", "log_to_driver": False}
    try:
        if address is None:
            ray.init(num_cpus=at_once, include_dashboard=False, **quiet)
        else:
            _reach(address)
            ray.init(address=address, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        where = "on this computer" if address is None else f"at {address}"
        raise EnvironmentProblem(
            f"Ray {where} cannot be reached: {error}",
            "Give the address of a running cluster, as in --ray 10.0.0.5:6379, or leave --ray out.",
        ) from error


def _reach(address: str) -> None:
    """Raise OSError or ValueError where nothing listens: Ray itself tries for minutes before it says so."""
    host, port_given, port = address.removeprefix("ray://").rpartition(":")
    if port_given:
        socket.create_connection((host, int(port)), timeout=SECONDS).close()


def _fetch(reference: object) -> Run:
    """A run's result; what a worker raised is raised here as it was."""
    import ray

    try:
        run: Run = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise EnvironmentProblem(
            f"Ray lost a run: {error}",
            "What has finished is kept: give the command again, with fewer --jobs.",
        ) from error
    return run

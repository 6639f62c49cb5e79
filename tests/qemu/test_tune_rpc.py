"""Tuning over TVM's RPC tracker: two servers, each with its own emulated board, one of which is killed amid a batch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tvm import rpc
from tvm.rpc.tracker import Tracker

from tvmtiny.bench.catalog import EncoderBenchmark
from tvmtiny.bench.models import calibration, save
from tvmtiny.compiler import compile as compile_model
from tvmtiny.errors import EnvironmentProblem
from tvmtiny.schedule.records import RULES
from tvmtiny.target import load_target
from tvmtiny.tune.engine import Engine, Limits
from tvmtiny.tune.places import Place, Qemu
from tvmtiny.tune.rpc import Rpc
from tvmtiny.tune.store import Measurement, Store
from tvmtiny.tune.tasks import Task, tasks_of

pytestmark = pytest.mark.qemu

KEY = "qemu-m4"
ENCODER = EncoderBenchmark(
    name="small", description="", tokens=8, embedding=16, heads=2, hidden=32, layers=1, classes=4
)


@pytest.fixture
def tracker() -> Iterator[str]:
    found = Tracker(host="127.0.0.1", port=19190, port_end=19290, silent=True)
    yield f"127.0.0.1:{found.port}"
    found.terminate()


@pytest.fixture
def servers(tracker: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    found = [started(tracker, index) for index in range(2)]
    await_servers(tracker, len(found))
    yield found
    for server in found:
        stop(server)


def started(tracker: str, index: int) -> subprocess.Popen[bytes]:
    """`tvmtiny board serve` with an emulated board."""
    command = [sys.executable, "-m", "tvmtiny", "board", "serve", "--tracker", tracker, "--key", KEY]
    return subprocess.Popen([*command, "--port", str(19300 + 50 * index)], start_new_session=True)


def await_servers(tracker: str, number: int) -> None:
    deadline = time.monotonic() + 180
    while count(tracker) < number:
        assert time.monotonic() < deadline, "the servers did not register"
        time.sleep(0.2)


class Killing(Rpc):
    """Kills the first server once both have got their part of a batch and neither has been told to measure it."""

    def __init__(self, servers: list[subprocess.Popen[bytes]], tracker: str) -> None:
        super().__init__(load_target(KEY), tracker, 60, patience_s=60)
        self.asked = 0
        self._both = threading.Barrier(2, action=lambda: stop(servers[0]), timeout=60)

    def _call(self, session: Any, wanted: str) -> str:
        self.asked += 1
        if self._both.n_waiting or self.asked == 1:
            self._both.wait()
        return super()._call(session, wanted)


def count(tracker: str) -> int:
    host, port = tracker.split(":")
    known = rpc.connect_tracker(host, int(port)).summary()["server_info"]
    return sum(row["key"] == f"server:{KEY}" for row in known)


def stop(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is None:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    folder = tmp_path_factory.mktemp("small")
    artifact = compile_model(
        save(ENCODER, folder),
        target=KEY,
        calibration=calibration(ENCODER),
        tuned=RULES,
        output=folder / "small",
    )
    tasks = tasks_of([artifact], load_target(KEY), wide_weights=True)
    return next(task for task in tasks if task.kernel.name == "ffn")


def measured(task: Task, place: Place, folder: Path, batches: list[slice]) -> Iterator[list[Measurement]]:
    points = list(task.designs[0].points())
    folder.mkdir()
    with Store(folder / "store", place.name).opened() as store:
        engine = Engine(load_target(KEY), place, store, Limits(), folder)
        for batch in batches:
            yield engine.measure([(task, point) for point in points[batch]])


def test_a_server_that_is_killed_amid_a_batch_loses_nothing_and_may_come_back(
    task: Task, tracker: str, servers: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    place = Killing(servers, tracker)
    assert place.parallel == 2
    batches = measured(task, place, tmp_path / "rpc", [slice(0, 4), slice(4, 6)])
    found = next(batches)
    assert servers[0].poll() is not None
    assert place.asked > 2  # what the killed one had was asked of the other
    assert [(one.error, one.wrong) for one in found] == [("", 0)] * 4

    (here,) = measured(task, Qemu(load_target(KEY), 60), tmp_path / "here", [slice(0, 2)])
    assert [one.instructions for one in found[:2]] == [one.instructions for one in here]

    servers.append(started(tracker, 0))
    await_servers(tracker, 2)
    stop(servers[1])
    assert all(one.valid for one in next(batches))  # by the one that came back

    stop(servers[2])
    with pytest.raises(EnvironmentProblem, match="no server"):
        next(
            measured(task, Rpc(load_target(KEY), tracker, 60, patience_s=1), tmp_path / "none", [slice(6, 7)])
        )


def test_without_a_tracker_the_message_says_how_to_start_one() -> None:
    with pytest.raises(EnvironmentProblem, match=r"no RPC tracker at 127\.0\.0\.1:1"):
        Rpc(load_target(KEY), "127.0.0.1:1", 10)

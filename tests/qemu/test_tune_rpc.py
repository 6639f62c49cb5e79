"""Tuning over TVM's RPC tracker: two servers, each with its own emulated board, one of which is killed midway."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

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
    command = [sys.executable, "-m", "tvmtiny", "board", "serve", "--tracker", tracker, "--key", KEY]
    started = [
        subprocess.Popen([*command, "--port", str(19300 + 50 * index)], start_new_session=True)
        for index in range(2)
    ]
    deadline = time.monotonic() + 180
    while count(tracker) < len(started):
        assert time.monotonic() < deadline, "the servers did not register"
        time.sleep(0.5)
    yield started
    for server in started:
        stop(server)


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


def test_a_server_that_dies_loses_nothing(
    task: Task, tracker: str, servers: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    place = Rpc(load_target(KEY), tracker, 60)
    assert place.parallel == 2
    batches = measured(task, place, tmp_path / "rpc", [slice(0, 4), slice(4, 8)])
    found = next(batches)
    stop(servers[0])
    found += next(batches)
    assert [(one.error, one.wrong) for one in found] == [("", 0)] * 8

    (here,) = measured(task, Qemu(load_target(KEY), 60), tmp_path / "here", [slice(0, 8)])
    assert [one.instructions for one in found] == [one.instructions for one in here]

    stop(servers[1])
    with pytest.raises(EnvironmentProblem):
        next(measured(task, place, tmp_path / "none", [slice(8, 10)]))


def test_without_a_tracker_the_message_says_how_to_start_one() -> None:
    with pytest.raises(EnvironmentProblem, match=r"no RPC tracker at 127\.0\.0\.1:1"):
        Rpc(load_target(KEY), "127.0.0.1:1", 10)

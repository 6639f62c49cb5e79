"""What goes wrong amid tuning, for real: a killed tuner, a full disk, a candidate that hangs, a pulled cable."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from link_models import emulated_board
from typer.testing import CliRunner

from tvmtiny.artifact import Artifact
from tvmtiny.bench.catalog import EncoderBenchmark
from tvmtiny.bench.models import calibration, save
from tvmtiny.cli import app
from tvmtiny.compiler import compile as compile_model
from tvmtiny.errors import EnvironmentProblem
from tvmtiny.kernels import Blocking
from tvmtiny.runner.build import build
from tvmtiny.schedule.records import ENVIRONMENT_VARIABLE, RULES
from tvmtiny.target import load_target
from tvmtiny.tune import engine as engines
from tvmtiny.tune.engine import Engine, Limits
from tvmtiny.tune.image import Candidate, write_image
from tvmtiny.tune.places import Image, Outcome, Place, Qemu, Serial
from tvmtiny.tune.store import MEASUREMENTS, Store
from tvmtiny.tune.tasks import Task, tasks_of

pytestmark = pytest.mark.qemu

TARGET = "qemu-m4"
ENCODER = EncoderBenchmark(
    name="small", description="", tokens=8, embedding=16, heads=2, hidden=32, layers=1, classes=4
)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("small")
    return compile_model(
        save(ENCODER, folder),
        target=TARGET,
        calibration=calibration(ENCODER),
        tuned=RULES,
        output=folder / "small",
    )


@pytest.fixture(scope="module")
def task(artifact: Artifact) -> Task:
    tasks = tasks_of([artifact], load_target(TARGET), wide_weights=True)
    return next(task for task in tasks if task.kernel.name == "ffn")


def engine(place: Place, store: Store, folder: Path) -> Engine:
    return Engine(load_target(TARGET), place, store, Limits(), folder)


def command(artifact: Artifact, folder: Path) -> list[str]:
    """`tvmtiny tune` in batches of two."""
    options = [
        "--objective",
        "latency",
        "--search",
        "sweep",
        "--batch",
        "2",
        "--work-dir",
        str(folder / "work"),
    ]
    return ["tune", str(artifact.directory), "--target", TARGET, *options]


def beside(arguments: list[str], folder: Path) -> subprocess.Popen[bytes]:
    """A command in another process, which leads a group of its own."""
    environment = {**os.environ, ENVIRONMENT_VARIABLE: str(folder / "records")}
    return subprocess.Popen(
        [sys.executable, "-m", "tvmtiny", *arguments],
        env=environment,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def here(arguments: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Result:
    """A command in this process, where TVM is loaded already."""
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(folder / "records"))
    monkeypatch.setenv("COLUMNS", "1000")
    return CliRunner().invoke(app, arguments)


def lines(folder: Path) -> list[dict[str, object]]:
    """Complete lines of the store."""
    path = folder / "work" / MEASUREMENTS
    text = path.read_text() if path.is_file() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def test_a_second_tuner_is_refused_and_a_killed_one_loses_the_batch_in_flight_at_most(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = command(artifact, tmp_path)
    first = beside(arguments, tmp_path)
    deadline = time.monotonic() + 300
    while len(lines(tmp_path)) < 5 and time.monotonic() < deadline:  # the rules' three, then a batch
        time.sleep(0.05)
    second = here(arguments, tmp_path, monkeypatch)
    assert second.exit_code == 2
    assert f"Another tuner (process {first.pid}) works in {tmp_path / 'work'}" in second.stderr
    assert first.poll() is None

    os.killpg(first.pid, signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    before = lines(tmp_path)
    assert len(before) >= 5
    trials = 3 + 2 * (len(before) - 2)  # every batch left a line at least, and there is one more
    resumed = here([*arguments, "--trials", str(trials)], tmp_path, monkeypatch)
    assert resumed.exit_code == 0, resumed.stderr
    after = lines(tmp_path)
    assert after[: len(before)] == before
    assert len(after) > len(before)
    assert len({json.dumps([row["kernel"], row["measurement"]["point"]]) for row in after}) == len(after)  # type: ignore[index]


@contextlib.contextmanager
def room_for(file_bytes: int) -> Iterator[None]:
    """Within the block no file of this process, nor of those that it starts, grows beyond a size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_without_room_ends_in_a_message_and_keeps_what_was_measured(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit on the size of files stands in for a full disk: the next line does not fit the file of measurements."""
    limit = 4 << 20  # room for an image's files
    work = tmp_path / "work"
    work.mkdir()
    row = {"condition": "another", "kernel": "", "measurement": {"point": dataclasses.asdict(Blocking())}}
    line = json.dumps({**row, "padding": "x" * 1000}) + "\n"
    (work / MEASUREMENTS).write_text(line * ((limit - 200) // len(line)))
    before = (work / MEASUREMENTS).read_bytes()
    with room_for(limit):
        finished = here([*command(artifact, tmp_path), "--trials", "4"], tmp_path, monkeypatch)
    assert finished.exit_code == 1, finished.stderr
    assert f"{work / MEASUREMENTS}: File too large" in finished.stderr
    assert "Everything measured before is kept" in finished.stderr
    with Store(work, "").opened() as store:
        assert store.dropped_lines <= 1  # what was cut short
    after = (work / MEASUREMENTS).read_bytes()
    assert after.startswith(before)
    assert after.endswith(b"\n")


def test_a_candidate_that_loops_for_ever_is_stopped_and_costs_no_other_its_result(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def looping(candidates: list[Candidate], target: object, directory: Path) -> Artifact:
        written = write_image(candidates, target, directory)  # type: ignore[arg-type]
        source = directory / "candidate_1.c"
        text = source.read_text()
        source.write_text(
            text.replace("(void)n_tokens;", "for (volatile int32_t i = 0; i < 1 || n_tokens;) ;")
        )
        return written

    monkeypatch.setattr(engines, "write_image", looping)
    points = list(task.designs[0].points())[:2]
    with Store(tmp_path / "store", "").opened() as store:
        place = Qemu(load_target(TARGET), timeout_s=4, jobs=1)
        good, hung = engine(place, store, tmp_path).measure([(task, point) for point in points])
        assert good.valid
        assert "did not end within 4 s" in hung.error
        assert store.find(task.signature, points[1]) == hung


class EmulatedBoard(Serial):
    """A board that QEMU emulates: to flash an image is to start it; its port is a pseudo terminal."""

    def __init__(self, target: str) -> None:
        super().__init__(load_target(target), "none yet", timeout_s=60)
        self._board = contextlib.ExitStack()
        self.unplugged = False

    def _flash(self, image: Image) -> None:
        if self._flashed == image.build_dir:
            return
        self._flashed = image.build_dir
        project = build(image.artifact, self._target, image.build_dir)
        machine = self._target.emulator().qemu_machine
        self._board.close()
        self.name = f"serial:{self._board.enter_context(emulated_board(project.serial_elf, machine))}"

    def run(self, image: Image, first: int, count: int) -> list[Outcome]:
        self._flash(image)
        if self.unplugged:
            self._board.close()
        return super().run(image, first, count)

    def close(self) -> None:
        self._board.close()


def test_a_board_on_a_serial_line_measures_and_a_pulled_cable_is_no_candidates_fault(
    task: Task, tmp_path: Path
) -> None:
    points = list(task.designs[0].points())[:4]
    board = EmulatedBoard(TARGET)
    with contextlib.closing(board), Store(tmp_path / "store", "").opened() as store:
        own = engine(board, store, tmp_path)
        found = own.measure([(task, point) for point in points[:2]])
        assert all(one.valid and one.cycles > 0 for one in found)

        board.unplugged = True
        with pytest.raises(EnvironmentProblem, match="/dev/pts/"):
            own.measure([(task, point) for point in points[2:]])
        assert len(store.known(task.signature)) == 2

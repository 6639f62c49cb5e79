"""The link on a noisy line: no wrong result is ever accepted, and nothing hangs.

The device is the harness, built for the host. A short run here; the figure of docs/link.md:

    TVMTINY_NOISY_RUNS=10000 pytest tests/host/test_noisy_line.py -s
"""

from __future__ import annotations

import os
import time

import numpy as np
import pytest
from link_models import HANG, expected, sample, write_fake
from noisy_line import Faults, NoisyLine

from tvmtiny.artifact import Artifact
from tvmtiny.errors import EnvironmentProblem
from tvmtiny.link.client import Client, NoAnswer
from tvmtiny.link.process_line import ProcessLine
from tvmtiny.runner import Sample, build
from tvmtiny.runner.project import Project
from tvmtiny.runner.protocol import output_tensors, sample_bytes
from tvmtiny.target import load_target

RUNS = int(os.environ.get("TVMTINY_NOISY_RUNS", "300"))
RUN_S = 10.0


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Project]:
    artifact = write_fake(tmp_path_factory.mktemp("link"))
    return artifact, build(artifact, load_target("host"))


def start(project: Project) -> ProcessLine:
    return ProcessLine([str(project.serial_elf)])


@pytest.mark.parametrize("seed", range(2))
def test_no_wrong_result_is_accepted(device: tuple[Artifact, Project], seed: int) -> None:
    artifact, project = device
    line = NoisyLine(lambda: start(project), seed, Faults())
    client = Client(line, first_wait_s=0.006, longest_wait_s=0.05)
    random = np.random.default_rng(seed)
    longest = 0.0
    client.open(timeout_s=RUN_S)
    for _ in range(RUNS // 2):
        one = sample(int(random.integers(0, 60_000)), int(random.integers(1, 9)))
        began = time.monotonic()
        run, outputs = client.run(sample_bytes(artifact, one, 0), one.n_tokens, RUN_S)
        longest = max(longest, time.monotonic() - began)
        assert run.status == 0
        np.testing.assert_array_equal(output_tensors(artifact, outputs)["logits"], expected(one))
    client.close()
    print(f"\n{RUNS // 2} runs, longest {longest:.2f} s, {client.statistics}, faults {dict(line.counts)}")
    assert client.statistics.repeated > RUNS // 100
    assert all(line.counts[fault] for fault in ("drop", "flip", "double", "burst", "delay"))


def test_a_dead_line_ends_in_time(device: tuple[Artifact, Project]) -> None:
    _, project = device
    client = Client(NoisyLine(lambda: start(project), 0, Faults(drop=1.0)), 0.01, 0.05)
    began = time.monotonic()
    with pytest.raises(NoAnswer, match="No answer from a noisy line"):
        client.open(timeout_s=0.3)
    assert time.monotonic() - began < 2
    client.close()


def test_noise_without_a_device_is_told_from_silence() -> None:
    class Babble:
        name = "/dev/babble"

        def write(self, data: bytes) -> None:
            """Nobody listens."""

        def read(self, timeout_s: float) -> bytes:
            time.sleep(min(timeout_s, 0.01))
            return b"\x55\xaa\x00boot: ready\r\n"

        def close(self) -> None:
            """Nothing to release."""

    with pytest.raises(NoAnswer, match=r"sends \d+ bytes that are no answer") as raised:
        Client(Babble()).open(timeout_s=0.2)
    assert "baud" in raised.value.remedy


def test_a_run_that_hangs_ends_in_time(device: tuple[Artifact, Project]) -> None:
    artifact, project = device
    line = start(project)
    client = Client(line)
    client.open()
    hang = Sample({"input_ids": np.array([HANG] + [0] * 7, dtype=np.uint16)}, 8)
    with pytest.raises(NoAnswer, match="has answered before"):
        client.run(sample_bytes(artifact, hang, 0), 8, 0.5)
    line.kill()


def test_a_reset_between_writing_and_running_is_made_good(device: tuple[Artifact, Project]) -> None:
    artifact, project = device
    line = NoisyLine(lambda: start(project), 0, Faults(0, 0, 0, 0, 0, 0, reset=0.2))
    client = Client(line)
    client.open()
    for first in range(30):
        _, outputs = client.run(sample_bytes(artifact, sample(first), 0), 8, RUN_S)
        np.testing.assert_array_equal(output_tensors(artifact, outputs)["logits"], expected(sample(first)))
    assert client.statistics.resets > 3
    client.close()


def test_a_reset_within_a_sequence_is_told(device: tuple[Artifact, Project]) -> None:
    """A step alone cannot be begun again: what it continues is gone."""
    artifact, project = device
    line = NoisyLine(lambda: start(project), 0, Faults(0, 0, 0, 0, 0, 0, reset=0.1))
    client = Client(line)
    client.open()
    inputs = sample_bytes(artifact, sample(), 0)

    def steps() -> None:
        for _ in range(200):
            client.run(inputs, 8, RUN_S, stateful=True)

    with pytest.raises(EnvironmentProblem, match="lost the sequence") as raised:
        steps()
    assert raised.value.remedy == "Run it again."
    assert client.statistics.resets == 0
    client.close()


def test_a_benchmark_gives_the_cycles_of_each_run(device: tuple[Artifact, Project]) -> None:
    artifact, project = device
    client = Client(start(project))
    client.open()
    cycles = client.benchmark(sample_bytes(artifact, sample(), 0), 8, 70, RUN_S)
    client.close()
    assert len(cycles) == 70
    assert all(0 < value < 1e9 for value in cycles)


def test_another_host_takes_the_device_over(device: tuple[Artifact, Project]) -> None:
    """The first one's session is gone; it opens another and its results stay right."""
    artifact, project = device
    line = start(project)
    first, second = Client(line), Client(line)
    first.open()
    second.open()
    for client in (first, second, first):
        _, outputs = client.run(sample_bytes(artifact, sample(5), 0), 8, RUN_S)
        np.testing.assert_array_equal(output_tensors(artifact, outputs)["logits"], expected(sample(5)))
    assert first.statistics.resets == 2
    line.close()

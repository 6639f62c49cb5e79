"""QEMU's emulated serial port as a board's: what drives a board drives the emulated one."""

from __future__ import annotations

import errno
import json
import os
import tty
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from link_models import CRASH, PAST, emulated_board, expected, sample, write_fake
from model_cases import shared
from noisy_line import Faults, NoisyLine
from typer.testing import CliRunner

from tvmtiny.artifact import Artifact
from tvmtiny.cli import app
from tvmtiny.compiler import compile as compile_model
from tvmtiny.errors import EnvironmentProblem
from tvmtiny.link.client import Client, DeviceStopped, NoAnswer
from tvmtiny.link.messages import Counter
from tvmtiny.link.serial_line import SerialLine, explain
from tvmtiny.project.api import ProjectAPI
from tvmtiny.runner import MemoryViolationError, Sample, build, run
from tvmtiny.runner.protocol import output_tensors, sample_bytes
from tvmtiny.target import load_target

pytestmark = pytest.mark.qemu

BOARDS = ["qemu-m0", "qemu-m0-large", "qemu-m3", "qemu-m4", "qemu-m7", "qemu-m33", "qemu-m55", "stm32f746"]


def fake(directory: Path, target: str) -> tuple[Artifact, Path, str]:
    artifact = write_fake(directory / "fake")
    project = build(artifact, load_target(target), strict=True)
    return artifact, project.serial_elf, load_target(target).emulator().qemu_machine


@pytest.mark.parametrize("target", BOARDS)
def test_an_emulated_board_gives_the_right_bytes(tmp_path: Path, target: str) -> None:
    artifact, elf, machine = fake(tmp_path, target)
    samples = [sample(first, 1 + first % 8) for first in range(10)]
    with emulated_board(elf, machine) as port:
        result = run(artifact, f"serial:{port}", [*samples, sample(n_tokens=9)], target=target, repeat=2)
    assert result.status == [0] * 10 + [-4]
    for one, outputs in zip(samples, result.outputs, strict=False):
        np.testing.assert_array_equal(outputs["logits"], expected(one))
    assert 0 < (result.stack_bytes or 0) < 256
    assert result.clock_hz == 0
    assert result.counter == Counter.EMULATED
    assert [len(cycles) for cycles in result.cycles] == [2] * 11


def test_a_fault_is_told_and_the_board_starts_again(tmp_path: Path) -> None:
    artifact, elf, machine = fake(tmp_path, "qemu-m4")
    crash = Sample({"input_ids": np.array([CRASH] + [0] * 7, dtype=np.uint16)}, 8)
    with emulated_board(elf, machine) as port:
        with pytest.raises(DeviceStopped, match=r"UsageFault at pc 0x\w+ \(run\+0x") as raised:
            run(artifact, f"serial:{port}", [sample(), crash], target="qemu-m4")
        assert raised.value.status == 106
        result = run(artifact, f"serial:{port}", [sample()], target="qemu-m4")
    np.testing.assert_array_equal(result.outputs[0]["logits"], expected(sample()))


def test_a_write_outside_the_arena_is_found(tmp_path: Path) -> None:
    artifact, elf, machine = fake(tmp_path, "qemu-m4")
    past = Sample({"input_ids": np.array([PAST] + [0] * 7, dtype=np.uint16)}, 8)
    with (
        emulated_board(elf, machine) as port,
        pytest.raises(MemoryViolationError, match=r"5 bytes past.*sample 1\."),
    ):
        run(artifact, f"serial:{port}", [sample(), past], target="qemu-m4")


def test_firmware_of_another_model_is_refused(tmp_path: Path) -> None:
    _, elf, machine = fake(tmp_path, "qemu-m4")
    other = write_fake(tmp_path / "other", weight=4)
    with (
        emulated_board(elf, machine) as port,
        pytest.raises(
            EnvironmentProblem, match=r"holds another model: fake \(\w{16}, built for qemu-m4"
        ) as raised,
    ):
        run(other, f"serial:{port}", [sample()], target="qemu-m4")
    assert "board flash" in raised.value.remedy


@pytest.mark.parametrize("verb", ["benchmark", "dump"])
def test_no_board_command_takes_other_firmware(tmp_path: Path, verb: str) -> None:
    artifact, elf, machine = fake(tmp_path, "qemu-m4")
    other, data = write_fake(tmp_path / "other", weight=4), tmp_path / "inputs.npz"
    np.savez(data, input_ids=[sample().inputs["input_ids"]], n_tokens=[8])
    with emulated_board(elf, machine) as port:
        for directory, target, said in (
            (other.directory, "qemu-m4", "holds another model"),
            (artifact.directory, "qemu-m7", "built for the target qemu-m4, not qemu-m7"),
        ):
            command = ["board", verb, str(directory), "--port", port, "--target", target]
            command += ["--input", str(data)]
            result = CliRunner().invoke(app, command)
            assert result.exit_code == 1, result.stderr
            assert said in " ".join(result.stderr.split())


def test_a_port_that_another_program_uses_is_refused(tmp_path: Path) -> None:
    master, slave = os.openpty()
    first = SerialLine(os.ttyname(slave))
    with pytest.raises(EnvironmentProblem, match="in use by another program"):
        SerialLine(os.ttyname(slave))
    first.close()
    os.close(master)
    os.close(slave)


def test_why_a_port_cannot_be_opened() -> None:
    busy = explain("/dev/null", OSError(errno.EBUSY, "busy"))
    denied = explain("/dev/null", PermissionError(errno.EACCES, "denied"))
    absent = explain("/dev/absent", OSError(errno.ENOENT, "absent"))
    assert "in use by another program" in busy.message
    assert "No permission" in denied.message
    assert f"usermod -aG {Path('/dev/null').group()} $USER" in denied.remedy
    assert "There is no port /dev/absent" in absent.message
    with pytest.raises(EnvironmentProblem, match="There is no port /dev/absent"):
        SerialLine("/dev/absent")


def test_a_port_where_nothing_answers(tmp_path: Path) -> None:
    master, slave = os.openpty()
    tty.setraw(slave)
    client = Client(SerialLine(os.ttyname(slave)))
    with pytest.raises(NoAnswer, match="No answer from /dev/pts") as raised:
        client.open(timeout_s=0.3)
    assert "board flash" in raised.value.remedy
    client.close()
    os.close(master)
    os.close(slave)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return shared(tmp_path_factory, "post_norm", "stm32f746")


def invoke(*arguments: object) -> dict[str, Any]:
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert result.exit_code == 0, result.stderr or result.exception
    return json.loads(result.stdout)


def test_the_command_runs_on_an_emulated_board(compiled: Artifact, tmp_path: Path) -> None:
    project = build(compiled, load_target("stm32f746"))
    data = compiled.directory / "reference" / "inputs.npz"
    with emulated_board(project.serial_elf, "mps2-an500") as pty:
        found = invoke("run", compiled.directory, "--on", f"serial:{pty}", "--input", data, "--repeat", 5)
        again = invoke("board", "run", compiled.directory, "--port", pty)
        timed = invoke("board", "benchmark", compiled.directory, "--port", pty, "--runs", 40)
    for report in (found, again):
        assert report["bit_exact"] is True
        assert report["latency"]["counter"] == "emulated"
        assert report["latency"]["latency_p50_ms"] is None
        assert 0 < report["latency"]["cycles_minimum"] <= report["latency"]["cycles_p95"]
    assert timed["runs"] == 40
    assert 0 < timed["cycles_minimum"] <= timed["cycles_p50"] <= timed["cycles_p95"]
    assert found["latency"]["runs"] == 5 * again["latency"]["runs"]


def test_the_command_shows_the_layers_of_a_debugging_build(compiled: Artifact, tmp_path: Path) -> None:
    api = ProjectAPI("baremetal")
    project = api.generate_project(compiled, load_target("stm32f746"), tmp_path / "app", debug=True)
    api.build(strict=True)
    with emulated_board(project.serial_elf, "mps2-an500") as pty:
        rows = invoke("board", "dump", compiled.directory, "--port", pty, "-o", tmp_path / "layers.npz")[
            "rows"
        ]
    assert [row["name"] for row in rows] == [row["name"] for row in compiled.metadata["operators"]]
    assert all(row["different"] == 0 for row in rows)
    assert set(np.load(tmp_path / "layers.npz")) == {row["name"] for row in rows}


def test_an_emulated_board_on_a_noisy_line(tmp_path: Path) -> None:
    artifact, elf, machine = fake(tmp_path, "qemu-m4")
    faults = Faults(reset=0)
    with emulated_board(elf, machine) as port:
        line = NoisyLine(lambda: SerialLine(port), 1, faults)
        client = Client(line, 0.02, 0.1)
        client.open(timeout_s=10)
        for first in range(100):
            _, outputs = client.run(sample_bytes(artifact, sample(first), 0), 8, 10)
            np.testing.assert_array_equal(
                output_tensors(artifact, outputs)["logits"], expected(sample(first))
            )
        client.close()
    assert client.statistics.repeated > 5


def test_texts_run_on_firmware_that_takes_them(tmp_path: Path) -> None:
    intent = Path(__file__).parents[2] / "examples" / "intent"
    artifact = compile_model(
        intent / "model.onnx",
        target="qemu-m4",
        calibration=intent / "calibration.npz",
        tokenizer=intent / "tokenizer.json",
        output=tmp_path / "intent",
    )
    app_dir = tmp_path / "app"
    made = invoke("project", artifact.directory, "--text", "--build", "-o", app_dir)
    with emulated_board(app_dir / "out" / "firmware-serial.elf", "mps2-an386") as pty:
        found = invoke("run", artifact.directory, "--on", f"serial:{pty}", "--text", "play some jazz")
    assert found["bit_exact"] is True
    assert len(found["rows"]) == 1
    assert made["model_id"]

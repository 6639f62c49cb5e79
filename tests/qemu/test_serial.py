"""QEMU's emulated serial port as a board's: what drives a board drives the emulated one."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from link_models import CRASH, PAST, emulated_board, expected, sample, write_fake

from tvmtiny.artifact import Artifact
from tvmtiny.errors import EnvironmentProblem
from tvmtiny.link.client import DeviceStopped
from tvmtiny.link.messages import Counter
from tvmtiny.runner import MemoryViolationError, Sample, build, run
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
        with pytest.raises(DeviceStopped, match="UsageFault at pc 0x") as raised:
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


def test_a_port_that_another_program_uses_is_refused(tmp_path: Path) -> None:
    from tvmtiny.link.serial_line import SerialLine

    master, slave = os.openpty()
    first = SerialLine(os.ttyname(slave))
    with pytest.raises(EnvironmentProblem, match="in use by another program"):
        SerialLine(os.ttyname(slave))
    first.close()
    os.close(master)
    os.close(slave)

"""Runs a program that is already on a device, over its serial port: `--on serial:/dev/ttyACM0`.

The same for a board and for QEMU's emulated serial port. The program is built too, but only to say how large it is and
which model it must be.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvmtiny.errors import UserError
from tvmtiny.link.client import Client, DeviceStopped
from tvmtiny.link.messages import Counter
from tvmtiny.link.serial_line import SerialLine
from tvmtiny.runner.base import Answer, Job
from tvmtiny.runner.build import build
from tvmtiny.runner.firmware import check_firmware
from tvmtiny.runner.project import Project
from tvmtiny.runner.protocol import FILL, Sample, collect, sample_bytes
from tvmtiny.runner.size import with_function

PARALLEL = False


def prepare(job: Job) -> Project:
    """Build, to know what the device must have."""
    if not job.argument:
        raise UserError(
            "--on serial needs a port.", "For example --on serial:/dev/ttyACM0; tvmtiny board list."
        )
    return build(job.artifact, job.target, job.build_dir)


def execute(job: Job, project: Project, samples: Sequence[Sample], timeout_s: float) -> Answer:
    """Run samples on the device, each within `timeout_s` seconds.

    A step continues what earlier steps left on the device; a sample without tokens begins a sequence, and does not.
    """
    steps = "step" in job.artifact.metadata
    client = Client(SerialLine(job.argument))
    try:
        info = client.open(FILL)
        check_firmware(job.artifact, job.target, info, job.argument)
        runs = []
        for index, sample in enumerate(samples):
            data = sample_bytes(job.artifact, sample, index)
            stateful = steps and sample.n_tokens > 0
            runs.append(client.run(data, sample.n_tokens, timeout_s, stateful=stateful))
        return Answer(collect(job.artifact, info, runs))
    except DeviceStopped as stopped:
        elf = project.serial_elf if client.info.counter == Counter.EMULATED else project.elf
        raise DeviceStopped(job.argument, with_function(elf, stopped.said), stopped.status) from stopped
    finally:
        client.close()

"""Runs a program on the QEMU machine of its target's core, and counts its instructions exactly.

QEMU has no model of cycles: counts are of instructions, and the same on every run with the same compiler.
"""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tvmtiny.errors import EnvironmentProblem, UserError
from tvmtiny.runner.base import Answer, Job
from tvmtiny.runner.build import build
from tvmtiny.runner.exchange import exchange
from tvmtiny.runner.plugin import COUNT_FILE, plugin_argument, plugins_supported, read_counts
from tvmtiny.runner.process import Finished, find_tool
from tvmtiny.runner.project import Project
from tvmtiny.runner.protocol import EXIT_FAULT, EXIT_MEANINGS, Sample, decode_batch
from tvmtiny.runner.size import read_symbols, with_function

EMULATOR = "qemu-system-arm"
BEGIN_SYMBOL = "tvmt_measure_begin"
END_SYMBOL = "tvmt_measure_end"
PARALLEL = True


def prepare(job: Job) -> Project:
    """Build for the target and for the machine that stands in for it."""
    find_tool(EMULATOR)
    job.target.emulator()
    return build(job.artifact, job.target, job.build_dir, lean=job.lean)


def execute(job: Job, project: Project, samples: Sequence[Sample], timeout_s: float) -> Answer:
    """Run the program on the emulated core, with the counting plugin where this QEMU loads plugins."""
    command = [
        find_tool(EMULATOR),
        *("-machine", job.target.emulator().qemu_machine),
        *("-display", "none", "-monitor", "none", "-serial", "null"),
        *("-semihosting-config", "enable=on,target=native"),
        *("-kernel", str(project.run_elf.resolve())),
    ]
    if plugins_supported():
        command += ["-plugin", _measure(job, project)]
    with tempfile.TemporaryDirectory(prefix="tvmtiny-") as folder:
        finished, response = exchange(job, command, samples, Path(folder), timeout_s)
        counts = read_counts(Path(folder) / COUNT_FILE)
    if finished.status != 0:
        raise EnvironmentProblem(_explain(job, project, finished))
    return Answer(decode_batch(job.artifact, response, len(samples)), counts)


def _measure(job: Job, project: Project) -> str:
    address = {symbol.name: symbol.address for symbol in read_symbols(project.run_elf)}
    missing = [name for name in job.phases if name not in address]
    if missing:
        raise UserError(
            f"{project.run_elf} has no function {missing[0]}: the C compiler has inlined it.",
            "Compile the model again: newer C keeps every operator a function of its own.",
        )
    phases = [address[name] for name in job.phases]
    return plugin_argument(address[BEGIN_SYMBOL], address[END_SYMBOL], blocks=job.blocks, phases=phases)


def _explain(job: Job, project: Project, finished: Finished) -> str:
    machine = job.target.emulator().qemu_machine
    if finished.status < 0:
        reason = f"QEMU crashed with {signal.Signals(-finished.status).name}"
    elif finished.status > EXIT_FAULT:
        reason = "the core faulted"
    else:
        reason = EXIT_MEANINGS.get(finished.status, f"ended with status {finished.status}")
    said = f":\n{with_function(project.run_elf, finished.tail)}" if finished.tail else "."
    return f"{job.artifact.name} on QEMU {machine}: {reason} ({project.run_elf}){said}"

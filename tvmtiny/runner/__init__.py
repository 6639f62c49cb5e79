"""Builds the program of a compiled model and runs it: on the host, on an emulated core, on a board.

    from tvmtiny.runner import Sample, run
    result = run(artifact, "qemu", [Sample({"input_ids": ids}, n_tokens=9)])

A kind of place to run is one module in kinds/; a transport is one C file in microtvm_projects/common/.
"""

from tvmtiny.runner.api import MemoryViolationError, RunResult, check_status, run, runner_kinds, split
from tvmtiny.runner.build import build
from tvmtiny.runner.plugin import Block
from tvmtiny.runner.protocol import Sample
from tvmtiny.runner.size import Sizes, Symbol, read_sizes, read_symbols, symbol_at

__all__ = [
    "Block",
    "MemoryViolationError",
    "RunResult",
    "Sample",
    "Sizes",
    "Symbol",
    "build",
    "check_status",
    "read_sizes",
    "read_symbols",
    "run",
    "runner_kinds",
    "split",
    "symbol_at",
]

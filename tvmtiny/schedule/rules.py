"""The default schedule of each kernel on each kind of core.

A rule chooses the blocking before TIR is made and then annotates the blocks of the function with a family of
micro-kernels (`tvm.s_tir.Schedule.annotate`, so that a schedule is a trace that replays).
"""

from __future__ import annotations

import tvm
import tvm_ffi
from tvm import s_tir, tirx

from tvmtiny.errors import UserError
from tvmtiny.kernels import Blocking, Kernel, Operands
from tvmtiny.kernels.base import PAIRS, WIDE_PAIRS
from tvmtiny.kernels.tile import TILE
from tvmtiny.kernels.weights import any_int4
from tvmtiny.passes.lower import VARIANT_ATTRIBUTE, Rule
from tvmtiny.schedule.microkernels import MICROKERNEL
from tvmtiny.target import Target

ROWS = {"embed": 1, "layer_norm": 1}
"""Tokens at a time of some kernels: what works row by row needs no more scratch than one row."""


WIDENED_ROWS = {"dsp": 6, "wide_weights": 6, "dual_issue": 6, "mve": 2}
"""Rows of plain columns that a family widens at a time (TVMT_STRIP_ROWS); none where it is not listed. Those of `mve`
are interleaved, not widened, in less memory than int16 takes."""

PAIRED_ROWS = {"dsp": 4, "wide_weights": 4}
"""The same for columns in pairs (TVMT_PAIR_ROWS), of families that are faster with them."""

LONG = 256
"""Tokens above which attention takes fewer rows at a time: their scores are most of its scratch memory."""


def blocking(microkernels: str) -> Rule:
    """The rule for a family of micro-kernels.

    As many tokens a block as the micro-kernels multiply at a time, or four: every weight that is loaded serves all
    rows of a block, for little scratch memory. int4 weights meet four rows at a time.
    """

    def rule(kernel: Kernel, operands: Operands) -> Blocking:
        int4 = any_int4(operands)
        if microkernels in PAIRED_ROWS and kernel.columns and kernel.pairable(operands) and not int4:
            rows, weights = PAIRED_ROWS[microkernels], WIDE_PAIRS if microkernels == "wide_weights" else PAIRS
            return Blocking(rows, rows, weights)
        widened = WIDENED_ROWS.get(microkernels, 0)
        rows = max(widened, 4)
        if int4 or (kernel.name == "attention" and operands.shape("x")[0] > LONG):
            rows = 4
        return Blocking(ROWS.get(kernel.name, rows), widened)

    return rule


def family(target: Target, weights: str = "int8") -> str:
    """The folder of schedules/microkernels for a target, with weights stored as int8 or int16.

    Raises UserError where the core has no micro-kernels for such weights.
    """
    if weights == "int16":
        if target.dsp and not target.dual_issue and not target.mve:
            return "wide_weights"
        raise UserError(
            f"Weights stored as int16 are of no use to target {target.name} ({target.cpu}).",
            "They save instructions on Cortex-M4 and M33, which have the DSP extension and one issue slot.",
        )
    if target.mve:
        return "mve"
    if not target.dsp:
        return "portable"
    return "dual_issue" if target.dual_issue else "dsp"


def Schedule(microkernels: str) -> tvm.transform.Pass:  # noqa: N802
    """Annotate every tile operator with the variant of micro-kernels of its function, or with this family."""

    @tvm.transform.module_pass(opt_level=0, name="tvmtiny.Schedule")
    def run(module: tvm.IRModule, _context: object) -> tvm.IRModule:
        functions = {symbol: f for symbol, f in module.functions.items() if isinstance(f, tirx.PrimFunc)}
        result = tvm.IRModule(dict(module.functions.items()), attrs=module.attrs)
        for symbol, function in functions.items():
            variant = str(function.attrs.get(VARIANT_ATTRIBUTE, "")) or microkernels
            result[symbol] = _annotate(function, variant).with_attr(VARIANT_ATTRIBUTE, variant)
        return result

    return run


def _annotate(function: tirx.PrimFunc, microkernels: str) -> tirx.PrimFunc:
    schedule = s_tir.Schedule(function)
    for name in _tiles(function):
        schedule.annotate(schedule.get_sblock(name), MICROKERNEL, microkernels)
    return schedule.mod["main"].with_attrs(dict(function.attrs))


def _tiles(function: tirx.PrimFunc) -> list[str]:
    """Names of the blocks that are tile operators; TVM made them unique in the function."""
    names: list[str] = []

    def collect(block: s_tir.SBlock) -> None:
        if TILE in block.annotations:
            names.append(block.name_hint)

    tvm_ffi.structural_walk(function.body, (s_tir.SBlock, collect))
    return names

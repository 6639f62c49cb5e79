"""What the templates say of a model that runs in steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvmtiny.codegen.program import Program
from tvmtiny.passes.step import SteppedModel


def step_context(program: Program, step: SteppedModel) -> dict[str, Any]:
    """Values for step.h.j2 and step.c.j2."""
    position, *kept = program.state
    fills = [(tensor, step.state[tensor.name].fill) for tensor in kept]
    return {
        "position": program.plan.offsets[position.buffer],
        "filled": [
            {
                "offset": program.plan.offsets[tensor.buffer],
                "value": fill[0] & 0xFF if len({*fill}) == 1 else None,
                "row": ", ".join(map(str, fill)),
                "rows": tensor.shape[0],
                "cols": tensor.shape[-1],
                "bytes": tensor.bytes,
            }
            for tensor, fill in fills
            if fill is not None
        ],
        "bytes": program.state_bytes,
        "positions": step.positions,
        "period": step.period,
        "feeding": _feeding(program, step),
        "skipped": len(program.calls) - _feeding(program, step),
    }


def _feeding(program: Program, step: SteppedModel) -> int:
    """Calls, from the first on, that bring the state up to date, with those that decode their weights."""
    operators = [number for number, call in enumerate(program.calls, 1) if not call.decodes]
    return operators[step.feeding - 1] if step.feeding else 0


UNBOUNDED_TOKENS = 256
"""Most tokens of a prompt of a generator whose sequences have no end, as data."""


def generate_context(
    program: Program, step: SteppedModel | None, limits: Mapping[str, int]
) -> dict[str, int] | None:
    """Values for generate.h.j2 and .c.j2; None for a model that does not make logits of its own next input.

    Args:
        limits: vocabulary by input of ids.
    """
    if step is None or len(program.inputs) != 1 or len(program.outputs) != 1:
        return None
    ids, logits = program.inputs[0], program.outputs[0]
    vocabulary = limits.get(ids.name, 0)
    if ids.dtype != "uint16" or logits.dtype != "int16" or logits.shape[-1] != vocabulary:
        return None
    return {"most": step.positions or UNBOUNDED_TOKENS, "vocabulary": vocabulary}


def step_metadata(
    program: Program, step: SteppedModel | None, limits: Mapping[str, int]
) -> dict[str, Any] | None:
    """The object `step` of metadata.json."""
    if step is None:
        return None
    return {
        "tokens": step.tokens,
        "sequence_tokens": step.total,
        "any_number": step.any_number,
        "positions": step.positions,
        "state_bytes": program.state_bytes,
        "state": [
            {"name": tensor.name, "bytes": tensor.bytes, "fill": step.state[tensor.name].fill}
            for tensor in program.state[1:]
        ],
        "feeding": _feeding(program, step),
        "generate": generate_context(program, step, limits),
    }

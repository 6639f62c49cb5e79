"""The arena over the steps of a run, from the memory plan in the metadata."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from tvmtiny.artifact import Artifact


@dataclasses.dataclass(frozen=True)
class Buffer:
    """A buffer of the plan: bytes `offset` to `offset + bytes`, live from step `first` to step `last`.

    Attributes:
        kind: "input", "output", "tensor", "scratch" or "state".
    """

    name: str
    kind: str
    offset: int
    bytes: int
    first: int
    last: int


def buffers(artifact: Artifact) -> list[Buffer]:
    """The memory plan of a model. Inputs are live before step 0: from step -1."""
    rows: list[dict[str, Any]] = artifact.metadata["arena"].get("plan", [])
    return [
        Buffer(row["name"], row["kind"], row["offset"], row["bytes"], row["first_step"], row["last_step"])
        for row in rows
    ]


def live_bytes(plan: Iterable[Buffer], first: int, last: int) -> int:
    """The most bytes that are live in any of the steps `first` to `last`; what lies in place counts once."""
    plan = list(plan)
    return max(
        (_covered([b for b in plan if b.first <= step <= b.last]) for step in range(first, last + 1)),
        default=0,
    )


def _covered(live: list[Buffer]) -> int:
    total, end = 0, 0
    for buffer in sorted(live, key=lambda buffer: buffer.offset):
        total += max(0, buffer.offset + buffer.bytes - max(end, buffer.offset))
        end = max(end, buffer.offset + buffer.bytes)
    return total

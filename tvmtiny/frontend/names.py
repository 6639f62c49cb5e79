"""Names in messages: lists of them, and the nearest one to what a user wrote."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def listed(names: Iterable[str]) -> str:
    """Quoted and joined by commas."""
    return ", ".join(f"'{name}'" for name in names)


def suggestion(name: str, known: Iterable[str]) -> str:
    """A sentence that names the nearest known name, or all of them when none is near."""
    choices = list(known)
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    if near:
        return f"Did you mean '{near[0]}'?"
    return f"Known: {listed(choices)}." if choices else ""

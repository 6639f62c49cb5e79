"""Which options of `tvmtiny run` go together: one that would do nothing is refused by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tvmtiny.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

_OF_GENERATE = ("--ids", "--top-k", "--temperature", "--seed")
_NOT_OF_GENERATE = ("--pcm", "--repeat", "--enrol", "--power", "--voltage", "--power-channel")
_OF_ENROL = ("--by-mean", "--least-similarity")


def check_options(given: Mapping[str, bool]) -> None:
    """Raise UserError at an option that has no effect beside the others.

    Args:
        given: of each option whether the user gave it, with another value than the default one.
    """

    def found(names: tuple[str, ...]) -> str:
        return ", ".join(name for name in names if given[name])

    if given["--generate"] and found(_NOT_OF_GENERATE):
        raise UserError(f"{found(_NOT_OF_GENERATE)}: not with --generate.", "Leave it out.")
    if not given["--generate"] and found(_OF_GENERATE):
        raise UserError(f"{found(_OF_GENERATE)}: of --generate only.", "Give --generate N, or leave it out.")
    if not given["--enrol"] and found(_OF_ENROL):
        raise UserError(f"{found(_OF_ENROL)}: of --enrol only.", "Give --enrol FILE, or leave it out.")

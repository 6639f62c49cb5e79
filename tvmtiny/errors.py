"""The errors that a user sees: what was required, what was found, what to do.

Exit status: 2 when the input was at fault, 1 when the environment was, or when a result differs from its
reference. Nothing else may end a command; any other exception is a defect of tvmtiny and keeps its traceback.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence


class TvmtinyError(Exception):
    """Base of every error that is reported without a traceback.

    Args:
        message: what was required and what was found.
        remedy: what the user can do about it, one or more sentences.
    """

    exit_status = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n{self.remedy}" if self.remedy else self.message


class UserError(TvmtinyError):
    """The user's input cannot be used: model, data, option, target."""

    exit_status = 2


@dataclasses.dataclass(frozen=True)
class Unsupported:
    """An operator of a model that cannot be compiled.

    Attributes:
        node: its node's name. operator: its type.
        remedy: what to do about it.
        family: the kind of model that it belongs to; empty for an operator that is common to many.
    """

    node: str
    operator: str
    remedy: str
    family: str = ""


class UnsupportedOperators(UserError):
    """The model was read, but some of its operators cannot be compiled.

    Args:
        rows: every one of them.
    """

    def __init__(self, message: str, remedy: str, rows: Sequence[Unsupported]) -> None:
        super().__init__(message, remedy)
        self.rows = tuple(rows)


class EnvironmentProblem(TvmtinyError):
    """A tool is missing, failed, crashed or ran out of time."""

    exit_status = 1


class ResultMismatch(TvmtinyError):
    """Two executions of the same model differ in at least one byte."""

    exit_status = 1

"""Errors of passes on their way through TVM.

TVM calls a pass through its C++ core, where an exception of Python becomes a name and a message. What comes out is
looked up by that name; without an entry a UserError would arrive as RuntimeError.
"""

from __future__ import annotations

import tvm_ffi

from tvmtiny.errors import UserError

_NAME = "tvmtiny.UserError"


class PassError(UserError):
    """A UserError raised inside a pass; the text that TVM carries has the remedy behind the first line break."""

    def __init__(self, text: str) -> None:
        message, _, remedy = text.partition("\n")
        super().__init__(message, remedy)


def register() -> None:
    """Tell TVM both ways: UserError has this name, and this name is a PassError."""
    tvm_ffi.register_error(_NAME, UserError)
    tvm_ffi.register_error(_NAME, PassError)

"""TVM's script parser expands macros (`T.inline`) without reading source files for each.

A macro finds the parser that runs it among its callers. TVM asks `inspect.getouterframes`, which reads lines of source
for every frame of the stack: three quarters of the time of lowering a model.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

from tvm.script.parser.core.parser import ScriptMacro


def _find_parser(_macro: ScriptMacro) -> Any:
    """The parser of the nearest caller that has one, as `ScriptMacro._find_parser_def` finds it."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        parser = frame.f_globals.get(ScriptMacro.parser_object_name)
        if parser is not None:
            return parser
        frame = frame.f_back
    raise RuntimeError("a macro is expanded outside of a parser")


@contextlib.contextmanager
def quick_macros() -> Iterator[None]:
    """Within the block macros find their parser by the frames alone."""
    # Private, but the pin of apache-tvm is exact; there is no public hook.
    original = ScriptMacro._find_parser_def
    ScriptMacro._find_parser_def = _find_parser
    try:
        yield
    finally:
        ScriptMacro._find_parser_def = original

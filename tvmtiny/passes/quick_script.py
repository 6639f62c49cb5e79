"""TVM's script parser without reading, or parsing, source files again and again: it takes a fourth of the time.

- A macro (`T.inline`) finds the parser that runs it among its callers, a function (`T.prim_func`) the variables that
  its annotations name. TVM asks `inspect` for the frames of the stack, which reads lines of source for each.
- The syntax tree of a macro or function is made anew for every use. It is only read.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from collections.abc import Iterator
from types import FrameType, SimpleNamespace
from typing import Any

from tvm.script.parser.core import doc
from tvm.script.parser.core.diagnostics import Source
from tvm.script.parser.core.parser import ScriptMacro
from tvm.tirx.script.parser import entry


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    """A frame and those of its callers."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def _find_parser(_macro: ScriptMacro) -> Any:
    """The parser of the nearest caller that has one, as `ScriptMacro._find_parser_def` finds it."""
    for frame in _frames(sys._getframe(1)):
        parser = frame.f_globals.get(ScriptMacro.parser_object_name)
        if parser is not None:
            return parser
    raise RuntimeError("a macro is expanded outside of a parser")


def _stack() -> list[inspect.FrameInfo]:
    """As `inspect.stack(context=0)`, which looks for the files of sources all the same."""
    return [
        inspect.FrameInfo(frame, frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name, None, None)
        for frame in _frames(sys._getframe(1))
    ]


@functools.cache
def _tree(source: str) -> doc.AST:
    return doc.parse(source)


def _as_tree(source: Source) -> doc.AST:
    """The syntax tree of a source, as `Source.as_ast` makes it."""
    return _tree(source.source)


# Private, but the pin of apache-tvm is exact; there is no public hook.
_REPLACED = (
    (ScriptMacro, "_find_parser_def", _find_parser),
    (Source, "as_ast", _as_tree),
    (entry, "inspect", SimpleNamespace(**{**vars(inspect), "stack": _stack})),
)


@contextlib.contextmanager
def quick_script() -> Iterator[None]:
    """Within the block frames are found without their sources, and a source is parsed once a process."""
    originals = [getattr(owner, name) for owner, name, _ in _REPLACED]
    for owner, name, quick in _REPLACED:
        setattr(owner, name, quick)
    try:
        yield
    finally:
        for (owner, name, _), original in zip(_REPLACED, originals, strict=True):
            setattr(owner, name, original)

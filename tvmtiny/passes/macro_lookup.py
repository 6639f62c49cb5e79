"""TVM's script parser expands macros (`T.inline`) without reading or parsing their source each time.

A macro finds the parser that runs it among its callers. TVM asks `inspect.getouterframes`, which reads lines of source
for every frame of the stack: three quarters of the time of lowering a model. It also makes the syntax tree of a macro
anew for every use: a quarter of the rest. The tree is only read.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

from tvm.script.parser.core import doc
from tvm.script.parser.core.diagnostics import Source
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


@functools.cache
def _tree(source: str) -> doc.AST:
    return doc.parse(source)


def _as_tree(source: Source) -> doc.AST:
    """The syntax tree of a source, as `Source.as_ast` makes it."""
    return _tree(source.source)


@contextlib.contextmanager
def quick_macros() -> Iterator[None]:
    """Within the block macros find their parser by the frames alone, and sources are parsed once a process."""
    # Private, but the pin of apache-tvm is exact; there is no public hook.
    originals = ScriptMacro._find_parser_def, Source.as_ast
    ScriptMacro._find_parser_def, Source.as_ast = _find_parser, _as_tree
    try:
        yield
    finally:
        ScriptMacro._find_parser_def, Source.as_ast = originals

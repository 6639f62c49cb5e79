"""TVMScript is parsed without `inspect` and without parsing a source twice, to the same functions."""

from __future__ import annotations

import contextlib

import pytest
import tvm
from tvm.script import tirx as T  # noqa: N812 - TVM's own name for it
from tvm.script.parser.core.diagnostics import Source
from tvm.script.parser.core.parser import ScriptMacro
from tvm.tirx.script.parser import entry

from tvmtiny.passes.quick_script import quick_script


def kernel(rows: int) -> tvm.tirx.PrimFunc:
    """A function whose macro calls another one."""

    @T.inline
    def add(x, y, i):
        y[i] = x[i] + T.int8(1)

    @T.inline
    def each(x, y):
        for i in range(rows):
            add(x, y, i)

    @T.prim_func(s_tir=True)
    def main(x: T.Buffer((rows,), "int8"), y: T.Buffer((rows,), "int8")):
        each(x, y)

    return main


def test_the_function_is_the_same() -> None:
    slow = kernel(4)
    with quick_script():
        quick = kernel(4)
        other = kernel(5)
    tvm.ir.assert_structural_equal(slow, quick)
    with pytest.raises(ValueError, match="StructuralEqual"):
        tvm.ir.assert_structural_equal(slow, other)


def test_variables_of_annotations_are_found() -> None:
    """`rows` stands in annotations alone, which are strings here: TVM looks for it in the frames of the callers."""

    def copied(rows: int) -> tvm.tirx.PrimFunc:
        @T.prim_func(private=True, s_tir=True)
        def main(x: T.Buffer((rows,), "int8"), y: T.Buffer((rows,), "int8")):
            y[0] = x[0]

        return main

    with quick_script():
        quick = copied(6)
    tvm.ir.assert_structural_equal(copied(6), quick)
    with pytest.raises(ValueError, match="StructuralEqual"):
        tvm.ir.assert_structural_equal(copied(7), quick)


def test_tvm_is_left_as_it_was() -> None:
    before = ScriptMacro._find_parser_def, Source.as_ast, entry.inspect
    with contextlib.suppress(ZeroDivisionError), quick_script():
        within = ScriptMacro._find_parser_def, Source.as_ast, entry.inspect
        assert not any(new is old for new, old in zip(within, before, strict=True))
        raise ZeroDivisionError
    assert (ScriptMacro._find_parser_def, Source.as_ast, entry.inspect) == before


def test_a_macro_outside_of_a_parser_is_refused() -> None:
    @T.inline
    def nothing():
        T.evaluate(0)

    with quick_script(), pytest.raises(RuntimeError, match="outside of a parser"):
        nothing()

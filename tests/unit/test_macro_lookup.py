"""Macros of TVMScript find their parser without `inspect`, and find the same one."""

from __future__ import annotations

import contextlib

import pytest
import tvm
from tvm.script import tirx as T  # noqa: N812 - TVM's own name for it
from tvm.script.parser.core.parser import ScriptMacro

from tvmtiny.passes.macro_lookup import quick_macros


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
    with quick_macros():
        quick = kernel(4)
        other = kernel(5)
    tvm.ir.assert_structural_equal(slow, quick)
    with pytest.raises(ValueError, match="StructuralEqual"):
        tvm.ir.assert_structural_equal(slow, other)


def test_tvm_is_left_as_it_was() -> None:
    original = ScriptMacro._find_parser_def
    with contextlib.suppress(ZeroDivisionError), quick_macros():
        assert ScriptMacro._find_parser_def is not original
        raise ZeroDivisionError
    assert ScriptMacro._find_parser_def is original


def test_a_macro_outside_of_a_parser_is_refused() -> None:
    @T.inline
    def nothing():
        T.evaluate(0)

    with quick_macros(), pytest.raises(RuntimeError, match="outside of a parser"):
        nothing()

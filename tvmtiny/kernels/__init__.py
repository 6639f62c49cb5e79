"""The integer operators, one file each; a file that defines `KERNEL` is found by listing.

A kernel is replaced in its own file. A new operator also needs its float meaning (`passes.operators`,
`passes.decompose`) and its parameters (`passes.quantize`).
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from typing import Any

import tvm

from tvmtiny.kernels.base import Blocking, Kernel, Operands
from tvmtiny.passes.graph import Graph
from tvmtiny.passes.operators import attributes, call, kind, register_operator

__all__ = [
    "PREFIX",
    "Blocking",
    "Kernel",
    "Operands",
    "emit_call",
    "kernel_calls",
    "kernel_of",
    "kernels",
    "operands_of",
]

PREFIX = "q_"


@functools.cache
def kernels() -> dict[str, Kernel]:
    """All kernels by name; their Relax operators are registered on the way."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        kernel = getattr(importlib.import_module(f"{__name__}.{module.name}"), "KERNEL", None)
        if kernel is not None:
            found[kernel.name] = kernel
            register_operator(PREFIX + kernel.name, lambda c, _, k=kernel: k.infer(_operands(k, c)))
    return found


def kernel_of(expr: Any) -> Kernel | None:
    """The kernel that an expression calls, or None."""
    name = kind(expr)
    return kernels().get(name.removeprefix(PREFIX)) if name.startswith(PREFIX) else None


def operands_of(expr: Any) -> Operands:
    """The operands of a call of a q operator by name."""
    kernel = kernel_of(expr)
    assert kernel is not None
    return _operands(kernel, expr)


def kernel_calls(module: tvm.IRModule) -> list[tuple[str, Kernel, Operands]]:
    """The operators of an integer module in the order in which they run: name, kernel and operands of each."""
    found = []
    for var, value in Graph(module["main"]):
        kernel = kernel_of(value)
        if kernel is not None:
            found.append((var.name, kernel, operands_of(value)))
    return found


def _operands(kernel: Kernel, expr: Any) -> Operands:
    attrs = attributes(expr)
    present = str(attrs.pop("operands")).split()
    return Operands(dict(zip(present, list(expr.args)[:-1], strict=True)), expr.args[-1], attrs)


def emit_call(name: str, tensors: dict[str, Any], n: Any, **attrs: int) -> Any:
    """A call of `q_<name>`; tensors that are None are absent."""
    kernel = kernels()[name]
    unknown = set(tensors) - set(kernel.arguments)
    assert not unknown, f"{name} has no operand {unknown}"
    present = [argument for argument in kernel.arguments if tensors.get(argument) is not None]
    return call(PREFIX + name, [*(tensors[p] for p in present), n], operands=" ".join(present), **attrs)

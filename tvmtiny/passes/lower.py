"""Integer operators become calls of TIR functions: `R.call_tir`, one function an operator.

The module is ordinary TVM from here on: built for `llvm` it runs on the host CPU and gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm
from tvm import relax, tirx

from tvmtiny.kernels import Blocking, Kernel, Operands, kernel_of, operands_of
from tvmtiny.kernels.base import PLAIN
from tvmtiny.kernels.columns import laid_out
from tvmtiny.passes.graph import Graph, as_array, op_name, shape_of
from tvmtiny.passes.quick_script import quick_script

KERNEL_ATTRIBUTE = "tvmtiny.kernel"
LAYER_ATTRIBUTE = "tvmtiny.layer"
INPLACE_ATTRIBUTE = "tvmtiny.inplace"
STATE_ATTRIBUTE = "tvmtiny.state_operands"
VARIANT_ATTRIBUTE = "tvmtiny.variant"
PLAIN_ATTRIBUTE = "tvmtiny.plain_bytes"
"""Of a function that decodes constants: what these would take as they are; 0 of any other."""
BOOT_ATTRIBUTE = "tvmtiny.boot"
"""Of a function that is called once, before the first run."""
OUTPUT_PARAMETER = "out"
LENGTH_SYMBOL = "n"

Rule = Callable[[Kernel, Operands], Blocking]


def Lower(rule: Rule) -> tvm.transform.Pass:  # noqa: N802
    """The pass; `rule` chooses the blocking of each operator."""

    @tvm.transform.module_pass(opt_level=0, name="tvmtiny.Lower")
    def run(module: tvm.IRModule, _context: object) -> tvm.IRModule:
        with quick_script():
            return _lower(module["main"], rule)

    return run


def _lower(main: relax.Function, rule: Rule) -> tvm.IRModule:
    graph = Graph(main)
    builder = relax.BlockBuilder()
    mapping = {param: param for param in graph.params}
    with builder.function("main", graph.params):
        with builder.dataflow():
            for var, value in graph:
                kernel = kernel_of(value)
                if isinstance(value, relax.Tuple):
                    continue  # the results, put together below
                if kernel is None:
                    mapping[var] = mapping[value] if value in mapping else builder.emit(_view(value, mapping))
                    continue
                operands = operands_of(value)
                blocking = rule(kernel, operands)
                function = lowered_function(kernel, operands, blocking)
                # Its layer makes it differ from an equal one, which the builder would share: reports go by function.
                function = function.with_attr(LAYER_ATTRIBUTE, var.name)
                symbol = builder.add_func(function, f"{var.name}_{kernel.name}")
                args = _arguments(kernel, operands, blocking, mapping)
                if any(param.name == LENGTH_SYMBOL for param in function.params):
                    args.append(operands.n)
                call = relax.call_tir(symbol, args, out_ty=kernel.infer(operands))
                mapping[var] = builder.emit(call, name_hint=var.name)
            results = [mapping[result] for result in graph.results]
            output = builder.emit_output(results[0] if len(results) == 1 else relax.Tuple(results))
        builder.emit_func_output(output)
    lowered = builder.get()
    kept = {key: value for key, value in dict(main.attrs or {}).items() if key != "global_symbol"}
    lowered["main"] = lowered["main"].with_attrs(kept) if kept else lowered["main"]
    return lowered


def _arguments(kernel: Kernel, operands: Operands, blocking: Blocking, mapping: dict[Any, Any]) -> list[Any]:
    """The operands over the new variables, with their columns laid out as the TIR takes them."""
    tensors = {name: mapping.get(expr, expr) for name, expr in operands.tensors.items()}
    if blocking.weights == PLAIN:
        return list(tensors.values())
    for name in [name for name in kernel.columns if name in tensors]:
        columns = as_array(tensors[name])
        assert columns is not None, f"{kernel.name}: {name} is not a constant"
        tensors[name] = relax.const(laid_out(columns, blocking.weights))
    return list(tensors.values())


def _view(value: Any, mapping: dict[Any, Any]) -> Any:
    """A reshape over the new variables: the same bytes under another shape."""
    assert op_name(value) == "reshape", value
    return relax.op.reshape(mapping[value.args[0]], shape_of(value))


def lowered_function(kernel: Kernel, operands: Operands, blocking: Blocking) -> tirx.PrimFunc:
    """The kernel's TIR with the parameters of absent operands dropped and a constant length put in."""
    function = kernel.prim_func(operands, blocking)
    kept = {*operands.tensors, LENGTH_SYMBOL, OUTPUT_PARAMETER}
    params = [param for param in function.params if param.name in kept]
    function = tirx.PrimFunc(params, function.body, attrs=function.attrs)
    length = next((param for param in params if param.name == LENGTH_SYMBOL), None)
    if length is not None and not isinstance(operands.n, tvm.ir.Var):
        function = function.specialize({length: operands.n})
    return function.with_attrs(
        {
            KERNEL_ATTRIBUTE: kernel.name,
            INPLACE_ATTRIBUTE: " ".join(kernel.inplace(operands)),
            STATE_ATTRIBUTE: " ".join(kernel.state),
            VARIANT_ATTRIBUTE: blocking.variant,
            PLAIN_ATTRIBUTE: int(operands.attrs.get("plain_bytes", 0)),
        }
    )

"""What every pass here needs of a Relax function: bindings in order, who produced a value, and a rebuild.

The passes look backwards from an anchor (a softmax, a LayerNorm, ...) instead of matching a shape of graph forwards:
exporters differ in what they put between, not in what the result means. Values that are no longer used disappear by
dead code elimination.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import ir, relax

Array = npt.NDArray[Any]


class Graph:
    """Read access to the bindings of one Relax function that has a single dataflow block."""

    def __init__(self, function: relax.Function) -> None:
        self.function = function
        self.params = list(function.params)
        self.bindings: list[tuple[relax.Var, Any]] = [
            (binding.var, binding.value) for block in function.body.blocks for binding in block.bindings
        ]
        self.body = function.body.body
        self._producer = dict(self.bindings)
        self._position = {var: index for index, (var, _) in enumerate(self.bindings)}

    @property
    def results(self) -> list[Any]:
        """The expressions that the function returns, in order; several where it returns a tuple."""
        value = self.producer(self.body)
        return list(value.fields) if isinstance(value, relax.Tuple) else [self.body]

    def __iter__(self) -> Iterator[tuple[relax.Var, Any]]:
        return iter(self.bindings)

    def producer(self, expr: Any) -> Any:
        """The expression bound to a variable, through copies; anything else is its own producer."""
        while expr in self._producer:
            expr = self._producer[expr]
        return expr

    def bound(self, var: Any) -> Any:
        """The expression that `var` is bound to, or None for a parameter."""
        return self._producer.get(var)

    def producer_variable(self, expr: Any) -> Any:
        """The variable that a value was first bound to: copies removed."""
        while isinstance(self._producer.get(expr), ir.Var):
            expr = self._producer[expr]
        return expr

    def storage(self, expr: Any) -> Any:
        """The variable whose bytes an expression has: copies and reshapes removed."""
        expr = self.producer_variable(expr)
        while self.is_call(expr, "reshape"):
            expr = self.producer_variable(self.producer(expr).args[0])
        return expr

    def position(self, var: Any) -> int:
        """The place of a variable's binding in the function; -1 for parameters."""
        return self._position.get(var, -1)

    def is_call(self, expr: Any, *names: str) -> bool:
        """Whether expr was produced by a call of one of the Relax operators `names` (without `relax.`)."""
        value = self.producer(expr)
        return isinstance(value, relax.Call) and op_name(value) in names

    def users(self, var: Any) -> list[relax.Var]:
        """The variables whose expressions take `var` as an argument; a tuple of results is one of them."""
        return [
            bound
            for bound, value in self.bindings
            if isinstance(value, relax.Call | relax.Tuple) and _reads(value, var)
        ]


def _reads(value: relax.Call | relax.Tuple, var: Any) -> bool:
    """Whether an expression takes `var`, also in a tuple.

    (`in` will not do: == on TVM's integers makes an expression.)
    """
    args = value.args if isinstance(value, relax.Call) else [value]
    fields = [field for arg in args for field in (arg.fields if isinstance(arg, relax.Tuple) else [arg])]
    return any(var.same_as(field) for field in fields)


def op_name(call: relax.Call) -> str:
    """The operator's name without the leading `relax.`, e.g. "nn.softmax"."""
    return call.op.name.removeprefix("relax.") if isinstance(call.op, ir.Op) else str(call.op)


def shape_of(expr: Any) -> tuple[int, ...]:
    """The static shape of a tensor expression."""
    return tuple(int(extent) for extent in expr.ty.shape)


def constant(array: Array) -> ir.GenericConst:
    """A Relax constant from a NumPy array."""
    return relax.const(np.array(array, order="C"), str(array.dtype))


def as_array(expr: Any) -> Array | None:
    """The value of a Relax constant, or None."""
    return expr.value.numpy() if isinstance(expr, ir.GenericConst) else None


def column_vector(array: Array, shape: tuple[int, ...]) -> Array | None:
    """The vector (N,) that a constant adds to, or multiplies with, every row of a tensor `shape` (..., N).

    None when the constant differs from row to row or makes the tensor larger, and for a scalar.
    """
    if not shape:
        return None
    try:
        full = np.broadcast_to(array, shape).reshape(-1, shape[-1])
    except ValueError:
        return None
    return np.array(full[0]) if np.all(full == full[0]) else None


def array_of(expr: Any) -> Array:
    """The value of an expression that must be a Relax constant."""
    array = as_array(expr)
    assert array is not None, f"{expr} is not a constant"
    return array


Emit = Callable[..., Any]


class Builder(relax.BlockBuilder):
    """TVM's builder; an exception inside a function leaves no open block (TVM would warn on standard error)."""

    def _exit_function_scope(self, exc_type: Any, exc_val: Any, exc_tb: Any) -> None:
        if exc_type is not None:
            self._end_block()
        super()._exit_function_scope(exc_type, exc_val, exc_tb)


def rebuild(
    function: relax.Function,
    rewrite: Callable[[Graph, relax.Var, Any, Emit], Any | None],
    params: list[relax.Var] | None = None,
    outputs: list[Any] | None = None,
    names: dict[Any, str] | None = None,
) -> relax.Function:
    """Copy a function, asking `rewrite(graph, var, value, emit)` for each binding.

    `rewrite` returns None to keep the binding, or an expression over the *old* variables; `emit` binds an
    intermediate expression (also over old variables), under a name if it is given one, and returns a variable for it.
    Dead bindings are removed.
    `names` renames bound variables. Expressions in `outputs`, read after the last binding, are returned after the
    function's own results.
    """
    graph = Graph(function)
    builder = Builder()
    new_params = params if params is not None else graph.params
    mapping: dict[Any, Any] = {param: param for param in new_params}

    def substitute(expr: Any) -> Any:
        if expr in mapping:
            return mapping[expr]
        if isinstance(expr, relax.Call):
            return relax.Call(expr.op, [substitute(a) for a in expr.args], expr.attrs, expr.ty_args)
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([substitute(field) for field in expr.fields])
        if isinstance(expr, relax.TupleGetItem):
            return relax.TupleGetItem(substitute(expr.tuple_value), expr.index)
        return expr

    current = ""

    def emit(expr: Any, name: str = "") -> Any:
        # A fused operator keeps the layer's name, for reports; helpers around it need none.
        fused = isinstance(expr, relax.Call) and op_name(expr).startswith("tvmtiny.")
        return builder.emit(substitute(expr), name_hint=name or (current if fused else ""))

    with builder.function("main", new_params):
        with builder.dataflow():
            for var, value in graph:
                if isinstance(value, relax.Tuple) and var.same_as(graph.body):
                    continue  # the results, put together anew below
                current = var.name
                replacement = rewrite(graph, var, value, emit)
                expr = substitute(value if replacement is None else replacement)
                bound = isinstance(expr, ir.Var | ir.GenericConst)
                mapping[var] = (
                    expr if bound else builder.emit(expr, name_hint=(names or {}).get(var, var.name))
                )
            results = [substitute(result) for result in (*graph.results, *(outputs or ()))]
            output = builder.emit_output(results[0] if len(results) == 1 else relax.Tuple(results))
        builder.emit_func_output(output)
    module = relax.transform.DeadCodeElimination()(builder.get())
    return module["main"].with_attrs(
        {k: v for k, v in dict(function.attrs or {}).items() if k != "global_symbol"}
    )


def function_pass(name: str, transform: Callable[[relax.Function], relax.Function]) -> tvm.transform.Pass:
    """An ordinary `tvm.transform` module pass that applies `transform` to `main`."""

    def run(module: tvm.IRModule, _context: Any) -> tvm.IRModule:
        updated = tvm.IRModule(dict(module.functions.items()), attrs=module.attrs)
        # Weights may be NaN or infinite; `frontend.supported` says so where it matters.
        with np.errstate(all="ignore"):
            updated["main"] = transform(module["main"])
        return updated

    return tvm.transform.module_pass(run, opt_level=0, name=f"tvmtiny.{name}")

"""A Relax builder for importers: values are named after the model's layers, and constants are folded."""

from __future__ import annotations

from typing import Any

from tvm import relax

from tvmtiny.passes.graph import Builder, constant
from tvmtiny.passes.numeric import fold


class NamingBuilder(Builder):
    """Binds every call, also one nested in another's arguments, to a variable named after the layer.

    TVM's own builder would bind nested calls anonymously, and again for each user of an expression. Calls of
    constants become constants at once: converters need known bounds and axes, however they were computed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.current = ""
        self._bound: dict[Any, Any] = {}

    def start(self, name: str) -> None:
        """Name what follows."""
        self.current = name
        self._bound.clear()

    def emit(self, expr: Any, name_hint: str = "") -> Any:
        """As in TVM, with the current layer's name unless another is given."""
        if isinstance(expr, relax.Expr):
            expr = self._with_bound_arguments(expr, self._part)
        return super().emit(expr, name_hint or self.current)

    def match_cast(self, value: Any, ty: Any, name_hint: str = "") -> Any:
        """As in TVM, likewise named; converters state shapes with it that depend on data."""
        return super().match_cast(value, ty, name_hint or self.current)

    def normalize(self, expr: Any) -> Any:
        """As in TVM; the importer calls it on what a converter returns."""
        name = self.current if isinstance(expr, relax.Tuple) else self._part
        return super().normalize(self._with_bound_arguments(expr, name))

    def bind(self, expr: Any, name: str = "") -> Any:
        """A variable for a call; tuples field by field; anything else as it is."""
        if isinstance(expr, relax.Call | relax.TupleGetItem):
            if expr not in self._bound:
                self._bound[expr] = self._folded(expr) or self.emit(expr, name)
            return self._bound[expr]
        return self._with_bound_arguments(expr, name)

    def _folded(self, expr: Any) -> Any | None:
        """The constant tensor or shape that a call of constants gives."""
        expr = super().normalize(self._with_bound_arguments(expr, self._part))
        array = fold(expr) if isinstance(expr, relax.Call) else None
        if array is None:
            return None
        if isinstance(expr.ty, relax.ShapeType):
            return relax.ShapeExpr([int(extent) for extent in array])
        return constant(array)

    @property
    def _part(self) -> str:
        """What a value inside the current node is called: the node's result has the plain name."""
        return f"{self.current}_part"

    def _with_bound_arguments(self, expr: Any, name: str) -> Any:
        if isinstance(expr, relax.Call):
            args = [self.bind(arg, name) for arg in expr.args]
            changed = any(not new.same_as(old) for new, old in zip(args, expr.args, strict=True))
            return relax.Call(expr.op, args, expr.attrs, expr.ty_args) if changed else expr
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([self.bind(field, name) for field in expr.fields])
        if isinstance(expr, relax.TupleGetItem):
            return relax.TupleGetItem(self.bind(expr.tuple_value, name), expr.index)
        return expr

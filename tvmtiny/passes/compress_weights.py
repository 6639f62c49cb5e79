"""Constant weights become compressed, and operators that decode them: over a lowered module, whatever its layout.

In the place `tile` a decoder stands before the operator whose weights it decodes, so that these live in the arena for
that operator only; in the place `boot` all decoders stand at the beginning and have the attribute BOOT_ATTRIBUTE.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy.typing as npt
import tvm
from tvm import relax, tirx

from tvmtiny.kernels import Blocking, Operands, kernels
from tvmtiny.passes.graph import Builder, Graph, as_array, constant, op_name, shape_of
from tvmtiny.passes.lower import (
    BOOT_ATTRIBUTE,
    KERNEL_ATTRIBUTE,
    LAYER_ATTRIBUTE,
    PLAIN_ATTRIBUTE,
    lowered_function,
)
from tvmtiny.passes.quick_script import quick_script
from tvmtiny.storage.choice import BOOT, Storage, Stored, store_arrays

Array = npt.NDArray[Any]

LEAST_BYTES = 257
"""Tables of functions have 256 entries; nothing so small is worth a decoder's call."""


def CompressWeights(storage: Storage) -> tvm.transform.Pass:  # noqa: N802
    """The pass."""

    @tvm.transform.module_pass(opt_level=0, name="tvmtiny.CompressWeights")
    def run(module: tvm.IRModule, _context: object) -> tvm.IRModule:
        graph = Graph(module["main"])
        arrays = {_key(array): array for _, _, array in _weights(module, graph)}
        for array in _gathered(module, graph):  # a tied table is the weights of a dense layer, too
            arrays.pop(_key(array), None)
        stored = dict(zip(arrays, store_arrays(list(arrays.values()), storage.form), strict=True))
        with quick_script():
            return _Rewriter(module, graph, stored, boot=storage.place == BOOT).run()

    return run


def _key(array: Array) -> tuple[str, bytes]:
    return str(array.dtype), array.tobytes()


def _calls(module: tvm.IRModule, graph: Graph) -> Iterator[tuple[relax.Var, tirx.PrimFunc, list[Any]]]:
    for var, value in graph:
        if isinstance(value, relax.Call) and op_name(value) == "call_tir":
            yield var, module[value.args[0]], list(value.args[1].fields)


def _weights(module: tvm.IRModule, graph: Graph) -> Iterator[tuple[relax.Var, str, Array]]:
    """Result, parameter and value of every constant that may be compressed."""
    for var, function, fields in _calls(module, graph):
        if int(function.attrs[PLAIN_ATTRIBUTE]):
            continue  # compressed tables
        for param, field in zip(function.params, fields, strict=False):
            array = as_array(field)
            if array is not None and array.itemsize == 1 and array.size >= LEAST_BYTES:
                yield var, param.name, array


def _gathered(module: tvm.IRModule, graph: Graph) -> Iterator[Array]:
    """Tables that embeddings read by rows: decoding them as a whole would take more RAM than anything else."""
    for _, function, fields in _calls(module, graph):
        if str(function.attrs[KERNEL_ATTRIBUTE]) == "embed":
            for param, field in zip(function.params, fields, strict=False):
                array = as_array(field)
                if param.name == "tokens" and array is not None:
                    yield array


@dataclasses.dataclass
class _Rewriter:
    """Copies a lowered module with decoders put in."""

    module: tvm.IRModule
    graph: Graph
    stored: dict[tuple[str, bytes], Stored | None]
    boot: bool

    def __post_init__(self) -> None:
        self.builder = Builder()
        self.mapping: dict[Any, Any] = {param: param for param in self.graph.params}
        self.decoded: dict[tuple[str, bytes], Any] = {}

    def run(self) -> tvm.IRModule:
        main = self.module["main"]
        with self.builder.function("main", self.graph.params):
            with self.builder.dataflow():
                if self.boot:
                    for var, parameter, array in _weights(self.module, self.graph):
                        if self.stored.get(_key(array)) is not None and _key(array) not in self.decoded:
                            self.decoded[_key(array)] = self._decode(array, f"{var.name}_{parameter}")
                for var, value in self.graph:
                    if not isinstance(value, relax.Tuple):
                        self.mapping[var] = self._copy(var, value)
                results = [self.mapping[result] for result in self.graph.results]
                output = self.builder.emit_output(results[0] if len(results) == 1 else relax.Tuple(results))
            self.builder.emit_func_output(output)
        result = self.builder.get()
        kept = {key: value for key, value in dict(main.attrs or {}).items() if key != "global_symbol"}
        result["main"] = result["main"].with_attrs(kept) if kept else result["main"]
        return result

    def _copy(self, var: relax.Var, value: Any) -> Any:
        if value in self.mapping:
            return self.mapping[value]
        if op_name(value) != "call_tir":
            args = [self.mapping.get(arg, arg) for arg in value.args]
            return self.builder.emit(
                relax.Call(value.op, args, value.attrs, value.ty_args), name_hint=var.name
            )
        function, fields = self.module[value.args[0]], value.args[1].fields
        names = [param.name for param in function.params]
        args = [self._operand(var, name, field) for name, field in zip(names, fields, strict=False)]
        symbol = self.builder.add_func(function, value.args[0].name_hint)
        rest = [self.mapping.get(arg, arg) for arg in value.args[2:]]
        call = relax.Call(value.op, [symbol, relax.Tuple(args), *rest], value.attrs, value.ty_args)
        return self.builder.emit(call, name_hint=var.name)

    def _operand(self, var: relax.Var, parameter: str, field: Any) -> Any:
        array = as_array(field)
        if array is None or self.stored.get(_key(array)) is None:
            return self.mapping.get(field, field)
        name = f"{var.name}_{parameter}"
        decoded = self.decoded[_key(array)] if self.boot else self._decode(array, name)
        return self.builder.emit(relax.op.reshape(decoded, shape_of(field)))

    def _decode(self, array: Array, name: str) -> Any:
        """A call that decodes an array to one row."""
        stored = self.stored[_key(array)]
        assert stored is not None
        kernel = kernels()[stored.kernel]
        tensors = {
            argument: constant(stored.operands[argument])
            for argument in kernel.arguments
            if argument in stored.operands
        }
        operands = Operands(tensors, None, stored.attrs)
        function = lowered_function(kernel, operands, Blocking()).with_attr(LAYER_ATTRIBUTE, name)
        if self.boot:
            function = function.with_attr(BOOT_ATTRIBUTE, 1)
        symbol = self.builder.add_func(function, f"{name}_{kernel.name}")
        call = relax.call_tir(symbol, list(tensors.values()), out_ty=kernel.infer(operands))
        return self.builder.emit(call, name_hint=name)

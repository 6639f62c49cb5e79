"""TIR functions to C functions with plain pointers, through TVM's own `c` code generator.

TVM's packed calling convention is not used: each buffer parameter becomes a typed pointer before code generation.
Buffers that a function allocates become parameters too (scratch), so that the memory planner places them in the
arena; a function's top-level statements are the steps in which it knows them to be live.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import tvm
import tvm_ffi
from tvm import ir, s_tir, tirx

from tvmtiny.passes.lower import (
    BOOT_ATTRIBUTE,
    INPLACE_ATTRIBUTE,
    KERNEL_ATTRIBUTE,
    LENGTH_SYMBOL,
    OUTPUT_PARAMETER,
    PLAIN_ATTRIBUTE,
    STATE_ATTRIBUTE,
    VARIANT_ATTRIBUTE,
)
from tvmtiny.schedule.microkernels import PREFIX, UseMicrokernels

REGISTER_BYTES = 32
"""Allocations up to this size stay local variables of the function: the accumulators of a loop. Arrays of int8 and
int16 do not."""


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A parameter of a C function.

    Attributes:
        name: as in the kernel.
        dtype: element type of what it points to, or of the value itself for a number.
        elements: number of elements; 0 for a number.
        role: "argument", "state" (which it changes), "output", "scratch", or of numbers "length" and "position".
        first, last: first and last step of the function that uses it; -1 when none does.
    """

    name: str
    dtype: str
    elements: int
    role: str
    first: int
    last: int

    @property
    def bytes(self) -> int:
        """Size in bytes."""
        return self.elements * item_bytes(self.dtype)

    @property
    def declaration(self) -> str:
        """C declaration."""
        if self.elements == 0:
            return f"int32_t {self.name}"
        qualifier = "const " if self.role == "argument" else ""
        return f"{qualifier}{self.dtype}_t *{self.name}"


@dataclasses.dataclass(frozen=True)
class CFunction:
    """One operator in C: `static void <name>(parameters) { body }`.

    Attributes:
        inplace: names of parameters whose memory the output may overwrite, the preferred first (`Kernel.inplace`).
        variant: of the micro-kernels that it calls (`tvmtiny.schedule.variants`).
        plain_bytes: of a function that decodes constants, what these would take as they are; 0 of any other.
        boot: whether it is called once, before the first run.
    """

    name: str
    kernel: str
    inplace: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    body: str
    steps: int
    variant: str
    plain_bytes: int = 0
    boot: bool = False

    def parameter(self, name: str) -> Parameter:
        """The parameter called `name`."""
        return next(parameter for parameter in self.parameters if parameter.name == name)

    @property
    def microkernels(self) -> set[str]:
        """Names of the micro-kernels that the body calls."""
        return set(re.findall(rf"\b({PREFIX}\w+)\(", self.body))


def item_bytes(dtype: str) -> int:
    """Bytes of one element of a type such as "int8" or "uint32"."""
    return int(dtype.lstrip("uint")) // 8


def emit_functions(module: tvm.IRModule, target: Any) -> list[CFunction]:
    """The C functions of all TIR functions of a lowered module, in the module's order.

    Args:
        target: a tvm.target.Target of kind "c".
    """
    functions = {
        symbol.name_hint: function
        for symbol, function in module.functions.items()
        if isinstance(function, tirx.PrimFunc)
    }
    lowered = _lower(
        tvm.IRModule({name: f.with_attr("global_symbol", name) for name, f in functions.items()}), target
    )
    pointers, parameters, steps = {}, {}, {}
    for symbol, function in lowered.functions.items():
        name = symbol.name_hint
        pointers[name], parameters[name], steps[name] = _with_pointers(function)
    source = _generate(tvm.IRModule(pointers), target)
    return [
        CFunction(
            name,
            str(functions[name].attrs[KERNEL_ATTRIBUTE]),
            tuple(str(functions[name].attrs[INPLACE_ATTRIBUTE]).split()),
            parameters[name],
            _body(source, name),
            steps[name],
            str(functions[name].attrs[VARIANT_ATTRIBUTE]),
            int(functions[name].attrs[PLAIN_ATTRIBUTE]),
            BOOT_ATTRIBUTE in functions[name].attrs,
        )
        for name in functions
    ]


def _lower(module: tvm.IRModule, target: Any) -> tvm.IRModule:
    """Blocks to loops: TVM's s_tir pipeline less what is for GPUs and for the packed calling convention.

    StorageRewrite is left out on purpose: it would merge allocations that the planner places better.
    """
    return tvm.ir.transform.Sequential(
        [
            UseMicrokernels(),
            tirx.transform.BindTarget(target.with_host(target)),
            s_tir.transform.CanonicalizeLoop(),
            s_tir.transform.LowerInitBlock(),
            s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
            s_tir.transform.ConvertBlocksToOpaque(),
            s_tir.transform.LowerMatchBuffer(),
            s_tir.transform.StmtSimplify(),
            s_tir.transform.LowerOpaqueBlock(),
            tirx.transform.FlattenBuffer(),
            tirx.transform.NarrowDataType(32),
            tirx.transform.VectorizeLoop(),
            tirx.transform.UnrollLoop(),
            tirx.transform.StmtSimplify(),
            tirx.transform.RemoveNoOp(),
            tirx.transform.CommonSubexprElim(),
        ]
    )(module)


def _generate(module: tvm.IRModule, target: Any) -> str:
    module = tvm.ir.transform.Sequential([tirx.transform.FlattenBuffer(), tirx.transform.LowerIntrin()])(
        module
    )
    return str(tvm.get_global_func("target.build.c")(module, target).inspect_source())


def _with_pointers(function: tirx.PrimFunc) -> tuple[tirx.PrimFunc, tuple[Parameter, ...], int]:
    """Give a lowered function pointer parameters, for its buffers and for what it allocates.

    Returns:
        the function, its parameters and its number of steps.
    """
    scratch: list[Any] = []

    def lift(statement: tirx.AllocBuffer) -> Any:
        buffer = statement.buffer
        count, item = _elements(buffer), item_bytes(str(buffer.ty.dtype))
        # What micro-kernels load words of needs an alignment that a local array of bytes or halves has not.
        if count * item <= REGISTER_BYTES and (count == 1 or item > 2):
            return statement
        scratch.append((buffer, _pointer(buffer)))
        return tirx.DeclBuffer(buffer, data=scratch[-1][1])

    body = tvm_ffi.structural_map(function.body, (tirx.AllocBuffer, lift))
    statements = list(body.seq) if isinstance(body, tirx.SeqStmt) else [body]
    used = [_used(statement) for statement in statements if not isinstance(statement, tirx.DeclBuffer)]
    pointers: list[Any] = []
    declarations: list[Any] = []
    parameters: list[Parameter] = []
    roles = dict.fromkeys(str(function.attrs[STATE_ATTRIBUTE]).split(), "state") | {
        OUTPUT_PARAMETER: "output"
    }
    for param in [*function.params, *(buffer for buffer, _ in scratch)]:
        lives = [step for step, names in enumerate(used) if param.name in names]
        first, last = (lives[0], lives[-1]) if lives else (-1, -1)
        if not isinstance(param.ty, tirx.BufferType):
            pointers.append(param)
            number = "length" if param.name == LENGTH_SYMBOL else "position"
            parameters.append(Parameter(param.name, "int32", 0, number, first, last))
            continue
        lifted = next((pointer for buffer, pointer in scratch if buffer.same_as(param)), None)
        pointer = lifted if lifted is not None else _pointer(param)
        pointers.append(pointer)
        role = "scratch" if lifted is not None else roles.get(param.name, "argument")
        if lifted is None:
            declarations.append(tirx.DeclBuffer(param, data=pointer))
        parameters.append(Parameter(param.name, str(param.ty.dtype), _elements(param), role, first, last))
    result = tirx.PrimFunc(pointers, tirx.SeqStmt([*declarations, body]), attrs=function.attrs)
    return result, tuple(parameters), max(1, len(used))


def _pointer(buffer: Any) -> Any:
    return ir.Var(buffer.name, ir.PointerType(ir.PrimType(str(buffer.ty.dtype)), "global"))


def _elements(buffer: Any) -> int:
    count = 1
    for extent in buffer.ty.shape:
        count *= int(extent)
    return count


def _used(statement: Any) -> set[str]:
    """Names of the variables and buffers that a statement refers to (flattening made new objects of buffers)."""
    found: set[str] = set()
    tvm_ffi.structural_walk(statement, (ir.Var, lambda var: found.add(var.name)))
    return found


def _body(source: str, name: str) -> str:
    """The text between the braces of a function in TVM's C source."""
    start = re.search(rf"^TVM_DLL void {re.escape(name)}\([^)]*\) {{\n", source, re.MULTILINE)
    assert start is not None, f"TVM generated no function {name}"
    end = source.index("\n}\n", start.end() - 1)
    return _plain_addresses(source[start.end() : end])


def _plain_addresses(text: str) -> str:
    """`(&(x[i]))` as people write it: `&x[i]`, or `x` for the first element."""
    text = re.sub(r"\(&\((\w+)\[0\]\)\)", r"\1", text)
    return re.sub(r"\(&\((\w+)\[([^\[\]]*)\]\)\)", r"&\1[\2]", text)

"""What a kernel is: an integer operator with its exact NumPy meaning, its TIR and its place in the memory plan."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from tvm import relax, tirx

from tvmtiny.quant import int4

Array: TypeAlias = npt.NDArray[Any]

PLAIN, PAIRS, WIDE_PAIRS = "plain", "pairs", "wide_pairs"
"""Layouts of columns; `tvmtiny.kernels.columns` says how they lie."""


@dataclasses.dataclass(frozen=True)
class Blocking:
    """The choices of a schedule that change the loops of a kernel (and its scratch memory), not its bytes.

    Attributes:
        rows: tokens that an attention or feed-forward operator works on at a time.
        widened_rows: rows that the micro-kernels of matrix products widen to int16 at a time, in a workspace of the
            arena; 0 where they need none.
        weights: layout of the weights of matrix products (`tvmtiny.kernels.columns`).
        variant: name of the variant of micro-kernels (`tvmtiny.schedule.variants`); "" is the model's own family.
        tokens_outer: order of the loops of attention: all heads for one block of tokens after another, instead of all
            tokens for one head after another.
    """

    rows: int = 4
    widened_rows: int = 0
    weights: str = PLAIN
    variant: str = ""
    tokens_outer: bool = False

    @property
    def columns(self) -> str:
        """Layout of columns that are computed: keys and values."""
        return PLAIN if self.weights == PLAIN else PAIRS

    def workspace(self, rows: int, depth: int) -> int:
        """Elements (int16) of the workspace for products of at most `rows` rows of at most `depth` elements.

        At least one: an array that small is a local variable of the C function, not memory of the arena.
        """
        widened = min(self.widened_rows, rows)
        if widened == 3 and self.weights != PLAIN:
            widened = 4  # the middle row is widened twice
        return max(1, widened * -(-depth // 4) * 4)

    def workspace_w4(self, rows: int, depth: int) -> int:
        """As `workspace`, for products with int4 weights: one or four rows, and a word a row for each group."""
        if self.widened_rows == 0:
            return 1
        words = int4.groups_of(depth) + int4.WORD // 2 * -(-depth // int4.WORD)
        return (1 if rows == 1 else 4) * 2 * words


@dataclasses.dataclass(frozen=True)
class State:
    """A tensor of int8 that an operator keeps from step to step, and changes in place.

    Attributes:
        fill: a row of its content before the first token; None where nothing is read before it is written.
    """

    shape: tuple[int, ...]
    fill: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Stepping:
    """How an operator runs on the next tokens of a sequence alone (`tvmtiny.passes.step`).

    Attributes:
        kernel: name of the kernel that does; the same one when empty.
        state: what it keeps of earlier tokens, by operand.
        positioned: whether it takes the operand `start`, the number of earlier tokens.
        positions: tokens after which a sequence must end; 0 where it need not.
        period: without such an end, once `start` is at least this it may go back by any multiple of it.
    """

    kernel: str = ""
    state: dict[str, State] = dataclasses.field(default_factory=dict)
    positioned: bool = False
    positions: int = 0
    period: int = 1


def by_rows(_operands: Operands, _tokens: int) -> Stepping | str:
    """The stepping of an operator whose rows do not depend on each other."""
    return Stepping()


def mixes_tokens(_operands: Operands, _tokens: int) -> Stepping | str:
    """Of one that needs all tokens at once."""
    return "needs all tokens at once"


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One integer operator `relax.tvmtiny.q_<name>`.

    Attributes:
        name: e.g. "attention".
        arguments: names of all tensor arguments in order; a call may leave some out (see `Operands`).
        infer: result type from the operands.
        reference: the bytes, by `tvmtiny.quant.integer`; rows from n on are zero.
        prim_func: TIR whose parameters are the arguments, n and the output; parameters of absent arguments are
            dropped by the lowering.
        macs: multiply-accumulates of a run with n tokens.
        inplace: arguments and scratch whose memory the output may overwrite, the preferred first: what lies at an
            address is read before the output is written there, and rows go upwards. A narrower output (int8 in the
            place of int16) then lies within rows that are read; a wider one gets no such place: it has more bytes.
        variant: which of its forms the operator has, in a word; empty where there is only one.
        columns: arguments (N, K) that are the columns of matrix products, constants, which the TIR takes in the layout
            `Blocking.weights`.
        tensor_product: whether it is a matrix product of tensors that both depend on the input.
        pairable: whether its columns can lie in pairs.
        state: operands that the TIR changes in place, from step to step.
        stepping: how it runs on `tokens` new tokens of a sequence alone, or why it cannot (a verb phrase).
    """

    name: str
    arguments: tuple[str, ...]
    infer: Callable[[Operands], relax.TensorType]
    reference: Callable[[Operands, int], Array]
    prim_func: Callable[[Operands, Blocking], tirx.PrimFunc]
    macs: Callable[[Operands, int], int]
    inplace: Callable[[Operands], tuple[str, ...]] = lambda o: ()
    variant: Callable[[Operands], str] = lambda o: ""
    columns: tuple[str, ...] = ()
    tensor_product: bool = False
    pairable: Callable[[Operands], bool] = lambda operands: True
    state: tuple[str, ...] = ()
    stepping: Callable[[Operands, int], Stepping | str] = mixes_tokens

    @property
    def multiplies(self) -> bool:
        """Whether it is made of matrix products: they have variants of micro-kernels."""
        return bool(self.columns) or self.tensor_product


@dataclasses.dataclass(frozen=True)
class Operands:
    """The arguments of one q operator by name, with its attributes.

    A call lists its tensors in the kernel's order; the attribute `operands` names those that are present, in that
    order, and the last argument is the number of tokens.

    Attributes:
        tensors: name to Relax expression (or NumPy array, when the reference runs).
        n: the number of tokens: a Relax value, or None when the reference runs.
        attrs: integer parameters.
    """

    tensors: dict[str, Any]
    n: Any
    attrs: dict[str, Any]

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def __getitem__(self, name: str) -> Any:
        return self.tensors[name]

    def shape(self, name: str) -> tuple[int, ...]:
        """Static shape of an operand, () of a number; (1, 1) as a stand-in when it is absent."""
        if name not in self.tensors:
            return (1, 1)
        value = self.tensors[name]
        shape = value.shape if isinstance(value, np.ndarray) else getattr(value.ty, "shape", ())
        return tuple(int(extent) for extent in shape)


def padded(rows: Array, total: int) -> Array:
    """Rows of the present tokens, followed by zeros for the absent ones."""
    result = np.zeros((total, *rows.shape[1:]), rows.dtype)
    result[: len(rows)] = rows
    return result

"""Names and text of the source model as C takes them: symbols of inputs and outputs, comments, strings.

The accessors `<prefix>_<symbol>` and the macros `<PREFIX>_<SYMBOL>_COUNT` and so on are the caller's API, so a name
that is fine as it is stays as it is.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable

from tvmtiny.codegen.program import Program

_API = {
    *("RUN", "MODEL", "STATUS", "LABELS", "LABEL_COUNT", "WEIGHTS", "ARENA", "ARENA_BYTES", "ARENA_ALIGN"),
    *("MAX_TOKENS", "OK", "RUN_TEXT", "TEXT_MODEL", "TEXT_BYTES", "TOKENIZER", "INSTANCE"),
    "INIT",
    "T",  # types of C and POSIX: of a model `size` it would make one
}
"""What follows a model's prefix already, in capitals."""

_API_STARTS = ("QUANTIZE_", "ERROR_", "TOKENIZER_")

_FOREIGN = {
    "n_tokens",  # parameter of the emitted functions
    *("dynamic_cast", "reinterpret_cast", "thread_local", "and_eq", "not_eq", "or_eq", "xor_eq"),  # C++
}
"""Whole identifiers that prefix and symbol must not make together."""


def tensor_symbols(prefix: str, program: Program) -> dict[str, str]:
    """Name in the plan -> what stands for the input or output after the model's prefix.

    ASCII. Symbols are unique, as are the names made of them (`_claims`), compared in capitals because of macros: a
    second one gets `_2`. What is a name of the API without them gets `_input` or `_output`.
    """
    emitted = [call.function.name for call in program.all_calls]
    emitted += [constant.symbol.removeprefix(f"{prefix}_") for constant in program.constants]
    taken = {name.upper() for name in emitted}
    symbols = {}
    tensors = [(tensor, "input") for tensor in program.inputs]
    tensors += [(tensor, "output") for tensor in program.outputs]
    for tensor, role in tensors:
        plain = re.sub(r"\W+", "_", tensor.name, flags=re.ASCII).strip("_") or role
        symbols[tensor.buffer] = next(
            symbol
            for symbol in _candidates(prefix, plain, role)
            if not _reserved(prefix, symbol) and not _claims(symbol) & taken
        )
        taken |= _claims(symbols[tensor.buffer])
    return symbols


def _candidates(prefix: str, plain: str, role: str) -> Iterable[str]:
    """`plain`, numbered; after its role where no number would help."""
    choices = (plain, f"{plain}_{role}", f"{role}_{plain}")
    base = next(choice for choice in choices if not _reserved(prefix, choice))
    return itertools.chain([base], (f"{base}_{i}" for i in itertools.count(2)))


def _reserved(prefix: str, symbol: str) -> bool:
    return (
        bool(_claims(symbol) & _API)
        or symbol.upper().startswith(_API_STARTS)
        or f"{prefix}_{symbol}" in _FOREIGN
    )


def _claims(symbol: str) -> set[str]:
    """All names that the templates make of a symbol, less the prefix, in capitals."""
    name = symbol.upper()
    ends = ("COUNT", "ZERO_POINT", "SCALE_Q32", "MULTIPLIER", "LABELS", "LABEL_COUNT")
    return {name, f"QUANTIZE_{name}", *(f"{name}_{end}" for end in ends)}


def c_string(text: str) -> str:
    """A C string literal; everything outside printable ASCII is escaped in octal."""
    escaped = "".join(
        chr(b) if 32 <= b < 127 and chr(b) not in '"\\?' else f"\\{b:03o}" for b in text.encode("utf-8")
    )
    return f'"{escaped}"'


def c_comment(text: str) -> str:
    r"""Text inside a C comment: printable ASCII that ends no comment, begins none and joins no lines.

    A backslash becomes a slash, white space a blank and any other character its code, \xf6. A blank parts `*/`, `/*`
    and `??`, which may begin a trigraph.
    """
    text = re.sub(r"\s", " ", text.replace("\\", "/"))
    text = "".join(
        c if c.isprintable() else f"\\x{ord(c):02x}"
        for c in text.encode("ascii", "backslashreplace").decode()
    )
    return re.sub(r"(?<=\*)(?=/)|(?<=/)(?=\*)|(?<=\?)(?=\?)", " ", text)

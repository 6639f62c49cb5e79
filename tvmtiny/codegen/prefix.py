"""Names of models as C prefixes."""

from __future__ import annotations

import re

from tvmtiny.errors import UserError

_RESERVED = (
    "auto break case char const continue default do double else enum extern float for goto if inline int long "
    "register restrict return short signed sizeof static struct switch typedef union unsigned void volatile while "
    "arena base class new delete this namespace template "
    # main.c is there already; a <name>.h in the include path would hide a header of the C library.
    "main assert complex ctype errno fenv inttypes iso646 limits locale math setjmp signal stdalign stdarg "
    "stdatomic stdbool stddef stdint stdio stdlib stdnoreturn string tgmath threads time uchar wchar wctype "
    "alloca endian fcntl features malloc memory newlib poll pthread reent sched strings unistd"
)


def c_prefix(name: str) -> str:
    """A C identifier in lower case from a model's name; raises UserError where it would clash with C or the runtime."""
    prefix = re.sub(r"\W+", "_", name.strip().lower(), flags=re.ASCII).strip("_")
    if not prefix or prefix[0].isdigit() or prefix in _RESERVED.split() or prefix.startswith("tvmt"):
        raise UserError(
            f"'{name}' cannot be a C prefix.",
            "Give --name a word of letters, digits and underscores, such as intent.",
        )
    return prefix

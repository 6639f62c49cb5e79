"""The C of a tokenizer in this process: built with the machine's own compiler, called through ctypes."""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tvmtiny.codegen.directory import write_files
from tvmtiny.errors import EnvironmentProblem
from tvmtiny.runner.process import host_compiler, run_program, shell_line
from tvmtiny.tokenizer.emit import tokenizer_sources
from tvmtiny.tokenizer.tables import Tables

ERROR_WORD = -3
"""TVMT_TOKENIZER_ERROR_WORD."""

_NAME = "checked"
_STATE_BYTES = 1024
"""More than a tvmt_tokenizer has."""


class HostTokenizer:
    """The C of a tokenizer as a function from bytes to ids.

    Args:
        tables: the tokenizer.
        flags: further compiler flags.

    Raises:
        EnvironmentProblem: there is no C compiler, or it fails.
    """

    def __init__(self, tables: Tables, flags: Sequence[str] = ()) -> None:
        self._tables = tables
        with tempfile.TemporaryDirectory(prefix="tvmtiny-") as folder:
            library = ctypes.CDLL(str(_build(tables, Path(folder), flags)))
        self._state = ctypes.create_string_buffer(_STATE_BYTES)
        self._work = (ctypes.c_uint16 * tables.work_words)()
        self._table = ctypes.byref(ctypes.c_char.in_dll(library, f"{_NAME}_tokenizer_tables"))
        self._init, self._feed = library.tvmt_tokenizer_init, library.tvmt_tokenizer_feed
        self._finish = library.tvmt_tokenizer_finish
        pointer = ctypes.c_void_p
        self._init.argtypes = [pointer, pointer, pointer, pointer, ctypes.c_int32]
        self._feed.argtypes = [pointer, ctypes.c_char_p, ctypes.c_size_t]
        self._finish.argtypes = [pointer]
        self._finish.restype = ctypes.c_int32

    def encode(self, parts: Sequence[bytes], capacity: int) -> list[int] | int:
        """The ids of a text that comes in parts, or the negative status.

        Args:
            capacity: the most ids that are taken.
        """
        ids = (ctypes.c_uint16 * max(capacity, 1))()
        status = self._init(self._state, self._table, self._work, ids, capacity)
        if status < 0:
            return int(status)
        for part in parts:
            self._feed(self._state, part, len(part))
        count = int(self._finish(self._state))
        return count if count < 0 else ids[:count]


def _build(tables: Tables, folder: Path, flags: Sequence[str]) -> Path:
    emitted = tokenizer_sources(tables, _NAME)
    write_files(folder, emitted.files)
    library = folder / "tokenizer.so"
    command = [
        *(host_compiler(), "-std=c11", "-O2", "-shared", "-fPIC", f"-I{folder}", f"-I{folder / 'include'}"),
        *flags,
        *(str(folder / source) for source in emitted.sources),
        *("-o", str(library)),
    ]
    finished = run_program(command, timeout_s=120)
    if finished.status != 0:
        raise EnvironmentProblem(
            f"Compiling the tokenizer failed:\n{shell_line(command)}\n{finished.tail}",
            "It needs a C compiler for this machine: sudo apt-get install gcc libc6-dev",
        )
    return library

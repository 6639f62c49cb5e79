"""A program of this computer as a device: its standard input and output are the line."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import tempfile
from collections.abc import Sequence

from tvmtiny.errors import EnvironmentProblem
from tvmtiny.runner.process import last_lines, shell_line

_READ_BYTES = 65536
_END_S = 5


class ProcessLine:
    """Starts `command`; what it said last on standard error is told when it ends by itself.

    Raises EnvironmentProblem when it cannot be started.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.name = f"the program {shell_line(command)}"
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed in close(); a pipe could fill up
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, bufsize=0
            )
        except OSError as error:
            self._errors.close()
            raise EnvironmentProblem(
                f"{self.name} could not be started: {error.strerror}.",
                "Is the project built (ProjectAPI.build, or tvmtiny project --build)?",
            ) from error

    def write(self, data: bytes) -> None:
        """Send `data`."""
        assert self._process.stdin is not None
        try:
            while data:
                data = data[os.write(self._process.stdin.fileno(), data) :]
        except BrokenPipeError as error:
            raise self._ended() from error

    def read(self, timeout_s: float) -> bytes:
        """What the program wrote."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], timeout_s)
        if not ready:
            return b""
        data = os.read(self._process.stdout.fileno(), _READ_BYTES)
        if not data:
            raise self._ended()
        return data

    def close(self) -> None:
        """End its input, then the program."""
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def kill(self) -> None:
        """End the program at once."""
        self._process.kill()
        self.close()

    def _ended(self) -> EnvironmentProblem:
        try:
            what = f"ended with status {self._process.wait(_END_S)}"
        except subprocess.TimeoutExpired:
            what = "closed its input or output, and runs on"
        # pread, because the program shares the place in the file.
        size = os.fstat(self._errors.fileno()).st_size
        said = os.pread(self._errors.fileno(), _READ_BYTES, max(0, size - _READ_BYTES)).decode(
            errors="replace"
        )
        return EnvironmentProblem(f"{self.name} {what}.\n{last_lines(said)}".strip())

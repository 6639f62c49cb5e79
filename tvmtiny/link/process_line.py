"""A program of this computer as a device: its standard input and output are the line."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
from collections.abc import Sequence

from tvmtiny.errors import EnvironmentProblem
from tvmtiny.runner.process import shell_line

_READ_BYTES = 65536
_END_S = 5


class ProcessLine:
    """Starts `command`; what it says on standard error is told when it ends."""

    def __init__(self, command: Sequence[str]) -> None:
        self.name = f"the program {shell_line(command)}"
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )

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

    def kill(self) -> None:
        """End the program at once."""
        self._process.kill()
        self.close()

    def _ended(self) -> EnvironmentProblem:
        status = self._process.wait(_END_S)
        return EnvironmentProblem(f"{self.name} ended with status {status}.")

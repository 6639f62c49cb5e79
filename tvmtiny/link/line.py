"""A line of bytes to a device: what the client needs of a serial port, a process, a simulation of noise."""

from __future__ import annotations

from typing import Protocol


class Line(Protocol):
    """Bytes out, bytes in. Raises EnvironmentProblem when the line is gone."""

    name: str
    """For messages: "/dev/ttyACM0", "the program out/firmware-serial.elf"."""

    def write(self, data: bytes) -> None:
        """Send `data`."""

    def read(self, timeout_s: float) -> bytes:
        """What has arrived; waits at most `timeout_s` seconds for the first byte. Empty when none came."""

    def close(self) -> None:
        """Release the line."""

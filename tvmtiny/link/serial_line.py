"""A serial port as a line, and what to do when it cannot be opened."""

from __future__ import annotations

import errno
import grp
import os
from pathlib import Path

from tvmtiny.errors import EnvironmentProblem

BAUD = 115200
"""TVMT_BAUD of the firmware."""

_READ_BYTES = 4096


class SerialLine:
    """Opens `port` ("/dev/ttyACM0", or a URL of pyserial such as "socket://localhost:4000").

    Raises EnvironmentProblem when pyserial is missing, or the port is absent, busy or not permitted.
    """

    def __init__(self, port: str, baud: int = BAUD) -> None:
        serial = pyserial()
        self.name = port
        self._gone: tuple[type[Exception], ...] = (serial.SerialException, OSError)
        try:
            self._serial = serial.serial_for_url(port, baud, timeout=0, write_timeout=5)
        except self._gone as error:
            raise explain(port, error) from error
        except ValueError as error:
            raise EnvironmentProblem(f"{port} is no serial port: {error}.") from error
        self._exclude()

    def write(self, data: bytes) -> None:
        """Send `data`."""
        try:
            self._serial.write(data)
        except self._gone as error:
            raise self._lost(error) from error

    def read(self, timeout_s: float) -> bytes:
        """What has arrived."""
        try:
            self._serial.timeout = timeout_s
            first: bytes = self._serial.read(1)
            return first + self._serial.read(min(self._serial.in_waiting, _READ_BYTES)) if first else b""
        except self._gone as error:
            raise self._lost(error) from error

    def close(self) -> None:
        """Release the port."""
        self._serial.close()

    def _exclude(self) -> None:
        """Two programs on one port would take each other's bytes: the second one is refused."""
        try:
            self._serial.exclusive = True
        except self._gone as error:
            self._serial.close()
            raise explain(self.name, error) from error
        except (AttributeError, NotImplementedError):
            return  # a URL that is no port of this computer

    def _lost(self, error: Exception) -> EnvironmentProblem:
        return EnvironmentProblem(
            f"The line to {self.name} was lost: {error}.",
            "Is the board still plugged in? Its port may have another name now: tvmtiny board list.",
        )


def pyserial():  # type: ignore[no-untyped-def]
    """The module `serial` of pyserial, not of another package; raises EnvironmentProblem."""
    remedy = "Install it: pip install pyserial"
    try:
        import serial
    except ImportError as error:
        raise EnvironmentProblem("Serial ports need pyserial.", remedy) from error
    if not hasattr(serial, "serial_for_url"):
        raise EnvironmentProblem("The module `serial` is not that of pyserial.", remedy)
    return serial


def explain(port: str, error: Exception) -> EnvironmentProblem:
    """Why `port` could not be opened, and what to do."""
    number = getattr(error, "errno", None)
    if number == errno.ENOENT or (number is None and not Path(port).exists() and "://" not in port):
        return EnvironmentProblem(
            f"There is no port {port}.", "Plug the board in; tvmtiny board list shows what is there."
        )
    if number in (errno.EACCES, errno.EPERM):
        group = _group(port)
        return EnvironmentProblem(
            f"No permission to open {port}.",
            f"It belongs to the group {group}: sudo usermod -aG {group} $USER, then log in again.",
        )
    if number in (errno.EBUSY, errno.EAGAIN) or "lock" in str(error).lower():
        return EnvironmentProblem(
            f"{port} is in use by another program.",
            f"Close it (a terminal, an IDE, another tvmtiny); fuser {port} names it.",
        )
    return EnvironmentProblem(f"{port} could not be opened: {error}.")


def _group(port: str) -> str:
    try:
        return grp.getgrgid(os.stat(port).st_gid).gr_name  # noqa: PTH116
    except (KeyError, OSError):
        return "dialout"

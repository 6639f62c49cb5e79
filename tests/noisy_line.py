"""A line that loses, changes, doubles and delays bytes, goes dead for a while, and whose device may be reset."""

from __future__ import annotations

import collections
import dataclasses
import random
import time
from collections.abc import Callable

from tvmtiny.link.line import Line

READ_STEP_S = 0.002


@dataclasses.dataclass(frozen=True)
class Faults:
    """Probabilities: of each byte, and of each write or read to be delayed, cut or hit by a reset."""

    drop: float = 0.0005
    flip: float = 0.0005
    double: float = 0.0005
    burst: float = 0.001
    delay: float = 0.01
    cut: float = 0.002
    reset: float = 0.003
    delay_s: float = 0.01
    cut_s: float = 0.03


class NoisyLine:
    """Wraps what `start` gives, a fresh device each time it is called."""

    def __init__(self, start: Callable[[], Line], seed: int, faults: Faults) -> None:
        self.name = "a noisy line"
        self.counts: collections.Counter[str] = collections.Counter()
        self._start = start
        self._device = start()
        self._random = random.Random(seed)
        self._faults = faults
        self._dead_until = 0.0

    def write(self, data: bytes) -> None:
        """Send what the noise leaves of `data`."""
        if self._hit("reset"):
            self._device.close()
            self._device = self._start()
        if self._hit("cut"):
            self._dead_until = time.monotonic() + self._faults.cut_s
        self._wait_if("delay")
        if time.monotonic() >= self._dead_until:
            self._device.write(self._spoil(data))

    def read(self, timeout_s: float) -> bytes:
        """What the noise leaves of what arrives."""
        data = self._device.read(min(timeout_s, READ_STEP_S) if timeout_s else 0)
        if data:
            self._wait_if("delay")
        return self._spoil(data) if time.monotonic() >= self._dead_until else b""

    def close(self) -> None:
        """End the device."""
        self._device.close()

    def _wait_if(self, fault: str) -> None:
        if self._hit(fault):
            time.sleep(self._random.random() * self._faults.delay_s)

    def _hit(self, fault: str) -> bool:
        hit = self._random.random() < getattr(self._faults, fault)
        self.counts[fault] += hit
        return hit

    def _spoil(self, data: bytes) -> bytes:
        out = bytearray()
        for byte in data:
            if self._hit("drop"):
                continue
            out.append(byte ^ (1 << self._random.randrange(8)) if self._hit("flip") else byte)
            if self._hit("double"):
                out.append(byte)
            if self._hit("burst"):
                out += self._random.randbytes(self._random.randrange(1, 40))
        return bytes(out)

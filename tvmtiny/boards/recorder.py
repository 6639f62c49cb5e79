"""Where a trace comes from: a file, or a Power Profiler Kit II that records while the runs are made."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tvmtiny.boards.trace import Trace, read_trace
from tvmtiny.errors import EnvironmentProblem, UserError

PPK2 = "ppk2:"
SAMPLES_PER_S = 100_000
_POLL_S = 0.01
_LEAD_S = 0.2


@contextlib.contextmanager
def recording(source: str) -> Iterator[Callable[[], Trace]]:
    """Record while the block runs; the function that it gets then returns the trace.

    Args:
        source: "ppk2:PORT", or the path of a CSV file that holds a recording of the same runs.

    Raises UserError for a file that is not there, EnvironmentProblem for a profiler that does not answer.
    """
    if not source.startswith(PPK2):
        path = Path(source)
        if not path.is_file():
            raise UserError(
                f"There is no file {source}.",
                "Record the runs first (tvmtiny run ... --repeat N) and export the trace as CSV, then give it to "
                "the same command.",
            )
        yield lambda: read_trace(path)
        return
    recorder = _Ppk2(source.removeprefix(PPK2))
    recorder.start()
    try:
        yield recorder.stop
    finally:
        recorder.close()


class _Ppk2:
    """The kit as an ampere meter in the supply of the board. Needs the package ppk2-api."""

    def __init__(self, port: str) -> None:
        try:
            from ppk2_api.ppk2_api import PPK2_API
        except ImportError as error:
            raise EnvironmentProblem(
                "Recording with a Power Profiler Kit II needs ppk2-api.", "Install it: pip install ppk2-api"
            ) from error
        try:
            self._kit: Any = PPK2_API(port, timeout=1, write_timeout=1, exclusive=True)
        except OSError as error:  # pyserial's SerialException is one
            raise EnvironmentProblem(f"The profiler on {port} could not be opened: {error}.") from error
        self._end = threading.Event()
        self._current: list[float] = []
        self._bits: list[int] = []
        self._thread = threading.Thread(target=self._collect, daemon=True)

    def start(self) -> None:
        """Measure from now on."""
        self._kit.get_modifiers()
        self._kit.use_ampere_meter()
        self._kit.toggle_DUT_power("ON")
        self._kit.start_measuring()
        self._thread.start()
        time.sleep(_LEAD_S)

    def stop(self) -> Trace:
        """Measure no more; what was measured."""
        time.sleep(_LEAD_S)
        self._end.set()
        self._thread.join()
        self._kit.stop_measuring()
        count = min(len(self._current), len(self._bits))
        if count < 2:
            raise EnvironmentProblem("The profiler measured nothing.", "Is the board supplied through it?")
        bits = np.array(self._bits[:count])
        digital = {f"d{i}": (bits >> i & 1).astype(bool) for i in range(8)}
        return Trace(np.arange(count) / SAMPLES_PER_S, np.array(self._current[:count]) * 1e-6, None, digital)

    def close(self) -> None:
        """End the thread, whatever happened; the board keeps its supply."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()

    def _collect(self) -> None:
        while not self._end.is_set():
            data = self._kit.get_data()
            if data:
                samples, bits = self._kit.get_samples(data)
                self._current += samples
                self._bits += bits
            time.sleep(_POLL_S)

"""Ask a device: wait for the answer, repeat what got lost, notice a reset, and accept no result that is not whole."""

from __future__ import annotations

import dataclasses
import re
import secrets
import time
import zlib
from collections.abc import Iterator

from tvmtiny.errors import EnvironmentProblem
from tvmtiny.link import messages
from tvmtiny.link.frames import VERSION, Frame, FrameReader
from tvmtiny.link.line import Line
from tvmtiny.link.messages import Info, Kind, Refusal, Run

OPEN_S = 3.0
"""Until a device that says nothing counts as absent, in seconds."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.3, 2.0
"""Until a request is repeated; the wait doubles from the first to the longest."""

_EXIT = re.compile(r"exit (\d{3})\n")


class NoAnswer(EnvironmentProblem):
    """A device did not answer in time."""


class DeviceStopped(EnvironmentProblem):
    """The firmware ended itself: a fault. `said` is what it reported, `status` an enum tvmt_exit."""

    def __init__(self, line: str, said: str, status: int) -> None:
        super().__init__(f"The firmware on {line} stopped: {said}")
        self.said = said
        self.status = status


class Refused(EnvironmentProblem):
    """A device refused a request for the reason `number` (messages.Refusal)."""

    def __init__(self, line: str, number: int) -> None:
        super().__init__(f"The device on {line} {messages.refusal_text(number)}.")
        self.number = number


@dataclasses.dataclass
class Statistics:
    """What went wrong on the line and was made good.

    Attributes:
        requests: how many were made.
        repeated: transmissions of a request after its first.
        resets: sessions that the device had forgotten.
        reruns: runs that were begun again because inputs or outputs on the device were others.
    """

    requests: int = 0
    repeated: int = 0
    resets: int = 0
    reruns: int = 0


class Client:
    """One conversation at a time over `line`.

    Args:
        first_wait_s, longest_wait_s: when a request without an answer is repeated; short for fast and noisy lines.
    """

    def __init__(
        self, line: Line, first_wait_s: float = FIRST_WAIT_S, longest_wait_s: float = LONGEST_WAIT_S
    ) -> None:
        self.statistics = Statistics()
        self._line = line
        self._waits = (first_wait_s, longest_wait_s)
        self._reader = FrameReader()
        self._session = 0
        self._sequence = 0
        self._fill = 0
        self._info: Info | None = None
        self._log = ""
        self._heard = 0

    @property
    def info(self) -> Info:
        """What the device said when the session was opened."""
        assert self._info is not None, "open() comes first"
        return self._info

    def open(self, fill: int = 0, timeout_s: float = OPEN_S) -> Info:
        """Begin a session; the device's arena then holds the byte `fill`.

        Raises EnvironmentProblem: NoAnswer with what may be the cause, or a device of another version.
        """
        self._session = secrets.randbits(32) or 1
        self._sequence = 0
        self._fill = fill
        payload = self._request(Kind.INFO, messages.info_request(fill), time.monotonic() + timeout_s)
        self._info = messages.parse_info(payload)
        return self._info

    def run(
        self, inputs: bytes, n_tokens: int, timeout_s: float, *, stateful: bool = False
    ) -> tuple[Run, bytes]:
        """Run the model on `inputs` (all of them, in order) and read all outputs; they are empty if it refused.

        Whatever happens to the line, what comes back belongs to these inputs.

        Args:
            stateful: the run continues what earlier runs left in the arena, so it cannot be begun again alone.

        Raises:
            NoAnswer: after `timeout_s`.
            EnvironmentProblem: a device that has lost what a stateful run continues.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                return self._run_once(inputs, n_tokens, deadline)
            except Refused as refused:
                if stateful and refused.number in (Refusal.SESSION, Refusal.INPUTS):
                    raise EnvironmentProblem(
                        f"The device on {self._line.name} lost the sequence (it was reset, or another program "
                        "talked to it).",
                        "Run it again.",
                    ) from refused
                self._recover(refused, deadline)

    def benchmark(self, inputs: bytes, n_tokens: int, runs: int, timeout_s: float) -> list[int]:
        """Cycles of `runs` runs on the device, without a transfer between them.

        `timeout_s` is for each request, of several runs. Raises EnvironmentProblem when a run fails.
        """
        cycles: list[int] = []
        while len(cycles) < runs:
            deadline = time.monotonic() + timeout_s
            count = min(runs - len(cycles), messages.benchmark_runs(self.info.data_bytes))
            try:
                self._write(inputs, deadline)
                request = messages.benchmark_request(n_tokens, zlib.crc32(inputs), count)
                status, found = messages.parse_benchmark(self._request(Kind.BENCHMARK, request, deadline))
            except Refused as refused:
                self._recover(refused, deadline)
                continue
            if status != 0:
                raise EnvironmentProblem(f"A run of the benchmark ended with status {status}.")
            if len(found) != count:
                raise EnvironmentProblem(f"{self._line.name} answered {len(found)} runs instead of {count}.")
            cycles += found
        return cycles

    def run_until(self, inputs: bytes, n_tokens: int, stop_after: int, timeout_s: float) -> None:
        """Run up to the end of the operator of that index; `peek` then shows the arena. Debugging firmware only."""
        deadline = time.monotonic() + timeout_s
        self._write(inputs, deadline)
        request = messages.run_request(n_tokens, zlib.crc32(inputs), stop_after)
        self._request(Kind.RUN, request, deadline)

    def peek(self, offset: int, count: int, timeout_s: float = OPEN_S) -> bytes:
        """`count` bytes of the arena from `offset` on. Debugging firmware only."""
        return self._read(Kind.PEEK, offset, count, time.monotonic() + timeout_s)

    def close(self) -> None:
        """Release the line."""
        self._line.close()

    def _run_once(self, inputs: bytes, n_tokens: int, deadline: float) -> tuple[Run, bytes]:
        self._write(inputs, deadline)
        request = messages.run_request(n_tokens, zlib.crc32(inputs))
        run = messages.parse_run(self._request(Kind.RUN, request, deadline))
        if run.status != 0:
            return run, b""
        outputs = self._read(Kind.READ, 0, self.info.output_bytes, deadline)
        if zlib.crc32(outputs) != run.outputs_crc:
            raise Refused(self._line.name, Refusal.INPUTS)  # of another run: once more
        return run, outputs

    def _write(self, inputs: bytes, deadline: float) -> None:
        step = self.info.data_bytes
        for offset in range(0, len(inputs), step):
            self._request(
                Kind.WRITE, messages.write_request(offset, inputs[offset : offset + step]), deadline
            )

    def _read(self, kind: Kind, offset: int, count: int, deadline: float) -> bytes:
        step, parts = self.info.data_bytes, []
        for start in range(offset, offset + count, step):
            size = min(step, offset + count - start)
            part = self._request(kind, messages.read_request(start, size), deadline)
            if len(part) != size:
                raise EnvironmentProblem(f"{self._line.name} answered {len(part)} bytes instead of {size}.")
            parts.append(part)
        return b"".join(parts)

    def _recover(self, refused: Refused, deadline: float) -> None:
        """Prepare to try again after a refusal that comes from a reset or from a line that lost its memory."""
        if refused.number == Refusal.SESSION:
            self.statistics.resets += 1
            known = self.info
            if self.open(self._fill, max(0.0, deadline - time.monotonic())).model_id != known.model_id:
                raise EnvironmentProblem(f"The device on {self._line.name} has been given another model.")
        elif refused.number == Refusal.INPUTS:
            self.statistics.reruns += 1
        else:
            raise refused
        if time.monotonic() > deadline:
            raise self._no_answer(0)

    def _request(self, kind: Kind, payload: bytes, deadline: float) -> bytes:
        """The payload of the answer; raises Refused, NoAnswer, DeviceStopped."""
        self._sequence = (self._sequence + 1) & 0xFFFF
        # The zero ends what noise may have begun.
        line = b"\0" + Frame(kind, self._sequence, self._session, payload).encode()
        start, (wait_s, longest_s) = time.monotonic(), self._waits
        self.statistics.requests += 1
        while True:
            self._line.write(line)
            for frame in self._frames(min(deadline, time.monotonic() + wait_s)):
                if (frame.sequence, frame.session) != (self._sequence, self._session):
                    continue
                if frame.kind == kind | messages.ANSWER:
                    return frame.payload
                if frame.kind == Kind.ERROR:
                    raise Refused(self._line.name, messages.parse_refusal(frame.payload))
            if time.monotonic() >= deadline:
                raise self._no_answer(time.monotonic() - start)
            self.statistics.repeated += 1
            wait_s = min(2 * wait_s, longest_s)

    def _frames(self, until: float) -> Iterator[Frame]:
        """Frames of this version that arrive before `until`; text for people is taken out."""
        while True:
            data = self._line.read(max(0.0, until - time.monotonic()))
            self._heard += len(data)
            for frame in self._reader.feed(data):
                if frame.version != VERSION:
                    raise self._other_version(frame.version)
                if frame.kind == Kind.LOG:
                    self._listen(frame.payload)
                else:
                    yield frame
            if time.monotonic() >= until:
                return

    def _listen(self, text: bytes) -> None:
        self._log += text.decode(errors="replace")
        match = _EXIT.search(self._log)
        if match:
            said, self._log = self._log[: match.start()].strip() or match[0].strip(), ""
            raise DeviceStopped(self._line.name, said, int(match[1]))

    def _other_version(self, version: int) -> EnvironmentProblem:
        return EnvironmentProblem(
            f"The firmware on {self._line.name} speaks version {version} of the link, this tvmtiny {VERSION}.",
            "Flash the firmware again: tvmtiny board flash DIR.",
        )

    def _no_answer(self, waited_s: float) -> NoAnswer:
        name = self._line.name
        if self._info is not None:
            return NoAnswer(
                f"No answer from {name} within {waited_s:.1f} s; it has answered before.",
                "Is it still running (a long inference needs a longer --timeout), plugged in and powered?",
            )
        if self._heard:
            return NoAnswer(
                f"{name} sends {self._heard} bytes that are no answer.",
                "Is the baud rate 115,200, and is the firmware tvmtiny's (tvmtiny board flash DIR)?",
            )
        return NoAnswer(
            f"No answer from {name} within {waited_s:.1f} s.",
            "Has the board the firmware (tvmtiny board flash DIR), is this its port (tvmtiny board list), and is "
            "it powered?",
        )

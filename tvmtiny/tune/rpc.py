"""Boards of a lab behind TVM's RPC tracker: `--on rpc:HOST:PORT` asks, `tvmtiny board serve` answers.

    python -m tvm.exec.rpc_tracker --port 9190                                              somewhere
    tvmtiny board serve --tracker HOST:9190 --key stm32f746 --on serial:/dev/ttyACM0        on each bench
    tvmtiny tune build/model --target stm32f746 --on rpc:HOST:9190                          on the tuning side

The key is the target's name. A server measures what it is sent at its own place: on its board, or on an emulated core.
A session that ends early (the server died, the board hangs, the time is over) is asked again of whichever server is
free; one that comes back registers itself anew. TVM's RPC trusts its network: it lets clients write files and run code.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import json
import socket
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import tvm_ffi
from tvm import rpc

from tvmtiny.artifact import Artifact, TensorInfo
from tvmtiny.errors import EnvironmentProblem, TvmtinyError, UserError
from tvmtiny.target import Target, load_target
from tvmtiny.tune.places import Image, Outcome, place_of

FUNCTION = "tvmtiny.tune.measure"
IMAGE_FILE = "image.tar"
ATTEMPTS = 3
"""Servers that are asked before a failure is the candidates' own."""

_MARGIN_S = 30.0
"""Beside a run's own time limit: sending the image, building what is missing, flashing."""


class Rpc:
    """All boards of a key, several at once.

    Args:
        patience_s: how long to wait where no board is left.
    """

    def __init__(self, target: Target, tracker: str, timeout_s: float, patience_s: float = 60) -> None:
        self.name = f"rpc:{tracker}"
        self._address = address(tracker)
        self._target, self._timeout_s, self._patience_s = target, timeout_s, patience_s
        self.parallel = max(1, self._servers())

    def run(self, image: Image, first: int, count: int) -> list[Outcome]:
        """Measure on the next free board; on another one where that fails on the way."""
        data = _packed(image)
        wanted = {
            "target": self._target.name,
            "artifact": _described(image.artifact),
            "build": image.build_dir.relative_to(image.artifact.directory).as_posix(),
            "candidates": image.candidates,
            "first": first,
            "count": count,
            "timeout_s": self._timeout_s,
        }
        failure: Exception | None = None
        for _ in range(ATTEMPTS):
            try:
                answer = self._asked(data, json.dumps(wanted))
            except (OSError, RuntimeError, ValueError) as error:  # what TVM raises when a session ends early
                failure = error
                continue
            if "error" in answer:
                raise EnvironmentProblem(f"A server of {self.name}: {answer['error']}")
            return [Outcome(**row) for row in answer["outcomes"]]
        raise EnvironmentProblem(f"{ATTEMPTS} servers of {self.name} have failed to measure it: {failure}")

    def _asked(self, data: bytes, wanted: str) -> dict[str, Any]:
        self._await_server()
        tracker = rpc.connect_tracker(*self._address)
        session = tracker.request(
            self._target.name, session_timeout=self._timeout_s + _MARGIN_S, max_retry=ATTEMPTS
        )
        session.upload(bytearray(data), IMAGE_FILE)
        answer: dict[str, Any] = json.loads(self._call(session, wanted))
        return answer

    def _call(self, session: Any, wanted: str) -> str:
        return str(session.get_function(FUNCTION)(wanted))

    def _await_server(self) -> None:
        """Give servers time to come back; a tracker would let a request wait for ever."""
        deadline = time.monotonic() + self._patience_s
        while self._servers() == 0:
            if time.monotonic() > deadline:
                raise EnvironmentProblem(
                    f"{self.name} has had no server with the key {self._target.name} for {self._patience_s:g} s.",
                    f"Start one: tvmtiny board serve --tracker {self.name.removeprefix('rpc:')} "
                    f"--key {self._target.name} --on PLACE.",
                )
            time.sleep(0.5)

    def _servers(self) -> int:
        """How many servers of the key the tracker knows. Raises EnvironmentProblem when it cannot be reached."""
        try:
            with socket.create_connection(self._address, timeout=5):
                pass  # TVM's own client would try for half a minute
            known = rpc.connect_tracker(*self._address).summary()["server_info"]
        except (OSError, RuntimeError) as error:
            raise EnvironmentProblem(
                f"There is no RPC tracker at {self._address[0]}:{self._address[1]}: {error}",
                "Start one: python -m tvm.exec.rpc_tracker --port 9190.",
            ) from error
        return sum(row["key"] == f"server:{self._target.name}" for row in known)


def serve(tracker: str, key: str, on: str, *, host: str = "127.0.0.1", port: int = 9200) -> None:
    """Measure for a tracker until interrupted; a worker that dies is started anew.

    Args:
        key: name of the target whose board or emulator this is.
        on: where to run what comes, as `tvmtiny tune --on`.
        host: the address under which clients reach this machine.
    """
    load_target(key)
    start = functools.partial(_register, on)
    while True:
        server = rpc.Server(
            host,
            port,
            port + 1000,
            tracker_addr=address(tracker),
            key=key,
            silent=True,
            custom_addr=host,
            server_init_callback=start,
        )
        with contextlib.suppress(TypeError):  # the popen worker's process, gone when it was killed
            while server.proc.is_alive():
                time.sleep(1)
        server.terminate()


def address(tracker: str) -> tuple[str, int]:
    """HOST:PORT in two; raises UserError for something else."""
    host, _, port = tracker.rpartition(":")
    if not host or not port.isdecimal():
        raise UserError(f"{tracker!r} is no address of a tracker.", "Give HOST:PORT.")
    return host, int(port)


def _register(on: str) -> None:
    tvm_ffi.register_global_func(FUNCTION, functools.partial(_measure, on), override=True)


def _measure(on: str, request: str) -> str:
    """What a client calls, in a process of its own: unpack the image that it has sent and run it here."""
    wanted = json.loads(request)
    path = Path(str(tvm_ffi.get_global_func("tvm.rpc.server.workpath")(IMAGE_FILE)))
    try:
        with tempfile.TemporaryDirectory(prefix="tvmtiny-serve-") as folder:
            with tarfile.open(path) as archive:
                archive.extractall(folder, filter="data")
            target = load_target(wanted["target"])
            image = Image(
                _restored(wanted["artifact"], Path(folder)),
                Path(folder) / wanted["build"],
                wanted["candidates"],
            )
            place = place_of(on, target, timeout_s=wanted["timeout_s"], jobs=1)
            outcomes = place.run(image, wanted["first"], wanted["count"])
        return json.dumps({"outcomes": [dataclasses.asdict(outcome) for outcome in outcomes]})
    except TvmtinyError as error:
        return json.dumps({"error": error.message})


def _packed(image: Image) -> bytes:
    """Sources and build of an image; times of files are kept, so that nothing is built twice."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.add(image.artifact.directory, arcname=".")
    return stream.getvalue()


def _described(artifact: Artifact) -> dict[str, Any]:
    return {**dataclasses.asdict(artifact), "directory": ""}


def _restored(data: dict[str, Any], directory: Path) -> Artifact:
    tensors = {key: tuple(map(_tensor, data[key])) for key in ("inputs", "outputs")}
    lists = {key: tuple(data[key]) for key in ("sources", "include_dirs")}
    return Artifact(**{**data, **tensors, **lists, "directory": directory})


def _tensor(row: dict[str, Any]) -> TensorInfo:
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in row.items()
    }
    return TensorInfo(**values)

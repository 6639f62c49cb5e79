"""Energy from traces in the formats of three profilers, written by a simulator of what they record."""

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tvmtiny.boards.power import energy
from tvmtiny.boards.recorder import recording
from tvmtiny.boards.trace import Trace, read_trace
from tvmtiny.errors import EnvironmentProblem, UserError

RUNS = 5
IDLE_A, ACTIVE_A, NOISE_A, SUPPLY_V = 0.004, 0.042, 0.0005, 3.3
RUN_S, GAP_S = 0.012, 0.005


@dataclasses.dataclass(frozen=True)
class Simulated:
    """A board that draws more while its pin is high, as a profiler samples it."""

    time_s: np.ndarray
    current_a: np.ndarray
    pin: np.ndarray


def simulate(rate: float = 20_000, seed: int = 0) -> Simulated:
    random = np.random.default_rng(seed)
    pattern = [0.0, GAP_S] + [RUN_S, GAP_S] * RUNS
    edges = np.cumsum(pattern)
    time = np.arange(int(edges[-1] * rate) - 1) / rate
    pin = (np.searchsorted(edges, time, side="right") % 2) == 0
    current = np.where(pin, ACTIVE_A, IDLE_A) + random.normal(0, NOISE_A, len(time))
    return Simulated(time, current, pin)


def ppk2_separate(sim: Simulated) -> str:
    rows = ["Timestamp(ms),Current(uA),D0,D1,D2,D3,D4,D5,D6,D7"]
    for t, i, high in zip(sim.time_s, sim.current_a, sim.pin, strict=True):
        rows.append(f"{1e3 * t:.4f},{1e6 * i:.3f},{int(high)},0,0,0,0,0,0,0")
    return "\n".join(rows) + "\n"


def ppk2_string(sim: Simulated) -> str:
    rows = ["Timestamp(ms),Current(uA),D0-D7"]
    for t, i, high in zip(sim.time_s, sim.current_a, sim.pin, strict=True):
        rows.append(f"{1e3 * t:.4f},{1e6 * i:.3f},{int(high)}0000000")
    return "\n".join(rows) + "\n"


def joulescope(sim: Simulated) -> str:
    rows = ["#time (s),current (A),voltage (V),power (W),gpi0,gpi1"]
    for t, i, high in zip(sim.time_s, sim.current_a, sim.pin, strict=True):
        rows.append(f"{t:.6f},{i:.7f},{SUPPLY_V},{i * SUPPLY_V:.7f},{int(high)},0")
    return "\n".join(rows) + "\n"


def otii(sim: Simulated) -> str:
    rows = ["Project;blink", "Timestamp;Main current (mA);Main voltage (mV);GPI 1"]
    for t, i, high in zip(sim.time_s, sim.current_a, sim.pin, strict=True):
        rows.append(f"{t:.6f};{1e3 * i:.5f};{1e3 * SUPPLY_V};{int(high)}")
    return "\n".join(rows) + "\n"


FORMATS = {"ppk2": ppk2_separate, "ppk2_string": ppk2_string, "joulescope": joulescope, "otii": otii}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_energy_of_the_simulation(name: str, tmp_path: Path) -> None:
    sim = simulate()
    path = tmp_path / "trace.csv"
    path.write_text(FORMATS[name](sim))
    trace = read_trace(path)
    found = energy(trace, RUNS, SUPPLY_V if name.startswith("ppk2") else None)
    assert found.joules == pytest.approx(np.full(RUNS, ACTIVE_A * SUPPLY_V * RUN_S), rel=0.02)
    assert found.seconds == pytest.approx(np.full(RUNS, RUN_S), abs=1e-4)
    assert found.idle_a == pytest.approx(IDLE_A, rel=0.05)
    # The simulator's own sum, sample by sample.
    total = float(np.sum(sim.current_a[sim.pin]) * SUPPLY_V / 20_000)
    assert float(found.joules.sum()) == pytest.approx(total, rel=1e-4)


def trace_of(sim: Simulated, **digital: np.ndarray) -> Trace:
    return Trace(sim.time_s, sim.current_a, None, digital)


def test_what_is_missing_is_told() -> None:
    sim = simulate()
    low = np.zeros(len(sim.pin), bool)
    with pytest.raises(UserError, match=r"No digital input of the trace ever changes \(d0\)"):
        energy(trace_of(sim, d0=low), RUNS, 3.3)
    with pytest.raises(UserError, match="has no voltage") as raised:
        energy(trace_of(sim, d0=sim.pin), RUNS)
    assert "--voltage" in raised.value.remedy
    with pytest.raises(UserError, match=r"high 5 times in the trace; 7 runs"):
        energy(trace_of(sim, d0=sim.pin), 7, 3.3)
    with pytest.raises(UserError, match="d0, d3"):
        energy(trace_of(sim, d0=sim.pin, d3=~sim.pin), RUNS, 3.3)
    assert energy(trace_of(sim, d0=sim.pin, d3=~sim.pin), RUNS, 3.3, "D0").channel == "d0"
    with pytest.raises(UserError, match="no digital input 'd9'"):
        energy(trace_of(sim, d0=sim.pin), RUNS, 3.3, "d9")


def test_runs_that_the_trace_cuts_are_not_counted() -> None:
    sim = simulate()
    first = int(np.flatnonzero(sim.pin)[0]) + 3
    cut = Simulated(sim.time_s[first:], sim.current_a[first:], sim.pin[first:])
    assert len(energy(trace_of(cut, d0=cut.pin), RUNS - 1, 3.3).joules) == RUNS - 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "no line of column names with a time"),
        ("time,volts\n0,1\n1,2\n", "no column of current"),
        ("time,current\n0,1\nx,2\n", "not a table of numbers"),
        ("time,current\n1,1\n0,2\n", "no ascending times"),
    ],
)
def test_files_that_are_no_trace_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_trace(path)


def fake_kit(sim: Simulated) -> type:
    """Stands in for ppk2_api.PPK2_API: raw data are indices into the simulation."""

    class Kit:
        def __init__(self, port: str, **_options: object) -> None:
            if port == "absent":
                raise OSError("no such port")
            self.calls: list[str] = []
            self.sent = 0

        def get_data(self) -> bytes:
            self.sent += 1
            return b"x" if self.sent == 1 else b""

        def get_samples(self, _data: bytes) -> tuple[list[float], list[int]]:
            return (1e6 * sim.current_a).tolist(), sim.pin.astype(int).tolist()

        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *_arguments: self.calls.append(name)

    return Kit


def test_a_kit_records_while_the_runs_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("ppk2_api.ppk2_api")
    vars(module)["PPK2_API"] = fake_kit(simulate(rate=100_000))
    monkeypatch.setitem(sys.modules, "ppk2_api", types.ModuleType("ppk2_api"))
    monkeypatch.setitem(sys.modules, "ppk2_api.ppk2_api", module)
    with recording("ppk2:/dev/ttyACM9") as stop:
        trace = stop()
    found = energy(trace, RUNS, SUPPLY_V)
    assert found.joules == pytest.approx(np.full(RUNS, ACTIVE_A * SUPPLY_V * RUN_S), rel=0.01)
    with pytest.raises(EnvironmentProblem, match="absent could not be opened"), recording("ppk2:absent"):
        pass


def test_a_recording_that_is_not_there_is_told() -> None:
    with pytest.raises(UserError, match=r"There is no file trace\.csv"), recording("trace.csv"):
        pass

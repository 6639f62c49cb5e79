"""What an evaluation says, as rows: beside the float model and the integer reference."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmtiny import __version__
from tvmtiny.evaluate.data import Dataset
from tvmtiny.evaluate.floating import FloatOutputs, agreement
from tvmtiny.evaluate.measure import Evaluation, Spread
from tvmtiny.quant.noise import present, signal_to_noise_db

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Row:
    """An evaluation beside its references.

    Attributes:
        snr_db: signal to quantization noise of each output over all samples, in dB; empty without a float model.
        agreement: share of samples (or present tokens) with the same largest element as the float model, by output.
        bit_exact: share of samples whose outputs are those of the integer reference, byte for byte; None if unknown.
    """

    found: Evaluation
    snr_db: dict[str, float]
    agreement: dict[str, float]
    bit_exact: float | None

    def to_json(self) -> dict[str, Any]:
        """Every figure under the keys of the command line's contract."""
        e = self.found
        return {
            "name": e.artifact.name,
            "directory": e.artifact.directory,
            "target": e.target.name,
            "cpu": e.target.cpu,
            "compiled_for": e.artifact.target,
            "on": e.on,
            "metrics": e.metrics,
            "snr_db": self.snr_db,
            "agreement": self.agreement,
            "bit_exact": self.bit_exact,
            "instructions": _plain(e.instructions),
            "cycles": _plain(e.cycles),
            "cycles_measured": e.measured,
            "clock_hz": e.clock_hz or None,
            "latency_ms": _plain(e.latency_ms),
            "energy_uj": _plain(e.energy_uj),
            "energy_source": energy_source(e) if e.energy_uj else None,
            "arena_bytes": e.arena_bytes,
            "state_bytes": e.state_bytes,
            "stack_bytes": e.stack_bytes,
            "ram_bytes": e.ram_bytes,
            "ram_available_bytes": e.target.ram_bytes or None,
            "flash_bytes": e.flash.flash_bytes if e.flash else None,
            **(dataclasses.asdict(e.flash) if e.flash else {}),
            "flash_available_bytes": e.target.flash_bytes or None,
        }


def row(found: Evaluation, real: FloatOutputs | None, expected: Sequence[dict[str, Array]] | None) -> Row:
    """Compare an evaluation with the float model's outputs and the integer reference's, where these are given."""
    snr, agree = {}, {}
    for info in found.artifact.outputs if real else ():
        assert real is not None
        counted = present(info.shape, found.n_tokens, found.artifact.max_tokens)
        pair = (real.outputs[info.name], found.outputs[info.name], counted)
        snr[info.name] = signal_to_noise_db(*pair)
        agree[info.name] = agreement(*pair)
    exact = None
    if expected is not None:
        exact = float(np.mean([_equal(*pair) for pair in zip(found.raw, expected, strict=True)]))
    return Row(found, snr, agree, exact)


def _equal(have: dict[str, Array], want: dict[str, Array]) -> bool:
    return all(np.array_equal(have[name].reshape(values.shape), values) for name, values in want.items())


def report(data: Dataset, tokens: Spread, rows: Sequence[Row], real: dict[str, Any] | None) -> dict[str, Any]:
    """One object for --json.

    Args:
        real: of the float model: `model`, `engine`, `metrics`.
    """
    return {
        "data": data.source,
        "data_sha256": data.digest,
        "samples": len(data),
        "tokens": _plain(tokens),
        "version": __version__,
        "float": real,
        "rows": [item.to_json() for item in rows],
    }


def _plain(spread: Spread | None) -> dict[str, float] | None:
    if spread is None:
        return None
    return {name: value for name, value in dataclasses.asdict(spread).items() if value is not None}


def energy_source(e: Evaluation) -> str:
    """The assumption of the energy estimate, for people."""
    stated = f"{e.target.power_ma:g} mA at {e.target.supply_v:g} V while running at {e.clock_hz / 1e6:g} MHz"
    return f"{stated} ({e.target.power_source})" if e.target.power_source else stated

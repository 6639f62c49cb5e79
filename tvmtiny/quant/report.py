"""How close the integer model is to the float model: signal to noise of every layer, agreement of the results."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmtiny.quant.calibrate import Trace
from tvmtiny.quant.qparams import QuantParams

Array = npt.NDArray[Any]


@dataclasses.dataclass
class Quality:
    """Sums over samples; `report` gives the figures."""

    signal: dict[str, float] = dataclasses.field(default_factory=dict)
    error: dict[str, float] = dataclasses.field(default_factory=dict)
    rows: int = 0
    equal: int = 0
    cosines: list[float] = dataclasses.field(default_factory=list)

    def add(self, trace: Trace, results: dict[str, Array], params: dict[str, QuantParams]) -> None:
        """Compare one sample: the float trace, the integer results by layer and their parameters."""
        expected = real = np.zeros((0, 1))
        for name, values in results.items():
            expected = trace.values[f"{name}.out"].astype(np.float64)
            p = params[name]
            real = (values[: len(expected)].astype(np.float64) - p.zero_point) * p.scale
            self.signal[name] = self.signal.get(name, 0.0) + float(np.sum(expected**2))
            self.error[name] = self.error.get(name, 0.0) + float(np.sum((expected - real) ** 2))
        self.rows += len(real)
        self.equal += int(np.sum(real.argmax(axis=-1) == expected.argmax(axis=-1)))
        norm = float(np.linalg.norm(real) * np.linalg.norm(expected))
        self.cosines.append(float(np.sum(real * expected)) / norm if norm else 1.0)

    def report(self) -> dict[str, Any]:
        """Figures for metadata: `snr_db` by layer in order; of the result, mean `cosine` and `agreement`.

        `agreement` is the share of rows of the result (one a sample, or one a token) with the same largest element.
        """
        return {
            "samples": len(self.cosines),
            "agreement": self.equal / max(1, self.rows),
            "cosine": round(float(np.mean(self.cosines)), 6),
            "layers": [{"name": name, "snr_db": round(self._snr(name), 2)} for name in self.signal],
        }

    def _snr(self, name: str) -> float:
        signal, error = self.signal[name], self.error[name]
        return 10 * float(np.log10(max(signal, 1e-30) / max(error, 1e-30)))

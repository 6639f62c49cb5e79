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
    samples: int = 0
    equal: int = 0
    cosines: list[float] = dataclasses.field(default_factory=list)

    def add(self, trace: Trace, results: dict[str, Array], params: dict[str, QuantParams]) -> None:
        """Compare one sample: the float trace, the integer results by layer and their parameters."""
        real = np.zeros(0)
        for name, values in results.items():
            expected = trace.values[f"{name}.out"].astype(np.float64)
            p = params[name]
            real = (values[: len(expected)].astype(np.float64) - p.zero_point) * p.scale
            self.signal[name] = self.signal.get(name, 0.0) + float(np.sum(expected**2))
            self.error[name] = self.error.get(name, 0.0) + float(np.sum((expected - real) ** 2))
        output = trace.output.reshape(-1)
        self.samples += 1
        self.equal += int(np.argmax(real) == np.argmax(output))
        norm = float(np.linalg.norm(real) * np.linalg.norm(output))
        self.cosines.append(float(real.reshape(-1) @ output) / norm if norm else 1.0)

    def report(self) -> dict[str, Any]:
        """Figures for metadata: `snr_db` by layer in order, `agreement` of the largest output, mean `cosine`."""
        return {
            "samples": self.samples,
            "agreement": self.equal / max(1, self.samples),
            "cosine": round(float(np.mean(self.cosines)), 6),
            "layers": [{"name": name, "snr_db": round(self._snr(name), 2)} for name in self.signal],
        }

    def _snr(self, name: str) -> float:
        signal, error = self.signal[name], self.error[name]
        return 10 * float(np.log10(max(signal, 1e-30) / max(error, 1e-30)))

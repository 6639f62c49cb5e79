"""How close the integer model is to the float model: signal to noise of every layer, agreement of the results."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmtiny.quant.calibrate import Trace
from tvmtiny.quant.noise import snr_db
from tvmtiny.quant.qparams import QuantParams

Array = npt.NDArray[Any]


@dataclasses.dataclass
class Quality:
    """Sums over samples; `report` gives the figures.

    Attributes:
        outputs: names of the model's results.
    """

    outputs: tuple[str, ...]
    signal: dict[str, float] = dataclasses.field(default_factory=dict)
    error: dict[str, float] = dataclasses.field(default_factory=dict)
    agreement: dict[str, list[bool]] = dataclasses.field(default_factory=dict)
    cosines: dict[str, list[float]] = dataclasses.field(default_factory=dict)

    def add(self, trace: Trace, results: dict[str, Array], params: dict[str, QuantParams]) -> None:
        """Compare one sample: the float trace, the integer results by layer and their parameters."""
        wanted = dict(zip(self.outputs, trace.outputs, strict=True))
        for name, values in results.items():
            if name not in params:
                continue  # another order of a tensor that is compared as it was computed
            p, expected = params[name], trace.values.get(f"{name}.out", wanted.get(name))
            assert expected is not None, f"the float model has no value {name}"
            expected = expected.astype(np.float64)
            whole = values.size == expected.size
            present = values.reshape(expected.shape) if whole else values[: len(expected)]
            real = (present.astype(np.float64) - p.zero_point) * p.scale
            self.signal[name] = self.signal.get(name, 0.0) + float(np.sum(expected**2))
            self.error[name] = self.error.get(name, 0.0) + float(np.sum((expected - real) ** 2))
            if name in self.outputs:
                same = real.argmax(axis=-1) == expected.argmax(axis=-1)
                self.agreement.setdefault(name, []).extend(same.reshape(-1).tolist())
                norm = float(np.linalg.norm(real) * np.linalg.norm(expected))
                cosine = float(np.sum(real * expected)) / norm if norm else 1.0
                self.cosines.setdefault(name, []).append(cosine)

    def report(self) -> dict[str, Any]:
        """Figures for metadata: `snr_db` by layer in order; of the results, mean `cosine` and `agreement`.

        `agreement` is the share of rows of a result (one a sample, or one a token) with the same largest element. Of
        several results, the worst stands for all, and `outputs` has each.
        """
        outputs: list[dict[str, Any]] = [
            {
                "name": name,
                "agreement": float(np.mean(self.agreement[name])),
                "cosine": round(float(np.mean(self.cosines[name])), 6),
            }
            for name in self.outputs
        ]
        return {
            "samples": len(self.cosines[self.outputs[0]]),
            "agreement": min(row["agreement"] for row in outputs),
            "cosine": min(row["cosine"] for row in outputs),
            "outputs": outputs,
            "layers": [
                {"name": name, "snr_db": round(snr_db(signal, self.error[name]), 2)}
                for name, signal in self.signal.items()
            ],
        }

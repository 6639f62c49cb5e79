"""The next token from logits: the twin of microtvm_projects/common/tvmt_sample.h, the same draws to the bit."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

MOST = 64
"""Most tokens to draw among."""

_MULTIPLIER, _INCREMENT = 6364136223846793005, 1442695040888963407
_MASK = (1 << 64) - 1


@dataclasses.dataclass
class Sampler:
    """How to choose, and the state of the generator (PCG32), which every draw changes.

    Attributes:
        random: 64 bits, any value: the seed.
        temperature_q16: what logits are divided by, times 65536; 0: the likeliest token.
        top_k: tokens to draw among, 1 to MOST.
    """

    random: int = 0
    temperature_q16: int = 0
    top_k: int = 1

    def next_random(self) -> int:
        """The next 32 random bits."""
        old = self.random
        self.random = (old * _MULTIPLIER + _INCREMENT) & _MASK
        shifted, turn = (((old >> 18) ^ old) >> 27) & 0xFFFFFFFF, old >> 59
        return ((shifted >> turn) | (shifted << ((32 - turn) & 31))) & 0xFFFFFFFF

    def choose(self, logits: npt.NDArray[Any], scale_q32: int) -> int:
        """The index of the next token among int16 logits, one unit of which is scale_q32 / 2**32."""
        values = logits.astype(np.int64).reshape(-1)
        if self.temperature_q16 == 0:
            return int(values.argmax())
        order = np.argsort(-values, kind="stable")[: min(max(self.top_k, 1), MOST)]
        weights = self.weights(values[order], scale_q32)
        left = self.next_random() * sum(weights) >> 32
        return int(order[int(np.searchsorted(np.cumsum(weights), left, side="right"))])

    def weights(self, largest: npt.NDArray[Any], scale_q32: int) -> list[int]:
        """The weight of each of the largest logits, which come in falling order, in units of 2**-16."""
        octave_q32 = min(scale_q32 * 94548 // self.temperature_q16, 1 << 47)
        return [_exp2_negative(int(largest[0] - value) * octave_q32 >> 16) for value in largest]


def _exp2_negative(octaves_q16: int) -> int:
    """65536 * 2**-x of tvmt_classify.h."""
    whole, f = min(octaves_q16 >> 16, 31), octaves_q16 & 0xFFFF
    slope = 44012 - (11244 * f >> 16)
    return (65536 - (slope * f >> 16)) >> whole

"""Rounding of weights one after another, so that those that are left make up for the error of each at the output.

After Frantar, Ashkboos, Hoefler and Alistarh, "GPTQ" (ICLR 2023, arXiv:2210.17323), section 3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

DAMPING = 0.01
"""What is added to the second moments of the inputs, in units of their mean: trust in few observations has limits."""


def moments(inputs: Array) -> Array:
    """Second moments E[x x^T] (K, K) of a layer's inputs (R, K)."""
    x = inputs.astype(np.float64)
    return np.asarray(x.T @ x / len(x))


def spread(second_moments: Array) -> Array:
    """Upper triangular (K, K): row k says how the weights behind k make up for an error of weight k."""
    damping = DAMPING * float(np.mean(np.diag(second_moments))) or 1.0
    inverse = np.linalg.inv(second_moments + damping * np.eye(len(second_moments)))
    return np.asarray(np.linalg.cholesky(inverse).T)


def hand_on(left: Array, errors: Array, by: Array, k: int) -> None:
    """Let the weights behind k of each row of `left` (N, K) take over what the errors (N,) of weight k cost.

    Args:
        by: of `spread`.
    """
    left[:, k + 1 :] -= np.outer(errors / by[k, k], by[k, k + 1 :])


def rounded(steps: Array, second_moments: Array, lowest: int, highest: int) -> Array:
    """Integers in [lowest, highest] for weights (N, K) in units of their scale."""
    left, by = steps.astype(np.float64), spread(second_moments)
    found = np.zeros(left.shape, np.int64)
    for k in range(left.shape[1]):
        found[:, k] = np.clip(np.round(left[:, k]), lowest, highest)
        hand_on(left, left[:, k] - found[:, k], by, k)
    return found

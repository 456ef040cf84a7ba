"""Federated averaging (McMahan et al., AISTATS 2017, algorithm 1)."""
# Shapes: N participants, D model parameters.

from typing import Any, Literal

import numpy as np

from coordinator.aggregation import RULES, Diagnosis, Rule, RuleConfig
from nodes.runtime.arrays import F32, F64

BLOCK_BYTES = 1 << 16


def weighted_mean(updates_ND: F32, shares_N: F64) -> F32:
    """Return sum_i shares_i * updates_i, [D], added in row order for every parameter.

    In blocks of columns that stay in cache, so that the matrix is read once and nothing of its size is allocated. The
    order of additions is that of the rows whatever N and D are: the bits depend on nothing else.
    """
    num_participants, size = updates_ND.shape
    result_D = np.zeros(size, dtype=np.float32)
    shares = shares_N.astype(np.float32)
    width = BLOCK_BYTES // 4
    scratch = np.empty(min(width, size), dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, size, width):
            block = result_D[start : start + width]
            term = scratch[: len(block)]
            for i in range(num_participants):
                np.multiply(updates_ND[i, start : start + width], shares[i], out=term)
                np.add(block, term, out=block)
    return result_D


class FedAvg:
    """Weighted mean: result = sum_i w_i u_i / sum_i w_i. Breakdown point 0: one update moves it anywhere.

    A non-finite update makes the result non-finite; admission refuses it before.
    """

    def __init__(self, weighting: Literal["rows", "uniform"]) -> None:
        self._weighting = weighting

    def apply(self, updates_ND: F32, weights_N: F64 | None = None, state: Any = None) -> tuple[F32, Any, Diagnosis]:
        """See `Rule.apply`. Raises ValueError when there is no update, or the weights have no positive sum."""
        num_participants = len(updates_ND)
        if num_participants == 0:
            raise ValueError("no update to average")
        if weights_N is None or self._weighting == "uniform":
            weights_N = np.ones(num_participants)
        total = float(weights_N.sum())
        if not (np.all(weights_N >= 0) and 0 < total < np.inf):
            raise ValueError(f"weights must be non-negative with a positive finite sum, got {weights_N.tolist()}")
        shares_N = weights_N / total
        return weighted_mean(updates_ND, shares_N), state, Diagnosis(shares_N > 0, shares_N)


@RULES.register
class FedAvgConfig(RuleConfig):
    """Federated averaging, weighted by rows or uniform (McMahan et al. 2017)."""

    name: Literal["fedavg"] = "fedavg"
    weighting: Literal["rows", "uniform"] = "rows"
    """`rows`: by the number of training rows that a participant reports. `uniform`: all alike."""

    def build(self) -> Rule:
        return FedAvg(self.weighting)

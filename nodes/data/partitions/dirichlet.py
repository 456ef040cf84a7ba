"""Label skew by a Dirichlet distribution."""

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from nodes.data.base import PARTITIONS, PartitionConfig
from nodes.data.deal import gather, proportional, shuffled_by_class
from nodes.runtime.arrays import I64
from nodes.runtime.errors import ScenarioError

_DRAWS = 100


@PARTITIONS.register
class Dirichlet(PartitionConfig):
    """Each class is divided over participants by p ~ Dir(alpha): small alpha, strong label skew.

    Li, Diao, Chen, He, "Federated learning on non-IID data silos", ICDE 2022, without their cap on participants that
    are already full. Hsu, Qi, Brown 2019 draw each participant's class mix instead, with equal sizes.
    The division is redrawn, from the same generator, until everybody has `min_rows`. All rows are used.
    """

    name: Literal["dirichlet"] = "dirichlet"
    alpha: Annotated[float, Field(gt=0)] = 0.5
    """Concentration: 0.1 is strong skew, 100 nearly IID."""
    min_rows: Annotated[int, Field(ge=1)] = 1
    """Fewest training rows of a participant."""

    def assign(self, classes_B: I64, num_participants: int, rng: np.random.Generator) -> list[I64]:
        if self.min_rows * num_participants > len(classes_B):
            most = len(classes_B) // num_participants
            expected = f"at most {most}: {len(classes_B)} rows for {num_participants} participants"
            raise ScenarioError("partition.min_rows", self.min_rows, expected)
        for _ in range(_DRAWS):
            parts = self._draw(classes_B, num_participants, rng)
            if min(sum(map(len, pieces)) for pieces in parts) >= self.min_rows:
                return gather(parts, "partition.alpha", self.alpha)
        expected = f"a larger one: {_DRAWS} draws left a participant with fewer than min_rows = {self.min_rows} rows"
        raise ScenarioError("partition.alpha", self.alpha, expected)

    def _draw(self, classes_B: I64, num_participants: int, rng: np.random.Generator) -> list[list[I64]]:
        parts: list[list[I64]] = [[] for _ in range(num_participants)]
        for _, rows in shuffled_by_class(classes_B, rng):
            shares_N = _dirichlet(self.alpha, num_participants, rng)
            ends = np.cumsum(proportional(len(rows), shares_N))[:-1]
            for pieces, piece in zip(parts, np.split(rows, ends), strict=True):
                pieces.append(piece)
        return parts


def _dirichlet(alpha: float, count: int, rng: np.random.Generator) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Draw shares; a very small alpha underflows to zeros or NaN, and then one place takes all, which is its limit."""
    shares_N = rng.dirichlet(np.full(count, alpha))
    if np.isfinite(shares_N).all() and shares_N.sum() > 0:
        return shares_N
    shares_N = np.zeros(count)
    shares_N[rng.integers(count)] = 1.0
    return shares_N

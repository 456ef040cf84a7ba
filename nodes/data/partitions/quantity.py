"""Quantity skew: participants of different sizes, all with the same class mix."""

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from nodes.data.base import PARTITIONS, PartitionConfig
from nodes.data.deal import gather, proportional, shuffled_by_class
from nodes.runtime.arrays import I64
from nodes.runtime.errors import ScenarioError

_DRAWS = 100


@PARTITIONS.register
class Quantity(PartitionConfig):
    """Sizes are drawn from Dir(alpha), classes are dealt in proportion to size.

    Quantity skew of Li, Diao, Chen, He, ICDE 2022. Rows are dealt class after class along one sequence, so a
    participant's count of a class is within one row of its exact share, and all rows are used. Sizes are redrawn, from
    the same generator, until everybody has `min_rows`.
    """

    name: Literal["quantity"] = "quantity"
    alpha: Annotated[float, Field(gt=0)] = 0.5
    """Concentration: 0.1 gives few large participants, 100 nearly equal ones."""
    min_rows: Annotated[int, Field(ge=1)] = 1
    """Fewest training rows of a participant."""

    def assign(self, classes_B: I64, num_participants: int, rng: np.random.Generator) -> list[I64]:
        sizes_N = self._sizes(len(classes_B), num_participants, rng)
        deck_B = np.concatenate([rows for _, rows in shuffled_by_class(classes_B, rng)])
        # Row k of participant i sits at (k + 1/2) / size_i of the deck: even spacing is what keeps the class mix.
        owners = np.repeat(np.arange(num_participants), sizes_N)
        places = np.concatenate([(np.arange(size) + 0.5) / size for size in sizes_N])
        owner_B = owners[np.lexsort((owners, places))]
        parts = [[deck_B[owner_B == index]] for index in range(num_participants)]
        return gather(parts, "partition.alpha", self.alpha)

    def _sizes(self, rows: int, num_participants: int, rng: np.random.Generator) -> I64:
        spare = rows - self.min_rows * num_participants
        if spare < 0:
            expected = f"at most {rows // num_participants}: {rows} rows for {num_participants} participants"
            raise ScenarioError("partition.min_rows", self.min_rows, expected)
        for _ in range(_DRAWS):
            shares_N = rng.dirichlet(np.full(num_participants, self.alpha))
            if not np.isfinite(shares_N).all() or shares_N.sum() <= 0:
                continue
            sizes_N = proportional(rows, shares_N)
            if sizes_N.min() >= self.min_rows:
                return sizes_N
        expected = f"a larger one: {_DRAWS} draws left a participant with fewer than min_rows = {self.min_rows} rows"
        raise ScenarioError("partition.alpha", self.alpha, expected)

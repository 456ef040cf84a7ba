"""IID partition, stratified."""

from typing import Literal

import numpy as np

from nodes.data.base import PARTITIONS, PartitionConfig
from nodes.data.deal import gather, shuffled_by_class
from nodes.runtime.arrays import I64


@PARTITIONS.register
class Iid(PartitionConfig):
    """Every participant gets the same share of every class.

    Rows are dealt like cards, class after class without starting anew: participants differ by at most one row in all,
    and by at most one row of any class.
    """

    name: Literal["iid"] = "iid"

    def assign(self, classes_B: I64, num_participants: int, rng: np.random.Generator) -> list[I64]:
        deck_B = np.concatenate([rows for _, rows in shuffled_by_class(classes_B, rng)])
        parts = [[deck_B[first::num_participants]] for first in range(num_participants)]
        return gather(parts, "participants.count", num_participants)

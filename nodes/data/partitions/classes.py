"""Missing classes: participants that have never seen some of them."""

from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from nodes.data.base import PARTITIONS, PartitionConfig
from nodes.data.deal import gather, shuffled_by_class
from nodes.runtime.arrays import I64
from nodes.runtime.errors import ScenarioError


@PARTITIONS.register
class Classes(PartitionConfig):
    """Every participant holds `keep` classes, or all but `drop` classes.

    Classes are handed out one participant after the other, always the ones that fewest hold yet (ties drawn), so every
    class is held as long as there are enough places. A class's rows are dealt evenly to those who hold it; rows of a
    class that nobody holds are not used.
    """

    name: Literal["classes"] = "classes"
    keep: Annotated[int, Field(ge=1)] | None = None
    """Classes per participant."""
    drop: Annotated[int, Field(ge=1)] | None = None
    """Classes that each participant lacks."""
    keep_benign: bool = True
    """Everybody holds the first class (benign, where there is one); `keep` and `drop` then count the others."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.keep is None) == (self.drop is None):
            raise ValueError("give either keep or drop")
        return self

    def assign(self, classes_B: I64, num_participants: int, rng: np.random.Generator) -> list[I64]:
        groups = dict(shuffled_by_class(classes_B, rng))
        always = [min(groups)] if self.keep_benign else []
        choices = [index for index in groups if index not in always]
        holders = _hand_out(choices, self._each(len(choices)), num_participants, rng)
        parts: list[list[I64]] = [[] for _ in range(num_participants)]
        start = 0
        for index, rows in groups.items():
            who = list(range(num_participants)) if index in always else holders[index]
            for turn, participant in enumerate(who):
                parts[participant].append(rows[(turn - start) % len(who) :: len(who)])
            start += len(rows)  # the next class goes on where this one ended, so that nobody is always first
        return gather(parts, "partition.keep" if self.keep else "partition.drop", self.keep or self.drop)

    def _each(self, choices: int) -> int:
        """How many of the `choices` a participant holds. Raises ScenarioError if there are too few."""
        most = choices if self.keep is not None else choices - (not self.keep_benign)
        given = self.keep if self.keep is not None else self.drop
        if given is None or given > most:
            where = "partition.keep" if self.keep is not None else "partition.drop"
            kind = "attack classes" if self.keep_benign else "classes"
            raise ScenarioError(where, given, f"at most {most}: the training rows have {choices} {kind}")
        return given if self.keep is not None else choices - given


def _hand_out(choices: list[int], each: int, num_participants: int, rng: np.random.Generator) -> dict[int, list[int]]:
    """Return the holders of each class."""
    holders: dict[int, list[int]] = {index: [] for index in choices}
    for participant in range(num_participants):
        drawn = [choices[place] for place in rng.permutation(len(choices))]
        for index in sorted(drawn, key=lambda index: len(holders[index]))[:each]:
            holders[index].append(participant)
    return holders

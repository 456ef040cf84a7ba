"""Admission: what an update must be to count, and why one is refused."""

from collections.abc import Iterable

import numpy as np

from coordinator.transport import Arrival
from nodes.runtime.arrays import F32
from nodes.runtime.wire import DTYPE


class Admission:
    """One round's door. `open` looks at an announced update, `close` at its values."""

    def __init__(self, round: int, expected: Iterable[int], size: int) -> None:
        self._round = round
        self._expected = frozenset(expected)
        self._size = size
        self._seen: set[int] = set()

    def open(self, arrival: Arrival) -> str | None:
        """Return why the announced update is refused, or None when its values may come."""
        if arrival.failure:
            return arrival.failure
        if arrival.round != self._round:
            return f"stale: of round {arrival.round}, expected round {self._round}"
        if arrival.participant not in self._expected:
            return f"unexpected: participant {arrival.participant} was not selected, or is not of this actor"
        if arrival.participant in self._seen:
            return f"duplicate: participant {arrival.participant} delivered already"
        if arrival.dtype != DTYPE:
            return f"dtype: {arrival.dtype!r}, expected {DTYPE!r}"
        if arrival.length != self._size:
            return f"shape: {arrival.length} parameters, expected {self._size}"
        self._seen.add(arrival.participant)
        return None

    def close(self, update_D: F32) -> str | None:
        """Return why the received values are refused, or None when the update is admitted."""
        # A sum is finite only if all terms are, unless it overflows: then look at each value.
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(update_D.sum(dtype=np.float64)):
                return None
        bad = int(np.count_nonzero(~np.isfinite(update_D)))
        return f"not finite: {bad} of {update_D.size} values" if bad else None

"""The order in which local training meets its rows, and the losses it meets on the way."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nodes.runtime.arrays import I64
from nodes.training.settings import TrainingSettings


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive minibatches of one size: rows_I holds `count` times `size` row numbers, of pass `epoch` (from 0)."""

    epoch: int
    size: int
    rows_I: I64

    @property
    def count(self) -> int:
        """Number of minibatches."""
        return len(self.rows_I) // self.size


def chunks(num_rows: int, settings: TrainingSettings, rng: np.random.Generator, most_rows: int) -> Iterator[Chunk]:
    """Yield all minibatches of a training, several at a time but at most about `most_rows` rows.

    Each pass is one `rng.permutation(num_rows)`; its last minibatch holds what is left. How rows are grouped into
    chunks changes no minibatch. Raises ValueError for an empty shard.
    """
    if num_rows < 1:
        raise ValueError("cannot train on an empty shard")
    size = min(settings.batch_size, num_rows)
    per_pass = -(-num_rows // size)
    total = settings.steps if settings.steps is not None else (settings.epochs or 0) * per_pass
    for epoch in range(-(-total // per_pass)):
        order_I = rng.permutation(num_rows)[: (total - epoch * per_pass) * size]
        tail = len(order_I) % size
        full = len(order_I) - tail
        stride = max(1, most_rows // size) * size
        for start in range(0, full, stride):
            yield Chunk(epoch, size, order_I[start : min(start + stride, full)])
        if tail:
            yield Chunk(epoch, tail, order_I[full:])


class Tally:
    """Counts steps and rows, and the mean loss of the first and of the last pass."""

    def __init__(self) -> None:
        self.steps = 0
        self.rows = 0
        self._epoch = 0
        self._sum = 0.0
        self._sum_rows = 0
        self._first = 0.0

    def add(self, epoch: int, steps: int, rows: int, loss_sum: float) -> None:
        """Count `steps` steps of pass `epoch` over `rows` rows, whose losses add up to `loss_sum`."""
        if epoch != self._epoch:
            self._epoch, self._sum, self._sum_rows = epoch, 0.0, 0
        self.steps += steps
        self.rows += rows
        self._sum += loss_sum
        self._sum_rows += rows
        if epoch == 0:
            self._first = self.last

    @property
    def first(self) -> float:
        """Mean loss over the rows of the first pass, each before the step that used it; 0 when there were none."""
        return self._first

    @property
    def last(self) -> float:
        """Mean loss over the rows of the last pass so far."""
        return self._sum / self._sum_rows if self._sum_rows else 0.0

"""The coordinator's judgement of a model: figures on its own test rows, and measures that others add."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import numpy as np

from coordinator.records import Figure
from nodes.data.shard import Shard
from nodes.metrics import evaluate
from nodes.models.base import Network, Task, predictions
from nodes.runtime.arrays import F32, I64

Measure = Callable[[int, Mapping[str, Any]], Mapping[str, float | None]]
"""Further figures from a round's number and its figures, such as an attack's success, which its author alone knows."""


PART_ROWS = 8192
"""Rows judged at a time by one thread: fixed, so that the figures do not depend on the number of threads."""


@dataclass(frozen=True)
class Evaluator:
    """Judges flat models on `test`, in as many threads as there are `networks`, which are all alike."""

    networks: Sequence[Network]
    test: Shard
    class_names: tuple[str, ...]
    benign: int | None
    task: Task
    measures: tuple[Measure, ...] = ()

    def __call__(self, round: int, model_D: F32) -> dict[str, Figure]:
        """Return the figures of `model_D` after `round`, those of the measures among them."""
        predicted_B = self._predict(model_D)
        figures = evaluate(
            predicted_B, self.test.labels_B, self.test.classes_B, self.class_names, self.benign, self.task
        )
        row: dict[str, Figure] = figures.to_dict()
        for measure in self.measures:
            row.update(measure(round, row))
        return row

    def _predict(self, model_D: F32) -> I64:
        starts = range(0, len(self.test), PART_ROWS)
        parts = [self.test.features_BF[start : start + PART_ROWS] for start in starts]
        idle: SimpleQueue[Network] = SimpleQueue()
        for network in self.networks:
            idle.put(network)

        def judge(features_BF: F32) -> I64:
            network = idle.get()
            try:
                return predictions(network.logits(model_D, features_BF), network.loss)
            finally:
                idle.put(network)

        if len(self.networks) == 1 or len(parts) == 1:
            return np.concatenate([judge(part) for part in parts])
        with ThreadPoolExecutor(len(self.networks)) as threads:
            return np.concatenate(list(threads.map(judge, parts)))

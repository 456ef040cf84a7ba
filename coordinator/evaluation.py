"""The coordinator's judgement of a model: figures on its own test rows, and measures that others add."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from coordinator.records import Figure
from nodes.data.shard import Shard
from nodes.metrics import evaluate
from nodes.models.base import Network, Task, predictions
from nodes.runtime.arrays import F32

Measure = Callable[[int, Mapping[str, Any]], Mapping[str, float | None]]
"""Further figures from a round's number and its figures, such as an attack's success, which its author alone knows."""


@dataclass(frozen=True)
class Evaluator:
    """Judges flat models on `test`."""

    network: Network
    test: Shard
    class_names: tuple[str, ...]
    benign: int | None
    task: Task
    measures: tuple[Measure, ...] = ()

    def __call__(self, round: int, model_D: F32) -> dict[str, Figure]:
        """Return the figures of `model_D` after `round`, those of the measures among them."""
        predicted_B = predictions(self.network.logits(model_D, self.test.features_BF), self.network.loss)
        figures = evaluate(
            predicted_B, self.test.labels_B, self.test.classes_B, self.class_names, self.benign, self.task
        )
        row: dict[str, Figure] = figures.to_dict()
        for measure in self.measures:
            row.update(measure(round, row))
        return row

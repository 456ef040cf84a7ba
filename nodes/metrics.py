"""Figures by which a detector is judged, from its predictions on test rows."""
# Shapes: B flows, C classes.

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nodes.models.base import Task
from nodes.runtime.arrays import F64, I64, Bool


@dataclass(frozen=True, slots=True)
class Figures:
    """Evaluation figures, all in [0, 1]; a quotient 0 / 0 is 0, as scikit-learn's zero_division=0.

    accuracy: share of rows with the right label, of the task (binary: benign or attack; multiclass: the class).
    precision TP / (TP + FP), recall TP / (TP + FN), f1 2TP / (2TP + FP + FN), fallout FP / (FP + TN): of detection, in
    either task, where an attack taken for another attack is detected. Data without a benign class has no detection:
    there precision, recall and f1 are unweighted means over the classes that occur in labels or predictions
    (scikit-learn's macro average), and fallout is None.
    recall_per_class: share of the class's rows with the right label (binary: attack, or benign for the benign class);
    None where the test has no row of the class.
    """

    accuracy: float
    f1: float
    precision: float
    recall: float
    fallout: float | None
    recall_per_class: dict[str, float | None]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures by name, ready for JSON."""
        return asdict(self)


def evaluate(
    predicted_B: I64, labels_B: I64, classes_B: I64, class_names: tuple[str, ...], benign: int | None, task: Task
) -> Figures:
    """Judge predictions. `labels_B` are the right labels of the task, `classes_B` the true classes.

    `benign` indexes class_names. Raises ValueError when there is no row, or when lengths or values do not fit.

    >>> predicted_B, labels_B, classes_B = np.array([[0, 1, 0], [0, 1, 1], [0, 1, 2]])
    >>> figures = evaluate(predicted_B, labels_B, classes_B, ("ok", "DoS", "Bot"), 0, "binary")
    >>> figures.recall, figures.fallout, figures.recall_per_class
    (0.5, 0.0, {'ok': 1.0, 'DoS': 1.0, 'Bot': 0.0})
    """
    num_labels = 2 if task == "binary" else len(class_names)
    _check(predicted_B, labels_B, classes_B, num_labels, len(class_names))
    right_B = predicted_B == labels_B
    negative = 0 if task == "binary" else benign
    if negative is None:
        fallout, scores = None, _macro(predicted_B, labels_B, num_labels)
    else:
        fallout, scores = _detection(predicted_B != negative, labels_B != negative)
    return Figures(float(right_B.mean()), *scores, fallout, _recall_per_class(right_B, classes_B, class_names))


def _check(predicted_B: I64, labels_B: I64, classes_B: I64, num_labels: int, num_classes: int) -> None:
    if len(labels_B) == 0 or not len(predicted_B) == len(labels_B) == len(classes_B):
        raise ValueError(
            f"expected as many predictions as labels and classes, at least 1, "
            f"not {len(predicted_B)}, {len(labels_B)} and {len(classes_B)}"
        )
    for what, values_B, end in (
        ("predictions", predicted_B, num_labels),
        ("labels", labels_B, num_labels),
        ("classes", classes_B, num_classes),
    ):
        if values_B.min() < 0 or values_B.max() >= end:
            raise ValueError(f"expected {what} from 0 to {end - 1}, not {values_B.min()} to {values_B.max()}")


def _detection(predicted_B: Bool, attack_B: Bool) -> tuple[float, tuple[float, float, float]]:
    """Return the fallout, and (f1, precision, recall), where True is an attack."""
    hits = int(np.count_nonzero(predicted_B & attack_B))
    alarms = int(np.count_nonzero(predicted_B))
    attacks = int(np.count_nonzero(attack_B))
    fallout = _quotient(alarms - hits, len(attack_B) - attacks)
    return fallout, (_quotient(2 * hits, alarms + attacks), _quotient(hits, alarms), _quotient(hits, attacks))


def _macro(predicted_B: I64, labels_B: I64, num_classes: int) -> tuple[float, float, float]:
    """Return (f1, precision, recall), each a mean over the classes that occur."""
    hits_C = np.bincount(labels_B[predicted_B == labels_B], minlength=num_classes)
    predicted_C = np.bincount(predicted_B, minlength=num_classes)
    true_C = np.bincount(labels_B, minlength=num_classes)
    occurs_C = predicted_C + true_C > 0

    def mean(numerator_C: I64, denominator_C: I64) -> float:
        quotient_C: F64 = numerator_C / np.maximum(denominator_C, 1)
        return float(quotient_C[occurs_C].mean())

    return mean(2 * hits_C, predicted_C + true_C), mean(hits_C, predicted_C), mean(hits_C, true_C)


def _recall_per_class(right_B: Bool, classes_B: I64, class_names: tuple[str, ...]) -> dict[str, float | None]:
    rows_C = np.bincount(classes_B, minlength=len(class_names))
    right_C = np.bincount(classes_B[right_B], minlength=len(class_names))
    return {
        name: int(right) / int(rows) if rows else None
        for name, right, rows in zip(class_names, right_C, rows_C, strict=True)
    }


def _quotient(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else 0.0

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

from nodes.metrics import evaluate

NAMES = ("Bot", "Benign", "DoS", "Empty")
BENIGN = 1

classes_and_guesses = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=40)


def columns(pairs: list[tuple[int, int]]) -> tuple[Any, Any]:
    classes_B, guesses_B = np.array(pairs, dtype=np.int64).T
    return classes_B, guesses_B


def scores(true: Any, predicted: Any, average: str) -> tuple[float, float, float]:
    precision, recall, f1, _ = precision_recall_fscore_support(true, predicted, average=average, zero_division=0)
    return f1, precision, recall


@given(classes_and_guesses)
def test_binary_figures_are_those_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    classes_B, guesses_B = columns(pairs)
    labels_B, predicted_B = (classes_B != BENIGN).astype(int), guesses_B % 2

    figures = evaluate(predicted_B, labels_B, classes_B, NAMES, BENIGN, "binary")

    assert figures.accuracy == pytest.approx(accuracy_score(labels_B, predicted_B))
    assert (figures.f1, figures.precision, figures.recall) == pytest.approx(scores(labels_B, predicted_B, "binary"))
    tn, fp, _, _ = confusion_matrix(labels_B, predicted_B, labels=[0, 1]).ravel()
    assert figures.fallout == pytest.approx(fp / (fp + tn) if fp + tn else 0)


@given(classes_and_guesses)
def test_multiclass_figures_are_those_of_detection(pairs: list[tuple[int, int]]) -> None:
    classes_B, predicted_B = columns(pairs)

    figures = evaluate(predicted_B, classes_B, classes_B, NAMES, BENIGN, "multiclass")

    assert figures.accuracy == pytest.approx(accuracy_score(classes_B, predicted_B))
    detected = scores(classes_B != BENIGN, predicted_B != BENIGN, "binary")
    assert (figures.f1, figures.precision, figures.recall) == pytest.approx(detected)


@given(classes_and_guesses)
def test_without_a_benign_class_figures_are_macro_averages(pairs: list[tuple[int, int]]) -> None:
    classes_B, predicted_B = columns(pairs)

    figures = evaluate(predicted_B, classes_B, classes_B, NAMES, None, "multiclass")

    assert (figures.f1, figures.precision, figures.recall) == pytest.approx(scores(classes_B, predicted_B, "macro"))
    assert figures.fallout is None


@given(classes_and_guesses)
def test_recall_per_class_is_the_diagonal_of_the_confusion_matrix(pairs: list[tuple[int, int]]) -> None:
    classes_B, predicted_B = columns(pairs)

    recalls = evaluate(predicted_B, classes_B, classes_B, NAMES, BENIGN, "multiclass").recall_per_class

    matrix = confusion_matrix(classes_B, predicted_B, labels=range(4))
    for index, name in enumerate(NAMES):
        rows = matrix[index].sum()
        assert recalls[name] == (pytest.approx(matrix[index, index] / rows) if rows else None)


def test_binary_recall_per_class_counts_rows_called_attack_or_for_benign_benign() -> None:
    classes_B = np.array([0, 0, 1, 1, 1, 2])
    predicted_B = np.array([1, 0, 0, 0, 1, 1])

    recalls = evaluate(predicted_B, (classes_B != 1).astype(int), classes_B, NAMES, BENIGN, "binary").recall_per_class

    assert recalls == {"Bot": 0.5, "Benign": 2 / 3, "DoS": 1.0, "Empty": None}


def test_an_attack_taken_for_another_is_detected_but_not_recalled() -> None:
    figures = evaluate(np.array([2]), np.array([0]), np.array([0]), NAMES, BENIGN, "multiclass")

    assert (figures.accuracy, figures.recall, figures.recall_per_class["Bot"]) == (0.0, 1.0, 0.0)


def test_figures_are_ready_for_json() -> None:
    classes_B = np.array([0, 1])
    figures = evaluate(classes_B, classes_B, classes_B, NAMES, BENIGN, "multiclass").to_dict()

    assert json.loads(json.dumps(figures)) == figures
    assert list(figures) == ["accuracy", "f1", "precision", "recall", "fallout", "recall_per_class"]


@pytest.mark.parametrize(
    ("predicted", "labels", "classes"),
    [([], [], []), ([0], [0, 1], [0, 1]), ([0], [0], [0, 1]), ([2], [1], [1]), ([-1], [1], [1]), ([1], [1], [4])],
)
def test_refuses_what_does_not_fit(predicted: list[int], labels: list[int], classes: list[int]) -> None:
    predicted_B, labels_B, classes_B = (np.array(values, dtype=np.int64) for values in (predicted, labels, classes))
    with pytest.raises(ValueError, match=r"^expected"):
        evaluate(predicted_B, labels_B, classes_B, NAMES, BENIGN, "binary")

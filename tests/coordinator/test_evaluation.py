"""The coordinator's judgement: as the plain metrics say, whatever the number of threads."""

import numpy as np
import pytest
from fakes import shard

from coordinator.evaluation import PART_ROWS, Evaluator
from nodes.metrics import evaluate
from nodes.models.base import predictions
from nodes.models.mlp import MLPConfig

NAMES = ("ok", "DoS", "Bot")


@pytest.mark.parametrize("rows", [50, PART_ROWS, 3 * PART_ROWS + 17])
@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_nothing(rows: int, threads: int) -> None:
    test = shard(rows, 5)
    networks = [MLPConfig(hidden=(8,)).build(test.features_BF.shape[1], 2, "binary") for _ in range(threads)]
    model_D = networks[0].initial(np.random.default_rng(0))
    judged = Evaluator(networks, test, NAMES, 0, "binary")(1, model_D)
    predicted_B = predictions(networks[0].logits(model_D, test.features_BF), "sigmoid")
    assert judged == evaluate(predicted_B, test.labels_B, test.classes_B, NAMES, 0, "binary").to_dict()


def test_measures_see_the_figures_and_add_theirs() -> None:
    test = shard(60, 5)
    network = MLPConfig(hidden=(8,)).build(test.features_BF.shape[1], 2, "binary")
    model_D = network.initial(np.random.default_rng(0))
    judge = Evaluator([network], test, NAMES, 0, "binary", (lambda round, f: {"missed": 1 - f["recall"], "in": round},))
    row = judge(4, model_D)
    assert row["in"] == 4
    assert row["missed"] == 1 - row["recall"]


def test_a_network_that_fails_is_told_and_no_thread_stays() -> None:
    test = shard(2 * PART_ROWS, 5)
    networks = [MLPConfig(hidden=(8,)).build(test.features_BF.shape[1], 2, "binary") for _ in range(2)]
    with pytest.raises(ValueError, match="parameters"):
        Evaluator(networks, test, NAMES, 0, "binary")(1, np.zeros(3, np.float32))

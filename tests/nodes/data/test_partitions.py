"""Partitions: every row at most once, everybody some, the promised proportions, the same for the same seed."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from nodes.data.base import PARTITIONS, PartitionConfig
from nodes.data.deal import proportional, stratified_sample
from nodes.data.partitions.classes import Classes
from nodes.data.partitions.dirichlet import Dirichlet
from nodes.data.partitions.iid import Iid
from nodes.data.partitions.quantity import Quantity
from nodes.runtime.arrays import I64
from nodes.runtime.errors import ScenarioError
from nodes.runtime.seeds import generator

COMPLETE = [Iid(), Dirichlet(alpha=0.3), Dirichlet(alpha=50.0, min_rows=3), Quantity(alpha=1.0)]
ALL = [*COMPLETE, Classes(keep=1), Classes(drop=1), Classes(keep=2, keep_benign=False)]


def labels(seed: int, rows: int, num_classes: int) -> I64:
    """Imbalanced classes 0 … num_classes - 1, each at least once."""
    rng = np.random.default_rng(seed)
    drawn = np.minimum(rng.geometric(0.5, rows) - 1, num_classes - 1)
    return rng.permutation(np.concatenate([np.arange(num_classes), drawn]))


@pytest.mark.parametrize("partition", ALL, ids=repr)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), participants=st.integers(1, 12))
def test_every_partition(partition: PartitionConfig, seed: int, participants: int) -> None:
    classes_B = labels(seed, 300, 5)
    try:
        parts = partition.assign(classes_B, participants, generator(seed, "partition"))
    except ScenarioError:
        assume(False)
    rows = np.concatenate(parts)
    assert len(parts) == participants
    assert all(len(part) > 0 and (np.diff(part) > 0).all() and part.dtype == np.int64 for part in parts)
    assert len(np.unique(rows)) == len(rows)
    assert rows.min() >= 0
    assert rows.max() < len(classes_B)
    if partition in COMPLETE:
        assert len(rows) == len(classes_B)
    again = partition.assign(classes_B, participants, generator(seed, "partition"))
    assert all(np.array_equal(one, other) for one, other in zip(parts, again, strict=True))


def test_another_seed_deals_otherwise() -> None:
    classes_B = labels(0, 300, 5)
    for partition in ALL:
        one, other = (partition.assign(classes_B, 4, generator(seed, "partition")) for seed in (1, 2))
        assert any(not np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), rows=st.integers(10, 400), participants=st.integers(1, 10))
def test_iid_differs_by_one_row_in_all_and_in_every_class(seed: int, rows: int, participants: int) -> None:
    classes_B = labels(seed, rows, 4)
    parts = Iid().assign(classes_B, participants, generator(seed, "partition"))
    assert np.ptp([len(part) for part in parts]) <= 1
    assert np.ptp([np.bincount(classes_B[part], minlength=4) for part in parts], axis=0).max() <= 1


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), participants=st.integers(2, 8))
def test_quantity_keeps_the_class_mix(seed: int, participants: int) -> None:
    classes_B = labels(seed, 2000, 4)
    parts = Quantity(alpha=2.0).assign(classes_B, participants, generator(seed, "partition"))
    shares = np.bincount(classes_B, minlength=4) / len(classes_B)
    for part in parts:
        assert np.abs(np.bincount(classes_B[part], minlength=4) - shares * len(part)).max() <= 2


def test_quantity_skews_sizes_and_dirichlet_skews_classes() -> None:
    classes_B = labels(0, 5000, 4)
    sizes = [len(part) for part in Quantity(alpha=0.3).assign(classes_B, 10, generator(0, "partition"))]
    assert max(sizes) > 3 * np.mean(sizes)

    def skew(alpha: float) -> float:
        parts = Dirichlet(alpha=alpha).assign(classes_B, 5, generator(0, "partition"))
        shares = [np.bincount(classes_B[part], minlength=4) / len(part) for part in parts]
        return float(np.std(shares, axis=0).mean())

    assert skew(0.1) > 3 * skew(100.0)


def test_dirichlet_proportions_follow_the_definition() -> None:
    classes_B = np.zeros(100_000, np.int64)
    rng = generator(7, "partition")
    first = np.array([len(Dirichlet(alpha=2.0).assign(classes_B, 4, rng)[0]) / 1e5 for _ in range(400)])
    # p_i ~ Beta(alpha, (N - 1) alpha): mean 1/4, variance (1/4)(3/4)/(4*2 + 1).
    assert abs(first.mean() - 0.25) < 0.03
    assert abs(first.var() - 0.1875 / 9) < 0.006


def test_dirichlet_min_rows_is_kept_or_refused() -> None:
    classes_B = labels(3, 400, 4)
    parts = Dirichlet(alpha=0.5, min_rows=20).assign(classes_B, 6, generator(3, "partition"))
    assert min(map(len, parts)) >= 20
    with pytest.raises(ScenarioError, match=r"partition\.alpha: got 0\.001"):
        Dirichlet(alpha=0.001).assign(classes_B, 20, generator(0, "partition"))
    with pytest.raises(ScenarioError, match=r"partition\.min_rows: got 100, expected at most 40"):
        Dirichlet(min_rows=100).assign(classes_B, 10, generator(0, "partition"))
    with pytest.raises(ScenarioError, match=r"partition\.min_rows"):
        Quantity(min_rows=100).assign(classes_B, 10, generator(0, "partition"))


@pytest.mark.parametrize(("keys", "held"), [({"keep": 2}, 3), ({"drop": 1}, 4), ({"keep": 2, "keep_benign": False}, 2)])
def test_classes_are_kept_and_dropped(keys: dict[str, Any], held: int) -> None:
    classes_B = labels(1, 900, 5)
    parts = Classes(**keys).assign(classes_B, 10, generator(1, "partition"))
    counts = np.array([np.bincount(classes_B[part], minlength=5) for part in parts])
    assert ((counts > 0).sum(axis=1) <= held).all()
    # Ten participants have places for all classes, so every row is used, evenly among those who hold its class.
    assert counts.sum() == len(classes_B)
    for column in counts.T:
        assert np.ptp(column[column > 0]) <= 1
    assert keys.get("keep_benign", True) == bool((counts[:, 0] > 0).all())


def test_classes_need_exactly_one_key_and_enough_classes() -> None:
    for keys in ({}, {"keep": 1, "drop": 1}):
        with pytest.raises(ValidationError, match="either keep or drop"):
            Classes(**keys)
    with pytest.raises(ScenarioError, match=r"partition\.keep: got 9, expected at most 4"):
        Classes(keep=9).assign(labels(0, 50, 5), 3, generator(0, "partition"))
    with pytest.raises(ScenarioError, match=r"partition\.drop: got 5, expected at most 4"):
        Classes(drop=5, keep_benign=False).assign(labels(0, 50, 5), 3, generator(0, "partition"))


def test_an_empty_shard_names_the_key() -> None:
    with pytest.raises(ScenarioError, match=r"partition\.keep.*would get none"):
        Classes(keep=1, keep_benign=False).assign(np.array([0, 1, 0, 0]), 6, generator(0, "partition"))


@given(total=st.integers(0, 1000), weights=st.lists(st.floats(0, 100), min_size=1, max_size=9))
def test_proportional_is_within_one_row(total: int, weights: list[float]) -> None:
    weights_N = np.array(weights)
    assume(weights_N.sum() > 1e-6)
    counts_N = proportional(total, weights_N)
    assert counts_N.sum() == total
    assert np.abs(counts_N - total * weights_N / weights_N.sum()).max() < 1 + 1e-9


def test_proportional_refuses_weights_that_do_not_divide() -> None:
    for weights in ([0.0, 0.0], [np.nan, 1.0], [-1.0, 2.0]):
        with pytest.raises(ValueError, match="do not divide"):
            proportional(3, np.array(weights))


def test_stratified_sample_keeps_the_shares() -> None:
    classes_B = np.repeat([0, 1, 2], [800, 150, 50])
    rows = stratified_sample(classes_B, 100, generator(0, "data-rows"))
    assert np.bincount(classes_B[rows]).tolist() == [80, 15, 5]


def test_names() -> None:
    assert PARTITIONS.names() == ["classes", "dirichlet", "iid", "quantity"]

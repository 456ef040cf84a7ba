"""The embedded default: deterministic, imbalanced, consistent, and learnable class by class."""

import numpy as np
import pandas as pd
import pytest
from sklearn.tree import DecisionTreeClassifier

from nodes.data.netflow import NETFLOW_V2
from nodes.data.partitions.iid import Iid
from nodes.data.prepare import prepare
from nodes.data.profiles import CLASSES
from nodes.data.sources.synthetic_flows import SyntheticFlows

SEED = 1313


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return SyntheticFlows().load(SEED).frame


def test_same_seed_same_rows() -> None:
    one, again, other = (SyntheticFlows(rows=500).load(seed) for seed in (1, 1, 2))
    assert one.frame.equals(again.frame)
    assert np.array_equal(one.classes, again.classes)
    assert not one.frame.equals(other.frame)


def test_it_says_that_it_is_synthetic() -> None:
    data = prepare(SyntheticFlows(rows=500), Iid(), 2, SEED)
    assert data.synthetic
    assert data.source == f"synthetic-flows (generated, seed {SEED})"
    assert "the data is synthetic" in data.notes


@pytest.mark.parametrize("rows", [100, 20_000])
def test_imbalance(rows: int) -> None:
    table = SyntheticFlows(rows=rows).load(SEED)
    counts = pd.Series(table.classes).value_counts()
    assert set(counts.index) == set(CLASSES)
    assert counts.sum() == rows
    assert counts["Benign"] / rows == pytest.approx(CLASSES["Benign"].share, abs=0.07)
    assert counts["Benign"] > counts["DDoS"] >= counts["DoS"] >= counts["Bot"] >= counts["Injection"] >= 1


def test_shares_add_up() -> None:
    assert sum(kind.share for kind in CLASSES.values()) == pytest.approx(1.0)
    for kind in CLASSES.values():
        assert sum(kind.profiles.values()) == pytest.approx(1.0)


def test_columns_and_ranges_are_those_of_netflow(frame: pd.DataFrame) -> None:
    assert list(frame.columns) == [feature.name for feature in NETFLOW_V2]
    for feature in NETFLOW_V2:
        values = frame[feature.name]
        assert values.dtype == (np.int64 if values.name not in _REAL else np.float64), feature.name
        assert values.between(feature.low, feature.high).all(), feature.name


_REAL = ("L7_PROTO", "SRC_TO_DST_SECOND_BYTES", "DST_TO_SRC_SECOND_BYTES")


def test_columns_agree_with_each_other(frame: pd.DataFrame) -> None:
    assert (frame["IN_BYTES"] >= 28 * frame["IN_PKTS"]).all()
    assert ((frame["OUT_PKTS"] == 0) == (frame["OUT_BYTES"] == 0)).all()
    assert (frame["SHORTEST_FLOW_PKT"] <= frame["LONGEST_FLOW_PKT"]).all()
    histogram = frame.filter(regex=r"^NUM_PKTS_").sum(axis=1)
    assert (histogram == frame["IN_PKTS"] + frame["OUT_PKTS"]).all()
    assert (frame["TCP_FLAGS"] == (frame["CLIENT_TCP_FLAGS"] | frame["SERVER_TCP_FLAGS"])).all()
    assert (frame.loc[frame["PROTOCOL"] == 17, "TCP_FLAGS"] == 0).all()
    assert (frame["RETRANSMITTED_IN_PKTS"] <= frame["IN_PKTS"]).all()
    assert frame["IN_BYTES"].skew() > 5


def test_some_attacks_are_easy_and_infiltration_hides() -> None:
    data = prepare(SyntheticFlows(rows=20_000), Iid(), 1, SEED)
    model = DecisionTreeClassifier(min_samples_leaf=5, random_state=0)
    model.fit(data.shards[0].features_BF, data.shards[0].labels_B)
    found_B = model.predict(data.test.features_BF)
    recall = {
        name: float((found_B == data.test.labels_B)[data.test.classes_B == index].mean())
        for index, name in enumerate(data.class_names)
    }
    assert recall["Benign"] > 0.98
    assert min(recall["DDoS"], recall["DoS"], recall["Bot"]) > 0.93
    assert recall["Brute Force"] > 0.7
    assert 0.1 <= recall["Infiltration"] <= 0.45

"""Every loader on the published files: rows, features, class counts."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nodes.data.base import DATASETS, FlowTable
from nodes.data.netflow import NETFLOW_V2
from nodes.data.partitions.iid import Iid
from nodes.data.prepare import prepare

Find = Callable[[str], str]

FILES = [
    (
        "netflow-v2",
        "netflow_v2/NF-CSE-CIC-IDS2018-v2_reduced.parquet",
        39,
        {"Benign": 154_649, "DDoS": 13_828, "DoS": 4_855, "Bot": 1_510, "Brute Force": 1_202, "Infilteration": 1_087}
        | {"injection": 8},
    ),
    (
        "netflow-v2",
        "netflow_v2/NF-BoT-IoT-v2_reduced.parquet",
        39,
        {"DoS": 167_004, "DDoS": 84_552, "Reconnaissance": 25_907, "Benign": 1_285, "Theft": 33},
    ),
    ("kdd99", "kdd99/kddcup_data_10_percent.parquet", 41, {"smurf": 280_790, "normal": 97_278, "spy": 2}),
    ("kdd99", "kdd99/corrected_test.parquet", 41, {"smurf": 164_091, "normal": 60_593, "imap": 1}),
    ("nsl-kdd", "nsl_kdd/KDDTrain+.parquet", 41, {"normal": 67_343, "neptune": 41_214, "spy": 2}),
    ("nsl-kdd", "nsl_kdd/KDDTest+.parquet", 41, {"normal": 9_711, "mscan": 996, "imap": 1}),
    ("nsl-kdd", "nsl_kdd/KDDTest-21.parquet", 41, {"normal": 2_152, "mscan": 996}),
    (
        "unsw-nb15",
        "unsw_nb15/UNSW_NB15_training-set.parquet",
        42,
        {"Normal": 37_000, "Generic": 18_871, "Exploits": 11_132, "Fuzzers": 6_062, "DoS": 4_089, "Worms": 44}
        | {"Reconnaissance": 3_496, "Analysis": 677, "Backdoor": 583, "Shellcode": 378},
    ),
    (
        "cicids2017",
        "cicids2017/cicids2017_improved_sample.parquet",
        82,
        {
            "BENIGN": 7_492,
            "DoS Hulk": 7_415,
            "Infiltration - Portscan": 7_329,
            "Web Attack - XSS": 18,
            "Heartbleed": 11,
        },
    ),
    ("kitsune", "kitsune_mirai/mirai_sample.parquet", 115, {"Malicious": 1_905, "Benign": 1_898}),
    ("mnist", "mnist/mnist_test.parquet", 784, {"1": 1_135, "2": 1_032, "5": 892}),
]


def load(find: Find, dataset: str, name: str, **keys: Any) -> FlowTable:
    return DATASETS.get(dataset)(name=dataset, path=find(name), **keys).load(0)


@pytest.mark.parametrize(("dataset", "name", "width", "counts"), FILES, ids=[name for _, name, _, _ in FILES])
def test_counts_are_the_published_ones(
    shared_data: Find, dataset: str, name: str, width: int, counts: dict[str, int]
) -> None:
    table = load(shared_data, dataset, name)
    found = pd.Series(table.classes).value_counts()
    assert {cls: found[cls] for cls in counts} == counts
    assert list(table.frame.columns) == [feature.name for feature in table.features]
    assert len(table.features) == width
    assert len(table.frame) == len(table.classes)
    assert table.benign is None or table.benign in counts
    for feature in table.features:
        values = table.frame[feature.name].to_numpy()
        assert values.dtype == object if feature.kind == "categorical" else np.isfinite(values).all()


def test_netflow_keeps_the_39_features_and_values_beyond_float32(shared_data: Find) -> None:
    table = load(shared_data, "netflow-v2", FILES[0][1])
    assert table.features == NETFLOW_V2
    assert not {"IPV4_SRC_ADDR", "L4_DST_PORT", "Label", "Attack", "Dataset"} & set(table.frame.columns)
    assert table.frame["SRC_TO_DST_SECOND_BYTES"].max() > 5e144
    low = np.array([feature.low for feature in table.features])
    high = np.array([feature.high for feature in table.features])
    assert (table.frame.min().to_numpy() >= low).all()
    assert (table.frame.max().to_numpy() <= high).all()


@pytest.mark.parametrize("fit", ["train", "paper", "participant"])
@pytest.mark.parametrize("method", ["min-max", "standard"])
def test_netflow_stays_finite_whatever_the_scaling(shared_data: Find, fit: str, method: str) -> None:
    config = DATASETS.get("netflow-v2").model_validate(
        {"path": shared_data(FILES[0][1]), "rows": 40_000, "scaling": {"fit": fit, "method": method}}
    )
    data = prepare(config, Iid(), 4, seed=1313)
    for shard in (*data.shards, *data.local_tests, data.test):
        assert np.isfinite(shard.features_BF).all()
    assert sum(map(len, data.shards)) == 32_000


def test_netflow_shape_of_the_study(shared_data: Find) -> None:
    config = DATASETS.get("netflow-v2").model_validate({"path": shared_data(FILES[0][1]), "scaling": {"fit": "paper"}})
    data = prepare(config, Iid(), 10, seed=1313)
    assert [len(shard) for shard in data.shards] == [14_172] + [14_171] * 9
    assert len(data.test) == sum(map(len, data.local_tests)) == 35_428
    assert data.test.features_BF.min() >= 0
    assert data.test.features_BF.max() <= 1
    assert data.class_names[0] == "Benign"


@pytest.mark.parametrize(
    ("dataset", "train", "test", "unseen"),
    [
        ("kdd99", "kdd99/kddcup_data_10_percent.parquet", "kdd99/corrected_test.parquet", "mscan"),
        ("nsl-kdd", "nsl_kdd/KDDTrain+.parquet", "nsl_kdd/KDDTest+.parquet", "mscan"),
    ],
)
def test_the_provider_s_test_part_is_the_test(
    shared_data: Find, dataset: str, train: str, test: str, unseen: str
) -> None:
    config = DATASETS.get(dataset).model_validate(
        {"path": shared_data(train), "test_path": shared_data(test), "rows": 5_000, "task": "multiclass"}
    )
    data = prepare(config, Iid(), 3, seed=1)
    assert sum(map(len, data.shards)) == 5_000
    index = data.class_names.index(unseen)
    assert (data.test.classes_B == index).any()
    assert not any((shard.classes_B == index).any() for shard in data.shards)
    assert len(data.test) == sum(map(len, data.local_tests)) > 20_000


def test_unsw_dash_is_a_service(shared_data: Find) -> None:
    table = load(shared_data, "unsw-nb15", "unsw_nb15/UNSW_NB15_training-set.parquet")
    assert "-" in set(table.frame["service"])


def test_mnist_pixels_are_between_0_and_1(shared_data: Find) -> None:
    config = DATASETS.get("mnist")(name="mnist", path=shared_data("mnist/mnist_test.parquet"))
    data = prepare(config, Iid(), 2, seed=0)
    assert data.benign is None
    assert data.test.features_BF.max() == 1.0
    assert len(data.features) == 784
    assert np.array_equal(data.test.labels_B, data.test.classes_B)

"""Descriptions: the right source is found, and what is said is what is there."""

import json
from collections.abc import Callable

import pytest

from nodes.data.describe import describe
from nodes.data.sources.synthetic_flows import SyntheticFlows
from nodes.runtime.errors import DataError

Find = Callable[[str], str]


@pytest.mark.parametrize(
    ("name", "dataset", "rows", "dropped"),
    [
        ("netflow_v2/NF-CSE-CIC-IDS2018-v2_reduced.parquet", "netflow-v2", 177_139, "L4_DST_PORT"),
        ("kdd99/corrected_test.parquet", "kdd99", 311_029, None),
        ("nsl_kdd/KDDTest+.parquet", "nsl-kdd", 22_544, "difficulty_level"),
        ("unsw_nb15/UNSW_NB15_training-set.parquet", "unsw-nb15", 82_332, "id"),
        ("cicids2017/cicids2017_improved_sample.parquet", "cicids2017", 56_277, "Flow ID"),
        ("kitsune_mirai/mirai_sample.parquet", "kitsune", 3_803, "sample"),
        ("mnist/mnist_test.parquet", "mnist", 10_000, None),
    ],
)
def test_real_files_are_recognised(shared_data: Find, name: str, dataset: str, rows: int, dropped: str | None) -> None:
    description = describe(shared_data(name))
    assert (description.dataset, description.rows) == (dataset, rows)
    assert sum(cls.rows for cls in description.classes) == rows
    assert sum(cls.share for cls in description.classes) == pytest.approx(1.0)
    assert dropped is None or dropped in description.dropped
    assert json.loads(json.dumps(description.to_dict(), allow_nan=False))["rows"] == rows


def test_netflow_quirks(shared_data: Find) -> None:
    description = describe(shared_data("netflow_v2/NF-CSE-CIC-IDS2018-v2_reduced.parquet"))
    assert "constant columns: FTP_COMMAND_RET_CODE" in description.quirks
    assert any(quirk.startswith("SRC_TO_DST_SECOND_BYTES reaches 5.29e+144") for quirk in description.quirks)
    assert description.classes[0].name == "Benign"
    assert description.benign == "Benign"
    ttl = next(feature for feature in description.features if feature.name == "MIN_TTL")
    assert (ttl.kind, ttl.schema_low, ttl.schema_high, ttl.distinct) == ("discrete", 0.0, 255.0, 100)


def test_a_plain_table(table: str) -> None:
    description = describe(table)
    assert (description.dataset, description.benign) == ("table", None)
    assert [feature.kind for feature in description.features] == ["continuous", "continuous", "categorical"]
    assert [(cls.name, cls.rows) for cls in description.classes] == [("ok", 40), ("scan", 15), ("worm", 5)]


def test_cells_that_are_not_finite_are_counted(write: Callable[..., str]) -> None:
    description = describe(write("bytes,flag,Class\n1,0,Normal\ninf,0,scan\n,0,scan\n1,0,Normal\n"))
    (size, flag) = description.features
    assert (size.missing, size.infinite, size.low, size.high) == (1, 1, 1.0, 1.0)
    assert flag.distinct == 1
    assert description.benign == "Normal"
    assert description.quirks == (
        "constant columns: flag",
        "bytes has 1 missing and 1 infinite cells",
        "1 rows repeat another in all features and the class",
    )


def test_synthetic_flows() -> None:
    description = describe(SyntheticFlows(rows=300), seed=4)
    assert description.synthetic
    assert description.source == "synthetic-flows (generated, seed 4)"


def test_no_label_column(write: Callable[..., str]) -> None:
    with pytest.raises(DataError, match="label column"):
        describe(write("a,b\n1,2\n"))


def test_missing_file() -> None:
    with pytest.raises(DataError, match="nowhere"):
        describe("nowhere.csv")

"""Bad files and bad keys: each is refused in one line that names where, the value, and what was expected."""

import gzip
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from nodes.data.base import DATASETS, FlowTable
from nodes.data.partitions.iid import Iid
from nodes.data.prepare import prepare
from nodes.data.sources.cicids2017 import Cicids2017
from nodes.data.sources.kdd99 import Kdd99
from nodes.data.sources.kitsune import Kitsune
from nodes.data.sources.mnist import Mnist
from nodes.data.sources.nsl_kdd import NslKdd
from nodes.data.sources.synthetic_flows import SyntheticFlows
from nodes.data.sources.table import Table
from nodes.runtime.errors import DataError, InputError, ScenarioError

Write = Callable[..., str]

GOOD = "bytes,service,label\n1,dns,ok\n2,http,scan\n"


def load(path: str, **keys: Any) -> FlowTable:
    return Table(path=path, **keys).load(0)


def message(error: pytest.ExceptionInfo[InputError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("dataset", [name for name in DATASETS.names() if name not in ("synthetic-flows", "table")])
def test_a_missing_file_says_what_to_download_and_which_key_to_set(dataset: str) -> None:
    config = DATASETS.get(dataset)(name=dataset, path="nowhere.csv")
    with pytest.raises(DataError) as error:
        config.load(0)
    assert "data.path: got 'nowhere.csv'" in message(error)
    assert "download" in message(error)
    assert "page" in message(error)
    assert "set data.path" in message(error)


def test_a_missing_test_file_names_its_own_key(write: Write) -> None:
    row = ",".join(["0", "tcp", "http", "SF", *["1"] * 37])
    path = write(f"{row},normal,20\n{row},back,21\n")
    with pytest.raises(DataError, match=r"^data\.test_path: got 'nowhere\.txt'"):
        NslKdd(path=path, test_path="nowhere.txt").load(0)


def test_zip_archive(tmp_path: Path) -> None:
    path = tmp_path / "flows.csv"
    path.write_bytes(b"PK\x03\x04rest")
    with pytest.raises(DataError, match="a zip archive"):
        load(str(path))


@pytest.mark.parametrize("dataset", ["netflow-v2", "nsl-kdd", "unsw-nb15", "cicids2017", "kitsune", "mnist", "table"])
def test_no_path_is_refused(dataset: str) -> None:
    with pytest.raises(DataError, match=r"^data\.path: got None"):
        DATASETS.get(dataset)(name=dataset).load(0)


def test_empty_file(write: Write) -> None:
    with pytest.raises(DataError, match="an empty file"):
        load(write(""))


def test_only_a_header(write: Write) -> None:
    with pytest.raises(DataError, match="no rows"):
        load(write("bytes,label\n"))


def test_truncated_gzip(tmp_path: Path) -> None:
    path = tmp_path / "flows.csv.gz"
    lines = "".join(f"{number},x{number * 7919 % 1000},ok\n" for number in range(2000))
    path.write_bytes(gzip.compress(b"bytes,service,label\n" + lines.encode())[:-300])
    with pytest.raises(DataError, match="truncated or corrupt"):
        load(str(path))


def test_corrupt_gzip(tmp_path: Path) -> None:
    path = tmp_path / "flows.csv.gz"
    path.write_bytes(b"\x1f\x8b" + b"\x07" * 50)
    with pytest.raises(DataError, match="truncated or corrupt"):
        load(str(path))


def test_truncated_parquet(tmp_path: Path) -> None:
    path = tmp_path / "flows.parquet"
    pd.DataFrame({"bytes": range(500), "label": ["ok", "scan"] * 250}).to_parquet(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match="truncated or corrupt"):
        load(str(path))


def test_parquet_damaged_inside(tmp_path: Path) -> None:
    path = tmp_path / "flows.parquet"
    pd.DataFrame({"bytes": np.random.default_rng(0).random(5000), "label": ["ok", "scan"] * 2500}).to_parquet(path)
    content = bytearray(path.read_bytes())
    content[4:60] = b"\xff" * 56
    path.write_bytes(bytes(content))
    with pytest.raises(DataError):
        load(str(path))


def test_not_parquet(write: Write) -> None:
    with pytest.raises(DataError, match="PAR1"):
        load(write(GOOD, "flows.parquet"))


def test_no_label_column_gives_the_nearest_name(write: Write) -> None:
    with pytest.raises(DataError, match=r"label column: got 'lable', expected 'label'"):
        load(write(GOOD), label="lable")


def test_label_only_file(write: Write) -> None:
    with pytest.raises(DataError, match="at least one feature column"):
        load(write("label\nok\nscan\n"))


def test_single_class(write: Write) -> None:
    with pytest.raises(DataError, match=r"got 'ok', expected at least two classes"):
        load(write("bytes,label\n1,ok\n2,ok\n"))


def test_non_numeric_cell_names_row_column_and_value(write: Write) -> None:
    path = write("bytes,label\n1,ok\n2,scan\ntwelve,ok\n4,ok\n")
    with pytest.raises(DataError) as error:
        load(path)
    assert message(error) == f"{path}: row 3, column 'bytes': got 'twelve', expected a number"


def test_non_numeric_cell_of_a_known_feature(write: Write, shared_data: Callable[[str], str]) -> None:
    frame = pd.read_parquet(shared_data("nsl_kdd/KDDTest+.parquet")).head(50).astype({"hot": object})
    frame.loc[7, "hot"] = "cold"
    with pytest.raises(DataError, match=r"row 8, column 'hot': got 'cold', expected a number"):
        NslKdd(path=write(frame.to_csv(index=False))).load(0)


def test_missing_feature_column(write: Write) -> None:
    with pytest.raises(DataError, match="column: got 'duration'"):
        NslKdd(path=write("bytes,label,difficulty_level\n1,normal,2\n")).load(0)


def test_row_without_class(write: Write) -> None:
    with pytest.raises(DataError, match=r"row 2, column 'label': got '', expected a class name"):
        load(write("bytes,label\n1,ok\n2,\n3,scan\n"))


@pytest.mark.parametrize("rows", ["1,dns,ok\n2,http,scan,9\n", "1,dns,ok,9\n2,http,scan,9\n"])
def test_ragged_rows(write: Write, rows: str) -> None:
    with pytest.raises(DataError, match="as many cells"):
        load(write("bytes,service,label\n" + rows))


def test_too_many_categories(write: Write) -> None:
    rows = "".join(f"10.0.{number // 256}.{number % 256},{'ok' if number % 2 else 'scan'}\n" for number in range(600))
    with pytest.raises(DataError, match=r"600 categories.*data\.drop"):
        load(write("address,label\n" + rows))


@pytest.mark.parametrize("name", ["servise", "label"])
def test_dropping_what_is_no_feature(write: Write, name: str) -> None:
    with pytest.raises(ScenarioError, match=rf"data\.drop: got '{name}', expected .*service"):
        load(write(GOOD), drop=[name])


@pytest.mark.parametrize(
    ("cells", "text"),
    [(pd.to_datetime(["2017-07-03", "2017-07-04"]), "times"), ([[1, 2], [3]], "lists or records")],
)
def test_parquet_columns_that_are_no_features(tmp_path: Path, cells: Any, text: str) -> None:
    path = str(tmp_path / "flows.parquet")
    pd.DataFrame({"extra": cells, "label": ["ok", "scan"]}).to_parquet(path)
    with pytest.raises(DataError, match=f"column 'extra'.*{text}"):
        load(path)


def test_a_saved_index_is_no_feature(tmp_path: Path) -> None:
    path = str(tmp_path / "flows.parquet")
    pd.DataFrame({"bytes": [1, 2], "label": ["ok", "scan"]}, index=[7, 9]).to_parquet(path)
    assert list(load(path).frame.columns) == ["bytes"]


@pytest.mark.parametrize("cell", ["", "NaN", "inf", "-Infinity"])
def test_non_finite_policies(write: Write, cell: str) -> None:
    path = write(f"bytes,label\n1,ok\n{cell},scan\n3,scan\n4,ok\n")
    with pytest.raises(DataError, match="row 2, column 'bytes'"):
        load(path)
    dropped = load(path, non_finite="drop")
    assert dropped.frame["bytes"].tolist() == [1, 3, 4]
    assert dropped.notes == ("1 rows with a missing or infinite number dropped",)
    assert load(path, non_finite="zero").frame["bytes"].tolist() == [1, 0, 3, 4]


def test_original_cicids2017_quirks(tmp_path: Path) -> None:
    header = " Destination Port, Flow Duration,Flow Bytes/s, Flow IAT Mean, Label\n"
    rows = "80,5,10.5,1.5,BENIGN\n80,0,Infinity,0,BENIGN\n22,7,NaN,0,BENIGN\n22,7,1,0,Web Attack \x96 XSS\n"
    path = tmp_path / "Thursday.csv"
    path.write_bytes((header + rows).encode("latin-1"))
    table = Cicids2017(path=str(path)).load(0)
    assert list(table.frame.columns) == ["Flow Duration", "Flow Bytes/s", "Flow IAT Mean"]
    assert table.classes.tolist() == ["BENIGN", "Web Attack - XSS"]
    assert "2 rows" in table.notes[0]
    assert Cicids2017.recognises(tuple(name.strip() for name in header.split(",")), path.name)


def test_kdd99_without_path_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    row = [0, b"tcp", b"http", b"SF", *[1] * 37]
    fetched = pd.DataFrame([row, row, row], dtype=object)
    labels = pd.Series([b"normal.", b"back.", b"normal."], dtype=object)
    bunch = SimpleNamespace(data=fetched, target=labels)
    monkeypatch.setattr("sklearn.datasets.fetch_kddcup99", lambda **_: bunch)
    table = Kdd99().load(0)
    assert table.classes.tolist() == ["normal", "back", "normal"]
    assert table.frame["service"].tolist() == ["http"] * 3
    assert table.frame["src_bytes"].dtype == np.int64

    def offline(**_: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("sklearn.datasets.fetch_kddcup99", offline)
    with pytest.raises(DataError, match=r"UCI KDD Archive.*no route to host"):
        Kdd99().load(0)


def test_headerless_kdd(write: Write) -> None:
    row = ",".join(["0", "tcp", "http", "SF", *["1"] * 37])
    table = DATASETS.get("kdd99")(name="kdd99", path=write(f"{row},normal.\n{row},back.\n", "kddcup.data")).load(0)
    assert table.classes.tolist() == ["normal", "back"]
    table = NslKdd(path=write(f"{row},normal,20\n{row},back,21\n", "KDDTrain+.txt")).load(0)
    assert len(table.frame) == 2
    assert len(table.features) == 41


def test_kitsune_with_separate_labels(write: Write) -> None:
    rows = "".join(",".join(str(value) for value in np.arange(115) + first + 0.5) + "\n" for first in range(3))
    path = write(rows, "Mirai_dataset.csv")
    labels = write(',"x"\n1,0\n2,0\n3,1\n', "Mirai_labels.csv")
    table = Kitsune(path=path, labels_path=labels).load(0)
    assert table.classes.tolist() == ["Benign", "Benign", "Malicious"]
    assert table.frame.iloc[2, 114] == 116.5
    assert Kitsune(path=path, labels_path=write("0\n0\n1\n", "bare.csv")).load(0).classes[2] == "Malicious"
    with pytest.raises(DataError, match="2 labels"):
        Kitsune(path=path, labels_path=write(',"x"\n1,0\n2,1\n', "short.csv")).load(0)


def _idx(tmp_path: Path, count: int, cut: int = 0) -> str:
    sizes = count.to_bytes(4, "big") + (28).to_bytes(4, "big") * 2
    images = b"\0\0\x08\x03" + sizes + bytes(range(256)) * (count * 784 // 256)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(images[: len(images) - cut]))
    labels = b"\0\0\x08\x01" + count.to_bytes(4, "big") + bytes(number % 10 for number in range(count))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    return str(path)


def test_mnist_idx(tmp_path: Path) -> None:
    table = Mnist(path=_idx(tmp_path, 16)).load(0)
    assert table.frame.shape == (16, 784)
    assert table.frame.iloc[0, 255] == 1.0
    assert table.classes[:3].tolist() == ["0", "1", "2"]


def test_mnist_idx_cut_short(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="complete items"):
        Mnist(path=_idx(tmp_path, 16, cut=10)).load(0)


def test_mnist_has_no_benign_class(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"data\.task: got 'binary'"):
        Mnist(path=_idx(tmp_path, 16), task="binary").load(0)


@pytest.mark.parametrize(
    ("keys", "where"),
    [
        ({"benign": None}, "data.task"),
        ({"benign": "okay"}, "data.benign"),
        ({"rows": 61}, "data.rows"),
        ({"rows": 1}, "data.test_share"),
    ],
)
def test_keys_that_do_not_fit_the_data(table: str, keys: dict[str, Any], where: str) -> None:
    with pytest.raises(ScenarioError) as error:
        prepare(Table.model_validate({"path": table, "benign": "ok"} | keys), Iid(), 3, seed=0)
    assert message(error).startswith(where)


@pytest.mark.parametrize("participants", [0, 49])
def test_more_participants_than_rows(table: str, participants: int) -> None:
    with pytest.raises(ScenarioError, match=r"participants\.count"):
        prepare(Table(path=table, benign="ok"), Iid(), participants, seed=0)


def test_unscaled_values_beyond_float32(write: Write) -> None:
    config = Table.model_validate(
        {"path": write("rate,label\n" + "1e300,ok\n2,scan\n" * 10), "benign": "ok", "scaling": {"method": "none"}}
    )
    with pytest.raises(DataError, match=r"column 'rate': got 1e\+300"):
        prepare(config, Iid(), 2, seed=0)


def test_synthetic_flows_take_no_path() -> None:
    with pytest.raises(ValidationError, match="leave path out"):
        SyntheticFlows(path="flows.csv")

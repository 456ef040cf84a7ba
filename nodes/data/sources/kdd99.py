"""KDD Cup 99 (DARPA 1998 traffic; Stolfo, Fan, Lee, Prodromidis, Chan, DISCEX 2000).

Quirks: no header line; labels end with a dot; 70 % of the rows of the 10 % file are duplicates; num_outbound_cmds is
constant; the official test file has attacks that training lacks, and two rows with the service 'icmp'.
"""

from typing import Literal

import pandas as pd

from nodes.data.base import DATASETS, FlowTable
from nodes.data.kdd import COLUMNS, KDD, without_dot
from nodes.data.tables import PairSource, TableSchema, flow_table, label_classes
from nodes.runtime.errors import DataError

_FETCHED = "kddcup.data_10_percent, fetched by scikit-learn"
_SCHEMA = TableSchema(
    title="KDD Cup 99",
    download="a KDD Cup 99 file: download kddcup.data_10_percent.gz from the UCI KDD Archive's page 'KDD Cup 1999 "
    "Data' and set data.path to it (corrected.gz: data.test_path), or leave data.path out for scikit-learn to fetch it",
    label="label",
    benign="normal",
    features=KDD,
    header=(*COLUMNS, "label"),
    clean=without_dot,
)


@DATASETS.register
class Kdd99(PairSource):
    """KDD Cup 99: 41 features, 22 attacks; scikit-learn fetches the 10 % file if there is no path."""

    name: Literal["kdd99"] = "kdd99"

    def schema_of(self) -> TableSchema:
        return _SCHEMA

    def peek(self, seed: int) -> FlowTable:
        return super().peek(seed) if self.path is not None else _fetch()

    @classmethod
    def recognises(cls, columns: tuple[str, ...], filename: str) -> bool:  # noqa: ARG003
        if set(COLUMNS) <= set(columns):
            return "difficulty_level" not in columns
        # Without a header line the first row stands in for the names.
        return len(columns) == len(COLUMNS) + 1 and columns[-1].endswith(".")


def _fetch() -> FlowTable:
    from sklearn.datasets import fetch_kddcup99  # slow to import, and every scenario imports every source

    try:
        fetched = fetch_kddcup99(percent10=True, as_frame=True)
    except OSError as error:
        raise DataError("data.path", None, f"{_SCHEMA.download} (fetching failed: {error})") from error
    frame: pd.DataFrame = fetched.data
    # scikit-learn calls the columns by their kddcup.names, but stores every cell as an object.
    frame = frame.set_axis(list(COLUMNS), axis="columns").infer_objects()
    return flow_table(frame, label_classes(fetched.target, _SCHEMA, _FETCHED), KDD, _SCHEMA, _FETCHED)

"""NSL-KDD: KDD Cup 99 without duplicates (Tavallaee, Bagheri, Lu, Ghorbani, CISDA 2009).

Quirks: no header line; KDDTest+ has 17 attacks that KDDTrain+ lacks; KDDTest-21 is a part of KDDTest+.
"""

from typing import Literal

from nodes.data.base import DATASETS
from nodes.data.kdd import COLUMNS, KDD, without_dot
from nodes.data.tables import PairSource, TableSchema

_SCHEMA = TableSchema(
    title="NSL-KDD",
    download="an NSL-KDD file: download KDDTrain+.txt from the Canadian Institute for Cybersecurity's page 'NSL-KDD "
    "dataset' and set data.path to it (KDDTest+.txt: data.test_path)",
    label="label",
    benign="normal",
    features=KDD,
    dropped={"difficulty_level": "how many of 21 learners had the row right: made from the answer"},
    header=(*COLUMNS, "label", "difficulty_level"),
    clean=without_dot,
)


@DATASETS.register
class NslKdd(PairSource):
    """NSL-KDD: KDD Cup 99 without its duplicates; 41 features."""

    name: Literal["nsl-kdd"] = "nsl-kdd"

    def schema_of(self) -> TableSchema:
        return _SCHEMA

    @classmethod
    def recognises(cls, columns: tuple[str, ...], filename: str) -> bool:
        if set(COLUMNS) <= set(columns):
            return "difficulty_level" in columns
        return len(columns) == len(_SCHEMA.header) and filename.lower().startswith("kdd")

"""Any table of flows with a column of class names."""

from typing import Annotated, Literal

from pydantic import Field

from nodes.data.base import DATASETS, FlowTable
from nodes.data.reader import open_table
from nodes.data.tables import FileSource, TableSchema
from nodes.runtime.components import nearest
from nodes.runtime.errors import ScenarioError


@DATASETS.register
class Table(FileSource):
    """Any csv or parquet with a label column.

    A column of text is a categorical, unless at least half of its cells are numbers: then the first cell that is not
    one is an error.
    """

    name: Literal["table"] = "table"
    label: str = "label"
    """The column of class names."""
    benign: str | None = None
    """The class that is no attack; needed for the task `binary`."""
    drop: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Columns that are no features: ids, addresses, ports, times, further labels."""

    def schema_of(self) -> TableSchema:
        return TableSchema(
            title="table",
            download="an existing csv, csv.gz or parquet file with a label column",
            label=self.label,
            benign=self.benign,
            dropped=dict.fromkeys(self.drop, "asked for"),
        )

    def peek(self, seed: int) -> FlowTable:
        columns = [] if self.path is None else [name for name in open_table(self.path).columns if name != self.label]
        for name in self.drop if columns else ():
            if name not in columns:
                raise ScenarioError("data.drop", name, nearest(name, columns))
        return super().peek(seed)

"""Generated flows: the default, so that everything runs without a download.

They have the 39 features and the class imbalance of NetFlow v2 records of CSE-CIC-IDS2018, not its rows: figures on
them say nothing about a real network.
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from nodes.data.base import DATASETS, DataConfig, FlowTable
from nodes.data.netflow import NETFLOW_V2
from nodes.data.synthesis import flows
from nodes.runtime.seeds import generator


@DATASETS.register
class SyntheticFlows(DataConfig):
    """Generated flows with NetFlow v2's features; no download. Results on them are about the testbed, not a network."""

    name: Literal["synthetic-flows"] = "synthetic-flows"
    rows: Annotated[int, Field(ge=100)] | None = 20_000
    """How many flows are generated; null for 20,000."""

    @field_validator("path")
    @classmethod
    def _no_path(cls, path: str | None) -> str | None:
        if path is not None:
            raise ValueError("synthetic-flows generates its rows: leave path out, or name the dataset of the file")
        return path

    def load(self, seed: int) -> FlowTable:
        frame, classes = flows(self.rows or 20_000, generator(seed, "synthetic-flows"))
        source = f"synthetic-flows (generated, seed {seed})"
        return FlowTable(frame, classes, NETFLOW_V2, "Benign", source, synthetic=True)

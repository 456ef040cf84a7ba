"""NetFlow v2: NF-UNSW-NB15, NF-ToN-IoT, NF-BoT-IoT, NF-CSE-CIC-IDS2018 and their union NF-UQ-NIDS.

Source: Sarhan, Layeghy, Portmann, "Towards a standard feature set for network intrusion detection system datasets",
Mobile Networks and Applications 2022. Quirks: FLOW_DURATION_MILLISECONDS saturates near 4,294,967; a few cells of the
*_SECOND_BYTES columns reach 1e144, beyond float32; `Infilteration` is the provider's spelling.
"""

from typing import Literal

from nodes.data.base import DATASETS
from nodes.data.netflow import NETFLOW_V2
from nodes.data.tables import FileSource, TableSchema

_SCHEMA = TableSchema(
    title="NetFlow v2",
    download="an NF-*-v2 file: download one (csv or parquet), such as NF-CSE-CIC-IDS2018-v2, from the University of "
    "Queensland's page 'Machine Learning-Based NIDS Datasets' and set data.path to it",
    label="Attack",
    benign="Benign",
    features=NETFLOW_V2,
    dropped={
        "IPV4_SRC_ADDR": "address: names the attacker's machine",
        "IPV4_DST_ADDR": "address: names the victim's machine",
        "L4_SRC_PORT": "port: follows the attack tool's habits",
        "L4_DST_PORT": "port: names the attacked service",
        "Label": "the answer: 1 for every attack",
        "Dataset": "where the row comes from",
    },
)


@DATASETS.register
class NetflowV2(FileSource):
    """NetFlow v2 flows (any NF-*-v2 file): 39 numeric features."""

    name: Literal["netflow-v2"] = "netflow-v2"

    def schema_of(self) -> TableSchema:
        return _SCHEMA

    @classmethod
    def recognises(cls, columns: tuple[str, ...], filename: str) -> bool:  # noqa: ARG003
        return {feature.name for feature in NETFLOW_V2} | {"Attack"} <= set(columns)

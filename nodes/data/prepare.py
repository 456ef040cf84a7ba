"""From a data source to what every participant trains and tests on."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from nodes.data.base import DataConfig, FederatedData, FlowTable, PartitionConfig
from nodes.data.matrix import Deal, build
from nodes.data.shard import Shard
from nodes.data.split import class_names, deal_tests, split
from nodes.models.base import Task
from nodes.runtime.arrays import F32, I64
from nodes.runtime.errors import ScenarioError
from nodes.runtime.seeds import generator


def prepare(data: DataConfig, partition: PartitionConfig, num_participants: int, seed: int) -> FederatedData:
    """Load, sample, split, partition, encode and scale; the same result for the same arguments on every machine.

    Arrays are read-only; shards are slices of one float32 array. Random draws: `data-rows`, `data-split`, `partition`
    and `local-tests` of the seed. Raises DataError for a file that cannot be used and ScenarioError for a key that does
    not fit the data.
    """
    table = data.load(seed)
    if data.task == "binary" and table.benign is None:
        raise ScenarioError("data.task", "binary", "multiclass: this source names no benign class (see data.benign)")
    names = class_names(table)
    rows = split(table, names, data, seed)
    owned = _assign(partition, rows.classes_B[rows.train_B], num_participants, seed)
    rows = replace(rows, train_B=rows.train_B[np.concatenate(owned)])
    train_classes_B, test_classes_B = rows.classes_B[rows.train_B], rows.classes_B[rows.test_B]
    spans = _spans(owned)
    tests = deal_tests(test_classes_B, [train_classes_B[span] for span in spans], generator(seed, "local-tests"))
    matrix = build(table.features, rows, Deal(spans, tests), data.scaling, data.categorical)
    shards = tuple(_shard(matrix.train_BF[span], train_classes_B[span], data.task) for span in spans)
    local = tuple(
        _shard(own_BF, test_classes_B[part], data.task) for own_BF, part in zip(matrix.local_BF, tests, strict=True)
    )
    test = _shard(matrix.test_BF, test_classes_B, data.task)
    return FederatedData(
        shards=shards,
        local_tests=local,
        test=test,
        class_names=names,
        benign=None if table.benign is None else 0,
        task=data.task,
        features=matrix.features,
        source=table.source,
        synthetic=table.synthetic,
        fingerprint=fingerprint([*shards, test]),
        notes=_notes(table),
    )


def fingerprint(shards: Iterable[Shard]) -> str:
    """SHA-256 (hex) over the shapes and values of shards, in order."""
    digest = hashlib.sha256()
    for shard in shards:
        digest.update(repr(shard.features_BF.shape).encode())
        for array in (shard.features_BF, shard.labels_B, shard.classes_B):
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _assign(partition: PartitionConfig, classes_B: I64, num_participants: int, seed: int) -> list[I64]:
    if not 0 < num_participants <= len(classes_B):
        expected = f"between 1 and {len(classes_B)}, the number of training rows"
        raise ScenarioError("participants.count", num_participants, expected)
    return partition.assign(classes_B, num_participants, generator(seed, "partition"))


def _spans(owned: Sequence[I64]) -> list[slice]:
    ends = np.cumsum([len(rows) for rows in owned]).tolist()
    return [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def _shard(features_BF: F32, classes_B: I64, task: Task) -> Shard:
    labels_B = (classes_B != 0).astype(np.int64) if task == "binary" else classes_B.copy()
    for array in (features_BF, labels_B, classes_B):
        array.setflags(write=False)
    return Shard(features_BF, labels_B, classes_B)


def _notes(table: FlowTable) -> tuple[str, ...]:
    return ("the data is synthetic", *table.notes) if table.synthetic else table.notes

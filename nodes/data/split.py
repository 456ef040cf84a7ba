"""Class codes, and the division into training and test rows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from nodes.data.base import DataConfig, FlowTable
from nodes.data.deal import proportional, shuffled_by_class, stratified_sample
from nodes.runtime.arrays import I64
from nodes.runtime.components import nearest
from nodes.runtime.errors import ScenarioError
from nodes.runtime.seeds import generator


@dataclass(frozen=True, slots=True)
class Split:
    """All rows of a source, training and test together, and which are which.

    frame: features, not yet encoded. classes_B: class index. train_B, test_B: disjoint row indices, in random order
    (the provider's test rows in the provider's).
    """

    frame: pd.DataFrame
    classes_B: I64
    train_B: I64
    test_B: I64


def class_names(table: FlowTable) -> tuple[str, ...]:
    """All classes of training and test rows, sorted, the benign one first.

    Raises ScenarioError if the source has a benign class and no row of it.
    """
    names = sorted({*table.classes, *(table.test.classes if table.test else ())})
    if table.benign is None:
        return tuple(names)
    if table.benign not in names:
        raise ScenarioError("data.benign", table.benign, nearest(table.benign, names))
    return (table.benign, *(name for name in names if name != table.benign))


def split(table: FlowTable, names: Sequence[str], config: DataConfig, seed: int) -> Split:
    """Divide into training and test rows, of `config.rows` sampled ones if so configured.

    Without a provider's test part, ceil(test_share * B) rows are drawn for the test, as scikit-learn counts them; with
    one, the sample is of the training rows only. Raises ScenarioError for a share or number that leaves no rows.
    """
    classes_B = _codes(table.classes, names)
    rows_B = _sample(classes_B, config.rows, seed)
    rng = generator(seed, "data-split")
    if table.test is not None:
        frame = pd.concat([table.frame, table.test.frame], ignore_index=True)
        test_B = np.arange(len(table.frame), len(frame))
        return Split(
            frame, np.concatenate([classes_B, _codes(table.test.classes, names)]), rng.permutation(rows_B), test_B
        )
    count = math.ceil(config.test_share * len(rows_B))
    if not 0 < count < len(rows_B):
        raise ScenarioError(
            "data.test_share", config.test_share, f"a share that leaves training rows, of {len(rows_B)}"
        )
    if not config.stratify:
        order_B = rng.permutation(rows_B)
        return Split(table.frame, classes_B, order_B[count:], order_B[:count])
    tested_B = np.zeros(len(rows_B), bool)
    tested_B[stratified_sample(classes_B[rows_B], count, rng)] = True
    return Split(table.frame, classes_B, rng.permutation(rows_B[~tested_B]), rng.permutation(rows_B[tested_B]))


def deal_tests(test_B: I64, shards: Sequence[I64], rng: np.random.Generator) -> list[I64]:
    """Deal test rows to participants, class by class, in proportion to their training rows of that class.

    test_B: class of each test row. shards: classes of each participant's training rows. A class nobody trains on is
    dealt by size. Returns indices into test_B, sorted; every test row goes to one participant.
    """
    parts: list[list[I64]] = [[] for _ in shards]
    sizes_N = np.array([len(shard_B) for shard_B in shards], np.float64)
    for index, rows in shuffled_by_class(test_B, rng):
        held_N = np.array([np.count_nonzero(shard_B == index) for shard_B in shards], np.float64)
        # Equal shares are the rule (IID): without a drawn order the first participants would get every odd row.
        order_N = rng.permutation(len(shards))
        counts_N = proportional(len(rows), (held_N if held_N.any() else sizes_N)[order_N])
        for participant, piece in zip(order_N, np.split(rows, np.cumsum(counts_N)[:-1]), strict=True):
            parts[participant].append(piece)
    empty = np.empty(0, np.int64)
    return [np.sort(np.concatenate([empty, *pieces])) for pieces in parts]


def _sample(classes_B: I64, count: int | None, seed: int) -> I64:
    if count is None or count == len(classes_B):
        return np.arange(len(classes_B))
    if count > len(classes_B):
        raise ScenarioError("data.rows", count, f"at most {len(classes_B)}, which the source has")
    return stratified_sample(classes_B, count, generator(seed, "data-rows"))


def _codes(classes_B: npt.NDArray[np.object_], names: Sequence[str]) -> I64:
    return pd.Index(list(names), dtype=object).get_indexer(pd.Index(classes_B, dtype=object)).astype(np.int64)

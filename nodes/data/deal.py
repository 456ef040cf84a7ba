"""Dealing rows: proportional shares in whole rows, always the same for the same generator."""

from collections.abc import Iterator, Sequence

import numpy as np

from nodes.runtime.arrays import F64, I64
from nodes.runtime.errors import ScenarioError


def proportional(total: int, weights_N: F64) -> I64:
    """Divide `total` rows by weight, by largest remainder; equal remainders go to the earlier place.

    Returns [N], summing to total. Raises ValueError unless the weights are finite, not negative and not all zero.

    >>> proportional(10, np.array([1.0, 1.0, 1.0]))
    array([4, 3, 3])
    """
    sum_ = float(weights_N.sum())
    if not np.isfinite(sum_) or sum_ <= 0 or weights_N.min() < 0:
        raise ValueError(f"weights {weights_N!r} do not divide {total} rows")
    exact_N = total * (weights_N / sum_)
    counts_N: I64 = np.floor(exact_N).astype(np.int64)
    order_N = np.argsort(counts_N - exact_N, kind="stable")
    counts_N[order_N[: total - int(counts_N.sum())]] += 1
    return counts_N


def shuffled_by_class(classes_B: I64, rng: np.random.Generator) -> Iterator[tuple[int, I64]]:
    """Yield each class in ascending order with its row indices in random order."""
    for index in np.unique(classes_B):
        yield int(index), rng.permutation(np.flatnonzero(classes_B == index)).astype(np.int64)


def stratified_sample(classes_B: I64, count: int, rng: np.random.Generator) -> I64:
    """Draw `count` rows with the class shares of all rows; returns their indices, sorted."""
    groups = [rows for _, rows in shuffled_by_class(classes_B, rng)]
    counts = proportional(count, np.array([len(rows) for rows in groups], np.float64))
    return np.sort(np.concatenate([rows[:taken] for rows, taken in zip(groups, counts, strict=True)]))


def gather(parts: Sequence[Sequence[I64]], where: str, value: object) -> list[I64]:
    """Join each participant's pieces into sorted indices.

    Raises ScenarioError, naming the key `where` and its `value`, if a participant has no row.
    """
    empty = np.empty(0, np.int64)
    joined = [np.sort(np.concatenate([empty, *pieces])) for pieces in parts]
    if bare := [index for index, rows in enumerate(joined) if not len(rows)]:
        expected = f"at least one training row for each of {len(joined)} participants ({len(bare)} would get none)"
        raise ScenarioError(where, value, expected)
    return joined

"""Weighted sums of updates in one fixed order, the same bits wherever they are computed.

Participants fall into blocks by their ids: block b holds the ids from b * R to (b + 1) * R - 1, where R depends on the
size of the model alone. A block's sum is one matrix-vector product over the rows of those who delivered, in order of
their ids; the blocks' sums are added in order of the blocks. So it makes no difference which blocks an actor sums up
and which the coordinator does, or how participants are packed: the operations are the same, in the same order.
"""

from dataclasses import dataclass

import numpy as np

from nodes.runtime.arrays import F32, F64

MAX_ROWS = 64
MAX_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class SumOrder:
    """What an actor is asked to sum up: by block id, the participants in order of their ids.

    A participant's share is w / total, where w is 1 if `uniform`, else the rows that it trained on.
    """

    total: float
    uniform: bool
    blocks: tuple[tuple[int, tuple[int, ...]], ...]


def block_rows(size: int) -> int:
    """Return R, the participants of a block, for a model of `size` parameters: 64, fewer where they pass 8 MiB.

    >>> block_rows(21_761), block_rows(1_000_000), block_rows(25_000_000)
    (64, 2, 1)
    """
    return max(1, min(MAX_ROWS, MAX_BYTES // (4 * max(size, 1))))


def block_sum(updates_ND: F32, shares_N: F64) -> F32:
    """Return sum_i shares_i * updates_i of one block, [D], in float32. Too large values give inf, without a warning.

    >>> block_sum(np.float32([[1, 2], [3, 4]]), np.array([0.5, 0.5]))
    array([2., 3.], dtype=float32)
    """
    with np.errstate(over="ignore", invalid="ignore"):
        result_D: F32 = shares_N.astype(np.float32) @ updates_ND
    return result_D


def not_finite(update_D: F32) -> str | None:
    """Return why `update_D` must not be added to anything, or None when all its values are finite."""
    # A sum is finite only if all terms are, unless it overflows: then look at each value.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(np.add.reduce(update_D)):
            return None
    bad = int(np.count_nonzero(~np.isfinite(update_D)))
    return f"not finite: {bad} of {update_D.size} values" if bad else None


def norms(updates_ND: F32) -> F64:
    """Return the Euclidean norm of each row, [N], in float64.

    >>> norms(np.float32([[3, 4]]))
    array([5.])
    """
    result_N: F64 = np.sqrt(np.einsum("nd,nd->n", updates_ND, updates_ND, dtype=np.float64))
    return result_N

"""Benchmark D: the mean of stacked updates, in GB/s, against the read bandwidth of the same run on one thread.

Two floors: `dot` of the matrix with itself (one read with the machine's widest loads), and NumPy's `sum` of it.
Target: at least 0.8 of a read. The working set exceeds the caches.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.harness import options, report, take_turns
from coordinator.aggregation import make_rule
from nodes.runtime.arrays import F32
from nodes.runtime.seeds import generator

SIZE = 23_170
TARGET = 0.8
WORKING_SET = 512 << 20


def over(stacks: Sequence[F32], work: Callable[[F32], object]) -> None:
    """Do `work` on each stack in turn; together they exceed every cache, as updates fresh from the wire do."""
    for matrix_ND in stacks:
        work(matrix_ND)


def main() -> None:
    """Print the table, write JSON."""
    chosen = options(__doc__, repeats=7)
    rule = make_rule("fedavg")
    rows = []
    with threadpool_limits(1):
        for num_participants in (10, 1_000, 10_000):
            rng = generator(1313, "benchmark-updates")
            copies = max(1, WORKING_SET // (num_participants * SIZE * 4))
            stacks = [rng.standard_normal((num_participants, SIZE), dtype=np.float32) for _ in range(copies)]
            weights_N = rng.integers(1_000, 20_000, num_participants).astype(np.float64)
            contestants = {
                "mean": partial(over, stacks, partial(rule.apply, weights_N=weights_N)),
                "dot": partial(over, stacks, lambda matrix: np.dot(matrix.reshape(-1), matrix.reshape(-1))),
                "sum": partial(over, stacks, lambda matrix: np.add.reduce(matrix.reshape(-1))),
            }
            times = take_turns(contestants, chosen.repeats)
            read = sum(matrix.nbytes for matrix in stacks) / 1e9
            speed = {name: read / time["wall_s"] for name, time in times.items()}
            rows.append(
                {
                    "participants": num_participants,
                    "mean GB/s": speed["mean"],
                    "dot GB/s": speed["dot"],
                    "sum GB/s": speed["sum"],
                    "mean / dot": speed["mean"] / speed["dot"],
                    "mean / sum": speed["mean"] / speed["sum"],
                    "target": TARGET,
                }
            )
    report(f"D mean of N x {SIZE}", rows, chosen.out)


if __name__ == "__main__":
    main()

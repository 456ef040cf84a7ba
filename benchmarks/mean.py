"""Benchmark D: the mean of stacked updates, in GB/s, against the read bandwidth of the same run on one thread.

Two floors: `dot` of the matrix with itself (one read with the machine's widest loads), and NumPy's `sum` of it.
Target: at least 0.8 of a read.
"""

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.harness import options, report, take_turns
from coordinator.aggregation import make_rule
from nodes.runtime.seeds import generator

SIZE = 23_170
TARGET = 0.8


def main() -> None:
    """Print the table, write JSON."""
    chosen = options(__doc__, repeats=7)
    rule = make_rule("fedavg")
    rows = []
    with threadpool_limits(1):
        for num_participants in (10, 1_000, 10_000):
            rng = generator(1313, "benchmark-updates")
            updates_ND = rng.standard_normal((num_participants, SIZE), dtype=np.float32)
            weights_N = rng.integers(1_000, 20_000, num_participants).astype(np.float64)
            flat = updates_ND.reshape(-1)
            calls = max(1, 100_000_000 // flat.nbytes)

            def mean() -> None:
                for _ in range(calls):  # noqa: B023 - used at once
                    rule.apply(updates_ND, weights_N)  # noqa: B023

            def dot() -> None:
                for _ in range(calls):  # noqa: B023
                    np.dot(flat, flat)  # noqa: B023

            def sum_() -> None:
                for _ in range(calls):  # noqa: B023
                    np.add.reduce(flat)  # noqa: B023

            times = take_turns({"mean": mean, "dot": dot, "sum": sum_}, chosen.repeats)
            speed = {name: flat.nbytes * calls / 1e9 / time["wall_s"] for name, time in times.items()}
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

"""Benchmark G: 500 rounds: memory that grows, and rounds that slow down.

Ten participants in ten actors, a few steps of training, everything recorded and traced as by default. Targets: no
growth of unique memory (all processes, last fifty rounds against rounds 51 to 100); last 50 rounds / first 50 1.02.
"""

import statistics

from benchmarks.harness import Watch, options, report, run
from benchmarks.scale import proportional_bytes

TARGET = 1.02


def main() -> None:
    """Print the table, write JSON."""
    chosen = options(__doc__, rounds=500)
    memory: dict[int, int] = {}
    watch = Watch()

    def between(_record: object) -> None:
        number = len(watch.records)
        if number % 10 == 0:
            memory[number] = proportional_bytes()

    watch.between = between
    run(
        {
            "data": {"name": "synthetic-flows", "rows": 20_000},
            "training": {"steps": 20, "batch_size": 128},
            "rounds": {"count": chosen.rounds},
        },
        watch,
    )
    seconds = watch.seconds(skip=0)
    early = [used for number, used in memory.items() if 50 < number <= 100]
    late = [used for number, used in memory.items() if number > chosen.rounds - 50]
    # The first rounds also warm the machine up: 2 to 51 against the last fifty.
    first, last = statistics.median(seconds[1:51]), statistics.median(seconds[-50:])
    row = {
        "rounds": chosen.rounds,
        "first 50 ms": first * 1e3,
        "last 50 ms": last * 1e3,
        "ratio": last / first,
        "target": TARGET,
        "memory MB, rounds 51-100": statistics.median(early) / 1e6,
        "memory MB, last 50": statistics.median(late) / 1e6,
        "growth MB": (statistics.median(late) - statistics.median(early)) / 1e6,
    }
    report("G endurance", [row], chosen.out)


if __name__ == "__main__":
    main()

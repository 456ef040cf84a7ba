"""Benchmark C: bytes on the wire against what must move: one download per actor, one upload per participant.

Ten participants in two actors that do not train. Bytes are those that the loopback interface carried during the rounds,
headers, acknowledgements and Ray's heartbeats included. Target: 1.05.
"""

import itertools
import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import Watch, options, report, run
from deploy.session import Session

TARGET = 1.05
WIDTHS = {"0.1": [128, 128], "4": [900, 1000], "100": [4900, 4900]}


def carried() -> int:
    """Bytes that the loopback interface has sent."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, counters = line.partition(":")
        if name.strip() == "lo":
            return int(counters.split()[8])
    raise RuntimeError("/proc/net/dev lists no loopback interface")


def scenario(hidden: list[int], rounds: int) -> dict[str, Any]:
    """Ten participants, five to an actor."""
    return {
        "data": {"name": "synthetic-flows", "rows": 3_000},
        "participants": {"count": 10, "per_actor": 5},
        "model": {"name": "mlp", "hidden": hidden},
        "training": {"steps": 0},
        "rounds": {"count": rounds},
        "evaluation": {"local": False},
    }


def main() -> None:
    """Print the table, write JSON."""
    chosen = options(__doc__, rounds=6)
    rows = []
    watch = Watch()
    with Session(watch) as session:
        for label, hidden in WIDTHS.items():
            marks: list[tuple[float, int]] = []
            watch.records = []
            watch.between = lambda _: marks.append((time.perf_counter(), carried()))  # noqa: B023
            run(scenario(hidden, chosen.rounds), watch, session)
            moved = statistics.median(b - a for (_, a), (_, b) in itertools.pairwise(marks))
            needed = watch.records[-1].bytes_down + watch.records[-1].bytes_up
            seconds = statistics.median(watch.seconds(skip=1))
            rows.append(
                {
                    "model MB": label,
                    "moved MB": moved / 1e6,
                    "needed MB": needed / 1e6,
                    "ratio": moved / needed,
                    "target": TARGET,
                    "round s": seconds,
                    "MB/s": needed / 1e6 / seconds,
                }
            )
    report("C bytes moved / bytes needed", rows, chosen.out)


if __name__ == "__main__":
    main()

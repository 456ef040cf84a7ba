"""Benchmarks B and E: what a participant costs, in time and memory, from 10 to 10,000 of them.

B: no training (`steps: 0`), 39-128-128-1, packed over the cores: microseconds per participant and round, and the slope
over N in log-log (target 1.05), each update sent on its own and as partial sums. And ten participants in ten actors:
milliseconds a round (target 50).
E: unique memory (proportional set size of coordinator and actors) that each further participant takes, over the bytes
of its rows and of its state, one vector in the coordinator's matrix (target 1.2).
"""

import statistics
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Watch, options, report, run
from deploy.session import Session

COUNTS = (10, 100, 1_000, 10_000)
ROWS_EACH = 100
SIZE = 39 * 128 + 128 + 128 * 128 + 128 + 128 + 1


def scenario(count: int, per_actor: int | str, rounds: int, *, sums: bool = False) -> dict[str, Any]:
    """N participants of a hundred rows that do not train."""
    rows = count * ROWS_EACH
    return {
        "data": {"name": "synthetic-flows", "rows": rows + 2_000, "test_share": 2_000 / (rows + 2_000)},
        "participants": {"count": count, "per_actor": per_actor},
        "training": {"steps": 0},
        "rounds": {"count": rounds},
        "evaluation": {"local": False},
        "aggregation": {"name": "fedavg", "partial_sums": sums},
    }


def proportional_bytes() -> int:
    """Memory of this process and all its descendants, shared pages counted once over those who share them."""
    import os

    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    family = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    total = 0
    for pid in family:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def main() -> None:
    """Print the tables, write JSON."""
    chosen = options(__doc__, rounds=8)
    costs: list[dict[str, Any]] = []
    memory: dict[int, int] = {}
    watch = Watch()
    with Session(watch) as session:
        run(scenario(100, "auto", 2), watch, session)  # warms all processes up
        for sums in (False, True):
            for count in COUNTS:
                used: list[int] = []
                watch.records = []
                watch.between = lambda record: used.append(proportional_bytes()) if record.round == 4 else None  # noqa: B023
                run(scenario(count, "auto", chosen.rounds, sums=sums), watch, session)
                seconds = statistics.median(watch.seconds(skip=2))
                costs.append(
                    {
                        "participants": count,
                        "sent as": "sums" if sums else "updates",
                        "ms a round": seconds * 1e3,
                        "us per participant": seconds / count * 1e6,
                    }
                )
                if not sums:
                    memory[count] = used[0]
        watch.records, watch.between = [], lambda _: None
        run(scenario(10, 1, 40), watch, session)
        ten = statistics.median(watch.seconds(skip=2)) * 1e3
    slopes = {
        how: float(np.polyfit(np.log(COUNTS), np.log([c["ms a round"] for c in costs if c["sent as"] == how]), 1)[0])
        for how in ("updates", "sums")
    }
    report("B cost of a participant without training", costs, chosen.out, slopes=slopes, ten_actors_ms=ten)
    print(f"slope of log(ms) over log(N): updates {slopes['updates']:.3f}, sums {slopes['sums']:.3f} (target 1.05)")
    print(f"10 participants in 10 actors: {ten:.1f} ms a round (target 50)")
    _report_memory(memory, chosen.out)


def _report_memory(used: dict[int, int], out: Path | None) -> None:
    needed = ROWS_EACH * (39 * 4 + 2 * 8) + SIZE * 4
    rows = []
    for count in COUNTS[1:]:
        each = (used[count] - used[10]) / (count - 10)
        rows.append(
            {
                "participants": count,
                "KB per participant": each / 1e3,
                "rows + state KB": needed / 1e3,
                "ratio": each / needed,
                "target": 1.2,
                "total MB": used[count] / 1e6,
            }
        )
    target = None if out is None else out.with_name(f"{out.stem}-memory{out.suffix}")
    report("E memory of each participant beyond ten", rows, target)


if __name__ == "__main__":
    main()

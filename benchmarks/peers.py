"""Benchmark K: Turncoat against Flower's simulation engine and a plain PyTorch loop, on one machine.

10 participants with equal shares of NF-CSE-CIC-IDS2018-v2 (--data: the file, or a folder that holds it; else
$TURNCOAT_DATA or ../shared/data; generated flows where there is none), 39-128-128-1, Adam, 5 local epochs a round. All
get the same rows, initial weights and seed. The global model is tested on the server after each round, nothing else is.
Peers run in an environment of their own (`make bench-peers` makes it). They read prepared rows; Turncoat reads the file
and prepares it within its first round.

first s: from nothing to the end of round 1. later s: median of the rounds after it, from end to end. cpu s: all
processes of the run. loss: of the final model on all training rows; accuracy and f1: on the test rows; all three are
computed here for everyone. apart: largest difference of a parameter from Turncoat's. Ratios: peer / Turncoat, whose run
is the one just before. Medians over --repeats.
"""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.contest import Outcome, peer, turncoat
from benchmarks.federation import FILE, WORKLOADS, Workload, export, find, judge, scenario, sizes
from benchmarks.harness import report
from deploy.loading import build
from deploy.prepared import Prepared, make_ready

OURS = "Turncoat"


def measure(prepared: Prepared, outcome: Outcome, ours: Outcome) -> dict[str, float]:
    """Everything about one run, beside Turncoat's."""
    return {
        "first s": outcome.first_s,
        "later s": outcome.later_s,
        "cpu s": outcome.cpu_s,
        **judge(prepared, outcome.model_D),
        "apart": float(np.abs(outcome.model_D - ours.model_D).max()),
        "later ratio": outcome.later_s / ours.later_s,
        "first ratio": outcome.first_s / ours.first_s,
        "cpu ratio": outcome.cpu_s / ours.cpu_s,
    }


def turn(work: Workload, data: Path | None, python: Path, runs: dict[str, list[dict[str, float]]]) -> None:
    """Run each contestant once, Turncoat before each peer that wants it; append their figures to `runs`."""
    document = scenario(data, work)
    prepared = make_ready(build(document))
    with TemporaryDirectory() as folder:
        rows, ours = Path(folder) / "rows.npz", None
        export(prepared, rows)
        for other in work.peers:
            if other.beside or ours is None:
                ours = turncoat(document, prepared.network.layout)
                runs.setdefault(OURS, []).append(measure(prepared, ours, ours))
            outcome = peer(python, other.script, rows, sizes(work))
            runs.setdefault(other.name, []).append(measure(prepared, outcome, ours))


def table(work: Workload, runs: Mapping[str, Sequence[Mapping[str, float]]]) -> list[dict[str, Any]]:
    """One row for each contestant."""
    peers, lines = {other.name: other for other in work.peers}, []
    for name, figures in runs.items():
        middle = {key: statistics.median(run[key] for run in figures) for key in figures[0]}
        other = peers.get(name)
        lines.append(
            {
                "contestant": name,
                "batch": work.batch if work.train else "-",
                **middle,
                **{key: f"{middle[key]:.5f}" for key in ("loss", "accuracy", "f1")},
                "later target": (other and other.later) or "-",
                "first target": (other and other.first) or "-",
            }
        )
    return lines


def main() -> None:
    """Print the table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    parser.add_argument("--data", type=Path, help="NF-CSE-CIC-IDS2018-v2_reduced.parquet, or a folder that holds it")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--python", type=Path, default=Path(".venv-peers/bin/python"), help="the peers' interpreter")
    chosen = parser.parse_args()
    if not chosen.python.is_file():
        parser.error(f"{chosen.python} is no interpreter: `make bench-peers` makes the peers' environment")
    data = find(chosen.data)
    print(f"data: {FILE.name if data else 'generated flows (synthetic-flows), as the data file is not there'}\n")
    runs: list[dict[str, list[dict[str, float]]]] = [{} for _ in WORKLOADS]
    for _ in range(chosen.repeats):
        for work, figures in zip(WORKLOADS, runs, strict=True):
            turn(work, data, chosen.python, figures)
    lines = [line for work, figures in zip(WORKLOADS, runs, strict=True) for line in table(work, figures)]
    facts = {"data": data.name if data else "synthetic-flows", "repeats": chosen.repeats, "runs": runs}
    report("K Turncoat and its peers", lines, chosen.out, **facts)


if __name__ == "__main__":
    main()

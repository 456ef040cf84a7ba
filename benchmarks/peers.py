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
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.contest import Outcome, peer, turncoat
from benchmarks.harness import report
from deploy.loading import build
from deploy.prepared import Prepared, make_ready
from nodes.metrics import evaluate
from nodes.models.base import predictions
from nodes.runtime.arrays import F32

PARTICIPANTS, EPOCHS, HIDDEN = 10, 5, (128, 128)
FILE = Path("netflow_v2") / "NF-CSE-CIC-IDS2018-v2_reduced.parquet"
ROWS = 177_138
"""Rows of the file, and of generated flows in its place."""
OURS = "Turncoat"


@dataclass(frozen=True)
class Peer:
    """Another way to run the workload: a script of `peers/` with options, and the targets of its two ratios."""

    name: str
    script: str
    later: float | None = None
    first: float | None = None
    beside: bool = True
    """Turncoat runs just before it; else the ratio is to Turncoat's last run."""


@dataclass(frozen=True)
class Workload:
    """What all contestants of a turn do."""

    batch: int
    rounds: int
    peers: Sequence[Peer]
    train: bool = True


LOOPS = tuple(Peer(f"PyTorch loop, threads: {n}", f"sequential.py --threads {n}", beside=False) for n in (1, 2))
TUNED, TUTORIAL = "flower_server.py --style tuned", "flower_server.py --style tutorial"
WORKLOADS = (
    Workload(512, 3, (Peer("Flower, slices", TUNED, 2.5), Peer("Flower, DataLoader", TUTORIAL, 6.0), *LOOPS)),
    Workload(32, 2, (Peer("Flower, slices", TUNED, 8.0), *LOOPS)),
    Workload(512, 10, (Peer("Flower, no training", "flower_server.py --style none", 8.0, 2.0),), train=False),
)


def find(given: Path | None) -> Path | None:
    """The data file, or None. Raises FileNotFoundError if it is not where it was said to be."""
    folder = Path(os.environ.get("TURNCOAT_DATA", Path(__file__).parents[2] / "shared" / "data"))
    for path in (given, given / FILE, given / FILE.name) if given is not None else (folder / FILE,):
        if path.is_file():
            return path.resolve()
    if given is not None:
        raise FileNotFoundError(f"--data: neither a file nor a folder with {FILE.name}: {given}")
    return None


def scenario(data: Path | None, work: Workload) -> dict[str, Any]:
    """The workload for Turncoat."""
    source = {"name": "synthetic-flows", "rows": ROWS} if data is None else {"name": "netflow-v2", "path": str(data)}
    length = {"epochs": EPOCHS} if work.train else {"steps": 0}
    return {
        "data": source,
        "participants": {"count": PARTICIPANTS, "per_actor": "auto"},
        "model": {"name": "mlp", "hidden": list(HIDDEN)},
        "training": {**length, "batch_size": work.batch, "optimizer": {"name": "adam", "lr": 1e-4}},
        "rounds": {"count": work.rounds},
        "evaluation": {"local": False},
    }


def export(prepared: Prepared, path: Path) -> None:
    """Write what the peers need: rows, initial weights, widths, seed."""
    parts = {str(spec.id): spec.shard for spec in prepared.specs} | {"test": prepared.data.test}
    arrays: dict[str, Any] = {f"features_{name}": shard.features_BF for name, shard in parts.items()}
    arrays |= {f"labels_{name}": shard.labels_B[:, None].astype(np.float32) for name, shard in parts.items()}
    widths = (len(prepared.data.features), *HIDDEN, 1)
    np.savez(path, initial=prepared.initial_D, widths=widths, seed=prepared.scenario.seed, **arrays)


def judge(prepared: Prepared, model_D: F32) -> dict[str, float]:
    """Loss on all training rows, accuracy and F1 on the test rows, by the same code for all contestants."""
    data, network, loss_sum = prepared.data, prepared.network, 0.0
    for spec in prepared.specs:
        logits_B = network.logits(model_D, spec.shard.features_BF)[:, 0].astype(np.float64)
        loss_sum += float((np.logaddexp(0.0, logits_B) - spec.shard.labels_B * logits_B).sum())
    test = data.test
    predicted_B = predictions(network.logits(model_D, test.features_BF), network.loss)
    figures = evaluate(predicted_B, test.labels_B, test.classes_B, data.class_names, data.benign, data.task)
    rows = sum(len(spec.shard) for spec in prepared.specs)
    return {"loss": loss_sum / rows, "accuracy": figures.accuracy, "f1": figures.f1}


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
            sizes = {"participants": PARTICIPANTS, "rounds": work.rounds, "epochs": EPOCHS, "batch": work.batch}
            outcome = peer(python, other.script, rows, sizes)
            runs.setdefault(other.name, []).append(measure(prepared, outcome, ours))


def table(work: Workload, runs: Mapping[str, Sequence[Mapping[str, float]]]) -> list[dict[str, Any]]:
    """One row for each contestant."""
    peers, lines = {other.name: other for other in work.peers}, []
    for name, figures in runs.items():
        middle = {key: statistics.median(run[key] for run in figures) for key in figures[0]}
        other = peers.get(name)
        middle |= {"later target": (other and other.later) or "-", "first target": (other and other.first) or "-"}
        for key in ("loss", "accuracy", "f1"):
            middle[key] = f"{middle[key]:.5f}"
        lines.append({"contestant": name, "batch": work.batch if work.train else "-", **middle})
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

"""Benchmark K's workload: who takes part, the data, what each is given, and how its model is judged."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploy.prepared import Prepared
from nodes.metrics import evaluate
from nodes.models.base import predictions
from nodes.runtime.arrays import F32

PARTICIPANTS, EPOCHS, HIDDEN = 10, 5, (128, 128)
FILE = Path("netflow_v2") / "NF-CSE-CIC-IDS2018-v2_reduced.parquet"
ROWS = 177_138
"""Rows of the file, and of generated flows in its place."""


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
    Workload(512, 5, (Peer("Flower, slices", TUNED, 2.5), Peer("Flower, DataLoader", TUTORIAL, 6.0), *LOOPS)),
    Workload(32, 3, (Peer("Flower, slices", TUNED, 8.0), *LOOPS)),
    Workload(512, 20, (Peer("Flower, no training", "flower_server.py --style none", 8.0, 2.0),), train=False),
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


def sizes(work: Workload) -> dict[str, int]:
    """The workload for a peer, besides its rows."""
    return {"participants": PARTICIPANTS, "rounds": work.rounds, "epochs": EPOCHS, "batch": work.batch}


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

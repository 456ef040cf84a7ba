"""Participants stacked on one device: microseconds per participant and step, against one after the other and NumPy.

A 39-128-128-1 perceptron, Adam, `--steps` steps a participant, rows already on the device. `alone` gives each
participant a whole stack to itself, its other slots empty; `numpy` is the trainer that scenarios get on the CPU.
The contestants take turns; medians are reported. One thread.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from benchmarks.harness import report, take_turns
from benchmarks.trainer import WIDTHS, flows
from nodes.data.shard import Shard
from nodes.models.base import Fit
from nodes.runtime.seeds import generator
from nodes.training.mlp import MLP
from nodes.training.settings import Adam, TrainingSettings
from nodes.training.stacked import WIDTH, StackedMLP


def contestants(device: str, shards: list[Shard], batch: int, steps: int) -> dict[str, Callable[[], object]]:
    """Return one round of all participants, in each way."""
    numpy, stack = MLP(WIDTHS, "sigmoid"), StackedMLP(WIDTHS, "sigmoid", device=device)
    eager = StackedMLP(WIDTHS, "sigmoid", device=device, graphs=False)
    start_D = numpy.initial(generator(1313, "benchmark-start"))
    settings = TrainingSettings(steps=steps, batch_size=batch, optimizer=Adam(lr=1e-4))

    def jobs() -> list[Fit]:
        return [Fit(shard, settings, generator(1313, "order", participant=id)) for id, shard in enumerate(shards)]

    def together(network: StackedMLP) -> None:
        network.fit_many([start_D.copy() for _ in shards], jobs())

    def one_by_one(network: MLP) -> None:
        for job in jobs():
            network.fit(start_D.copy(), job)

    ways: dict[str, Callable[[], object]] = {
        "stacked": lambda: together(stack),
        "alone": lambda: one_by_one(stack),
        "numpy": lambda: one_by_one(numpy),
    }
    return ways | {"no_graph": lambda: together(eager)} if device == "cuda" else ways


def main() -> None:
    """Print the table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    parser.add_argument("--rows", type=int, default=8_000)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    whole = flows(options.rows)
    rows: list[dict[str, Any]] = []
    torch.set_num_threads(1)
    with threadpool_limits(limits=1):
        for count in (10, 100):
            # Views of one array: an identity of their own each, so each is sent to the device by itself.
            shards = [Shard(whole.features_BF[:], whole.labels_B[:], whole.classes_B[:]) for _ in range(count)]
            for batch in (32, 128, 512):
                times = take_turns(contestants(options.device, shards, batch, options.steps), options.repeats)
                each = {name: time["wall_s"] / count / options.steps * 1e6 for name, time in times.items()}
                ratio = each["numpy"] / each["stacked"]
                rows.append({"participants": count, "batch": batch, **each, "numpy / stacked": ratio})
    title = f"us per participant and step on {options.device}, {WIDTH} slots, {'-'.join(map(str, WIDTHS))}, Adam"
    report(title, rows, options.out, device=options.device, torch=torch.__version__, slots=WIDTH)


if __name__ == "__main__":
    main()
